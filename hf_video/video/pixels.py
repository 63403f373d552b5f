"""From a decoded frame to upright RGB pixels of one size."""

from __future__ import annotations

from dataclasses import dataclass

import av
import numpy as np
from av.sidedata.sidedata import Type
from av.video.reformatter import VideoReformatter

from hf_video.video.resize import resize_frames, shortest_edge_size


def display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """Signs-carrying part (a, b, c, d) of the frame's display matrix: x' = a·x + c·y, y' = b·x + d·y."""
    if frame.rotation == 0 and Type.DISPLAYMATRIX not in frame.side_data:
        return 1, 0, 0, 1
    matrix = np.frombuffer(bytes(frame.side_data[Type.DISPLAYMATRIX]), np.int32)
    return int(matrix[0]), int(matrix[1]), int(matrix[3]), int(matrix[4])


def turn(pixels: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """Show pixels (height, width, channels) as the display matrix says: quarter turns and mirrors, as a view."""
    a, b, c, d = matrix
    across, down = a, d
    if abs(b) > abs(a):
        pixels, across, down = pixels.swapaxes(0, 1), c, b
    if across < 0:
        pixels = pixels[:, ::-1]
    if down < 0:
        pixels = pixels[::-1]
    return pixels


def clockwise_degrees(frame: av.VideoFrame) -> int:
    """Quarter turns that the display matrix asks for, in degrees clockwise: 0, 90, 180 or 270."""
    return round(-frame.rotation / 90) * 90 % 360


@dataclass(frozen=True)
class Sizing:
    """The size that frames are asked for in: `size` (height, width), or the `shortest_edge`, or as they are."""

    size: tuple[int, int] | None = None
    shortest_edge: int | None = None

    def target(self, height: int, width: int) -> tuple[int, int]:
        """The size (height, width) that upright frames of this height and width come out with."""
        if self.size is not None:
            return self.size
        if self.shortest_edge is not None:
            return shortest_edge_size(height, width, self.shortest_edge)
        return height, width

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """One frame (height, width, 3), resized if need be."""
        target = self.target(*pixels.shape[:2])
        return pixels if pixels.shape[:2] == target else resize_frames(pixels[None], target)[0]


class Painter:
    """Turns frames of one video into uint8 RGB arrays (height, width, 3).

    `coded_size` (height, width) is that of the video's first frame before rotation; later frames of another size are
    scaled to it, as a player does. `sizing` may ask for a resize afterwards, by antialiased torch (`scaler="exact"`)
    or within FFmpeg's swscale on the way to RGB (`"swscale"`: cheaper from about 1080p on, up to 33 levels away from
    the exact one at edges).
    """

    def __init__(self, sizing: Sizing, scaler: str):
        self.sizing = sizing
        self.scaler = scaler
        self.coded_size: tuple[int, int] | None = None
        self._reformatter = VideoReformatter()

    def rgb(self, frame: av.VideoFrame) -> np.ndarray | None:
        """The frame upright, in the size asked for; None if damage left it in a form that FFmpeg can't convert."""
        try:
            return self._rgb(frame)
        except (OSError, ValueError):  # FFmpeg's errors are OSErrors
            return None

    def _rgb(self, frame: av.VideoFrame) -> np.ndarray:
        height, width = self.coded_size or (frame.height, frame.width)
        matrix = display_matrix(frame)
        turned = abs(matrix[1]) > abs(matrix[0])
        upright = (width, height) if turned else (height, width)
        target = self.sizing.target(*upright)
        if self.scaler == "swscale":
            height, width = target[::-1] if turned else target
        converted = self._reformatter.reformat(frame, width, height, "rgb24", interpolation="BILINEAR", threads=1)
        plane = converted.planes[0]
        pixels = np.frombuffer(plane, np.uint8).reshape(height, plane.line_size)[:, : width * 3]
        pixels = turn(pixels.reshape(height, width, 3), matrix)
        return self.sizing.apply(pixels)
