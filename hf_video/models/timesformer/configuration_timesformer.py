"""TimeSformer (Bertasius, Wang, Torresani, 2021, arXiv:2102.05095): configuration."""

from __future__ import annotations

from typing import Any

from huggingface_hub.dataclasses import strict

from hf_video.base.configuration import VideoConfig, pair
from hf_video.errors import ConfigError, check_choice

ATTENTION_TYPES = ("divided_space_time", "joint_space_time", "space_only")
INITIALIZERS = ("official", "xavier")


@strict
class TimesformerConfig(VideoConfig):
    r"""Fields and defaults are those of `transformers.TimesformerConfig`, so files are interchangeable; ours beyond:

    Args:
        drop_path_rate: stochastic depth, rising linearly from 0 to this at the last block; any number (official 0.1).
        initializer: "official" starts from zero time embeddings and zero temporal projections, so that step 0 is an
            image model applied frame by frame: right when image weights are loaded, but from random weights it is a
            saddle on which the order of frames is not learnt. "xavier" draws all linear maps Xavier-uniform: use it
            to train from scratch, with `time_embedding_init_std` about 0.5.
        time_embedding_init_std: standard deviation of initial time embeddings; 0 as in the official code.
        position_grid: (time, rows, columns) that the learned positions have, if not that of `num_frames` and
            `image_size`. Set when a checkpoint is loaded with other sizes; the nearest positions are taken then.
    """

    model_type = "timesformer"

    image_size: int | list[int] | tuple[int, int] = 224
    patch_size: int | list[int] | tuple[int, int] = 16
    num_channels: int = 3
    num_frames: int = 8
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-6
    qkv_bias: bool = True
    attention_type: str = "divided_space_time"
    drop_path_rate: float | int = 0
    initializer: str = "official"
    time_embedding_init_std: float | int = 0.0
    position_grid: list[int] | tuple[int, int, int] | None = None

    @property
    def patch(self) -> tuple[int, int, int]:
        """(frames, rows, columns) of one patch, in frames and pixels."""
        return (1, *pair(self.patch_size, "patch_size"))

    @property
    def grid(self) -> tuple[int, int, int]:
        """(time, rows, columns) of tokens that `num_frames` and `image_size` make."""
        height, width = pair(self.image_size, "image_size")
        _, p, q = self.patch
        return self.num_frames, height // p, width // q

    def check(self) -> None:
        super().check()
        for name, allowed in (("attention_type", ATTENTION_TYPES), ("initializer", INITIALIZERS)):
            check_choice(name, getattr(self, name), allowed, ConfigError)
        if min(self.patch) < 1 or min(self.grid) < 1:
            raise ConfigError(f"image_size={self.image_size} holds no patch of patch_size={self.patch_size}.")

    def to_diff_dict(self) -> dict[str, Any]:
        """What a file holds. Plain transformers types `drop_path_rate` as an integer and refuses a file with 0.1 or
        0.0, so a fraction is written under a name of its own."""
        values = super().to_diff_dict()
        if isinstance(self.drop_path_rate, float):
            values["drop_path_rate"] = 0
            if self.drop_path_rate:
                values["stochastic_depth"] = self.drop_path_rate
        return values

    @classmethod
    def upgrade_file(cls, config_dict: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
        if "stochastic_depth" in config_dict:
            config_dict["drop_path_rate"] = config_dict.pop("stochastic_depth")
        return cls.remember_grid(config_dict, overrides)
