"""Words by models whose processors take videos: which frames and seconds these are told, and the stock road's words.

These processors need torchvision, which this package does not: without it the tests are skipped."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import tiny
import tiny_generation
import torch
from transformers import pipeline
from transformers.video_utils import VideoMetadata

from hf_video.errors import CheckpointError, VideoOptionError
from hf_video.video import VideoReader

pytest.importorskip("torchvision", reason="the processors of these models need torchvision", exc_type=ImportError)

VIDEOS = next((one / "shared/videos" for one in Path(__file__).parents if (one / "shared/videos").is_dir()), None)
KINDS = {
    "onevision": tiny_generation.save_llava_onevision,
    "qwen2.5": lambda folder: tiny_generation.save_qwen(folder, "2.5"),
    "qwen3": tiny_generation.save_qwen,
    "smolvlm": tiny_generation.save_smolvlm,
}
FPS, SECONDS = 10, 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = {}

    def save(kind):
        if kind == "smolvlm":
            pytest.importorskip("num2words", reason="SmolVLM's processor needs num2words")
        if kind not in made:
            made[kind] = str(KINDS[kind](tmp_path_factory.mktemp(kind)))
        return made[kind]

    return save


@pytest.fixture(scope="module", params=KINDS)
def describe(request, folder):
    return pipeline("video-captioning", model=folder(request.param), device="cpu", max_new_tokens=8)


@pytest.fixture(scope="module")
def steady(tmp_path_factory):
    """12 seconds at 10 frames a second."""
    frames = np.concatenate([tiny.moving_frames(FPS, height=48, width=64, seed=seed) for seed in range(SECONDS)])
    return str(tiny.write_video(tmp_path_factory.mktemp("steady") / "a.mkv", frames, FPS, codec="ffv1"))


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """A file of 60 frames, the second half of them ten times as far apart; the first is shown at 1.2 seconds."""
    milliseconds = 1200 + np.cumsum([0, *[40] * 30, *[400] * 29])
    path = tmp_path_factory.mktemp("uneven") / "a.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25, width=64, height=48, pix_fmt="bgr0", time_base=Fraction(1, 1000))
        stream.codec_context.time_base = Fraction(1, 1000)
        for time, picture in zip(milliseconds, tiny.moving_frames(60, height=48, width=64), strict=True):
            frame = av.VideoFrame.from_ndarray(picture)
            frame.pts, frame.time_base = int(time), Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return str(path), milliseconds / 1000


def told(describe, monkeypatch, *args, **options):
    """The results of a call, and for each window the frames and metadata that the video processor was given."""
    calls = []
    video = describe.processor.video_processor
    preprocess = video.preprocess

    def spy(videos, **given):
        assert given["do_sample_frames"] is False
        (frames,), (metadata,) = videos, given["video_metadata"]
        calls.append((frames, list(metadata.frames_indices), metadata))
        return preprocess(videos, **given)

    with monkeypatch.context() as patch:
        patch.setattr(video, "preprocess", spy)
        return describe(*args, **options), calls


def stock(pipe, frames, metadata, text, **options):
    """The words of processor and model as their documentation joins them."""
    chat = [{"role": "user", "content": [{"type": "video", "video": frames}, {"type": "text", "text": text}]}]
    given = {"do_sample_frames": False, "video_metadata": [metadata]}
    inputs = pipe.processor.apply_chat_template(
        chat, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt", processor_kwargs=given
    )
    ids = pipe.model.generate(**inputs, **{"max_new_tokens": 8, **options})[:, inputs["input_ids"].shape[1] :]
    return pipe.processor.batch_decode(ids, skip_special_tokens=True)[0].strip()


def prompts(describe, monkeypatch, *args, **options):
    """What the model reads, as text."""
    found = []
    generate = describe.model.generate
    with monkeypatch.context() as patch:
        patch.setattr(
            describe.model, "generate", lambda **given: found.append(given["input_ids"][0]) or generate(**given)
        )
        describe(*args, **options)
    return [describe.tokenizer.decode(ids) for ids in found]


def test_frames_are_exact_and_words_are_the_stock_roads(describe, steady, monkeypatch):
    (found), ((frames, indices, metadata),) = told(describe, monkeypatch, steady, num_frames=6)
    assert indices == [10, 30, 50, 70, 90, 110]
    assert (metadata.total_num_frames, metadata.fps, metadata.duration) == (120, 10.0, 12.0)
    with VideoReader(steady) as reader:
        own = torch.from_numpy(reader.get_frames(indices).data).permute(0, 3, 1, 2)
    assert torch.equal(frames, own)
    plain = VideoMetadata(total_num_frames=120, fps=10.0, duration=12.0, frames_indices=list(indices))
    assert found["caption"] == stock(describe, own, plain, describe.writer.prompt)
    assert found["seconds"] == (0.0, 12.0)


def test_each_window_has_its_own_frames(describe, steady, monkeypatch):
    found, calls = told(describe, monkeypatch, steady, windows="4s", num_frames=2, prompt="What?")
    assert [one["seconds"] for one in found] == [(0.0, 4.0), (4.0, 8.0), (8.0, 12.0)]
    assert [indices for _, indices, _ in calls] == [[10, 30], [50, 70], [90, 110]]
    assert [metadata.sampled_fps for *_, metadata in calls] == [2 / 4] * 3
    with VideoReader(steady) as reader:
        for frames, indices, _ in calls:
            assert torch.equal(frames, torch.from_numpy(reader.get_frames(indices).data).permute(0, 3, 1, 2))
    assert len({one["caption"] for one in found}) > 1


def test_seconds_of_an_uneven_file_are_its_time_stamps(describe, uneven, monkeypatch):
    path, seconds = uneven
    for options in ({}, {"windows": "5s"}):
        _, calls = told(describe, monkeypatch, path, num_frames=4, **options)
        with VideoReader(path) as reader:
            for frames, _, metadata in calls:
                times = np.array(metadata.timestamps[: len(frames)])
                nearest = np.abs(seconds[:, None] - times).argmin(0)
                assert np.abs(seconds[nearest] - times).max() < 1e-9
                own = reader.get_frames(nearest).data
                assert torch.equal(frames, torch.from_numpy(own).permute(0, 3, 1, 2))
                assert metadata.total_num_frames == 60


def test_the_number_of_frames_is_what_the_processors_file_asks_for(describe, steady, monkeypatch):
    counts = {"LlavaOnevision": (8, 8), "Qwen2_5_VL": (8, 8), "Qwen3VL": (24, 6), "SmolVLM": (8, 3)}
    whole, window = counts[type(describe.processor).__name__.removesuffix("Processor")]
    for options, count in (({}, whole), ({"windows": "3s"}, window)):
        _, calls = told(describe, monkeypatch, steady, **options)
        assert {len(frames) for frames, *_ in calls} == {count}


def test_half_precision(folder, steady, monkeypatch):
    """Only pixels are rounded: the seconds of Qwen2.5-VL's positions are floats too."""
    describe = pipeline("video-captioning", model=folder("qwen2.5"), device="cpu", dtype="bfloat16")
    kept, generate = {}, describe.model.generate
    monkeypatch.setattr(describe.model, "generate", lambda **given: kept.update(given) or generate(**given))
    describe(steady, windows="6s", num_frames=8, max_new_tokens=1)
    assert kept["pixel_values_videos"].dtype == torch.bfloat16
    assert kept["second_per_grid_ts"].tolist() == pytest.approx([2 * 6 / 8])


