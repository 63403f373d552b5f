"""Small libraries of clips, and a small model of video and text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tiny
from contract import randomise
from tiny_text import tiny_clip_text, tiny_clip_vision, tiny_tokenizer

import hf_video
from hf_video.video.writer import write_video


def write_library(folder: Path, count: int, *, frames: int = 24, size: int = 48) -> Path:
    """`count` lossless clips of 8 frames a second, all different."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        tiny.write_clip(folder / f"clip{seed}.mkv", frames, height=size, width=size, seed=seed)
    return folder


def textured(seconds: float, *, fps: int = 24, seed: int = 0, height: int = 90, width: int = 120) -> np.ndarray:
    """(frames, height, width, 3) uint8: blots that wander, each on its own way, over a coloured ground: the place stays
    the same, and each second differs from the others."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    ground = np.kron(random.uniform(40, 200, (6, 8, 3)), np.ones((height // 6, width // 8, 1))).astype(np.float32)
    count = 8
    way = np.cumsum(random.normal(0, 0.25, (round(seconds * fps), count, 2)), axis=0) + random.uniform(0, 9, (count, 2))
    places = ((0.5 + 0.45 * np.sin(way)) * (height, width)).astype(np.float32)
    colors = random.uniform(-120, 120, (count, 3)).astype(np.float32)
    radii = random.uniform(7, 18, count).astype(np.float32)
    frames = []
    for now in places:
        picture = ground.copy()
        for (top, left), color, radius in zip(now, colors, radii, strict=True):
            picture += np.exp(-((y - top) ** 2 + (x - left) ** 2) / radius**2)[..., None] * color
        frames.append(picture.clip(0, 255).astype(np.uint8))
    return np.stack(frames)


def excerpt(
    path: Path, frames: np.ndarray, fps: float, *, area: float, seed: int, codec: str, crf: int | None, every: int = 1
) -> Path:
    """A file of every `every`th frame, cut to a random place of that share of the area."""
    random = np.random.default_rng(seed)
    height, width = (int(side * area**0.5) // 2 * 2 for side in frames.shape[1:3])
    top = random.integers(0, frames.shape[1] - height + 1)
    left = random.integers(0, frames.shape[2] - width + 1)
    part = frames[::every, top : top + height, left : left + width]
    return write_video(path, part, fps / every, codec, crf=crf)


def save_videoclip(folder: Path, *, seed: int = 0) -> Path:
    """A VideoCLIP of random weights with its processor and tokenizer."""
    import torch

    torch.manual_seed(seed)
    config = hf_video.VideoCLIPConfig(
        video_config=tiny_clip_vision(),
        text_config=tiny_clip_text(),
        projection_dim=64,
        temporal="mean",
        max_position_embeddings=16,
        num_frames=4,
    )
    model = randomise(hf_video.VideoCLIPModel(config))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.001 * seed)
    model.save_pretrained(folder)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}, "num_frames": 4}
    hf_video.VideoCLIPProcessor(hf_video.VideoCLIPImageProcessor(**size), tiny_tokenizer()).save_pretrained(folder)
    return folder
