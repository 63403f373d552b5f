"""Scenes of two to five figures, each doing something of its own, with their boxes: one frame alone does not tell
what."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hf_video.data.moving_glyphs import COLORS, SHAPES, draw_shape
from hf_video.video.writer import write_video

ACTIONS = {3: "sway", 5: "bounce", 8: "pulse", 12: "stand"}
FPS, SECONDS, SIZE = 8, 3, (64, 96)


def scene(seed: int) -> tuple[np.ndarray, list[tuple[float, tuple[float, ...], int]]]:
    """Frames (T, H, W, 3) uint8, and (second, box in shares, action) of every figure at the key frames 1 and 2."""
    rng = np.random.default_rng(seed)
    height, width = SIZE
    frames = np.empty((FPS * SECONDS, *SIZE, 3), np.float32)
    frames[:] = rng.integers(20, 90, 3) + rng.normal(0, 6, (*SIZE, 3))
    cells = rng.permutation(6)[: rng.integers(2, 6)]  # of a grid of 2 x 3, so that figures do not hide each other
    rows = []
    for cell in cells:
        action = int(rng.choice(list(ACTIONS)))
        color = np.array(list(COLORS.values()))[rng.integers(len(COLORS))].astype(np.float32)
        shape = list(SHAPES)[rng.integers(len(SHAPES))]
        x, y = (cell % 3 + 0.5) * width / 3, (cell // 3 + 0.5) * height / 2
        x, y = x + rng.uniform(-3, 3), y + rng.uniform(-3, 3)
        phase, speed, side = rng.uniform(0, 2 * np.pi), rng.uniform(0.9, 1.4), rng.integers(12, 17)
        for t in range(len(frames)):
            wave = np.sin(phase + 2 * np.pi * speed * t / FPS)
            now = round(side * (1 + 0.3 * wave)) if ACTIONS[action] == "pulse" else int(side)
            left = round(x - now / 2 + (6 * wave if ACTIONS[action] == "sway" else 0))
            top = round(y - now / 2 + (6 * wave if ACTIONS[action] == "bounce" else 0))
            left, top = np.clip(left, 0, width - now), np.clip(top, 0, height - now)
            cover = draw_shape(shape, now)[..., None]
            part = frames[t, top : top + now, left : left + now]
            part[:] = part * (1 - cover) + color * cover
            if t % FPS == 0 and t:
                box = (left / width, top / height, (left + now) / width, (top + now) / height)
                rows.append((t / FPS, tuple(round(float(one), 4) for one in box), action))
    return frames.clip(0, 255).astype(np.uint8), rows


def write_scenes(folder: Path, count: int, first: int = 0) -> Path:
    """`count` videos in `folder`, and beside it `ava.csv` of their boxes, which is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(first, first + count):
        frames, rows = scene(number)
        write_video(folder / f"scene_{number:03d}.mp4", frames, fps=FPS)
        lines += [
            ",".join(map(str, (f"scene_{number:03d}", f"{second:g}", *box, action, person)))
            for person, (second, box, action) in enumerate(rows)
        ]
    path = folder.parent / "ava.csv"
    path.write_text("\n".join(lines) + "\n")
    return path
