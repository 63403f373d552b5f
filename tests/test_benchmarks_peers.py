"""benchmarks/peers.py: what is missing is named, unequal answers are not timed; (slow) one pair through all of it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import hf_video
from benchmarks import peer_models, peers
from benchmarks.measure import NotEqualError, Row
from benchmarks.setting import why_absent

ROOT = Path(peers.__file__).resolve().parents[1]
TINY = {"image_size": 32, "num_frames": 4, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
TINY |= {"intermediate_size": 48, "tubelet_size": [2, 16, 16], "num_labels": 400}


def tiny_stock():
    config = {k: v for k, v in TINY.items() if k != "num_labels"}
    return peer_models.stock("VivitForVideoClassification", **config)


@pytest.fixture
def tiny(monkeypatch):
    pair = replace(peer_models.PAIRS["ViViT-B"], build=tiny_stock, frames=4, size=32)
    monkeypatch.setitem(peer_models.PAIRS, "tiny", pair)
    return pair


def test_pair_is_equal_and_measured(tiny):
    measured = peers.measure("tiny", 1, 0)
    assert [row.name for row in measured.rows] == [peers.OURS, peers.HALF]
    assert all(row.ratio > 0 and row.peer_name == "transformers fp32" and row.met is None for row in measured.rows)
    assert measured.cls is hf_video.VivitForVideoClassification
    assert type(peer_models.randomise(tiny_stock())).__module__.startswith("transformers.")
    half = peers.as_variant(measured.cls(measured.config), peers.HALF, tiny)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}


def test_unequal_models_are_not_timed(tiny, monkeypatch):
    def wrong(theirs):
        model = tiny.convert(theirs)
        torch.nn.init.zeros_(model.classifier.bias)
        return model

    monkeypatch.setitem(peer_models.PAIRS, "tiny", replace(tiny, convert=wrong))
    with pytest.raises(NotEqualError, match="tiny, hf_video fp32"):
        peers.measure("tiny", 1, 0)


@pytest.mark.skipif(why_absent("pytorchvideo") is None, reason="here it is")
def test_missing_library_is_named():
    assert peers.measure("X3D-S", 1, 0) == "not installed"


def test_slowest_comes_first_in_the_summary():
    rows = [
        Row("peers", job, peers.OURS, 1.0, "theirs", 1.0, ratio, other_ratio=ratio)
        for job, ratio in (("a", 0.5), ("b", 2.0))
    ]
    assert peers.summary(rows).splitlines() == ["2.00 (CPU 2.00)  b", "0.50 (CPU 0.50)  a", "1.00  geometric mean"]
    assert peers.summary([]) == ""


def test_unknown_model_is_refused(capsys):
    with pytest.raises(SystemExit):
        peers.main(["--only", "X3D-XXL"])
    assert "X3D-XXL" in capsys.readouterr().err


@pytest.mark.slow
def test_command(tmp_path):
    """One full-size pair, times and memory, with what every environment has."""
    output = tmp_path / "peers.json"
    command = [sys.executable, "benchmarks/peers.py", "--only", "TimeSformer-B", "--seconds", "0", "--threads", "1"]
    done = subprocess.run([*command, "--output", str(output)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(output.read_text())["rows"]
    assert [row["kind"] for row in rows] == ["wall", "wall", "memory", "memory"]
    full, half = (row["ours"] for row in rows[2:])
    # 121.3 million parameters, and what a forward needs.
    assert 485 < full < 2000
    assert 242 < half < full
