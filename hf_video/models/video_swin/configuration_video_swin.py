"""Video Swin Transformer (Liu et al., 2021, arXiv:2106.13230): configuration."""

from __future__ import annotations

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict

from hf_video.base.configuration import VideoConfig
from hf_video.errors import ConfigError


@strict
class VideoSwinConfig(VideoConfig):
    r"""Defaults are the tiny model; `VideoSwinConfig.preset("tiny" | "small" | "base" | "large")` names the others.

    Args:
        num_frames, image_size: what the processor makes, in frames and pixels. The model itself takes any size and
            number, padded as officially; nothing in it is made for one.
        patch_size: (frames, rows, columns) of one patch.
        temporal_stride: frames from one patch to the next; None is `patch_size[0]`, patches side by side. 1 keeps every
            frame: patches overlap in time and zero frames are appended, as in VIOLET.
        embed_dim: channels of the first stage; each later stage has twice as many.
        depths: blocks of each stage.
        num_heads: attention heads of each stage.
        window_size: (time, rows, columns) of one attention window, in tokens. Along an axis that has no more tokens
            than this, the window shrinks to them and is not shifted.
        mlp_ratio: MLP channels, in multiples of the block's.
        patch_norm: a norm after the patch embedding (all published models).
        drop_path_rate: stochastic depth, rising linearly from 0 to this at the last block (official 0.1 tiny, 0.2
            small, 0.3 base).
        classifier_dropout: dropout before the classifier (official 0.5).
    """

    model_type = "video_swin"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)},
        "small": {"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24)},
        "base": {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)},
        "large": {"embed_dim": 192, "depths": (2, 2, 18, 2), "num_heads": (6, 12, 24, 48)},
    }

    image_size: int | list[int] | tuple[int, int] = 224
    num_channels: int = 3
    num_frames: int = 32
    patch_size: list[int] | tuple[int, int, int] = (2, 4, 4)
    temporal_stride: int | None = None
    embed_dim: int = 96
    depths: list[int] | tuple[int, ...] = (2, 2, 6, 2)
    num_heads: list[int] | tuple[int, ...] = (3, 6, 12, 24)
    window_size: list[int] | tuple[int, int, int] = (8, 7, 7)
    mlp_ratio: float | int = 4.0
    qkv_bias: bool = True
    patch_norm: bool = True
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    drop_path_rate: float | int = 0.0
    classifier_dropout: float | int = 0.0
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-5

    @property
    def widths(self) -> list[int]:
        """Channels of each stage."""
        return [self.embed_dim * 2**stage for stage in range(len(self.depths))]

    @property
    def hidden_size(self) -> int:
        """Channels of the last stage, which the classifier sees."""
        return self.widths[-1]

    @property
    def num_hidden_layers(self) -> int:
        """Blocks of all stages."""
        return sum(self.depths)

    @property
    def stride(self) -> int:
        """Frames from one patch to the next."""
        return self.patch_size[0] if self.temporal_stride is None else self.temporal_stride

    def check(self) -> None:
        super().check()
        for name in ("patch_size", "window_size"):
            value = getattr(self, name)
            if len(value) != 3 or min(value) < 1:
                raise ConfigError(f"{name} must be three numbers (time, rows, columns) of 1 or more, got {value!r}.")
        if len(self.depths) != len(self.num_heads) or not self.depths or min(*self.depths, *self.num_heads) < 1:
            raise ConfigError(
                f"depths={self.depths!r} and num_heads={self.num_heads!r} must name one number of 1 or more per stage."
            )
        for stage, (width, heads) in enumerate(zip(self.widths, self.num_heads, strict=True)):
            if width % heads:
                raise ConfigError(
                    f"Stage {stage} has {width} channels (embed_dim={self.embed_dim} doubled {stage} times), no "
                    f"multiple of its {heads} heads: every head needs the same whole number of channels."
                )
        if not 1 <= self.stride <= self.patch_size[0]:
            raise ConfigError(
                f"temporal_stride={self.temporal_stride} must be from 1 to patch_size[0]={self.patch_size[0]}, or "
                "None: a larger one would leave frames out."
            )
