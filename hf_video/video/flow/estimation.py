"""Optical flow between frames, as the temporal stream of two-stream networks takes it.

A flow field says for every pixel of a frame where it is in the next one: (height, width, 2), x to the right and y down,
in pixels. Fields are kept the way dense_flow writes its images, which the official weights were trained on: clipped to
±20 pixels and in 256 steps, `round((v + 20) / 40 · 255)`, so that 128 stands for no motion. (dense_flow also goes
through JPEG; we do not.) A stack holds the fields of L consecutive pairs; as channels they are x1, y1, x2, y2, …

OpenCV is imported when the first field is computed: `pip install hf_video[flow]`; TV-L1 is in opencv-contrib-python.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_video.errors import (
    BackendError,
    ShortVideoError,
    VideoArrayError,
    VideoOptionError,
    check_choice,
    check_count,
    check_number,
    unknown_name,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

METHODS = ("dis", "farneback", "tvl1")
BOUND = 20.0  # pixels; dense_flow's -b 20
STILL = 128  # what no motion is quantised to
PRESETS = ("ultrafast", "fast", "medium")
FARNEBACK = {"pyr_scale": 0.5, "levels": 3, "winsize": 15, "iterations": 3, "poly_n": 5, "poly_sigma": 1.2, "flags": 0}

Field = Callable[[np.ndarray, np.ndarray], np.ndarray]


def load_opencv(method: str = "dis") -> Any:
    """Imports OpenCV.

    Args:
        method: Of flow; "tvl1" needs OpenCV's contributed modules.

    Returns:
        The module `cv2`.

    Raises:
        BackendError: It is not there, or lacks the method; says what to install.
    """
    try:
        import cv2
    except ImportError as error:
        raise BackendError(
            f"Optical flow needs OpenCV, which can't be imported here ({error}). Install it: "
            "pip install 'hf_video[flow]' (opencv-python-headless)."
        ) from error
    if method == "tvl1" and not hasattr(getattr(cv2, "optflow", None), "DualTVL1OpticalFlow_create"):
        raise BackendError(
            f"This OpenCV ({cv2.__version__}) has no TV-L1. Install opencv-contrib-python-headless in place of "
            'opencv-python-headless, or use method="dis" or "farneback".'
        )
    return cv2


def flow_method(method: str = "dis", **options: Any) -> Field:
    """Makes a function that computes the flow between two grey frames.

    Args:
        method: `"dis"` (Kroeger et al. 2016), `"farneback"` (2003) or `"tvl1"` (Zach et al. 2007), as in the papers.
        options: Of dis: `preset` "ultrafast", "fast" or "medium" (default). Of farneback: keywords of
            `cv2.calcOpticalFlowFarneback`, by default its tutorial's. Of tvl1: keywords of
            `cv2.optflow.DualTVL1OpticalFlow_create`, by default its own.

    Returns:
        A function (grey frame, next grey frame), both (H, W) uint8, to (H, W, 2) float32 in pixels. It is for one
        thread: OpenCV's objects hold buffers.

    Raises:
        VideoOptionError: The method or an option is unknown.
        BackendError: OpenCV is missing or was built without the method.
    """
    check_choice("method", method, METHODS)
    cv2 = load_opencv(method)
    if method == "farneback":
        for name in options.keys() - FARNEBACK.keys():
            raise VideoOptionError(unknown_name("farneback has no option", name, FARNEBACK))
        values = {**FARNEBACK, **options}
        return lambda first, second: cv2.calcOpticalFlowFarneback(first, second, None, **values)
    if method == "dis":
        preset = options.pop("preset", "medium")
        if preset not in PRESETS or options:
            raise VideoOptionError(f"dis has one option, preset, one of {PRESETS}; {preset!r} and {options} came.")
        computer = cv2.DISOpticalFlow_create(getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{preset.upper()}"))
    else:
        try:
            computer = cv2.optflow.DualTVL1OpticalFlow_create(**options)
        except (cv2.error, TypeError) as error:
            raise VideoOptionError(f"tvl1 can't take {options}: {error}") from error
    return lambda first, second: computer.calc(first, second, None)


def optical_flow(
    frames: np.ndarray,
    *,
    pairs: np.ndarray | None = None,
    method: str = "dis",
    bound: float | None = None,
    workers: int | None = None,
    **options: Any,
) -> np.ndarray:
    """Computes the flow of a clip, several fields at once (OpenCV leaves Python's lock while it computes).

    Args:
        frames: (N, H, W, 3) uint8 RGB.
        pairs: (P, 2) numbers of frames, from which to which; None takes each frame and the next.
        method, options: As in `flow_method`.
        bound: In pixels: fields are clipped and quantised (`quantize`). None keeps them as floats.
        workers: Threads; None takes one for each processor. The result does not depend on it.

    Returns:
        (P, H, W, 2), x then y, in pixels: float32, or uint8 with `bound`.

    Raises:
        VideoArrayError: The frames have another shape or dtype.
        ShortVideoError: There is one frame and no `pairs`.
        VideoOptionError, BackendError: As in `flow_method`; also for wrong `pairs` or `workers`.
    """
    if not isinstance(frames, np.ndarray) or frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        got = f"{getattr(frames, 'dtype', type(frames).__name__)} {tuple(getattr(frames, 'shape', ()))}"
        raise VideoArrayError(f"Flow is computed from uint8 frames (frames, height, width, 3); {got} came.")
    if pairs is None:
        if len(frames) < 2:
            raise ShortVideoError(f"Flow lies between two frames and {len(frames)} came.")
        pairs = np.stack([np.arange(len(frames) - 1), np.arange(1, len(frames))], axis=1)
    pairs = np.asarray(pairs)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
        raise VideoOptionError(f"pairs must be whole numbers (pairs, 2); {pairs.dtype} {pairs.shape} came.")
    if pairs.size and (pairs.min() < 0 or pairs.max() >= len(frames)):
        raise VideoOptionError(
            f"pairs names frames from {pairs.min()} to {pairs.max()}; there are 0 to {len(frames) - 1}."
        )
    check_count("workers", workers, optional=True)
    flow_method(method, **options)  # wrong options fail here and not in a thread
    cv2 = load_opencv(method)
    grey = {i: cv2.cvtColor(frames[i], cv2.COLOR_RGB2GRAY) for i in np.unique(pairs).tolist()}
    held = threading.local()
    fields = np.empty((len(pairs), *frames.shape[1:3], 2), np.float32 if bound is None else np.uint8)

    def compute(number: int) -> None:
        if not hasattr(held, "field"):
            held.field = flow_method(method, **options)
        first, second = pairs[number].tolist()
        field = held.field(grey[first], grey[second])
        fields[number] = field if bound is None else quantize(field, bound=bound)

    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        list(pool.map(compute, range(len(pairs))))
    return fields


def quantize(flow: np.ndarray, *, bound: float = BOUND) -> np.ndarray:
    """Quantises flow.

    Args:
        flow: In pixels, any shape.
        bound: Pixels that become 255; minus as many become 0, and what lies beyond is cut.

    Returns:
        uint8 of the same shape; half-way steps go to the even one, as OpenCV's cvRound in dense_flow.

    Raises:
        VideoOptionError: The bound is 0 or less.
    """
    scaled = np.clip(np.asarray(flow, np.float32), -check_number("bound", bound, above=0), bound)
    return np.rint((scaled + np.float32(bound)) * np.float32(255 / (2 * bound))).astype(np.uint8)


def dequantize(images: np.ndarray, *, bound: float = BOUND) -> np.ndarray:
    """Turns quantised flow into pixels.

    Args:
        images: uint8, any shape, what `quantize` gave.
        bound: The same, in pixels.

    Returns:
        float32 in pixels, off by at most bound / 255 inside the bound. STILL is not quite 0 but bound / 255, as 256
        steps
        have no middle one.

    Raises:
        VideoOptionError: The bound is 0 or less.
    """
    return images.astype(np.float32) * np.float32(2 * check_number("bound", bound, above=0) / 255) - np.float32(bound)


def flip_flow(flow: np.ndarray) -> np.ndarray:
    """Mirrors flow left to right: the places are reversed **and x is negated** (255 - x of quantised fields).

    Args:
        flow: (..., H, W, 2): uint8 of `quantize`, or floats in pixels.

    Returns:
        The flow of the mirrored frames, a copy of the same shape and dtype.

    Raises:
        VideoArrayError: The last dimension is not 2, or there are fewer than three.
    """
    if flow.ndim < 3 or flow.shape[-1] != 2:
        raise VideoArrayError(f"A flow field has shape (..., height, width, 2) and {tuple(flow.shape)} came.")
    flipped = flow[..., ::-1, :].copy()
    flipped[..., 0] = 255 - flipped[..., 0] if flow.dtype == np.uint8 else -flipped[..., 0]
    return flipped


def stack_frames(indices: ArrayLike, first: int, last: int, length: int) -> np.ndarray:
    """Chooses the frames of each stack of flow fields.

    The stack of frame t holds the fields t to t+1, t+1 to t+2, … (Simonyan and Zisserman 2014, eq. 1). Near the end of
    the video (frames `first` to `last`, not included) it begins earlier, so that all of its fields exist. A video of no
    more than `length` frames has fewer fields: its last one is repeated.

    Args:
        indices: (...,) frame numbers t.
        first: Of the video's frames.
        last: Of the video's frames, not included.
        length: Fields of a stack.

    Returns:
        (..., length + 1) frame numbers.

    Raises:
        ShortVideoError: The video has one frame.
    """
    if last - first < 2:
        raise ShortVideoError(f"Flow lies between two frames, and there are {last - first} from {first} to {last}.")
    start = np.clip(np.asarray(indices, dtype=np.int64), first, max(last - 1 - length, first))
    return np.minimum(start[..., None] + np.arange(length + 1), last - 1)


def stack_pairs(frames: np.ndarray) -> np.ndarray:
    """Lists the pairs of frames between which a stack's fields lie.

    Args:
        frames: (..., L + 1), what `stack_frames` gave.

    Returns:
        (..., L, 2): from which frame to which. Where the video has ended the last pair stands again.
    """
    pairs = np.stack([frames[..., :-1], frames[..., 1:]], axis=-1)
    ended = pairs[..., 0] == pairs[..., 1]
    return np.where(ended[..., None], pairs - np.array([1, 0]), pairs)


def flow_stacks(fields: np.ndarray) -> np.ndarray:
    """Makes channels of flow fields.

    Args:
        fields: (..., L, H, W, 2).

    Returns:
        A copy (..., 2·L, H, W), in the order x1, y1, x2, y2, ….
    """
    planes = np.moveaxis(fields, -1, -3)  # (..., L, 2, H, W)
    return np.ascontiguousarray(planes).reshape(*planes.shape[:-4], -1, *planes.shape[-2:])
