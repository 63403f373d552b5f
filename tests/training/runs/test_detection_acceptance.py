"""The whole way on generated videos of minutes: clips to an encoder, its features to a detector, which must find the
events of videos that it has not seen."""

from __future__ import annotations

import json
import time

import pytest

from hf_video import cli
from hf_video.data.untrimmed_glyphs import write_event_clips, write_untrimmed_glyphs

ENCODER = {
    **{"model_type": "videomae", "image_size": 32, "patch_size": 8, "num_frames": 8, "tubelet_size": 2},
    **{"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 256},
    "use_mean_pooling": True,
}


@pytest.mark.slow
def test_a_detector_finds_events_of_unseen_videos(tmp_path):
    """64 videos of 2 to 4 minutes, six kinds of events of .5 to 8 seconds over distractors."""
    write_event_clips(tmp_path / "clips" / "train", 1400, 1)
    write_event_clips(tmp_path / "clips" / "test", 140, 2)
    (tmp_path / "encoder.json").write_text(json.dumps(ENCODER))
    command = ["train", tmp_path / "clips", "--model", tmp_path / "encoder.json", "--output", tmp_path / "encoder"]
    assert cli.main([*map(str, command), "--yes", "--set", "training.min_train_steps=800"]) == 0
    annotations = write_untrimmed_glyphs(tmp_path / "videos", 64, 7)
    begin = time.process_time()
    command = ["train", tmp_path / "videos", "--task", "detection", "--annotations", annotations]
    command += ["--model", tmp_path / "encoder", "--output", tmp_path / "detector", "--yes"]
    assert cli.main([str(word) for word in command]) == 0
    spent = time.process_time() - begin
    found = json.loads((tmp_path / "detector" / "training_summary.json").read_text())["evaluation"]["validation"]
    assert found["mAP@0.5"] >= 0.9
    assert found["mAP@0.75"] >= 0.75
    assert spent < 2 * 720, f"{spent:.0f} s of both cores"
