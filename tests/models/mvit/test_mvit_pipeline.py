"""MViT from a file to a label, and what its processor does on the way."""

from __future__ import annotations

import logging

import numpy as np
import torch
from contract import randomise
from test_mvit import VERSION2
from transformers import AutoImageProcessor, pipeline

import hf_video
from hf_video.video.sampling.samplers import at_fps


def write(path, frames: int = 90, fps: int = 60):
    rng = np.random.default_rng(0)
    return hf_video.video.write_video(path, rng.integers(0, 255, (frames, 64, 96, 3), dtype=np.uint8), fps)


def test_processor_and_pipeline(tmp_path, caplog):
    clip = write(tmp_path / "clip.mp4")
    config = hf_video.MViTConfig(**{**VERSION2, "image_size": 32, "num_labels": 5})
    randomise(hf_video.MViTForVideoClassification(config)).save_pretrained(tmp_path / "model")
    sizes = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}
    hf_video.MViTImageProcessor(**sizes).save_pretrained(tmp_path / "model")
    processor = AutoImageProcessor.from_pretrained(tmp_path / "model")
    seen = processor(clip, return_metadata=True, return_tensors="pt")
    # Every fourth frame of 30 a second is every eighth of 60, from the middle.
    expected = at_fps(90, 4, rate=4, fps=60, start="center").indices.ravel()
    assert seen["video_metadata"][0]["frames_indices"].tolist() == expected.tolist()
    assert seen["pixel_values"].shape == (1, 4, 3, 32, 32)
    logging.getLogger("transformers").propagate = True
    classify = pipeline("video-classification", model=str(tmp_path / "model"), device="cpu")
    scores = classify(str(clip), top_k=5)
    with torch.no_grad():
        direct = classify.model(seen["pixel_values"]).logits.softmax(-1)[0]
    assert {row["label"]: round(row["score"], 4) for row in scores} == {
        config.id2label[i]: round(p, 4) for i, p in enumerate(direct.tolist())
    }


def test_statistics_and_sizes_are_the_authors():
    processor = hf_video.MViTImageProcessor()
    assert list(processor.image_mean) == [0.45] * 3
    assert list(processor.image_std) == [0.225] * 3
    assert processor.size == {"shortest_edge": 256}
    assert processor.crop_size == {"height": 224, "width": 224}
