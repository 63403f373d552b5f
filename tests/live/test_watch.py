"""What a model says of a live video is what it says of the same frames of a file; and the verb `hf-video watch`."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import socket
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest
import streams
import tiny
import tiny_video_text
import torch
from transformers import pipeline

import hf_video
from hf_video import cli
from hf_video.errors import VideoSourceError
from hf_video.live import LivePage, Watch
from hf_video.pipelines.streaming_classification import StreamingClassifier
from hf_video.video import LiveVideo, VideoReader
from hf_video.video.live.source import LiveSource, live_media


def scores(predictions):
    return {one["label"]: one["score"] for one in predictions}


def assert_same(found, expected):
    """Windows of the file, all of them where the machine had the time for it."""
    assert found
    by_start = {round(one["seconds"][0], 4): one["predictions"] for one in expected}
    for start, predictions in found.items():
        assert scores(predictions) == pytest.approx(scores(by_start[round(start, 4)]), abs=1e-5)


def test_windows_are_those_of_the_file(classify, clip):
    with Watch(classify, clip, windows="0.4s/0.2s", realtime=True, views="2x1") as watch:
        found = list(watch)
    expected = classify(str(clip), windows="0.4s/0.2s", views="2x1")
    assert_same({one.seconds[0]: one.predictions for one in found}, expected)
    assert watch.video.frames_dropped or len(found) == len(expected)
    assert all(one.latency >= 0 for one in found)
    assert watch.last is found[-1]


def test_any_pipeline_takes_a_live_video(classify, clip):
    expected = classify(str(clip), windows="0.4s")
    found = list(classify(LiveVideo(clip, window=0.4, realtime=True), num_workers=0))
    seen = {round(one["predictions"].seconds[0], 4): one["seconds"][0] for one in expected}  # by the first frame taken
    assert_same({seen[round(one.seconds[0], 4)]: one for one in found}, expected)


def test_words(clip, tmp_path):
    tiny_video_text.save_videoclip(tmp_path, num_frames=4)
    classify = pipeline("zero-shot-video-classification", model=str(tmp_path), device="cpu")
    labels = ["a dog", "a cat"]
    found = list(Watch(classify, clip, windows="0.6s", realtime=True, candidate_labels=labels))
    assert 1 <= len(found) <= 2
    assert set(scores(found[0].predictions)) == set(labels)


@pytest.fixture(scope="module")
def space_only():
    """A TimeSformer that sees each frame by itself, 4 frames in half a second."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = hf_video.TimesformerConfig(
        image_size=32, patch_size=8, num_frames=4, num_labels=5, attention_type="space_only", **sizes
    )
    model = hf_video.TimesformerForVideoClassification(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    processor = hf_video.TimesformerImageProcessor(**size, num_frames=4)
    return pipeline("video-classification", model=model, image_processor=processor, device="cpu")


def test_frames_that_windows_share_are_encoded_once(space_only, clip, monkeypatch):
    encode, seen = space_only.model.encode_states, []
    monkeypatch.setattr(
        space_only.model, "encode_states", lambda given: seen.append(len(given)) or encode(given), raising=True
    )
    with Watch(space_only, clip, windows="0.5s/0.125s", realtime=True) as watch:
        found = list(watch)
    with VideoReader(clip) as reader:
        for one in found[:-1]:  # the last one ends with the video, at no multiple of the step
            frames = reader.get_frames_at(np.linspace(*one.seconds, 4))
            expected = space_only(frames, sampler="uniform")
            assert scores(one.predictions) == pytest.approx(scores(expected), abs=1e-5)
    if not watch.video.frames_dropped:  # a machine that is busy otherwise may drop some, and begin anew
        assert sum(seen) == watch.video.frames_read
    assert found


def test_windows_go_over_no_gap(space_only):
    stream = StreamingClassifier(space_only)
    frames = tiny.moving_frames(12)
    assert len(stream.push(frames[:3], [0.0, 0.1, 0.2])) == 0
    stream.restart()
    (row,) = stream.push(frames[6:10], [5.0, 5.1, 5.2, 5.3])
    assert scores(row["predictions"]) == pytest.approx(scores(space_only(frames[6:10], sampler="uniform")), abs=1e-5)
    assert row["seconds"] == pytest.approx((5.0, 5.4))


def test_events_are_those_of_the_file(videomae, clip):
    detect = pipeline("temporal-action-detection", model=str(videomae), device="cpu")
    options = {"grid": "0.4s/0.1s", "threshold": 0.2}
    with Watch(detect, clip, realtime=True, **options) as watch:
        found = [event for one in watch for event in one.events]
    expected = detect(str(clip), **options)
    if watch.video.frames_dropped == 0:
        assert sorted((one.label, round(one.start, 4), round(one.end, 4)) for one in found) == sorted(
            (one.label, round(one.start, 4), round(one.end, 4)) for one in expected
        )
    assert found
    assert watch.finds_events
    with pytest.raises(hf_video.HFVideoError, match="grid= in place of windows="):
        Watch(detect, clip, realtime=True, windows="1s")


# -- the verb ----------------------------------------------------------------------------------------------------------


def run(capsys, *arguments):
    code = cli.main(["watch", *(str(one) for one in arguments)])
    done = capsys.readouterr()
    return code, done.out, done.err


def test_lines_and_a_summary(videomae, clip, capsys):
    code, out, err = run(capsys, clip, "--realtime", "--model", videomae, "--windows", "0.4s", "--top-k", 2)
    assert code == cli.DONE
    lines = out.splitlines()
    assert all(re.fullmatch(r"\d\.\d\d-\d\.\d\d s  \w+ [\d.]+%, \w+ [\d.]+%  \[.* s late.*\]", line) for line in lines)
    told = re.search(r"24 frames read, (\d+) shown, (\d+) dropped; 0 reconnections; (\d) window", err)
    assert int(told[1]) + int(told[2]) == 24
    assert int(told[3]) == len(lines) >= 1


def test_packets_that_can_not_be_decoded_are_said(videomae, clip, capsys, tmp_path):
    with av.open(str(clip)) as container:
        packet = next(packet for packet in list(container.demux(video=0))[5:] if packet.size)
    data = clip.read_bytes()
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(data[: packet.pos] + b"\xff" * packet.size + data[packet.pos + packet.size :])
    code, out, err = run(capsys, damaged, "--realtime", "--model", videomae, "--windows", "0.4s", "--jsonl")
    assert code == cli.DONE
    assert json.loads(out.splitlines()[-1])["packets_damaged"] == 1
    assert "dropped; 1 packet could not be decoded; 0 reconnections" in err


def test_json_lines_of_a_stream_and_no_password(videomae, capsys):
    with streams.serve("rtsp") as server:
        code, out, err = run(
            capsys, streams.address("rtsp", server), "--model", videomae, "--windows", "0.4s", "--seconds", 1.5,
            "--jsonl", "--serve", "127.0.0.1:0",
        )  # fmt: skip
    assert code == cli.DONE
    rows = [json.loads(line) for line in out.splitlines()]
    assert rows
    for row in rows:
        assert row["frames_read"] >= row["frames_shown"] + row["frames_dropped"]
        assert row["latency"] >= 0
        assert len(row["predictions"]) == 3
    assert "the page is at http://127.0.0.1:" in err
    assert not streams.PASSWORD.search(out + err)


def test_events_on_the_terminal(videomae, clip, capsys):
    asked = [clip, "--realtime", "--model", videomae, "--events", "--grid", "0.4s/0.1s", "--threshold", 0.2]
    code, out, err = run(capsys, *asked)
    assert code == cli.DONE
    assert "%" in out.splitlines()[0]
    delay = float(re.search(r"an event is said ([\d.]+) s after its end at the latest", err)[1])
    assert 0.2 < delay < 1
    code, out, _ = run(capsys, *asked, "--jsonl")
    rows = [json.loads(line) for line in out.splitlines()]
    assert sum(len(row["events"]) for row in rows) >= 1
    for row in rows:  # an event ends before the window's last frame, and is as late as that was seen and more
        for event in row["events"]:
            assert event["latency"] >= row["latency"] + row["seconds"][1] - event["end"] - 1e-6


def test_interrupted_is_a_clean_end(videomae, clip, capsys, monkeypatch):
    windows = LiveVideo.__iter__

    def interrupted(self):
        yield next(windows(self))
        raise KeyboardInterrupt

    monkeypatch.setattr(LiveVideo, "__iter__", interrupted)
    code, out, err = run(capsys, clip, "--realtime", "--model", videomae, "--windows", "0.2s")
    assert code == cli.DONE
    assert len(out.splitlines()) == 1
    assert "1 window," in err
    assert not [one for one in threading.enumerate() if one.name.startswith("Live")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("99",), "/dev/video99 is no camera"),
        (("CLIP",), "--realtime"),
        (("rtsp://user:secret@127.0.0.1:9/x",), "rtsp://***@127.0.0.1:9/x can't be opened"),
        (("CLIP", "--realtime", "--grid", "1s"), "--grid is for --events"),
        (("CLIP", "--realtime", "--events", "--top-k", "2"), "--top-k has no meaning"),
        (("CLIP", "--realtime", "--serve", "there:99999"), "a port"),
        (("CLIP", "--realtime", "--seconds", "0"), "seconds=0"),
    ],
)
def test_what_is_wrong_is_said_before_a_window(arguments, message, videomae, clip, capsys):
    arguments = [str(clip) if one == "CLIP" else one for one in arguments]
    code, out, err = run(capsys, *arguments, "--model", videomae)
    assert code == cli.WRONG
    assert not out
    assert message in err
    assert not streams.PASSWORD.search(err)


