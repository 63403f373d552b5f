"""Labels on the video that they are of: the best ones of each moment with bars for their scores, and a line of time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from hf_video.base.detection.types import Detection
from hf_video.errors import VideoOptionError, check_count, check_number
from hf_video.pipelines.video_classification import Predictions
from hf_video.video.contact_sheet import shortened
from hf_video.video.frames.types import VideoSource
from hf_video.video.time_lines import COLOURS, clock
from hf_video.visual.overlay import Draw, DrawnOn, DrawnVideo, draw_on_video

_SHADE, _TRACK, _INK = (12, 13, 16, 165), (255, 255, 255, 48), (255, 255, 255, 255)
_READABLE, _SMALLEST = 240, 11  # pixels: of the height of frames, and of text unless another size is asked for
_SHARE = 0.7  # of a frame that labels may cover


@dataclass(frozen=True)
class _Window:
    """What is shown from `start` to `end` seconds: labels with their scores, best first."""

    start: float
    end: float
    labels: tuple[tuple[str, float], ...]


def annotate_video(
    source: VideoSource,
    results: Sequence[Any],
    path: str | os.PathLike[str],
    *,
    top_k: int = 3,
    size: float | None = None,
    font: str | os.PathLike[str] | None = None,
    colors: Sequence[str] | Mapping[str, str] | None = None,
    scale: int | None = None,
    **writing: Any,
) -> DrawnVideo:
    """Writes a video with the labels that a pipeline found drawn onto it: the best labels of each moment, bars as long
    as their scores (from 0 to 1), and a line of time in the colours of the best labels.

    Args:
        source: The video, as it was given to the pipeline.
        results: What the pipeline returned for it: windows, one list of predictions (`Predictions`), or events
            (`Detection`), whose boxes are drawn where they have some, between key frames on the straight line from one
            to the next. Of windows that overlap, a frame shows the one whose middle is nearest.
        path: The file to write; its suffix names the container, as in `write_video`.
        top_k: Most labels at a time.
        size: Height of the text in pixels. Default: 1/26 of the frame's shorter side, at least 11.
        font: A TrueType or OpenType file. Default: Pillow's own, which has Latin letters.
        colors: Colours for labels in the order in which they come up, or by their names; `#rrggbb` or a name of CSS.
        scale: Whole number by which frames are enlarged. Default: the smallest that makes them 240 pixels high, so that
            text can be read on small videos.
        writing: `codec`, `crf`, `options`, `on_error` and `fps` of `draw_on_video`.

    Returns:
        What was written.

    Raises:
        VideoOptionError: The results have another form, the font or a colour is not known, the font has no letters for
            a label, or the text doesn't fit into the frame.
        VideoWriteError, VideoError: As in `draw_on_video`.
    """
    check_count("top_k", top_k)
    check_count("scale", scale, optional=True)
    check_number("size", size, least=4, optional=True, hint=" It is in pixels.")
    events = [one for one in results if isinstance(one, Detection)]
    boxed = [one for one in events if one.boxes]
    windows = _windows(results, top_k)
    names = list(dict.fromkeys([one.labels[0][0] for one in windows if one.labels]))
    every = [*(name for one in windows for name, _ in one.labels), *(one.label for one in boxed)]
    names = list(dict.fromkeys([*names, *every]))
    # Boxes say their labels themselves.
    rows = 0 if boxed and len(boxed) == len(events) else max((len(one.labels) for one in windows), default=0)
    palette = _palette(names, colors)
    face = partial(_font, None if font is None else os.fspath(font), tuple(names))
    face(12)  # a font that can't be used is told before the video is read

    def drawer(video: DrawnOn) -> Draw:
        return _Labels(video, windows, rows, boxed, palette, face, size, scale).draw

    return draw_on_video(source, path, drawer, **writing)


def _windows(results: Any, top_k: int) -> list[_Window]:
    """Results of any form."""
    whole = isinstance(results, Predictions)
    if not whole and all(isinstance(one, Detection) for one in results):
        return _of_events(results, top_k)
    given = [{"seconds": results.seconds, "predictions": results}] if whole else results
    try:
        found = [
            _Window(float(start), float(end), tuple((str(p["label"]), float(p["score"])) for p in predictions[:top_k]))
            for (start, end), predictions in ((one["seconds"], one["predictions"]) for one in given)
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise VideoOptionError(
            "What is drawn are the results of a pipeline for this one video: windows, such as [{'seconds': (0, 2), "
            f"'predictions': [...]}}], predictions with their .seconds, or events; {results!r:.200} came."
        ) from error
    return sorted(found, key=lambda one: (one.start, one.end))


def _of_events(events: Iterable[Detection], top_k: int) -> list[_Window]:
    """Stretches in which the same events go on; a label that goes on twice is shown once."""
    events = sorted(events, key=lambda one: -one.score)
    cuts = sorted({second for one in events for second in (one.start, one.end)})
    found = []
    for start, end in pairwise(cuts):
        scores: dict[str, float] = {}
        for one in events:
            if one.start <= start and end <= one.end:
                scores.setdefault(one.label, one.score)
        found.append(_Window(start, end, tuple(scores.items())[:top_k]))
    return found


def _palette(names: list[str], colors: Sequence[str] | Mapping[str, str] | None) -> dict[str, tuple[int, ...]]:
    """A colour for each label."""
    if isinstance(colors, str):
        raise VideoOptionError(f"colors={colors!r} must be a list of colours, or a colour for each label by its name.")
    try:
        if isinstance(colors, Mapping):
            named = {label: ImageColor.getrgb(color)[:3] for label, color in colors.items()}
            others: Sequence[tuple[int, ...]] = COLOURS
        else:
            named, others = {}, [ImageColor.getrgb(color)[:3] for color in colors or ()] or COLOURS
    except (TypeError, ValueError, AttributeError) as error:
        raise VideoOptionError(f"{error}: a colour is #rrggbb or a name such as orange.") from None
    left = [name for name in names if name not in named]
    return {**named, **{name: others[number % len(others)] for number, name in enumerate(left)}}


@lru_cache
def _font(path: str | None, names: tuple[str, ...], size: float) -> ImageFont.FreeTypeFont:
    """Raises VideoOptionError for a file that is no font, and for a font without letters of `names`."""
    try:
        font: Any = ImageFont.load_default(size) if path is None else ImageFont.truetype(path, size)
    except (OSError, ValueError) as error:
        raise VideoOptionError(f"font={path!r} can't be used: {error}. Give a TrueType or OpenType file.") from None
    empty = bytes(font.getmask("\U0010fffe"))  # what stands for a letter that the font lacks
    for letter in sorted({letter for name in names for letter in name}):
        if letter.isprintable() and not letter.isspace() and bytes(font.getmask(letter)) == empty:
            named = next(name for name in names if letter in name)
            raise VideoOptionError(f"The font has no {letter!r}, as in the label {named!r}. Give a font file that has.")
    return font


class _Labels:
    """Draws the labels of one video."""

    def __init__(
        self,
        video: DrawnOn,
        windows: list[_Window],
        rows: int,
        boxed: list[Detection],
        palette: Mapping[str, tuple[int, ...]],
        face: Any,
        size: float | None,
        scale: int | None,
    ):
        self.video, self.windows, self.rows, self.boxed, self.palette = video, windows, rows, boxed, palette
        self.scale = scale or -(-_READABLE // video.size[0])
        self.height, self.width = (self.scale * side for side in video.size)
        size = size or max(_SMALLEST, min(self.height, self.width) / 26)
        self.font, self.small = face(size), face(0.8 * size)
        self.margin, self.row, self.strip = round(0.6 * size), round(1.55 * size), round(1.5 * size)
        self.tall = self.rows * self.row + self.strip + (self.margin if self.rows else 0)
        self.clock = f"{self._clock(video.end)} / {self._clock(video.end)}"
        self.line = self.width - 3 * self.margin - round(self.small.getlength(self.clock))  # pixels of the line of time
        if self.tall > _SHARE * self.height or self.line < 2 * size:
            raise VideoOptionError(
                f"{self.rows} labels of {size:.0f} pixels don't fit into frames of {self.height}x{self.width}. Lower "
                "size or top_k, or enlarge the frames with scale."
            )
        self._starts = np.array([one.start for one in windows])
        self._ends = np.array([one.end for one in windows])
        seconds = video.begin + (np.arange(self.line) + 0.5) / self.line * (video.end - video.begin)
        self._line = [self._at(second) for second in seconds]
        self._panel = lru_cache(maxsize=2)(self._draw_panel)

    def draw(self, image: Image.Image, seconds: float) -> Image.Image:
        if self.scale > 1:
            image = image.resize((self.width, self.height), Image.Resampling.BICUBIC)
        for event in self.boxed:
            self._draw_box(image, event, seconds)
        panel, top = self._panel(self._at(seconds)), self.height - self.tall
        image.paste(panel, (0, top), panel)
        draw = ImageDraw.Draw(image)
        share = (seconds - self.video.begin) / max(self.video.end - self.video.begin, 1e-9)
        x, y = self.margin + round(share * (self.line - 1)), self.height - self.strip
        thick = max(1, round(self.strip / 14))
        draw.rectangle((x - thick, y + self.strip // 8, x + thick, self.height - self.strip // 8), fill=_INK)
        text = f"{self._clock(seconds)} / {self._clock(self.video.end)}"
        draw.text((self.width - self.margin, y + self.strip // 2), text, fill=_INK, font=self.small, anchor="rm")
        return image

    def _clock(self, seconds: float) -> str:
        """A time of the file that is written."""
        return clock(seconds + self.video.shift, self.video.end - self.video.begin)

    def _at(self, seconds: float) -> int | None:
        """Number of the window that is shown."""
        covers = np.flatnonzero((self._starts <= seconds + 1e-6) & (seconds < self._ends))
        if not len(covers):
            return None
        return int(covers[np.abs((self._starts + self._ends)[covers] / 2 - seconds).argmin()])

    def _draw_panel(self, number: int | None) -> Image.Image:
        """The labels of a window, above the line of time without its mark."""
        panel = Image.new("RGBA", (self.width, self.tall))
        draw = ImageDraw.Draw(panel)
        labels = () if number is None else self.windows[number].labels
        wide = min(self.width - 2 * self.margin, max(round(24 * self.row / 1.55), round(0.42 * self.width)))
        for place, (label, score) in enumerate(labels[: self.rows]):
            y = place * self.row
            inner = self.margin, y + 1, self.margin + wide, y + self.row - 2
            draw.rectangle(inner, fill=_SHADE)
            length = round(min(max(score, 0.0), 1.0) * wide)
            if length:
                draw.rectangle((*inner[:2], self.margin + length, inner[3]), fill=(*self.palette[label], 225))
            middle, right = (inner[1] + inner[3]) / 2, self.margin + wide - self.row // 4
            said = f"{score:.0%}" if 0 <= score <= 1 else f"{score:.3g}"
            draw.text((right, middle), said, fill=_INK, font=self.font, anchor="rm")
            room = wide - self.row // 2 - self.font.getlength(said + "  ")
            text = shortened(label, self.font, room)
            draw.text((self.margin + self.row // 4, middle), text, fill=_INK, font=self.font, anchor="lm")
        top = self.tall - self.strip
        draw.rectangle((0, top, self.width, self.tall), fill=_SHADE)
        above, below = top + self.strip // 3, top + self.strip - self.strip // 3
        draw.rectangle((self.margin, above, self.margin + self.line - 1, below), fill=_TRACK)
        for x, at in enumerate(self._line):
            if at is not None and self.windows[at].labels:
                colour = self.palette[self.windows[at].labels[0][0]]
                draw.line((self.margin + x, above, self.margin + x, below), fill=(*colour, 255))
        return panel

    def _draw_box(self, image: Image.Image, event: Detection, seconds: float) -> None:
        if not event.start <= seconds < event.end:
            return
        boxes = np.array(event.boxes)
        # Boxes are in pixels of the file, which need not be square.
        scale = np.array([self.width / self.video.metadata.width, self.height / self.video.metadata.height] * 2)
        box = scale * [np.interp(seconds, boxes[:, 0], boxes[:, side]) for side in range(1, 5)]
        draw, colour = ImageDraw.Draw(image), self.palette[event.label]
        draw.rectangle(tuple(box), outline=colour, width=max(2, self.row // 10))
        text = f"{event.label} {event.score:.0%}" if 0 <= event.score <= 1 else event.label
        x, y = float(box[0]), max(float(box[1]) - self.row, 0.0)
        wide = self.small.getlength(text) + self.row / 2
        draw.rectangle((x, y, x + wide, y + self.row), fill=colour)
        draw.text((x + self.row / 4, y + self.row / 2), text, fill=_INK, font=self.small, anchor="lm")
