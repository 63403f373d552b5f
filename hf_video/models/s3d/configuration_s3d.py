"""S3D-G (Xie et al. 2018, arXiv:1712.04851), as trained on HowTo100M (Miech et al. 2020, arXiv:1912.06430):
configuration."""

from __future__ import annotations

from huggingface_hub.dataclasses import strict

from hf_video.base.configuration import VideoConfig
from hf_video.errors import ConfigError


@strict
class S3DConfig(VideoConfig):
    r"""Separable 3-D convolutions in Inception modules, with gates.

    Args:
        num_frames: frames of a clip, an even number; 30 (one second) where VideoCLIP extracts features.
        image_size: pixels of height and width, even numbers; other sizes than the checkpoint's go as well.
        stem_channels: width of the first convolution; all others are multiples of it.
        projection_dim: length of a clip's embedding.
        gating: the G of S3D-G: every map is multiplied by a gate per channel, made of its mean.
        space_to_depth: the first convolution sees cubes of 2x2x2 pixels as 24 channels (the HowTo100M model's form).
    """

    model_type = "s3d"

    num_frames: int = 30
    image_size: int | list[int] | tuple[int, int] = 224
    num_channels: int = 3
    stem_channels: int = 64
    projection_dim: int = 512
    gating: bool = True
    space_to_depth: bool = True
    batch_norm_eps: float = 1e-5
    batch_norm_momentum: float = 0.1
    frozen_batch_norm: bool = False
    group_norm: bool = False

    @property
    def hidden_size(self) -> int:
        """Length of a clip's embedding."""
        return self.projection_dim

    @property
    def num_hidden_layers(self) -> int:
        """Inception modules."""
        return 9

    def check(self) -> None:
        if self.stem_channels < 4 or self.stem_channels % 4:
            raise ConfigError(f"stem_channels must be a multiple of 4, got {self.stem_channels}.")
        super().check()
