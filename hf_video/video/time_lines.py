"""Videos with a line of time under their frames, and bars for what happens in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hf_video.errors import VideoArrayError
from hf_video.video.contact_sheet import fitted, shortened

_PAPER, _INK, _FAINT, _RULE = (250, 250, 248), (30, 32, 36), (96, 100, 106), (222, 222, 218)
COLOURS = (
    *((31, 111, 180), (196, 78, 18), (38, 132, 84), (150, 60, 150), (176, 42, 62), (94, 98, 18)),
    *((20, 124, 132), (110, 80, 200), (140, 86, 50), (90, 96, 104)),
)
_WIDTH, _MARGIN, _GUTTER = 1280, 16, 190  # pixels; the gutter holds the labels
_TEXT, _TITLE, _BAR, _GAP, _SHORTEST = 14, 18, 15, 3, 3
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200)


@dataclass(frozen=True)
class TimeBar:
    """Something that happens from `start` to `end` seconds; `note` stands in the bar where it has room."""

    label: str
    start: float
    end: float
    note: str = ""


@dataclass(frozen=True)
class TimeLine:
    """A video: its `title`, evenly spread `frames` uint8 (T, H, W, 3), `begin` and `end` in seconds, and `bars`."""

    title: str
    frames: np.ndarray
    begin: float
    end: float
    bars: Sequence[TimeBar] = ()


def time_line_sheet(lines: Sequence[TimeLine]) -> Image.Image:
    """A PIL image of videos one below the other: frames, time, and for each label a lane of bars. Bars that overlap are
    drawn below each other; short ones are 3 pixels wide at least. Raises VideoArrayError for no videos."""
    if not lines:
        raise VideoArrayError("A sheet of time lines needs at least one video; the list is empty.")
    parts = [_drawn(line) for line in lines]
    sheet = Image.new("RGB", (_WIDTH, _MARGIN + sum(part.height + _MARGIN for part in parts)), _PAPER)
    top = _MARGIN
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height + _MARGIN
    return sheet


def lanes(
    bars: Sequence[TimeBar], begin: float, end: float, width: int
) -> list[tuple[str, list[tuple[int, int, int, TimeBar]]]]:
    """Where bars are drawn: for each label, by its first bar, (row of its lane, first and last pixel of `width`, bar).
    Two bars of a row never touch."""
    found: dict[str, list[tuple[int, int, int, TimeBar]]] = {}
    scale = width / max(end - begin, 1e-9)
    for bar in sorted(bars, key=lambda bar: (bar.start, bar.end)):
        left = min(max(round((bar.start - begin) * scale), 0), width - _SHORTEST)
        right = min(max(round((bar.end - begin) * scale) - 1, left + _SHORTEST - 1), width - 1)
        lane = found.setdefault(bar.label, [])
        row = next(row for row in count() if all(left > other + 1 for at, _, other, _ in lane if at == row))
        lane.append((row, left, right, bar))
    return list(found.items())


def _drawn(line: TimeLine) -> Image.Image:
    """One video."""
    width, left = _WIDTH - 2 * _MARGIN - _GUTTER, _MARGIN + _GUTTER
    box = width // len(line.frames)
    height = min(max(round((box - 2) * line.frames.shape[1] / line.frames.shape[2]), 1), box)
    found = lanes(line.bars, line.begin, line.end, width)
    heights = [max(1 + max(row for row, *_ in lane), 1) * (_BAR + _GAP) + _GAP for _, lane in found]
    axis = 28 + height + 6
    part = Image.new("RGB", (_WIDTH, axis + 22 + max(sum(heights), _BAR + 2 * _GAP)), _PAPER)
    draw, font = ImageDraw.Draw(part), ImageFont.load_default(_TEXT)
    draw.text(
        (_MARGIN, 0),
        shortened(line.title, _TITLE, _WIDTH - 2 * _MARGIN),
        fill=_INK,
        font=ImageFont.load_default(_TITLE),
    )
    for number, frame in enumerate(line.frames):
        part.paste(fitted(frame, box - 2, height), (left + number * box + 1, 28))
    for second in _ticks(line.begin, line.end, width):
        x = left + round((second - line.begin) / (line.end - line.begin) * (width - 1))
        draw.line((x, axis, x, part.height), fill=_RULE)
        text = clock(second, line.end - line.begin)
        # The last one may lie at the edge of the picture.
        x = min(x + 3, _WIDTH - 2 - round(font.getlength(text)))
        draw.text((x, axis + 1), text, fill=_FAINT, font=font)
    draw.line((left, axis, left + width, axis), fill=_FAINT)
    if not found:
        draw.text((_MARGIN, axis + 21), "no events", fill=_FAINT, font=font)
    top = axis + 22
    for number, ((label, lane), tall) in enumerate(zip(found, heights, strict=True)):
        colour = COLOURS[number % len(COLOURS)]
        draw.text((_MARGIN, top), shortened(label, _TEXT, _GUTTER - 10), fill=colour, font=font)
        for row, first, last, bar in lane:
            y = top + row * (_BAR + _GAP)
            draw.rectangle((left + first, y, left + last, y + _BAR - 1), fill=colour)
            if bar.note and font.getlength(bar.note) + 6 <= last - first:
                draw.text((left + first + 3, y - 1), bar.note, fill=_PAPER, font=font)
        top += tall
    return part


def _ticks(begin: float, end: float, width: int) -> list[float]:
    """Round seconds, far enough apart for their text; none where there is no time."""
    if end - begin <= 0:
        return []
    step = next((step for step in _STEPS if step / (end - begin) * width >= 80), _STEPS[-1])
    step = max(step, (end - begin) * 80 / width) if step == _STEPS[-1] else step
    return [n * step for n in range(int(np.ceil(begin / step - 1e-9)), int(np.floor(end / step + 1e-9)) + 1)]


def clock(second: float, length: float) -> str:
    if length < 10:
        return f"{second:.1f} s"
    minutes, seconds = divmod(round(second), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}" if minutes >= 60 else f"{minutes}:{seconds:02d}"
