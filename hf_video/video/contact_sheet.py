"""Many clips on one picture, with a line of text under each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hf_video.errors import VideoArrayError

_PAPER, _INK, _FAINT, _BOX = (250, 250, 248), (30, 32, 36), (96, 100, 106), (232, 232, 230)
_CAPTION, _NOTE = 18, 14  # pixels
_TONES = {"good": (38, 132, 84), "bad": (196, 56, 48), "plain": _INK}


@dataclass(frozen=True)
class SheetClip:
    """One cell of a sheet: `frames` uint8 (T, H, W, 3), a bold `caption`, a small `note` under it, and a `tone`
    ("good" green, "bad" red, "plain") for caption and border."""

    frames: np.ndarray
    caption: str
    note: str = ""
    tone: str = "plain"


def contact_sheet(
    clips: Sequence[SheetClip], *, columns: int = 4, frames_per_clip: int = 4, cell: int = 72, title: str = ""
) -> Image.Image:
    """A PIL image that shows `frames_per_clip` evenly spread frames of each clip side by side, time from left to right.

    `cell` is the width of a frame's box in pixels; all boxes are as high as the clips need, at most `cell`. Raises
    VideoArrayError for no clips or frames that are not uint8 (T, H, W, 3).
    """
    if not clips:
        raise VideoArrayError("A contact sheet needs at least one clip; the list is empty.")
    for clip in clips:
        if clip.frames.ndim != 4 or clip.frames.shape[-1] != 3 or clip.frames.dtype != np.uint8:
            raise VideoArrayError(
                f"A clip has shape {clip.frames.shape} and dtype {clip.frames.dtype}; expected uint8 (T, H, W, 3)."
            )
    # One height for all: that of the clips' own shape, but a tall clip doesn't stretch the sheet.
    height = min(max(max(round(cell * clip.frames.shape[1] / clip.frames.shape[2]), 1) for clip in clips), cell)
    gap, margin, head = 2, 16, 44 if title else 0
    width = frames_per_clip * (cell + gap) - gap
    captions = [_lines(clip.caption, _CAPTION, width, 2) for clip in clips]
    notes = [_lines(clip.note, _NOTE, width, 2) for clip in clips]
    text = 8 + max(
        len(caption) * _line_height(_CAPTION) + len(note) * _line_height(_NOTE)
        for caption, note in zip(captions, notes, strict=True)
    )
    step_x, step_y = width + margin, height + text + margin
    rows = -(-len(clips) // columns)
    sheet = Image.new("RGB", (margin + columns * step_x, margin + head + rows * step_y), _PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((margin, margin), title, fill=_INK, font=ImageFont.load_default(20))
    for number, clip in enumerate(clips):
        x, y = margin + number % columns * step_x, margin + head + number // columns * step_y
        tone = _TONES[clip.tone]
        picks = np.linspace(0, len(clip.frames) - 1, frames_per_clip).round().astype(int)
        for i, frame in enumerate(clip.frames[picks]):
            sheet.paste(fitted(frame, cell, height), (x + i * (cell + gap), y))
        if clip.tone != "plain":
            draw.rectangle((x - 3, y - 3, x + width + 2, y + height + 2), outline=tone, width=2)
        y += height + 6
        for lines, size, colour in ((captions[number], _CAPTION, tone), (notes[number], _NOTE, _FAINT)):
            for line in lines:
                draw.text((x, y), line, fill=colour, font=ImageFont.load_default(size))
                y += _line_height(size)
    return sheet


def fitted(frame: np.ndarray, width: int, height: int) -> Image.Image:
    """The whole frame in a box of that size, in its own proportions."""
    share = min(width / frame.shape[1], height / frame.shape[0])
    size = max(round(frame.shape[1] * share), 1), max(round(frame.shape[0] * share), 1)
    box = Image.new("RGB", (width, height), _BOX)
    picture = Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)
    box.paste(picture, ((width - size[0]) // 2, (height - size[1]) // 2))
    return box


def _line_height(size: int) -> int:
    return round(size * 1.3)


def _lines(text: str, size: int, width: int, most: int) -> list[str]:
    """The text in no more than `most` lines of `width` pixels, with an ellipsis where it is longer."""
    font = ImageFont.load_default(size)
    lines: list[str] = []
    for word in text.split():
        wider = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(wider) <= width:
            lines[-1] = wider
        else:
            lines.append(word)
    if len(lines) > most:
        lines[most - 1 :] = [" ".join(lines[most - 1 :])]
    return [shortened(line, size, width) for line in lines]


def shortened(line: str, font: float | ImageFont.FreeTypeFont, width: float) -> str:
    """The text in `width` pixels, with an ellipsis where it is longer; `font` is one, or the size of Pillow's own."""
    used = ImageFont.load_default(font) if isinstance(font, (int, float)) else font
    if used.getlength(line) <= width:
        return line
    while line and used.getlength(line + "…") > width:
        line = line[:-1]
    return line.rstrip() + "…"
