"""VideoPrism (Zhao et al., 2024, arXiv:2402.13217): configurations. Fields and defaults are those of transformers."""

from __future__ import annotations

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import SubConfigSpec

from hf_video.base.configuration import VideoConfig, pair
from hf_video.errors import ConfigError, check_count, check_number


def check_cap(softcap: float) -> None:
    check_number("attn_logit_softcapping", softcap, ConfigError, least=1e-6)


@strict
class VideoPrismVisionConfig(VideoConfig):
    r"""The factorised space-time encoder, its classifier, and the video tower of the clip model.

    Args:
        tubelet_size: (frames, rows, columns) of a patch. Patches lie in single frames: the first number is 1.
        num_spatial_layers, num_temporal_layers: depths of the two transformers.
        attn_logit_softcapping: c in c · tanh(logits / c), which attention's logits pass before their softmax.
        num_auxiliary_layers: layers over all tokens after the encoder, in the clip model only.
        apply_l2norm: whether the clip model's video vectors have length 1.
        pooler_size: ours, not of transformers: channels of the pooling head's queries, keys and values, where they are
            not `intermediate_size`. The official classifier has `hidden_size`.
        position_grid: ours, not of transformers: (time, rows, columns) that the file's positions were made for, where
            that is not the grid of `num_frames` and `image_size`. Set on the way through `from_pretrained` with other
            sizes.
    """

    model_type = "videoprism_vision_model"
    base_config_key = "vision_config"
    patch_fields: ClassVar[tuple[str, ...]] = ("tubelet_size",)
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "base": {},
        "large": {
            "num_frames": 8,
            "hidden_size": 1024,
            "num_attention_heads": 16,
            "intermediate_size": 4096,
            "num_spatial_layers": 24,
        },
    }

    image_size: int | list[int] | tuple[int, int] = 288
    num_frames: int = 16
    tubelet_size: list[int] | tuple[int, ...] = (1, 18, 18)
    num_channels: int = 3
    hidden_size: int = 768
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu_python"
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-06
    qkv_bias: bool = True
    num_spatial_layers: int = 12
    num_temporal_layers: int = 4
    attn_logit_softcapping: float | int = 50.0
    num_auxiliary_layers: int = 2
    apply_l2norm: bool = True
    pooler_size: int | None = None
    position_grid: list[int] | tuple[int, int, int] | None = None

    @property
    def num_hidden_layers(self) -> int:
        """Of both transformers."""
        return self.num_spatial_layers + self.num_temporal_layers

    @property
    def grid(self) -> tuple[int, int, int]:
        """(time, rows, columns) of tokens that `num_frames` and `image_size` make."""
        height, width = pair(self.image_size, "image_size")
        return self.num_frames, height // self.tubelet_size[1], width // self.tubelet_size[2]

    def check(self) -> None:
        super().check()
        if len(self.tubelet_size) != 3 or self.tubelet_size[0] != 1 or min(self.tubelet_size) < 1:
            raise ConfigError(
                f"tubelet_size={self.tubelet_size!r} must be (1, rows, columns): VideoPrism's patches lie in one frame."
            )
        height, width = pair(self.image_size, "image_size")
        if min(self.grid) < 1 or height % self.tubelet_size[1] or width % self.tubelet_size[2]:
            raise ConfigError(
                f"image_size={self.image_size} is no multiple of the patch, tubelet_size={list(self.tubelet_size)}."
            )
        for name in ("num_spatial_layers", "num_temporal_layers"):
            check_count(name, getattr(self, name), ConfigError)
        check_cap(self.attn_logit_softcapping)
        self._check_heads("pooler_size" if self.pooler_size else "intermediate_size", "num_attention_heads")

    @classmethod
    def upgrade_file(cls, config_dict: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
        return cls.remember_grid(config_dict, overrides)


@strict
class VideoPrismTextConfig(VideoConfig):
    r"""The text tower.

    Args:
        max_position_embeddings: tokens of a text, to which the tokenizer pads; the class token comes after them.
        attn_logit_softcapping, apply_l2norm: as in `VideoPrismVisionConfig`.
    """

    model_type = "videoprism_text_model"
    base_config_key = "text_config"

    vocab_size: int = 32000
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    max_position_embeddings: int = 64
    hidden_act: str = "relu"
    layer_norm_eps: float = 1e-06
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    attention_probs_dropout_prob: float | int = 0.0
    apply_l2norm: bool = True
    qkv_bias: bool = True
    hidden_dropout_prob: float | int = 0.0
    initializer_range: float = 0.02
    attn_logit_softcapping: float | int = 50.0

    def check(self) -> None:
        super().check()
        if self.hidden_size % 2:
            raise ConfigError(f"hidden_size={self.hidden_size} must be even: half of a position is sines.")
        check_cap(self.attn_logit_softcapping)


@strict
class VideoPrismConfig(VideoConfig):
    r"""The clip model.

    Args:
        vision_config, text_config: the two towers' configurations, or dictionaries of their fields.
    """

    model_type = "videoprism"
    # Specifications, not classes, which transformers 5.20 doesn't take.
    sub_configs_defaults = {  # noqa: RUF012 - transformers reads it from the class
        "vision_config": SubConfigSpec(config_class=VideoPrismVisionConfig),
        "text_config": SubConfigSpec(config_class=VideoPrismTextConfig),
    }

    text_config: Any = None
    vision_config: Any = None

    @property
    def num_frames(self) -> Any:
        return self.vision_config.num_frames

    @num_frames.setter
    def num_frames(self, value: Any) -> None:
        raise ConfigError(f"num_frames={value!r} is the video tower's: pass vision_config={{'num_frames': {value!r}}}.")

    @property
    def image_size(self) -> Any:
        return self.vision_config.image_size

    @image_size.setter
    def image_size(self, value: Any) -> None:
        raise ConfigError(f"image_size={value!r} is the video tower's: pass vision_config={{'image_size': {value!r}}}.")

    def check(self) -> None:
        super().check()
        widths = self.vision_config.hidden_size, self.text_config.hidden_size
        if widths[0] != widths[1]:
            raise ConfigError(f"Videos have vectors of length {widths[0]}, texts of {widths[1]}: make them the same.")
