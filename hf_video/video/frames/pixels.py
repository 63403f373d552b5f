"""From a decoded frame to upright RGB pixels of one size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, TypeVar

import av
import numpy as np
from av.sidedata.sidedata import Type
from av.video.reformatter import VideoReformatter

from hf_video.errors import VideoArrayError, VideoOptionError, check_choice, check_count, check_switch

if TYPE_CHECKING:
    import torch

Pixels = TypeVar("Pixels", np.ndarray, "torch.Tensor")
SQUARE = Fraction(1)
WIDEST = 16  # pixel widths in heights; real files state from 2:5 to 3:1, and what is beyond this is damage
Matrix = tuple[int, int, int, int]
UPRIGHT: Matrix = (1, 0, 0, 1)
WHITE = (255, 255, 255)
INTERPOLATIONS = ("bilinear", "bicubic")


def over(colour: np.ndarray, opacity: np.ndarray, background: tuple[int, int, int]) -> np.ndarray:
    """uint8 `colour` (..., 3) laid over one colour, by `opacity` uint8 (...): 0 shows the background alone, 255 nothing
    of it."""
    if opacity.size and opacity.min() == 255:
        return colour
    share = opacity[..., None].astype(np.uint16)
    behind = np.asarray(background, np.uint16)
    return ((colour * share + behind * (255 - share) + 127) // 255).astype(np.uint8)


def checked_background(background: Sequence[int] | str) -> tuple[int, int, int]:
    """Three whole numbers from 0 to 255, from those or from a colour's name ("black", "#808080"). Raises
    VideoOptionError."""
    try:
        if isinstance(background, str):
            from PIL import ImageColor

            background = ImageColor.getrgb(background)
        colour = tuple(background)
        if len(colour) == 3 and all(int(part) == part and 0 <= part <= 255 for part in colour):
            return int(colour[0]), int(colour[1]), int(colour[2])
    except (TypeError, ValueError):
        pass
    raise VideoOptionError(
        f'background={background!r} must be three whole numbers from 0 to 255 (red, green, blue) or a name as "black"'
    )


def shortest_edge_size(height: int, width: int, edge: int) -> tuple[int, int]:
    """Returns the size of a frame after its shorter side was resized to `edge`.

    The longer side is `int(long * edge / short)`, the rounding of torchvision's `Resize` that the official recipes were
    trained with.

    Args:
        height, width: Size of the frame in pixels.
        edge: Length of the shorter side in pixels.

    Returns:
        (height, width) in pixels.

    Raises:
        VideoOptionError: A number is below 1.
    """
    if min(height, width, edge) < 1:
        raise VideoOptionError(f"height, width and edge must be at least 1 pixel, got {height}, {width} and {edge}")
    if height <= width:
        return edge, int(width * edge / height)
    return int(height * edge / width), edge


def resize_frames(
    frames: Pixels, size: tuple[int, int], *, interpolation: str = "bilinear", antialias: bool = True
) -> Pixels:
    """Resizes all frames of a clip.

    Args:
        frames: uint8 of shape (frames, height, width, channels), numpy or torch.
        size: (height, width) in pixels.
        interpolation: "bilinear" or "bicubic".
        antialias: Whether shrinking averages over all pixels: each value is then at most one level from that of PIL's
            `Image.resize` with the same filter.

    Returns:
        uint8 of shape (frames, *size, channels), numpy or torch as `frames`; `frames` itself if it has that size.

    Raises:
        VideoArrayError: `frames` has another shape or dtype.
        VideoOptionError: The interpolation is unknown or the size below 1.
    """
    import torch
    import torch.nn.functional as functional

    if getattr(frames, "ndim", None) != 4 or str(frames.dtype) not in ("uint8", "torch.uint8"):
        what = f"{getattr(frames, 'dtype', type(frames).__name__)} of shape {tuple(getattr(frames, 'shape', ()))}"
        raise VideoArrayError(f"a clip must be uint8 of shape (frames, height, width, channels), got {what}")
    check_choice("interpolation", interpolation, INTERPOLATIONS)
    if len(size) != 2 or min(size) < 1:
        raise VideoOptionError(f"size must be (height, width) in pixels, each at least 1, got {size!r}")
    if min(frames.shape[1:3]) < 1:
        raise VideoArrayError(f"frames of {frames.shape[1]}x{frames.shape[2]} pixels can't be resized")
    if tuple(frames.shape[1:3]) == tuple(size):
        return frames
    if len(frames) == 0:
        shape = (0, *size, frames.shape[3])
        return np.empty(shape, np.uint8) if isinstance(frames, np.ndarray) else frames.new_empty(shape)
    # torch warns of arrays that it may not write to, such as a PIL image's.
    tensor = torch.from_numpy(np.require(frames, requirements=("C", "W"))) if isinstance(frames, np.ndarray) else frames
    # torch's uint8 kernel is several times faster than any float path if channels lie next to each other in memory: the
    # clip is only viewed as (frames, channels, height, width).
    planes = tensor.contiguous().permute(0, 3, 1, 2)
    resized = functional.interpolate(planes, size=tuple(size), mode=interpolation, antialias=antialias)
    resized = resized.permute(0, 2, 3, 1).contiguous()
    return resized if isinstance(frames, torch.Tensor) else resized.numpy()


def display_matrix(frame: av.VideoFrame) -> Matrix:
    """The quarter turn or mirror that the frame's display matrix asks for, as (a, b, c, d) of 0 and ±1:
    x' = a·x + c·y, y' = b·x + d·y. A matrix of zeros asks for nothing."""
    try:
        if frame.rotation == 0 and Type.DISPLAYMATRIX not in frame.side_data:
            return UPRIGHT
        whole = np.frombuffer(bytes(frame.side_data[Type.DISPLAYMATRIX]), np.int32)  # type: ignore[typeddict-item]
    except ValueError:  # PyAV can't list side data of a kind that it doesn't know, such as EXIF
        turns = round(-frame.rotation / 90) % 4 if np.isfinite(frame.rotation) else 0
        return (UPRIGHT, (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0))[turns]
    a, b, c, d = (int(whole[place]) for place in (0, 1, 3, 4))
    if abs(b) > abs(a):
        return 0, (b > 0) - (b < 0), (c > 0) - (c < 0) or 1, 0
    return (a > 0) - (a < 0) or 1, 0, 0, (d > 0) - (d < 0) or 1


def may_be_transparent(form: av.VideoFormat) -> bool:
    """Whether frames of this pixel format can have opacity: in a channel, or in the colours of a palette."""
    return form.has_palette or any(component.is_alpha for component in form.components)


def turn(pixels: np.ndarray, matrix: Matrix) -> np.ndarray:
    """Show pixels (height, width, channels) as a display matrix says: quarter turns and mirrors, as a view."""
    a, b, c, d = matrix
    if b:
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return pixels[:: d or 1, :: a or 1]


def clockwise_degrees(matrix: Matrix) -> int:
    """Quarter turns of a display matrix in degrees clockwise: 0, 90, 180 or 270, after the mirror if it has one."""
    a, b, c, d = matrix
    mirrored = a * d - b * c < 0
    if b:
        return 90 if (b > 0) != mirrored else 270
    return 180 if a < 0 and d < 0 else 0


def upright_aspect(aspect: Fraction, turned: bool) -> Fraction:
    """Width of a pixel in heights after the frame was turned: a quarter turn makes the width the height."""
    return 1 / aspect if turned else aspect


@dataclass(frozen=True)
class Sizing:
    """The size that frames are asked for in: `size` (height, width), or the `shortest_edge`, or as they are; with
    `square_pixels`, of frames that are as wide as they are shown."""

    size: tuple[int, int] | None = None
    shortest_edge: int | None = None
    square_pixels: bool = False

    def __post_init__(self) -> None:
        check_switch("square_pixels", self.square_pixels)
        if self.size is not None and self.shortest_edge is not None:
            raise VideoOptionError("give size or shortest_edge, not both")
        check_count("shortest_edge", self.shortest_edge, unit="pixels", optional=True)
        if self.size is not None:
            numbers = tuple(self.size) if isinstance(self.size, Iterable) else (self.size,)
            if len(numbers) != 2:
                raise VideoOptionError(f"size must be (height, width) in pixels, got {self.size!r}")
            object.__setattr__(self, "size", tuple(check_count("size", number, unit="pixels") for number in numbers))

    def target(self, height: int, width: int, aspect: Fraction = SQUARE) -> tuple[int, int]:
        """The size (height, width) that upright frames of this height and width come out with, whose pixels are
        `aspect` times as wide as high."""
        if self.size is not None:
            return self.size
        if self.square_pixels and 1 / WIDEST <= aspect <= WIDEST:
            width = max(round(width * aspect), 1)
        if self.shortest_edge is not None:
            return shortest_edge_size(height, width, self.shortest_edge)
        return height, width

    def apply(self, pixels: np.ndarray, aspect: Fraction = SQUARE) -> np.ndarray:
        """One upright frame (height, width, 3), resized if need be."""
        target = self.target(pixels.shape[0], pixels.shape[1], aspect)
        return pixels if pixels.shape[:2] == target else resize_frames(pixels[None], target)[0]


class FrameConverter:
    """Turns frames of one video into uint8 RGB arrays (height, width, 3).

    `coded_size` (height, width) is that of the video's first frame before rotation; later frames of another size are
    scaled to it, as a player does; `aspect` is how many times as wide as high its pixels are, before rotation. What is
    transparent shows `background`. `sizing` may ask for a resize afterwards, by antialiased torch (`scaler="exact"`)
    or within FFmpeg's swscale on the way to RGB (`"swscale"`: cheaper from about 1080p on, up to 33 levels away from
    the exact one at edges).
    """

    def __init__(
        self, sizing: Sizing, scaler: str, *, background: tuple[int, int, int] = WHITE, aspect: Fraction = SQUARE
    ):
        self.sizing = sizing
        self.scaler = scaler
        self.background = background
        self.aspect = aspect
        self.coded_size: tuple[int, int] | None = None
        self._reformatter = VideoReformatter()

    def to_rgb(self, frame: av.VideoFrame) -> np.ndarray | None:
        """The frame upright, in the size asked for; None if damage left it in a form that FFmpeg can't convert."""
        try:
            return self._rgb(frame)
        except (OSError, ValueError):  # FFmpeg's errors are OSErrors
            return None

    def _rgb(self, frame: av.VideoFrame) -> np.ndarray:
        height, width = self.coded_size or (frame.height, frame.width)
        matrix = display_matrix(frame)
        turned = matrix[1] != 0
        upright = (width, height) if turned else (height, width)
        aspect = upright_aspect(self.aspect, turned)
        target = self.sizing.target(*upright, aspect)
        if self.scaler == "swscale":
            height, width = target[::-1] if turned else target
            aspect = SQUARE
        pixels = self._converted(frame, height, width, "rgb24", 3)
        if may_be_transparent(frame.format):
            # Colours from the conversion above: to rgba, FFmpeg makes other ones of yuva420p.
            opacity = self._converted(frame, height, width, "rgba", 4)[..., 3]
            pixels = over(pixels, opacity, self.background)
        return self.sizing.apply(turn(pixels, matrix), aspect)

    def _converted(self, frame: av.VideoFrame, height: int, width: int, form: str, channels: int) -> np.ndarray:
        converted = self._reformatter.reformat(frame, width, height, form, interpolation="BILINEAR", threads=1)
        plane = converted.planes[0]
        pixels = np.frombuffer(memoryview(plane), np.uint8).reshape(height, plane.line_size)[:, : width * channels]
        return pixels.reshape(height, width, channels)


def is_uint16(array: np.ndarray) -> bool:
    """In either byte order."""
    return array.dtype.kind == "u" and array.dtype.itemsize == 2
