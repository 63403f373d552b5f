"""Small videos of a camera that stands still: glyphs drift to the right, and where it is not normal they jump about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hf_video.data.moving_glyphs import COLORS, SHAPES, draw_shape
from hf_video.video.writer import write_video

FPS, SIZE, SIDE = 8, 48, 14


def drifting(seed: int, seconds: float = 12.0, jumps: Sequence[tuple[float, float]] = ()) -> np.ndarray:
    """uint8 (frames, SIZE, SIZE, 3). Two glyphs drift to the right, 1.5 of their widths a second; during `jumps`, in
    seconds, both are somewhere else in every frame."""
    ground = np.kron(np.random.default_rng(7).uniform(20, 120, (6, 6, 3)), np.ones((SIZE // 6, SIZE // 6, 1)))
    random = np.random.default_rng(seed)
    shapes = [draw_shape(str(random.choice(list(SHAPES))), SIDE)[..., None] for _ in range(2)]
    colors = [np.array(COLORS[str(random.choice(list(COLORS)))], float) for _ in range(2)]
    places = random.uniform(0, SIZE, (2, 2))
    frames = []
    for number in range(round(seconds * FPS)):
        picture = ground.copy()
        jumping = any(start <= number / FPS < end for start, end in jumps)
        places = random.uniform(0, SIZE, (2, 2)) if jumping else places + np.array([0, 1.5 * SIDE / FPS])
        for (y, x), shape, color in zip(np.rint(places).astype(int), shapes, colors, strict=True):
            rows, columns = (y + np.arange(SIDE)[:, None]) % SIZE, (x + np.arange(SIDE)) % SIZE
            picture[rows, columns] += shape * (color - picture[rows, columns])
        frames.append((picture + random.normal(0, 3, picture.shape)).clip(0, 255).astype(np.uint8))
    return np.stack(frames)


def write_drifting(path: Path, seed: int, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_video(path, drifting(seed, **options), FPS)
