"""`hf-video pretrain`, `probe` and `embed`, and their examples, one after the other on generated clips."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
import transformers

from hf_video.cli import main
from hf_video.data.moving_glyphs import DIRECTIONS, write_moving_glyphs
from hf_video.features.embed import load_features

EXAMPLES = Path(__file__).parents[2] / "examples"
CONFIG = {
    "model_type": "videomae", "image_size": 32, "patch_size": 8, "num_frames": 8, "hidden_size": 32,
    "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "decoder_hidden_size": 32,
    "decoder_num_attention_heads": 2, "decoder_num_hidden_layers": 1, "decoder_intermediate_size": 64,
}  # fmt: skip
SETTINGS = ("use_cpu=true", "dataloader_num_workers=0", "report_to=none", "min_train_steps=0", "num_train_epochs=1")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips")
    write_moving_glyphs(root / "train", 16, size=32, speed=4)
    write_moving_glyphs(root / "test", 8, seed=1, size=32, speed=4)
    return root


@pytest.fixture(scope="module")
def encoder(clips, tmp_path_factory):
    """Made by the example, which is the verb."""
    root = tmp_path_factory.mktemp("encoder")
    (root / "tiny.json").write_text(json.dumps(CONFIG))
    settings = [part for setting in SETTINGS for part in ("--set", f"training.{setting}")]
    arguments = [str(clips), "--model", str(root / "tiny.json"), "--output", str(root / "out"), *settings]
    assert run_example("pretrain_videomae", *arguments) == 0
    return root / "out"


def run_example(name: str, *arguments: str) -> int:
    before, sys.argv = sys.argv, [name, *arguments]
    try:
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    except SystemExit as done:
        return int(done.code or 0)
    finally:
        sys.argv = before
    return 0


def test_pretraining_says_what_it_has_to_beat(encoder, clips, capsys):
    again = ["pretrain", str(clips), "--model", str(encoder), "--output", str(encoder)]
    assert main(again) == 2
    assert "--resume" in capsys.readouterr().err
    summary = json.loads((encoder / "training_summary.json").read_text())
    assert summary["held_out"]["clips"] == 8 * 8
    assert summary["data"]["source"] == clips.name


def test_a_probe_that_classifies(encoder, clips, tmp_path, capsys):
    arguments = [
        str(clips),
        "--model",
        str(encoder),
        "--random",
        "--output",
        str(tmp_path / "probe"),
        "--device",
        "cpu",
    ]
    assert run_example("linear_probe", *arguments) == 0
    text = capsys.readouterr().out
    assert "16 training videos, 8 test videos, 4 classes" in text
    assert "random weights" in text
    assert "chance           top-1 25.0%" in text
    classify = transformers.pipeline("video-classification", model=str(tmp_path / "probe"))
    (answer,) = classify(str(next(clips.rglob("*.mp4"))), top_k=1)
    assert answer["label"] in DIRECTIONS


def test_a_probe_in_json_names_what_it_skipped(encoder, clips, tmp_path, capsys):
    (tmp_path / "data").mkdir()
    for part in ("train", "test"):
        (tmp_path / "data" / part).symlink_to(clips / part) if part == "test" else None
    write_moving_glyphs(tmp_path / "data" / "train", 16, size=32)
    (tmp_path / "data" / "train" / "up" / "bad.mp4").write_text("no video")
    assert main(["probe", str(tmp_path / "data"), "--model", str(encoder), "--json", "--device", "cpu"]) == 1
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert report["train_found"] == 16
    assert 0 <= report["test_top1"] <= 1
    assert report["random_top1"] is None
    assert "train/up/bad.mp4: not a video" in captured.err


def test_features_of_a_folder(encoder, clips, tmp_path, capsys):
    arguments = [str(clips), "--model", str(encoder), "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert run_example("extract_features", *arguments, "--windows", "0.5s", "--format", "parquet") == 0
    assert "48 vectors of 32 numbers from 24 of 24 videos" in capsys.readouterr().out
    features = load_features(tmp_path / "out")
    assert sorted(set(features.names))[0].startswith("test/down/")
    assert set(features.labels) == {0, 1, 2, 3}
    assert main(["embed", *arguments, "--windows", "1s", "--format", "parquet"]) == 2
    assert "made otherwise" in capsys.readouterr().err
