"""`--static-patches drop`: labels, how many patches that took, and which models refuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
from transformers import pipeline

from hf_video import cli
from hf_video.video import write_video


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny.save_tiny(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    """A lossless clip of 24 frames in which nothing moves but a corner."""
    frames = np.repeat(tiny.moving_frames(1, height=32, width=32), 24, axis=0)
    frames[12:, :8, :8] = 255 - frames[12:, :8, :8]
    return str(write_video(tmp_path_factory.mktemp("clips") / "still.mkv", frames, 8, codec="ffv1"))


def run(capsys, *arguments):
    code = cli.main([str(one) for one in arguments])
    return code, *capsys.readouterr()


def test_labels_are_the_models_and_patches_are_counted(capsys, model, still):
    code, out, err = run(capsys, "classify", still, "-m", model, "--static-patches", "drop", "--json", "--top-k", 0)
    assert code == 0
    assert "hf-video: 17 of 32 patches were encoded (53%); the others changed by no more than 0.1 deviations" in err
    dropping = pipeline("video-classification", model=model, model_kwargs={"static_patches": "drop"})
    assert json.loads(out)[0]["predictions"] == dropping(still, top_k=None)
    code, kept, err = run(capsys, "classify", still, "-m", model, "--json", "--top-k", 0)
    assert "patches were encoded (" not in err
    assert kept != out
    code, out, err = run(
        capsys, "classify", still, "-m", model, "--static-patches", "drop", "--static-threshold", 100, "--json"
    )
    assert "16 of 32" in err


def test_another_model_refuses_before_anything_is_read(capsys, tmp_path):
    tiny.save_tiny(tmp_path, "timesformer")
    code, out, err = run(capsys, "classify", "missing.mp4", "-m", tmp_path, "--static-patches", "drop")
    assert (code, out) == (2, "")
    assert "for VideoMAE" in err
    assert "timesformer" in err


def test_a_comparison_refuses_before_anything_is_read(capsys, model, tmp_path):
    other = tiny.save_tiny(tmp_path / "other", "timesformer")
    code, out, err = run(capsys, "compare", model, other, "--data", "missing", "--static-patches", "drop")
    assert (code, out) == (2, "")
    assert f"for VideoMAE, and {other} is a timesformer model" in err


def test_a_threshold_alone_is_refused(capsys, model):
    for more in ((), ("--static-patches", "keep")):
        code, out, err = run(capsys, "classify", "missing.mp4", "-m", model, "--static-threshold", 0.2, *more)
        assert (code, out) == (2, "")
        assert "add --static-patches drop" in err


def test_an_evaluation_does_not_go_on_from_one_with_all_patches(capsys, tmp_path, model, still):
    for label in tiny.LABELS:
        (tmp_path / "data" / label).mkdir(parents=True)
        (tmp_path / "data" / label / "clip.mkv").write_bytes(Path(still).read_bytes())
    words = ("evaluate", tmp_path / "data", "-m", model, "--split", "all", "--output", tmp_path / "out")
    assert run(capsys, *words)[0] == 0
    code, _, err = run(capsys, *words, "--static-patches", "drop")
    assert code == 0
    assert "102 of 192 patches" in err
    assert (tmp_path / "out/predictions.previous.jsonl").exists()
    _, _, err = run(capsys, *words, "--static-patches", "drop")
    assert "patches were encoded (" not in err  # all is there
