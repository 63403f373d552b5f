"""AdaTAD from a file to events: windows of frames, joined by hand and by the pipeline, the command and the options."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny
import torch
from transformers import pipeline

import hf_video
from hf_video import cli
from hf_video.errors import ConfigError, EmptyFileError, VideoOptionError
from hf_video.features.window_detector import WindowDetector
from hf_video.video import VideoReader, write_video

TASK = "temporal-action-detection"
ENCODER = {
    **{"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 16},
    **{"num_frames": 4, "patch_size": 8},
}
DETECTOR = {"hidden_size": 16, "neck_size": 16, "head_size": 16, "branch_layers": 2, "feature_stride": 2}


def make(detector=None, **more):
    torch.manual_seed(0)
    names = {"id2label": {0: "jump", 1: "throw"}, "label2id": {"jump": 0, "throw": 1}}
    sizes = {"num_frames": 16, "image_size": 16, **names}
    config = hf_video.AdaTADConfig(
        encoder_config=ENCODER, detector_config=DETECTOR | (detector or {}), **{**sizes, **more}
    )
    model = hf_video.AdaTADForTemporalActionDetection(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        model.detector.class_head.output.bias.fill_(-1.0)
    return model.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("adatad")
    make().save_pretrained(path)
    sizes = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    hf_video.AdaTADImageProcessor(**sizes, num_frames=16).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """90 frames at 10 fps: 45 of every second one, four windows of 16."""
    frames = np.concatenate([tiny.moving_frames(9 + seed % 3, seed=seed) for seed in range(10)])[:90]
    return write_video(tmp_path_factory.mktemp("long") / "long.mkv", frames, 10, codec="ffv1")


@pytest.fixture(scope="module")
def detect(folder):
    return pipeline(TASK, model=str(folder), device="cpu")


def rows(events):
    return [(one.label, one.score, one.start, one.end) for one in events]


def close_to(events):
    return [(one.label, *(pytest.approx(v, abs=1e-5) for v in (one.score, one.start, one.end))) for one in events]


def test_events_of_a_file_are_those_of_its_windows(detect, folder, long):
    """By hand: windows of every second frame at 0, 8, 16, 24 and, with the end, 29; their segments joined, merged."""
    model, processor = detect.model, detect.image_processor
    with VideoReader(long) as reader:
        frames = reader.get_frames(list(range(0, 90, 2))).data
    starts = [0, 8, 16, 24, 29]
    clips = torch.cat(
        [processor(frames[s : s + 16], do_sample_frames=False, return_tensors="pt").pixel_values for s in starts]
    )
    with torch.no_grad():
        (found,) = model.find_segments(model(clips), starts=starts)
    seconds = (found.segments.double() * 2 / 10).clamp(0, 9.0)
    events = detect(long)
    assert len(events) == len(found.scores) > 10
    names = ["jump", "throw"]
    by_hand = [
        (names[label], pytest.approx(score, abs=1e-5), pytest.approx(start, abs=1e-4), pytest.approx(end, abs=1e-4))
        for label, score, (start, end) in zip(
            found.labels.tolist(), found.scores.tolist(), seconds.tolist(), strict=True
        )
    ]
    best = len({one.score for one in events}) // 2  # scores that differ by rounding alone may change places
    assert rows(events)[:best] == by_hand[:best]
    assert rows(detect(str(long), batch_size=3))[:best] == close_to(events)[:best]
    assert rows(WindowDetector(model, processor)(long))[:best] == close_to(events)[:best]


def test_a_short_video_is_padded_as_the_official_code_does_it(detect, long):
    """The last frame again, which the encoder sees, and no points behind the end."""
    with VideoReader(long) as reader:
        frames = reader.get_frames(list(range(0, 20))).data
    model = detect.model
    shown = np.concatenate([frames[::2], np.repeat(frames[18:19], 6, axis=0)])
    clip = detect.image_processor(shown, do_sample_frames=False, return_tensors="pt").pixel_values
    mask = torch.arange(16)[None] < 10
    with torch.no_grad():
        (found,) = model.find_segments(model(clip, mask))
    events = detect(frames, fps=10)
    assert len(events) == len(found.scores) > 0
    assert events[0].score == pytest.approx(float(found.scores[0]), abs=1e-5)
    assert max(one.end for one in events) <= 2.0
    inputs = detect.preprocess(frames, fps=10)
    assert torch.equal(inputs["mask"], mask)
    torch.testing.assert_close(inputs["pixel_values"], clip)


def test_a_whole_video_in_one_window(folder, long):
    """`fixed_length`: positions are shares of the video."""
    model = make({"fixed_length": True}, frames_per_step=2)
    processor = hf_video.AdaTADImageProcessor.from_pretrained(folder)
    detect = hf_video.TemporalActionDetectionPipeline(model=model, image_processor=processor, task=TASK, device="cpu")
    with VideoReader(long) as reader:
        frames = reader.get_frames(((np.arange(16) + 0.5) * 90 / 16 - 0.5).round().astype(int)).data
    clip = processor(frames, do_sample_frames=False, return_tensors="pt").pixel_values
    with torch.no_grad():
        (found,) = model.find_segments(model(clip))
    events = detect(long)
    assert events[0].score == pytest.approx(float(found.scores[0]), abs=1e-5)
    assert events[0].start == pytest.approx(max(float(found.segments[0, 0]) / 8 * 9, 0), abs=1e-4)


def test_options_and_files_that_cant_be_read(detect, long, tmp_path):
    assert all(one.score >= 0.3 for one in detect(long, threshold=0.3))
    assert len(detect(long, top_k=3)) == 3
    assert len(detect(long, max_detections=5)) == 5
    assert len(detect(long, nms="none")) > len(detect(long, nms="hard"))
    (tmp_path / "none.mp4").write_bytes(b"")
    with pytest.raises(EmptyFileError):
        detect(tmp_path / "none.mp4")
    good, bad = detect([long, tmp_path / "none.mp4"], bad_files="report", top_k=2)
    assert len(good) == 2
    assert bad["kind"]
    for option in ({"grid": "2s/1s"}, {"num_frames": 8}, {"smoothing": 3}):
        with pytest.raises(VideoOptionError, match="is a detector of windows of frames"):
            detect(long, **option)
    with pytest.raises(VideoOptionError, match="Features are for detectors of features"):
        detect(np.zeros((20, 16), np.float32))
    with pytest.raises(ConfigError, match="nms_sigma"):
        detect(long, nms_sigma=0)
    with pytest.raises(VideoOptionError, match="encoder= is for"):
        hf_video.TemporalActionDetectionPipeline(
            model=detect.model, image_processor=detect.image_processor, task=TASK, encoder="videomae-folder"
        )
    with pytest.raises(VideoOptionError, match="sees the frames of files"):
        hf_video.LiveDetector(detect.model.name_or_path)


def test_the_command_finds_the_same(detect, folder, long, tmp_path, capsys):
    command = ["detect", str(long), "--model", str(folder), "--top-k", "4", "--output", str(tmp_path / "events.json")]
    assert cli.main(command) == 0
    found = json.loads((tmp_path / "events.json").read_text())["results"]["long"]
    expected = detect(long, top_k=4)
    assert [(one["label"], *one["segment"]) for one in found] == [
        (one.label, pytest.approx(one.start), pytest.approx(one.end)) for one in expected
    ]
    assert "4 events" in capsys.readouterr().out


def test_it_is_evaluated_on_annotated_videos(detect, folder, long, tmp_path, capsys):
    """Of its own three best events, as annotations, it finds each; a video that can't be read counts, and is named."""
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "long.mkv").write_bytes(long.read_bytes())
    (videos / "none.mkv").write_bytes(b"")
    best = [{"label": one.label, "segment": [one.start, one.end]} for one in detect(long, top_k=3)]
    about = {"long": {"annotations": best}, "none": {"annotations": best}}
    (tmp_path / "ann.json").write_text(json.dumps({"database": about}))
    command = ["evaluate", str(videos), "--task", "detection", "--model", str(folder), "--json"]
    assert cli.main([*command, "--annotations", str(tmp_path / "ann.json"), "--tiou", "0.5"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["found"], report["total"]) == (1, 2)
    assert report["mAP"] == pytest.approx(0.5)
