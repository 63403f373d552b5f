"""One way to call any processor: frames of one clip in, model inputs with one row per crop out.

Frames are decoded and chosen before, by our own reader and samplers, whatever is installed; so a processor never sees
a file, and the same file gives the same `pixel_values` with and without torchvision or torchcodec.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from hf_video.base.processing import ClipProcessing
from hf_video.errors import CheckpointError, VideoOptionError

Rows = dict[str, torch.Tensor]
ClipProcessor = Callable[..., Rows]


def clip_processor(processor: Any) -> ClipProcessor:
    """A function (frames (T, H, W, 3) uint8, crops) -> tensors whose first dimension is the crops, such as
    `{"pixel_values": (crops, T, C, H, W)}`.

    Stock processors have no three crops; asking them for it raises VideoOptionError. A processor with `frames_needed`
    is called with all frames that a clip needs, and third with these numbered in them.
    """
    if isinstance(processor, ClipProcessing):
        return partial(_with_ours, processor)
    takes_video = any("VideoProcessor" in kind.__name__ for kind in type(processor).__mro__)
    return partial(_with_stock_video if takes_video else _with_stock_image, processor)


def _with_ours(processor: ClipProcessing, frames: np.ndarray, crops: int, needed: np.ndarray | None = None) -> Rows:
    if needed is not None:
        return _tensors(processor.process_needed(frames, needed, num_crops=crops, return_tensors="pt"))
    # Frames that could be read either way round are not: they come from a reader, channels last.
    return _tensors(
        processor(
            frames,
            num_crops=crops,
            do_sample_frames=False,
            return_tensors="pt",
            input_data_format="channels_last",
        )
    )


def _with_stock_image(processor: Any, frames: np.ndarray, crops: int) -> Rows:
    _one_crop(processor, crops)
    return _tensors(processor(list(frames), return_tensors="pt"))


def _with_stock_video(processor: Any, frames: np.ndarray, crops: int) -> Rows:
    _one_crop(processor, crops)
    planes = torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2)))
    return _tensors(processor(planes, do_sample_frames=False, return_tensors="pt"))


def _one_crop(processor: Any, crops: int) -> None:
    if crops > 1:
        raise VideoOptionError(
            f"{type(processor).__name__} has no {crops} crops; use 1 crop, or a processor of hf_video "
            "(hf_video.base.processing.VideoImageProcessor)."
        )


def _tensors(features: Any) -> Rows:
    return {name: value for name, value in features.items() if isinstance(value, torch.Tensor)}


def find_processors(model: Any, image_processor: Any, video_processor: Any) -> tuple[Any, Any]:
    """The processors that a pipeline got, or those that lie beside the model's weights.

    Raises CheckpointError where there are none, with what loading them said.
    """
    if image_processor is not None or video_processor is not None:
        return image_processor, video_processor
    from transformers import AutoImageProcessor, AutoVideoProcessor

    origin = getattr(model, "name_or_path", "")
    reasons = []
    for position, auto in enumerate((AutoImageProcessor, AutoVideoProcessor)):
        try:
            found = auto.from_pretrained(origin) if origin else None
        except Exception as error:
            reasons.append(f"{auto.__name__}: {str(error).strip().splitlines()[0]}")
            continue
        if found is not None:
            return (found, None) if position == 0 else (None, found)
    where = f"beside the model in {origin!r}" if origin else "given, and the model was not loaded from a folder"
    raise CheckpointError(
        f"No image processor was found {where}. Save one there (preprocessor_config.json), or pass "
        "image_processor=, such as hf_video.VideoMAEImageProcessor()." + "".join(f"\n  {reason}" for reason in reasons)
    )
