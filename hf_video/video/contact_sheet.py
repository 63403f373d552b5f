"""Many clips on one picture, with a line of text under each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hf_video.errors import VideoArrayError

_PAPER, _INK, _FAINT = (250, 250, 248), (30, 32, 36), (120, 124, 130)
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
    clips: Sequence[SheetClip],
    *,
    columns: int = 4,
    frames_per_clip: int = 4,
    cell: int = 72,
    title: str = "",
) -> Image.Image:
    """A PIL image that shows `frames_per_clip` evenly spread frames of each clip side by side, time from left to right.

    `cell` is the width of one frame in pixels; heights follow each clip's shape. Raises VideoArrayError for no clips or
    frames that are not uint8 (T, H, W, 3).
    """
    if not clips:
        raise VideoArrayError("A contact sheet needs at least one clip; the list is empty.")
    for clip in clips:
        if clip.frames.ndim != 4 or clip.frames.shape[-1] != 3 or clip.frames.dtype != np.uint8:
            raise VideoArrayError(
                f"A clip has shape {clip.frames.shape} and dtype {clip.frames.dtype}; expected uint8 (T, H, W, 3)."
            )
    heights = [max(round(cell * clip.frames.shape[1] / clip.frames.shape[2]), 1) for clip in clips]
    height = max(heights)
    gap, margin, text, head = 2, 16, 36, 44 if title else 0
    width = frames_per_clip * (cell + gap) - gap
    step_x, step_y = width + margin, height + text + margin
    rows = -(-len(clips) // columns)
    sheet = Image.new("RGB", (margin + columns * step_x, margin + head + rows * step_y), _PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((margin, margin), title, fill=_INK, font=ImageFont.load_default(20))
    for number, clip in enumerate(clips):
        x, y = margin + number % columns * step_x, margin + head + number // columns * step_y + height - heights[number]
        tone = _TONES[clip.tone]
        picks = np.linspace(0, len(clip.frames) - 1, frames_per_clip).round().astype(int)
        for i, frame in enumerate(clip.frames[picks]):
            sheet.paste(
                Image.fromarray(frame).resize((cell, heights[number]), Image.Resampling.LANCZOS),
                (x + i * (cell + gap), y),
            )
        if clip.tone != "plain":
            draw.rectangle((x - 3, y - 3, x + width + 2, y + heights[number] + 2), outline=tone, width=2)
        draw.text((x, y + heights[number] + 5), clip.caption, fill=tone, font=ImageFont.load_default(14))
        draw.text((x, y + heights[number] + 21), clip.note, fill=_FAINT, font=ImageFont.load_default(11))
    return sheet