@pytest.mark.slow
def test_ten_minutes_of_a_stream_that_breaks_need_no_more_memory(classify):
    """Of a viewer for 10 minutes, whose connections end after a minute each; the server has a process of its own. The
    first two minutes are for caches to fill."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = multiprocessing.get_context("spawn").Process(target=streams.run, args=("rtsp", port, 60 * streams.FPS))
    server.start()
    held, found = [], 0
    try:
        source = f"rtsp://127.0.0.1:{port}/live"
        while True:
            assert server.is_alive()
            try:
                LiveSource(live_media(source)).close()
                break
            except VideoSourceError:
                time.sleep(1)
        began = time.monotonic()
        with Watch(classify, source, windows="1s/0.5s", seconds=600) as watch, LivePage(watch, port=0) as page:
            for _ in watch:
                found += 1
                page.picture()
                if time.monotonic() - began > 120 + 10 * len(held):
                    pages = int(Path("/proc/self/statm").read_text().split()[1])
                    held.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
    finally:
        server.kill()
        server.join()
    video = watch.video
    print(
        f"{found} windows, {video.frames_read} frames read, {video.frames_shown} shown, {video.frames_dropped} dropped"
    )
    print(
        f"{video.reconnections} reconnections; MiB every 10 s from the second minute on: {[round(one) for one in held]}"
    )
    assert video.reconnections >= 5
    assert found > 300
    assert max(held[len(held) // 2 :]) < max(held[: len(held) // 2]) + 8
