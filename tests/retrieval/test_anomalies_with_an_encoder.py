"""Nearest normal moments in the vectors of a small VideoMAE: frames of motions that normal videos don't have."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny

from hf_video import cli
from hf_video.clips.grid import FeatureGrid
from hf_video.data.untrimmed_glyphs import EVENTS, untrimmed_glyphs, write_event_clips
from hf_video.evaluation.detection.anomaly import anomaly_metrics
from hf_video.retrieval import AnomalyDetector
from hf_video.video import write_video

pytest.importorskip("pyarrow")

ENCODER = {
    **{"model_type": "videomae", "image_size": 32, "patch_size": 8, "num_frames": 8, "tubelet_size": 2},
    **{"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 256},
    "use_mean_pooling": True,
}
NORMAL = ("up", "down", "left", "right")


def write_scene(path, seed, labels, seconds=60):
    """Returns the frames (first, behind the last) of what normal videos don't have."""
    made = untrimmed_glyphs(seconds, np.random.default_rng(seed), labels=labels, size=64)
    path.parent.mkdir(exist_ok=True)
    write_video(path, made.frames, made.fps, crf=23)
    strange = [one for one in made.events if one.label not in NORMAL]
    return [(round(one.start * made.fps), round(one.end * made.fps)) for one in strange]


def test_moments_are_as_long_as_the_clips_of_the_training(tmp_path):
    """Of a model that says it; what was asked for holds first."""
    folder = tiny.save_tiny(tmp_path / "model")
    for seed in range(2):
        write_scene(tmp_path / "normal" / f"{seed}.mp4", seed, NORMAL, seconds=6)
    made = AnomalyDetector.fit(tmp_path / "normal", str(folder), folder=tmp_path / "plain", k=1)
    assert made.grid == FeatureGrid(0.5, 2.0, 1.0)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "clip_seconds": 0.8}))
    made = AnomalyDetector.fit(tmp_path / "normal", str(folder), folder=tmp_path / "own", k=1)
    assert made.grid == FeatureGrid(0.2, 0.8, 1.0)
    assert AnomalyDetector.load(tmp_path / "own").grid == made.grid
    asked = AnomalyDetector.fit(tmp_path / "normal", str(folder), folder=tmp_path / "asked", k=1, grid="1s/0.5s")
    assert asked.grid == FeatureGrid(0.5, 1.0, 1.0)


@pytest.mark.slow
def test_motions_that_normal_videos_lack_are_found(tmp_path):
    """Normal are four directions over distractors; circles are not. The encoder tells all six and nothing apart."""
    write_event_clips(tmp_path / "clips" / "train", 1400, 1)
    write_event_clips(tmp_path / "clips" / "test", 140, 2)
    (tmp_path / "encoder.json").write_text(json.dumps(ENCODER))
    command = ["train", tmp_path / "clips", "--model", tmp_path / "encoder.json", "--output", tmp_path / "encoder"]
    assert cli.main([*map(str, command), "--yes", "--set", "training.min_train_steps=800"]) == 0
    learnt = json.loads((tmp_path / "encoder" / "training_summary.json").read_text())["evaluation"]["test"]["top1"]
    assert learnt > 0.85
    for number in range(12):
        write_scene(tmp_path / "normal" / f"{number}.mp4", 100 + number, NORMAL)
    truth = {f"{n}": write_scene(tmp_path / "today" / f"{n}.mp4", 200 + n, EVENTS) for n in range(6)}
    detector = AnomalyDetector.fit(tmp_path / "normal", str(tmp_path / "encoder"), folder=tmp_path / "detector")
    scores = {name: detector.score(tmp_path / "today" / f"{name}.mp4").frame_scores() for name in truth}
    found = anomaly_metrics(scores, truth, {name: len(line) for name, line in scores.items()})
    assert found.micro_auc >= 0.9
    assert found.macro_auc >= 0.9
