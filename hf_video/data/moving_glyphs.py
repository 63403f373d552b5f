"""Generated clips whose class needs time: a glyph drifts over a torus, and the label is its direction.

Start places, shapes and colours are drawn alike for all classes and the picture wraps around, so a single frame says
nothing (chance is 1 in 4), and a clip played backwards is a clip of the opposite class. A model that scores above
chance here has learnt the order of frames. Used by the demo and by tests; no download needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from hf_video.video.writer import write_video

DIRECTIONS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}
COLORS = {
    "red": (235, 80, 70),
    "green": (70, 200, 110),
    "blue": (80, 140, 245),
    "yellow": (245, 205, 70),
    "pink": (240, 120, 200),
    "white": (240, 240, 240),
}
# Corner points on a unit square, or the name of a Pillow drawing.
SHAPES: dict[str, str | list[tuple[float, float]]] = {
    "disc": "disc",
    "ring": "ring",
    "square": [(0.1, 0.1), (0.9, 0.1), (0.9, 0.9), (0.1, 0.9)],
    "triangle": [(0.5, 0.05), (0.95, 0.9), (0.05, 0.9)],
    "diamond": [(0.5, 0.0), (1.0, 0.5), (0.5, 1.0), (0.0, 0.5)],
    "cross": [
        *((0.35, 0.0), (0.65, 0.0), (0.65, 0.35), (1.0, 0.35), (1.0, 0.65), (0.65, 0.65)),
        *((0.65, 1.0), (0.35, 1.0), (0.35, 0.65), (0.0, 0.65), (0.0, 0.35), (0.35, 0.35)),
    ],
}


@dataclass(frozen=True)
class GlyphClip:
    """`frames` uint8 (T, size, size, 3) and what they show: "a {color} {shape} moving {direction}"."""

    frames: np.ndarray
    shape: str
    color: str
    direction: str

    @property
    def caption(self) -> str:
        return f"a {self.color} {self.shape} moving {self.direction}"


def draw_shape(shape: str, side: int) -> np.ndarray:
    """Coverage in [0, 1] of a glyph in a square of `side` pixels, float32 (side, side), smooth at the edges."""
    fine = 4 * side
    image = Image.new("L", (fine, fine))
    draw = ImageDraw.Draw(image)
    corners = SHAPES[shape]
    if corners == "disc":
        draw.ellipse((0, 0, fine - 1, fine - 1), fill=255)
    elif corners == "ring":
        draw.ellipse((0, 0, fine - 1, fine - 1), outline=255, width=fine // 4)
    else:
        draw.polygon([(x * (fine - 1), y * (fine - 1)) for x, y in corners], fill=255)
    return np.asarray(image.resize((side, side), Image.Resampling.BOX), dtype=np.float32) / 255


def moving_glyph(
    direction: str,
    rng: np.random.Generator,
    *,
    num_frames: int = 8,
    size: int = 64,
    speed: int = 8,
    noise: float = 8.0,
    shape: str | None = None,
    color: str | None = None,
) -> GlyphClip:
    """One clip. `size` and `speed` are in pixels and pixels a frame; `noise` is a deviation in grey levels. Shape,
    colour, place and background are drawn from `rng` where not given."""
    shape = shape or str(rng.choice(list(SHAPES)))
    color = color or str(rng.choice(list(COLORS)))
    side = size * 9 // 32
    coverage = np.zeros((size, size), dtype=np.float32)
    coverage[:side, :side] = draw_shape(shape, side)
    background = rng.uniform(10, 60, size=3).astype(np.float32)
    picture = background + coverage[..., None] * (np.array(COLORS[color], dtype=np.float32) - background)
    start = rng.integers(0, size, size=2)
    step = np.array(DIRECTIONS[direction]) * speed
    frames = np.stack([np.roll(picture, tuple(start + t * step), axis=(0, 1)) for t in range(num_frames)])
    frames += rng.normal(0, noise, size=frames.shape).astype(np.float32)
    return GlyphClip(frames.clip(0, 255).astype(np.uint8), shape, color, direction)


def moving_glyphs(clips: int, seed: int = 0, **options) -> list[GlyphClip]:
    """`clips` clips, directions in turn. The same seed gives the same clips; `options` as in `moving_glyph`."""
    rng = np.random.default_rng(seed)
    names = list(DIRECTIONS)
    return [moving_glyph(names[i % len(names)], rng, **options) for i in range(clips)]


def write_moving_glyphs(folder: str | Path, clips: int, seed: int = 0, *, fps: float = 8.0, **options) -> list[Path]:
    """Encodes clips as `folder/<direction>/<number>.mp4` (H.264); returns the paths in the order of `moving_glyphs`."""
    paths = []
    for number, clip in enumerate(moving_glyphs(clips, seed, **options)):
        path = Path(folder) / clip.direction / f"{number:05d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, clip.frames, fps)
        paths.append(path)
    return paths