class TestSecondsInPrompts:
    def test_qwen3(self, folder, steady, uneven, monkeypatch):
        describe = pipeline("video-captioning", model=folder("qwen3"), device="cpu", max_new_tokens=1)
        texts = prompts(describe, monkeypatch, steady, windows="6s", num_frames=6)
        read = [re.findall(r"<([\d.]+) seconds>", text) for text in texts]
        assert read == [["1.0", "3.0", "5.0"], ["7.0", "9.0", "11.0"]]  # each the mean of two frames
        path, seconds = uneven
        (text,) = prompts(describe, monkeypatch, path, num_frames=4)
        pairs = seconds[[7, 22, 37, 52]].reshape(2, 2).mean(1)
        assert re.findall(r"<([\d.]+) seconds>", text) == [f"{one:.1f}" for one in pairs]

    def test_smolvlm(self, folder, steady, uneven, monkeypatch):
        describe = pipeline("video-captioning", model=folder("smolvlm"), device="cpu", max_new_tokens=1)
        texts = prompts(describe, monkeypatch, steady, windows="6s", num_frames=3)
        assert [re.findall(r"Frame from ([\d:]+):", text) for text in texts] == [
            ["00:01", "00:03", "00:05"],
            ["00:07", "00:09", "00:11"],
        ]
        assert all("three frames from a 0:00:12 [H:MM:SS] video" in text for text in texts)
        (text,) = prompts(describe, monkeypatch, uneven[0], num_frames=4)
        assert re.findall(r"Frame from 00:(\d+):", text) == [f"{int(uneven[1][i]):02d}" for i in (7, 22, 37, 52)]


