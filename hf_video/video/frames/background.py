"""What shows through where a picture is transparent."""

from __future__ import annotations

from typing import Any

import numpy as np

from hf_video.errors import VideoOptionError

WHITE = (255, 255, 255)


def over(colour: np.ndarray, opacity: np.ndarray, background: tuple[int, int, int]) -> np.ndarray:
    """uint8 `colour` (..., 3) laid over one colour, by `opacity` uint8 (...): 0 shows the background alone, 255 nothing
    of it."""
    if opacity.size and opacity.min() == 255:
        return colour
    share = opacity[..., None].astype(np.uint16)
    behind = np.asarray(background, np.uint16)
    return ((colour * share + behind * (255 - share) + 127) // 255).astype(np.uint8)


def checked_background(background: Any) -> tuple[int, int, int]:
    """Three whole numbers from 0 to 255, from those or from a colour's name ("black", "#808080"). Raises
    VideoOptionError."""
    try:
        colour = _named(background) if isinstance(background, str) else tuple(background)
        if len(colour) == 3 and all(int(part) == part and 0 <= part <= 255 for part in colour):
            return tuple(int(part) for part in colour)
    except (TypeError, ValueError):
        pass
    raise VideoOptionError(
        f'background={background!r} must be three whole numbers from 0 to 255 (red, green, blue) or a name as "black"'
    )


def _named(colour: str) -> tuple[int, ...]:
    from PIL import ImageColor

    return ImageColor.getrgb(colour)
