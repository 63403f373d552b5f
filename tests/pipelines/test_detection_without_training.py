"""The training-free way on generated videos of minutes: a small classifier of clips, whose scores are merged to events;
and what a long video costs."""

from __future__ import annotations

import json
import resource
import time

import numpy as np
import pytest
import torch
from bright import BRIGHT, DARK, bright_pipeline
from transformers import pipeline

from hf_video import cli
from hf_video.clips.read import ClipInputs, read_clips
from hf_video.data.untrimmed_glyphs import write_event_clips, write_untrimmed_glyphs
from hf_video.evaluation.detection.temporal import temporal_map
from hf_video.video import write_video

CLASSIFIER = {
    **{"model_type": "videomae", "image_size": 32, "patch_size": 8, "num_frames": 8, "tubelet_size": 2},
    **{"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 256},
    "use_mean_pooling": True,
}


@pytest.mark.slow
def test_a_classifier_of_clips_finds_events_of_untrimmed_videos(tmp_path):
    """Six kinds of events of .5 to 8 seconds over distractors, in videos of 2 to 4 minutes."""
    write_event_clips(tmp_path / "clips" / "train", 1400, 1)
    write_event_clips(tmp_path / "clips" / "test", 140, 2)
    (tmp_path / "model.json").write_text(json.dumps(CLASSIFIER))
    command = ["train", tmp_path / "clips", "--model", tmp_path / "model.json", "--output", tmp_path / "model", "--yes"]
    assert cli.main([*map(str, command), "--set", "training.min_train_steps=800"]) == 0
    database = json.loads(write_untrimmed_glyphs(tmp_path / "videos", 8, 7).read_text())["database"]
    detect = pipeline("temporal-action-detection", model=str(tmp_path / "model"), device="cpu")
    events = detect([str(tmp_path / "videos" / f"{name}.mp4") for name in database])
    found = {
        name: [{"label": one.label, "score": one.score, "segment": (one.start, one.end)} for one in of_video]
        for name, of_video in zip(database, events, strict=True)
    }
    truth = {name: about["annotations"] for name, about in database.items()}
    assert temporal_map(truth, found, thresholds=[0.5]).average >= 0.6


@pytest.mark.slow
def test_a_long_video_costs_its_reading_and_forwards(tmp_path):
    """10 minutes of 480p on a grid of 4 seconds: at most 1.1 times the CPU time of reading and forwards alone, from a
    memory of a few groups of frames (64 MiB each), where all of them are 18 GB."""
    paths = []
    for minutes in (1, 10):
        pictures = [np.full((480, 854, 3), colour, np.uint8) for colour in (DARK, BRIGHT)]
        frames = (pictures[n // 600 % 2] for n in range(minutes * 60 * 25))
        paths.append(write_video(tmp_path / f"{minutes}.mp4", frames, 25, options={"preset": "ultrafast"}))
    detect = bright_pipeline(num_frames=16, grid="4s/4s")
    detect(paths[0])
    short = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    begin = time.process_time()
    request = detect._request(**detect._preprocess_params)
    clips = 0
    with torch.inference_mode():
        for piece in read_clips(paths[1], request, detect._process):
            if isinstance(piece, ClipInputs):
                detect.model(**piece.inputs)
                clips += 1
    alone = time.process_time() - begin
    begin = time.process_time()
    events = detect(paths[1])
    whole = time.process_time() - begin
    assert clips == 150
    assert len(events) == 12
    assert whole <= 1.1 * alone, f"{whole:.1f} s, and {alone:.1f} s of reading and forwards"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - short
    assert grown < 256 * 1024, f"{grown / 1024:.0f} MiB more for ten times the length"
