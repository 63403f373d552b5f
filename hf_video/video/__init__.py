"""Video files to frames to clips: reading, writing, sampling, transforms. No labels, no models.

Names are imported when they are first used, so that reading a video doesn't import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "FrameSample": "frame_sample",
    "VideoFrames": "frames",
    "VideoMetadata": "frames",
    "VideoPart": "part",
    "VideoReader": "reader",
    "array_to_rgb": "rgb",
    "flip_flow": "flow",
    "image_to_rgb": "rgb",
    "motion_energy": "motion",
    "optical_flow": "flow",
    "resize_frames": "resize",
    "sample_video": "sample_reader",
    "shortest_edge_size": "resize",
    "write_video": "writer",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
