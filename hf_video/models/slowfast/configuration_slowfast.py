"""SlowFast (Feichtenhofer, Fan, Malik, He, 2019, arXiv:1812.03982): configuration."""

from __future__ import annotations

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict

from hf_video.base.configuration import VideoConfig
from hf_video.errors import ConfigError, check_count


@strict
class SlowFastConfig(VideoConfig):
    r"""
    Args:
        num_frames: of the fast pathway; the slow one takes every `alpha`-th of them.
        alpha: frames of the fast pathway for one of the slow one (4).
        beta_inverse: channels of the slow pathway for one of the fast one (8).
        fusion_ratio, fusion_kernel: the lateral convolution makes that many times the fast pathway's channels, and sees
            that many frames (2; 7 in R50, 5 in R101).
        stem_channels: of the slow pathway's first convolution; all others are in proportion (64: official).
        depths: residual blocks per stage.
        slow_kernels, fast_kernels: frames that the first convolution of a stage's blocks sees, in each pathway.
        head_pool: (rows, columns) that are averaged before the classifier, at every place; what it says at these places
            is averaged. 0 is the whole map, and a smaller map is averaged whole.
        classifier_dropout: before the classifier.
        batch_norm_eps, batch_norm_momentum: momentum as in PyTorch, the share of the new batch.
        frozen_batch_norm: normalise by the stored statistics in training too; for batches of a few clips.
    """

    model_type = "slowfast"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "r50": {"num_labels": 400},
        "r101": {"num_labels": 400, "depths": [3, 4, 23, 3], "fusion_kernel": 5},
    }

    image_size: int | list[int] | tuple[int, int] = 256
    num_channels: int = 3
    num_frames: int = 32
    alpha: int = 4
    beta_inverse: int = 8
    fusion_ratio: int = 2
    fusion_kernel: int = 7
    stem_channels: int = 64
    depths: list[int] | tuple[int, ...] = (3, 4, 6, 3)
    slow_kernels: list[int] | tuple[int, ...] = (1, 1, 3, 3)
    fast_kernels: list[int] | tuple[int, ...] = (3, 3, 3, 3)
    head_pool: list[int] | tuple[int, int] = (7, 7)
    classifier_dropout: float | int = 0.5
    batch_norm_eps: float = 1e-5
    batch_norm_momentum: float = 0.1
    frozen_batch_norm: bool = False
    initializer_range: float = 0.01

    @property
    def num_hidden_layers(self) -> int:
        return sum(self.depths)

    @property
    def hidden_size(self) -> int:
        """Channels of both pathways' last maps together (2048 + 256)."""
        slow = self.stem_channels * 2 ** (1 + len(self.depths))
        return slow + slow // self.beta_inverse

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
        kernels = [self.fusion_kernel, *self.slow_kernels, *self.fast_kernels]
        if min(self.depths) < 1 or any(k < 1 or k % 2 == 0 for k in kernels):
            raise ConfigError(f"Depths must be at least 1, kernels odd; got {self.depths} and {kernels}.")
        if len(self.head_pool) != 2 or min(self.head_pool) < 0:
            raise ConfigError(f"head_pool={self.head_pool} must be (rows, columns), 0 for the whole map.")
