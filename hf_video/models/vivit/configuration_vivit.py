"""ViViT (Arnab et al., 2021, arXiv:2103.15691): configuration."""

from __future__ import annotations

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict

from hf_video.base.configuration import VideoConfig, pair
from hf_video.errors import ConfigError, check_choice, check_count

# The paper's models 1 to 4, under the names of the authors' configurations.
ATTENTION_TYPES = (
    "spacetime",
    "factorized_encoder",
    "factorized_self_attention_block",
    "factorized_dot_product_attention",
)
TUBELET_INITIALIZERS = ("all_frames", "central_frame")


@strict
class VivitConfig(VideoConfig):
    r"""Fields and defaults are those of `transformers.VivitConfig`, so files of model 1 are interchangeable. Ours:

    Args:
        attention_type: which of the paper's four models.
            "spacetime" (1): every token attends to every other; class token. The only one plain transformers has.
            "factorized_encoder" (2): a transformer over each time's places, then one over times; a class token and a
            norm in each. Its first has `num_hidden_layers`, its second `num_temporal_layers`.
            "factorized_self_attention_block" (3): each block attends over time, then over space; mean of tokens.
            "factorized_dot_product_attention" (4): half of the heads attend over time, half over space; mean of tokens.
        num_temporal_layers: depth of model 2's second transformer: 4 in B, 24 or 4 in L.
        drop_path_rate: stochastic depth, rising linearly from 0 to this at a transformer's last block
            (`stochastic_droplayer_rate` of the official code; Something-Something: 0.3).
        tubelet_initializer: fresh tubelet filters see "all_frames" of the tubelet, or only the "central_frame", as the
            official configurations have it for models that start from an image model.
        position_grid: (time, rows, columns) that learned positions were made for, where that is not the grid of
            `num_frames` and `image_size`. Set on the way through `from_pretrained` with other sizes.
    """

    model_type = "vivit"
    patch_fields: ClassVar[tuple[str, ...]] = ("tubelet_size",)
    grid_overrides: ClassVar[tuple[str, ...]] = ("num_frames", "image_size", "tubelet_size")

    image_size: int | list[int] | tuple[int, int] = 224
    num_frames: int = 32
    tubelet_size: list[int] | tuple[int, ...] = (2, 16, 16)
    num_channels: int = 3
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu_fast"
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-06
    qkv_bias: bool = True
    pooler_output_size: int | None = None
    pooler_act: str = "tanh"
    attention_type: str = "spacetime"
    num_temporal_layers: int = 4
    drop_path_rate: float | int = 0.0
    tubelet_initializer: str = "all_frames"
    position_grid: list[int] | tuple[int, int, int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        self.pooler_output_size = self.pooler_output_size or self.hidden_size
        super().__post_init__(**kwargs)

    @property
    def patch(self) -> tuple[int, int, int]:
        """(frames, rows, columns) of one tubelet, in frames and pixels."""
        return tuple(self.tubelet_size)

    @property
    def grid(self) -> tuple[int, int, int]:
        """(time, rows, columns) of tokens that `num_frames` and `image_size` make."""
        height, width = pair(self.image_size, "image_size")
        t, p, q = self.patch
        return self.num_frames // t, height // p, width // q

    @property
    def has_class_token(self) -> bool:
        """Models 1 and 2 classify from a class token, 3 and 4 from the mean of tokens."""
        return self.attention_type in ("spacetime", "factorized_encoder")

    def check(self) -> None:
        super().check()
        for name, allowed in (("attention_type", ATTENTION_TYPES), ("tubelet_initializer", TUBELET_INITIALIZERS)):
            check_choice(name, getattr(self, name), allowed, ConfigError)
        if len(self.tubelet_size) != 3 or min(self.tubelet_size) < 1:
            raise ConfigError(
                f"tubelet_size must be (frames, rows, columns), 1 or more each, got {self.tubelet_size!r}."
            )
        if min(self.grid) < 1:
            raise ConfigError(
                f"num_frames={self.num_frames}, image_size={self.image_size} hold no tubelet of tubelet_size="
                f"{self.tubelet_size}."
            )
        check_count("num_temporal_layers", self.num_temporal_layers, ConfigError)
        if self.attention_type == "factorized_dot_product_attention" and self.num_attention_heads % 2:
            raise ConfigError(
                f"num_attention_heads={self.num_attention_heads} is odd: {self.attention_type} gives half of the heads "
                "to time and half to space."
            )

    @classmethod
    def upgrade_file(cls, config_dict: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
        return cls.remember_grid(config_dict, overrides)
