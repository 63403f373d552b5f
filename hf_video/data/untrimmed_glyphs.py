"""Generated videos of minutes in which something happens now and then, with its seconds: for detectors and their tests.

A glyph moves in one of six ways for .5 to 8 seconds; before, after and meanwhile other glyphs come and go that stand
still or tremble. Shapes, colours and places are drawn alike for all of them, so that a single frame does not say what
happens, nor whether anything does: only motion tells. The picture wraps around at its edges.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hf_video.data.moving_glyphs import COLORS, DIRECTIONS, SHAPES, draw_shape
from hf_video.video.writer import write_video

EVENTS = (*DIRECTIONS, "clockwise", "anticlockwise")
BACKGROUND = "background"
BACKGROUND_GAP = 0.5  # seconds without an event between two of them, at least


@dataclass(frozen=True)
class GlyphEvent:
    """What a glyph does (`label`, of `EVENTS`) from `start` to `end`, in seconds."""

    label: str
    start: float
    end: float


@dataclass(frozen=True)
class UntrimmedGlyphs:
    """`frames` uint8 (T, size, size, 3), shown at `fps`, and the events in them by start."""

    frames: np.ndarray
    events: tuple[GlyphEvent, ...]
    fps: float

    @property
    def seconds(self) -> float:
        return len(self.frames) / self.fps


def event_path(label: str, frames: int, *, size: int, fps: float) -> np.ndarray:
    """(frames, 2) places (y, x) in pixels from where a glyph starts: 1.25 widths of the picture a second along a
    direction, or one turn a second on a circle of .3 widths across."""
    seconds = np.arange(frames) / fps
    if label in DIRECTIONS:
        return seconds[:, None] * np.array(DIRECTIONS[label]) * 1.25 * size
    angle = 2 * np.pi * seconds * (1 if label == "clockwise" else -1)
    return 0.15 * size * np.stack([np.sin(angle), np.cos(angle)], axis=1)


def _glyph(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Coverage (side, side, 1) and colour (3,) of a glyph."""
    coverage = draw_shape(str(rng.choice(list(SHAPES))), size * 9 // 32)
    return coverage[..., None], np.array(COLORS[str(rng.choice(list(COLORS)))], dtype=np.float32)


def _draw(frames: np.ndarray, first: int, path: np.ndarray, glyph: tuple[np.ndarray, np.ndarray]) -> None:
    """Draws a glyph at its place of each frame from `first` on."""
    (coverage, color), size = glyph, frames.shape[1]
    side = np.arange(len(coverage))
    for frame, (y, x) in zip(frames[first : first + len(path)], np.rint(path).astype(int), strict=False):
        rows, columns = (y + side[:, None]) % size, (x + side) % size
        frame[rows, columns] += coverage * (color - frame[rows, columns])


def _empty(frames: int, size: int, rng: np.random.Generator) -> np.ndarray:
    return np.broadcast_to(rng.uniform(10, 60, size=3).astype(np.float32), (frames, size, size, 3)).copy()


def _distract(frames: np.ndarray, fps: float, rng: np.random.Generator) -> None:
    """Two glyphs at a time that stand still or tremble, each for .5 to 8 seconds, with pauses."""
    total, size = len(frames), frames.shape[1]
    for _ in range(2):
        first = -int(rng.integers(0, round(4 * fps)))
        while first < total:
            count = max(round(rng.uniform(0.5, 8) * fps), 1)
            tremble = rng.integers(0, 2) * size / 32
            path = rng.uniform(0, size, 2) + tremble * rng.normal(size=(count, 2))
            skipped = max(-first, 0)
            if skipped < count:
                _draw(frames, max(first, 0), path[skipped:], _glyph(size, rng))
            first += count + round(rng.uniform(0, 3) * fps)


def _finish(frames: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    return (frames + noise * rng.standard_normal(frames.shape, dtype=np.float32)).clip(0, 255).astype(np.uint8)


def untrimmed_glyphs(
    seconds: float,
    rng: np.random.Generator,
    *,
    size: int = 64,
    fps: float = 10.0,
    noise: float = 3.0,
    lengths: tuple[float, float] = (0.5, 8.0),
    pauses: tuple[float, float] = (0.5, 6.0),
    labels: Sequence[str] = EVENTS,
) -> UntrimmedGlyphs:
    """One video.

    Args:
        seconds: its length.
        rng: what everything is drawn from.
        size: pixels of a side.
        fps: frames a second.
        noise: deviation in grey levels.
        lengths: of events, shortest and longest, in seconds; lengths between are equally frequent.
        pauses: between events, shortest and longest, in seconds.
        labels: kinds of events, of `EVENTS`.
    """
    total = round(seconds * fps)
    frames, events = _empty(total, size, rng), []
    _distract(frames, fps, rng)
    first = round(rng.uniform(*pauses) * fps)
    while True:
        count = max(round(rng.uniform(*lengths) * fps), 1)
        if first + count > total:
            break
        label = str(rng.choice(list(labels)))
        path = rng.uniform(0, size, 2) + event_path(label, count, size=size, fps=fps)
        _draw(frames, first, path, _glyph(size, rng))
        events.append(GlyphEvent(label, first / fps, (first + count) / fps))
        first += count + max(round(rng.uniform(*pauses) * fps), 1)
    return UntrimmedGlyphs(_finish(frames, noise, rng), tuple(events), fps)


def write_untrimmed_glyphs(
    folder: str | Path,
    videos: int,
    seed: int = 0,
    *,
    minutes: tuple[float, float] = (2.0, 4.0),
    test: int | None = None,
    **options,
) -> Path:
    """Encodes videos as `folder/<number>.mp4` (H.264), with `folder/annotations.json` in ActivityNet's form.

    Args:
        folder: where to.
        videos: how many.
        seed: the same gives the same videos.
        minutes: shortest and longest video.
        test: how many of them, the last ones, are of the subset "validation" and not "training"; default a fourth.
        options: of `untrimmed_glyphs`.

    Returns:
        The path of the annotations.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    held_out = videos // 4 if test is None else test
    database = {}
    for number in range(videos):
        rng = np.random.default_rng((seed, number))
        made = untrimmed_glyphs(60 * rng.uniform(*minutes), rng, **options)
        write_video(folder / f"{number:04d}.mp4", made.frames, made.fps, options={"preset": "ultrafast"}, crf=23)
        database[f"{number:04d}"] = {
            "subset": "training" if number < videos - held_out else "validation",
            "duration": made.seconds,
            "fps": made.fps,
            "annotations": [{"label": one.label, "segment": [one.start, one.end]} for one in made.events],
        }
    path = folder / "annotations.json"
    path.write_text(json.dumps({"version": "untrimmed glyphs", "database": database}, indent=1), encoding="utf-8")
    return path


def write_event_clips(
    folder: str | Path,
    clips: int,
    seed: int = 0,
    *,
    num_frames: int = 8,
    size: int = 64,
    fps: float = 10.0,
    noise: float = 3.0,
    labels: Sequence[str] = (*EVENTS, BACKGROUND),
) -> list[Path]:
    """Encodes short clips `folder/<label>/<number>.mp4` that show one event from their first frame to the last, over
    the same distractors, or with the label "background" distractors alone: to train the encoder of a detector, or a
    classifier. Labels in turn; the same seed gives the same clips."""
    paths = []
    for number in range(clips):
        rng, label = np.random.default_rng((seed, number)), labels[number % len(labels)]
        frames = _empty(num_frames, size, rng)
        _distract(frames, fps, rng)
        if label != BACKGROUND:
            start = rng.uniform(0, size, 2)
            _draw(frames, 0, start + event_path(label, num_frames, size=size, fps=fps), _glyph(size, rng))
        path = Path(folder) / label / f"{number:05d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        paths.append(write_video(path, _finish(frames, noise, rng), fps, options={"preset": "ultrafast"}, crf=23))
    return paths
