"""SlowFast (Feichtenhofer, Fan, Malik, He, 2019, arXiv:1812.03982): configuration."""

from __future__ import annotations

from math import prod
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict

from hf_video.base.configuration import BoxHeadConfig
from hf_video.errors import ConfigError, check_choice, check_count

# The last stage keeps its size and looks twice as far: the map of action detection has a stride of 16 pixels.
DETECTION: dict[str, Any] = {
    "num_labels": 80,
    "spatial_strides": [1, 2, 2, 1],
    "spatial_dilations": [1, 1, 1, 2],
}


@strict
class SlowFastConfig(BoxHeadConfig):
    r"""
    Args:
        num_frames: of the fast pathway; the slow one takes every `alpha`-th of them. Without a fast pathway the slow
            one takes all.
        fast_pathway: whether there is one; False is the Slow network, of which the fields of the other mean nothing.
        alpha: frames of the fast pathway for one of the slow one (4).
        beta_inverse: channels of the slow pathway for one of the fast one (8).
        fusion_ratio, fusion_kernel: the lateral convolution makes that many times the fast pathway's channels, and sees
            that many frames (2; 7 in R50, 5 in R101).
        stem_channels: of the slow pathway's first convolution; all others are in proportion (64: official).
        depths: residual blocks per stage.
        spatial_strides, spatial_dilations: of each stage; a last one of stride 1 and dilation 2 keeps the map at a
            stride of 16 pixels for the classification of boxes.
        nonlocal_blocks: for each stage, the blocks of the slow pathway that a non-local block follows, counted from 0.
        nonlocal_pool, nonlocal_normalization: of non-local blocks; see `hf_video.layers.non_local`.
        slow_kernels, fast_kernels: frames that the first convolution of a stage's blocks sees, in each pathway.
        kernel_blocks: how many blocks of each stage, from the first on, have these kernels; the others see one frame.
        head_pool: (rows, columns) that are averaged before the classifier, at every place; what it says at these places
            is averaged. 0 is the whole map, and a smaller map is averaged whole.
        classifier_dropout: before the classifier.
        batch_norm_eps, batch_norm_momentum: momentum as in PyTorch, the share of the new batch.
        frozen_batch_norm: normalise by the stored statistics in training too; for batches of a few clips.
        group_norm: group norms stand in the batch norms' places, which don't mix the clips of a batch.
        box_resolution to focal_alpha: of the head for boxes; see `BoxHeadConfig`.
    """

    model_type = "slowfast"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "r50": {"num_labels": 400},
        "r101": {"num_labels": 400, "depths": [3, 4, 23, 3], "fusion_kernel": 5},
        "r50-ava": DETECTION,
        "slow-r50-ava": {**DETECTION, "fast_pathway": False, "num_frames": 4},
        "r101-ava": {
            **DETECTION,
            "depths": [3, 4, 23, 3],
            "fusion_kernel": 5,
            "kernel_blocks": [3, 4, 6, 3],
            "nonlocal_blocks": [[], [], [6, 13, 20], []],
            "nonlocal_pool": [2, 2, 2],
            "box_aligned": False,
        },
    }

    image_size: int | list[int] | tuple[int, int] = 256
    num_channels: int = 3
    num_frames: int = 32
    fast_pathway: bool = True
    alpha: int = 4
    beta_inverse: int = 8
    fusion_ratio: int = 2
    fusion_kernel: int = 7
    stem_channels: int = 64
    depths: list[int] | tuple[int, ...] = (3, 4, 6, 3)
    spatial_strides: list[int] | tuple[int, ...] | None = None
    spatial_dilations: list[int] | tuple[int, ...] | None = None
    nonlocal_blocks: list[list[int]] | None = None
    nonlocal_pool: list[int] | tuple[int, int, int] = (1, 2, 2)
    nonlocal_normalization: str = "dot_product"
    slow_kernels: list[int] | tuple[int, ...] = (1, 1, 3, 3)
    fast_kernels: list[int] | tuple[int, ...] = (3, 3, 3, 3)
    kernel_blocks: list[int] | tuple[int, ...] | None = None
    head_pool: list[int] | tuple[int, int] = (7, 7)
    classifier_dropout: float | int = 0.5
    batch_norm_eps: float = 1e-5
    batch_norm_momentum: float = 0.1
    frozen_batch_norm: bool = False
    group_norm: bool = False
    initializer_range: float = 0.01

    def __post_init__(self, **kwargs: Any) -> None:
        stages = len(self.depths)
        if self.spatial_strides is None:
            self.spatial_strides = [1, *[2] * (stages - 1)]
        if self.spatial_dilations is None:
            self.spatial_dilations = [1] * stages
        if self.kernel_blocks is None:
            self.kernel_blocks = list(self.depths)
        if self.nonlocal_blocks is None:
            self.nonlocal_blocks = [[] for _ in range(stages)]
        super().__post_init__(**kwargs)

    @property
    def num_hidden_layers(self) -> int:
        return sum(self.depths)

    @property
    def hidden_size(self) -> int:
        """Channels of both pathways' last maps together (2048 + 256)."""
        slow = self.stem_channels * 2 ** (1 + len(self.depths))
        return slow + (slow // self.beta_inverse if self.fast_pathway else 0)

    @property
    def map_stride(self) -> int:
        """Pixels from one position of the last map to the next; convolution and pool of the stem halve it once each."""
        return 4 * prod(self.spatial_strides or ())

    def check(self) -> None:
        super().check()
        for name in ("alpha", "beta_inverse", "fusion_ratio", "stem_channels"):
            check_count(name, getattr(self, name), ConfigError)
        if self.stem_channels % self.beta_inverse:
            raise ConfigError(
                f"stem_channels={self.stem_channels} is not a multiple of beta_inverse={self.beta_inverse}."
            )
        if not len(self.depths) == len(self.slow_kernels) == len(self.fast_kernels) or not self.depths:
            raise ConfigError(
                f"depths={self.depths}, slow_kernels={self.slow_kernels} and fast_kernels={self.fast_kernels} must "
                "have one entry per stage."
            )
        for name in ("spatial_strides", "spatial_dilations", "nonlocal_blocks", "kernel_blocks"):
            if len(getattr(self, name)) != len(self.depths):
                raise ConfigError(f"{name}={getattr(self, name)} must have one entry per stage ({len(self.depths)}).")
        if min(*(self.spatial_strides or ()), *(self.spatial_dilations or ())) < 1:
            raise ConfigError(
                f"spatial_strides={self.spatial_strides} and spatial_dilations={self.spatial_dilations} must be 1 or "
                "more."
            )
        for depth, blocks in zip(self.depths, self.nonlocal_blocks or (), strict=True):
            if not all(0 <= block < depth for block in blocks):
                raise ConfigError(
                    f"nonlocal_blocks={self.nonlocal_blocks} must number blocks of each stage, from 0; depths are "
                    f"{list(self.depths)}."
                )
        normalizations = ("dot_product", "softmax")
        check_choice("nonlocal_normalization", self.nonlocal_normalization, normalizations, ConfigError)
        kernels = [self.fusion_kernel, *self.slow_kernels, *self.fast_kernels]
        if min(self.depths) < 1 or any(k < 1 or k % 2 == 0 for k in kernels):
            raise ConfigError(f"Depths must be at least 1, kernels odd; got {self.depths} and {kernels}.")
        if len(self.head_pool) != 2 or min(self.head_pool) < 0:
            raise ConfigError(f"head_pool={self.head_pool} must be (rows, columns), 0 for the whole map.")
