"""Video Swin: the contract, for each way it is configured."""

from __future__ import annotations

from typing import ClassVar

from contract import ModelContract, TrainerContract

TINY = {
    "image_size": 32,
    "num_frames": 8,
    "embed_dim": 8,
    "depths": (1, 2),
    "num_heads": (1, 2),
    "window_size": (4, 3, 3),
    "mlp_ratio": 2,
}


class TestVideoSwin(TrainerContract, ModelContract):
    """Shifted along rows and columns in the second stage, with windows that are not full; along time for long clips."""

    model_type = "video_swin"
    tiny = TINY
    clip = (8, 32, 32)
    tokens = 4 * 4 * 4
    pyramid = True
    heads = (1, 2, 2)
    shallow: ClassVar = {"depths": (1,), "num_heads": (1,)}
    other_clips = ((16, 32, 32), (1, 5, 3), (3, 29, 37), (7, 40, 64))


class TestEveryFrame(ModelContract):
    """The stem of VIOLET; windows that shrink to the grid along time and rows, so that only columns are shifted."""

    variant = True
    model_type = "video_swin"
    tiny: ClassVar = {**TINY, "temporal_stride": 1, "qkv_bias": False, "patch_norm": False, "window_size": (8, 7, 3)}
    clip = (4, 24, 40)
    tokens = 4 * 3 * 5
    pyramid = True
    heads = (1, 2, 2)
    shallow: ClassVar = {"depths": (1,), "num_heads": (1,)}
    other_clips = ((5, 24, 40), (1, 8, 9))
