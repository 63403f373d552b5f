"""The sheet of mistakes shows what was answered wrongly, as the model saw it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tiny
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForVideoClassification

from hf_video import cli
from hf_video.data import load_videos
from hf_video.errors import DataError
from hf_video.evaluation import evaluate_videos
from hf_video.video import VideoReader, write_video
from hf_video.visual import mistakes as drawing
from hf_video.visual import worst_mistakes


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Six lossless clips of two classes, and a model with random weights."""
    folder = tmp_path_factory.mktemp("world")
    tiny.save_tiny(folder / "model")
    for seed in range(6):
        place = folder / "videos" / tiny.LABELS[seed % 2]
        place.mkdir(parents=True, exist_ok=True)
        tiny.write_clip(place / f"{seed}.mkv", 12, seed=seed)
    return folder


def test_frames_and_words(world, tmp_path, monkeypatch):
    model = AutoModelForVideoClassification.from_pretrained(world / "model")
    processor = AutoImageProcessor.from_pretrained(world / "model")
    rows = load_videos(str(world / "videos"), split="train")["train"]
    report = evaluate_videos(model, processor, rows, protocol="2x3", progress=False)
    wrong = report.mistakes()
    assert wrong, "random weights are wrong somewhere"
    drawn = []
    real = drawing.contact_sheet
    monkeypatch.setattr(drawing, "contact_sheet", lambda cells, **more: drawn.extend(cells) or real(cells, **more))
    path = worst_mistakes(report, rows, tmp_path / "m.png", config=model.config, processor=processor, count=3)
    assert Image.open(path).width > 300
    assert len(drawn) == min(3, len(wrong))
    sources = {row.name: row.source for row in rows}
    for cell, one in zip(drawn, wrong, strict=False):
        assert cell.caption == f"{one['predicted']} {one['confidence']:.0%}"
        assert cell.note == f"labelled {one['label']}: {one['video']}"
        request, _ = report.protocol.request(model.config, processor)
        with VideoReader(sources[one["video"]], shortest_edge=32) as reader:
            frames = reader.get_frames(request.choose(reader).indices[1]).data
        left = (frames.shape[2] - 32) // 2
        assert np.abs(cell.frames.astype(int) - frames[:, :, left : left + 32]).max() <= 1
    with pytest.raises(DataError, match="not among the rows"):
        worst_mistakes(report, [], tmp_path / "n.png", config=model.config, processor=processor)


def test_videos_that_were_repeated_are_shown_and_an_older_sheet_goes(world, tmp_path, caplog):
    model = AutoModelForVideoClassification.from_pretrained(world / "model")
    processor = AutoImageProcessor.from_pretrained(world / "model")
    # The same damaged video with either label: one of them is wrong.
    noise = np.random.default_rng(0).integers(0, 255, (12, 48, 64, 3), np.uint8)
    data = bytearray(write_video(tmp_path / "a.mp4", noise, 8).read_bytes())
    start = data.index(b"mdat") + len(data) // 2
    data[start : start + len(data) // 3] = bytes(len(data) // 3)
    for label in tiny.LABELS[:2]:
        (tmp_path / "videos" / label).mkdir(parents=True)
        (tmp_path / "videos" / label / f"{label}.mp4").write_bytes(bytes(data))
    rows = load_videos(str(tmp_path / "videos"), split="train")["train"]
    with pytest.raises(DataError, match="None of the 2 videos could be scored"):
        evaluate_videos(model, processor, rows, progress=False)
    report = evaluate_videos(model, processor, rows, on_error="repeat", progress=False)
    assert report.mistakes()
    path, more = tmp_path / "m.png", {"config": model.config, "processor": processor}
    assert worst_mistakes(report, rows, path, **more) == path
    assert "is not on the sheet" not in caplog.text
    assert path.exists()
    assert worst_mistakes(dataclasses.replace(report, truth=report.predicted), rows, path, **more) is None
    assert not path.exists()


def test_evaluate_writes_it_beside_the_report(world, tmp_path):
    command = ["evaluate", str(world / "videos"), "--model", str(world / "model"), "--split", "all", "--quiet"]
    assert cli.main([*command, "--output", str(tmp_path / "report")]) == cli.DONE
    assert (tmp_path / "report" / "mistakes.png").stat().st_size > 1000
