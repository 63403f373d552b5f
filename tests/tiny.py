"""Small models with random weights, and small files, for tests of what lies around models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import hf_video
from hf_video.video.writer import write_video

LABELS = ("archery", "bowling", "cricket", "diving", "eating", "fencing")


def save_tiny(folder: Path, model_type: str = "videomae") -> Path:
    """A model for 4 frames of 32x32, every weight random, saved with its processor."""
    torch.manual_seed(0)
    row = hf_video.MODELS[model_type]
    config = row.load(row.config)(
        image_size=32,
        patch_size=8,
        num_frames=4,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        id2label=dict(enumerate(LABELS)),
        label2id={label: i for i, label in enumerate(LABELS)},
    )
    model = row.load(row.auto["AutoModelForVideoClassification"])(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    row.load(row.image_processor)(**size).save_pretrained(folder)
    return folder


def moving_frames(count: int = 24, *, height: int = 48, width: int = 80, seed: int = 0) -> np.ndarray:
    """(count, height, width, 3) uint8: a textured picture that slides and changes colour."""
    random = np.random.default_rng(seed)
    picture = np.kron(random.integers(0, 256, (height // 8, width // 8, 3)), np.ones((8, 8, 1))).astype(np.float64)
    drift = np.linspace(0, 1, count)[:, None, None, None] * random.uniform(-80, 80, 3)
    frames = np.stack([np.roll(picture, 3 * i, axis=1) for i in range(count)]) + drift
    return frames.clip(0, 255).astype(np.uint8)


def write_clip(path: Path, count: int = 24, *, fps: int = 8, **frames) -> Path:
    """A file of `moving_frames`; .mkv is lossless, .mp4 is not."""
    return write_video(path, moving_frames(count, **frames), fps, codec="ffv1" if path.suffix == ".mkv" else None)
