"""C3D (Tran et al., 2015, arXiv:1412.0767): configuration."""

from __future__ import annotations

from math import prod
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict

from hf_video.base.configuration import VideoConfig, pair
from hf_video.errors import ConfigError, check_choice, check_count

POOL5 = ("symmetric", "ceil")


@strict
class C3DConfig(VideoConfig):
    r"""
    Args:
        num_frames, image_size: fc6 reads the whole last map, so a clip must give as many places as these do: sizes are
            multiples of 16, rounded down.
        stem_channels: of the first convolution; the others have 2, 4, 8 and 8 times as many (64: official).
        fc_size: width of fc6 and fc7.
        pool5_padding: where the last pooling puts the missing row and column of an odd map. "symmetric": half before,
            half behind, as the PyTorch ports do (DavideA, jfzhang95, mmaction2), and what was fine-tuned with them
            needs. "ceil": behind only, as Caffe and Keras do. The two read different features into the same fc6.
        any_grid: take any clip whose last map has as many places as fc6 reads, whatever its proportions. For
            checkpoints that don't say which frame size they are for.
        classifier_dropout: after fc6 and after fc7.
    """

    model_type = "c3d"
    presets: ClassVar[dict[str, dict[str, Any]]] = {"sports1m": {"num_labels": 487}, "ucf101": {"num_labels": 101}}

    image_size: int | list[int] | tuple[int, int] = 112
    num_channels: int = 3
    num_frames: int = 16
    stem_channels: int = 64
    fc_size: int = 4096
    pool5_padding: str = "symmetric"
    any_grid: bool = False
    classifier_dropout: float | int = 0.5
    initializer_range: float = 0.01

    num_hidden_layers: ClassVar[int] = 7  # convolutions after the first

    @property
    def hidden_size(self) -> int:
        """Channels of the last map."""
        return 8 * self.stem_channels

    @property
    def grid(self) -> tuple[int, int, int]:
        """(time, rows, columns) of the last map for `num_frames` and `image_size`."""
        return self.grid_of(self.num_frames, *pair(self.image_size, "image_size"))

    def grid_of(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Counts the places of the last map.

        Args:
            frames: Of the clip.
            height: Of its frames, in pixels.
            width: Of its frames, in pixels.

        Returns:
            (time, rows, columns); 0 where nothing is left.
        """

        def pool5(n: int) -> int:
            # Symmetric padding makes a fourth row of six, where Caffe's rounding up leaves three.
            return (n // 2 + 1 if self.pool5_padding == "symmetric" else -(-n // 2)) if n else 0

        return frames // 16, pool5(height // 16), pool5(width // 16)

    def check(self) -> None:
        super().check()
        check_choice("pool5_padding", self.pool5_padding, POOL5, ConfigError)
        check_count("stem_channels", self.stem_channels, ConfigError)
        check_count("fc_size", self.fc_size, ConfigError)
        if not prod(self.grid):
            raise ConfigError(
                f"Nothing is left of {self.num_frames} frames of {self.image_size} pixels after four halvings: at "
                "least 16 of each are needed."
            )