def test_without_a_template_the_video_stands_before_the_text(tmp_path, steady, monkeypatch):
    folder = str(tiny_generation.save_llava_onevision(tmp_path, template=None))
    describe = pipeline("video-captioning", model=folder, device="cpu", max_new_tokens=1)
    (text,) = prompts(describe, monkeypatch, steady, num_frames=2, prompt="What?")
    assert text == "<video>" * (2 * 4 + 1) + "\nWhat?"


def test_answers(folder, steady):
    ask = pipeline("video-question-answering", model=folder("onevision"), device="cpu", max_new_tokens=8)
    found = ask(steady, question=["what moves?", "where?"], num_frames=6)
    with VideoReader(steady) as reader:
        frames = torch.from_numpy(reader.get_frames([10, 30, 50, 70, 90, 110]).data).permute(0, 3, 1, 2)
    plain = VideoMetadata(total_num_frames=120, fps=10.0, frames_indices=[10, 30, 50, 70, 90, 110])
    assert found == [[{"answer": stock(ask, frames, plain, one)}] for one in ("what moves?", "where?")]


class TestBadPairs:
    def test_templates_and_tokens(self, tmp_path, folder, steady):
        image_only = tiny_generation.TEMPLATE.replace("VIDEO", "<image>")
        saved = str(tiny_generation.save_llava_onevision(tmp_path, template=image_only))
        with pytest.raises(CheckpointError, match="puts 0 times '<video>'"):
            pipeline("video-captioning", model=saved, device="cpu")
        describe = pipeline("video-captioning", model=folder("onevision"), device="cpu")
        with pytest.raises(VideoOptionError, match="holds '<video>'"):
            describe(steady, prompt="<video> what?")
        processor = describe.processor
        processor.video_token = "<|video|>"
        with pytest.raises(CheckpointError, match=r"no token '<\|video\|>'"):
            pipeline("video-captioning", model=describe.model, processor=processor, device="cpu")
        processor.video_token, describe.model.config.video_token_id = "<video>", 7
        with pytest.raises(CheckpointError, match="video_token_id=100"):
            pipeline("video-captioning", model=describe.model, processor=processor, device="cpu")

    def test_a_processor_of_another_model(self, folder):
        qwen = pipeline("video-captioning", model=folder("qwen3"), device="cpu")
        with pytest.raises(CheckpointError, match="which takes a LlavaOnevisionProcessor"):
            pipeline("video-captioning", model=folder("onevision"), processor=qwen.processor, device="cpu")


@pytest.mark.skipif(VIDEOS is None, reason="needs shared/videos beside the checkout")
def test_real_clips(folder, monkeypatch):
    describe = pipeline("video-captioning", model=folder("onevision"), device="cpu", max_new_tokens=1)
    for file in sorted(str(one) for one in VIDEOS.iterdir() if one.suffix != ".md"):
        _, calls = told(describe, monkeypatch, file, windows="2.5s", num_frames=3)
        with VideoReader(file) as reader:
            times, meta = reader.timestamps, reader.metadata
            for frames, _, metadata in calls:
                nearest = np.abs(times[:, None] - metadata.timestamps).argmin(0)
                assert np.abs(times[nearest] - metadata.timestamps).max() <= 1e-3
                assert torch.equal(frames, torch.from_numpy(reader.get_frames(nearest).data).permute(0, 3, 1, 2))
                assert (metadata.total_num_frames, metadata.duration) == (meta.num_frames, meta.duration)
