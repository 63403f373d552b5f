"""I3D (Carreira, Zisserman, 2017, arXiv:1705.07750): configuration of the Inception and the ResNet kind."""

from __future__ import annotations

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict

from hf_video.base.configuration import VideoConfig
from hf_video.errors import ConfigError, check_choice

# What differs between the two official code bases (DeepMind's and FAIR's).
OFFICIAL = {
    "inception": {"batch_norm_eps": 1e-3, "batch_norm_momentum": 0.01, "head_pool": [2, 0, 0]},
    "resnet": {"batch_norm_eps": 1e-5, "batch_norm_momentum": 0.1, "head_pool": [4, 7, 7]},
}


@strict
class I3DConfig(VideoConfig):
    r"""
    Args:
        architecture: "inception" (Inception-v1 inflated, the paper's) or "resnet" (I3D-R50 of SlowFast).
        num_channels: 3 for RGB, 2 for optical flow (x, y).
        stem_channels: channels of the first convolution; all others are in proportion (64: official). Inception needs a
            multiple of 4.
        depths: "resnet": residual blocks per stage.
        stem_temporal_kernel, temporal_kernels: "resnet": frames that the first convolution and, stage by stage, the
            first convolution of each block sees, repeated along the stage.
        temporal_pool: "resnet": halve the frames after the first stage.
        head_pool: (frames, rows, columns) that are averaged before the classifier, at every place; what it says at
            these places is averaged. 0 is the whole map, and a smaller map is averaged whole. None: (2, 0, 0) for
            "inception", (4, 7, 7) for "resnet".
        classifier_dropout: before the classifier.
        batch_norm_eps, batch_norm_momentum: None: the official ones, 1e-3 and .01 for "inception", 1e-5 and .1 for
            "resnet". Momentum as in PyTorch: the share of the new batch.
        frozen_batch_norm: normalise by the stored statistics in training too; for batches of a few clips.
        group_norm: group norms stand in the batch norms' places, which don't mix the clips of a batch.
    """

    model_type = "i3d"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "rgb": {"num_labels": 400},
        "flow": {"num_labels": 400, "num_channels": 2},
        "r50": {"num_labels": 400, "architecture": "resnet", "num_frames": 8, "image_size": 256},
    }

    architecture: str = "inception"
    image_size: int | list[int] | tuple[int, int] = 224
    num_channels: int = 3
    num_frames: int = 64
    stem_channels: int = 64
    depths: list[int] | tuple[int, ...] = (3, 4, 6, 3)
    stem_temporal_kernel: int = 5
    temporal_kernels: list[list[int]] | tuple[tuple[int, ...], ...] = ((3,), (3, 1), (3, 1), (1, 3))
    temporal_pool: bool = True
    head_pool: list[int] | tuple[int, ...] | None = None
    classifier_dropout: float | int = 0.5
    batch_norm_eps: float | None = None
    batch_norm_momentum: float | None = None
    frozen_batch_norm: bool = False
    group_norm: bool = False
    initializer_range: float = 0.01

    def __post_init__(self, **kwargs: Any) -> None:
        for name, value in OFFICIAL.get(self.architecture, {}).items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        super().__post_init__(**kwargs)

    @property
    def num_hidden_layers(self) -> int:
        """Blocks after the stem: the Mixed modules, or the residual blocks."""
        return 9 if self.architecture == "inception" else sum(self.depths)

    @property
    def hidden_size(self) -> int:
        """Channels of the last map."""
        return self.stem_channels * (16 if self.architecture == "inception" else 2 ** (1 + len(self.depths)))

    def check(self) -> None:
        super().check()
        check_choice("architecture", self.architecture, OFFICIAL, ConfigError)
        if self.stem_channels < 1 or (self.architecture == "inception" and self.stem_channels % 4):
            raise ConfigError(f"stem_channels={self.stem_channels} must be a positive multiple of 4 (official: 64).")
        if len(self.head_pool) != 3 or min(self.head_pool) < 0:
            raise ConfigError(f"head_pool={self.head_pool} must be (frames, rows, columns), 0 for the whole map.")
        if len(self.depths) != len(self.temporal_kernels) or not self.depths or min(self.depths) < 1:
            raise ConfigError(
                f"depths={self.depths} and temporal_kernels={self.temporal_kernels} must have one entry per stage."
            )
        kernels = [self.stem_temporal_kernel, *(k for stage in self.temporal_kernels for k in stage)]
        if not all(self.temporal_kernels) or any(k < 1 or k % 2 == 0 for k in kernels):
            raise ConfigError(f"Temporal kernels must be odd numbers of frames, got {kernels}.")
