"""X3D (Feichtenhofer, 2020, arXiv:2004.04730): configuration."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers.utils import logging

from hf_video.base.configuration import VideoConfig, pair
from hf_video.errors import ConfigError, check_number

logger = logging.get_logger(__name__)

STAGE_DEPTHS = (1, 2, 5, 3)


def round_width(width: float, *, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `width`, at least one, and not more than a tenth below it."""
    rounded = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * width else rounded


@strict
class X3DConfig(VideoConfig):
    r"""
    Args:
        num_frames, image_size: what training clips were; the head averages windows of as many places as a frame of
            `image_size` has, so larger test frames are seen at several places.
        stem_channels: before `width_factor` (12), doubled from stage to stage.
        width_factor, depth_factor, bottleneck_factor: the paper's expansions of channels, of blocks per stage
            (1, 2, 5, 3) and of a block's inner channels (2, 2.2, 2.25; 5 blocks for L).
        se_ratio: squeezed channels of the gates in every second block, as a share of the inner ones.
        head_size: width of the layer before the classifier.
        classifier_dropout: before the classifier.
        batch_norm_eps, batch_norm_momentum: momentum as in PyTorch, the share of the new batch.
        frozen_batch_norm: normalise by the stored statistics in training too; for batches of a few clips.
        group_norm: group norms stand in the batch norms' places, which don't mix the clips of a batch.
        causal: no frame sees a later one, as in MoViNets (Kondratyuk et al., 2021): a network of its own, to be trained
            as such, that `StreamingClassifier` shows each frame of a stream once. Its means over time are over the last
            `num_frames` frames.
    """

    model_type = "x3d"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "xs": {"num_labels": 400, "num_frames": 4, "image_size": 160},
        "s": {"num_labels": 400, "num_frames": 13, "image_size": 160},
        "m": {"num_labels": 400, "num_frames": 16, "image_size": 224},
        "l": {"num_labels": 400, "num_frames": 16, "image_size": 312, "depth_factor": 5.0},
    }

    image_size: int | list[int] | tuple[int, int] = 224
    num_channels: int = 3
    num_frames: int = 16
    stem_channels: int = 12
    width_factor: float | int = 2.0
    depth_factor: float | int = 2.2
    bottleneck_factor: float | int = 2.25
    se_ratio: float | int = 0.0625
    head_size: int = 2048
    classifier_dropout: float | int = 0.5
    batch_norm_eps: float = 1e-5
    batch_norm_momentum: float = 0.1
    frozen_batch_norm: bool = False
    group_norm: bool = False
    causal: bool = False
    initializer_range: float = 0.01

    @property
    def depths(self) -> tuple[int, ...]:
        return tuple(math.ceil(self.depth_factor * depth) for depth in STAGE_DEPTHS)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the stem and of the four stages."""
        plain = [self.stem_channels]
        for _ in STAGE_DEPTHS[1:]:
            plain.append(round_width(2 * plain[-1]))
        stages = [round_width(width * self.width_factor) for width in plain]
        return stages[0], *stages

    def inner(self, width: int) -> int:
        """Counts the channels between the first and the last convolution of a block.

        Args:
            width: Channels of the block.

        Returns:
            A whole number, rounded down.
        """
        return int(self.bottleneck_factor * width)

    @property
    def num_hidden_layers(self) -> int:
        return sum(self.depths)

    @property
    def hidden_size(self) -> int:
        """Channels of the last map."""
        return self.inner(self.widths[-1])

    @property
    def head_pool(self) -> tuple[int, int]:
        """(rows, columns) of the last map of a training frame."""
        height, width = pair(self.image_size, "image_size")
        return -(-height // 32), -(-width // 32)

    @classmethod
    def upgrade_file(cls, config_dict: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
        was, asked = (bool(fields.get("causal", False)) for fields in (config_dict, {**config_dict, **overrides}))
        if was != asked:
            logger.warning(
                f"The checkpoint's weights were trained with causal={was}, and causal={asked} is another network. "
                "Fine-tune before you trust the scores."
            )
        return config_dict

    def check(self) -> None:
        super().check()
        for name in ("stem_channels", "width_factor", "depth_factor", "bottleneck_factor", "head_size"):
            check_number(name, getattr(self, name), ConfigError, above=0)
        check_number("se_ratio", self.se_ratio, ConfigError, least=0, most=1)
