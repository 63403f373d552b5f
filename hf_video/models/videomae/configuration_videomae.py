"""VideoMAE (Tong et al., 2022, arXiv:2203.12602) and v2 (Wang et al., 2023, arXiv:2303.16727): configuration."""

from __future__ import annotations

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers.utils import logging

from hf_video.base.configuration import BoxHeadConfig, pair
from hf_video.errors import ConfigError, check_choice, check_number

logger = logging.get_logger(__name__)


def _size(width: int, depth: int, heads: int, intermediate: int, decoder: tuple[int, int, int]) -> dict[str, Any]:
    """A published encoder with its decoder (width, heads, depth), and the authors' epsilon in every norm."""
    decoder_width, decoder_heads, decoder_depth = decoder
    return {
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "intermediate_size": intermediate,
        "decoder_hidden_size": decoder_width,
        "decoder_num_attention_heads": decoder_heads,
        "decoder_num_hidden_layers": decoder_depth,
        "decoder_intermediate_size": 4 * decoder_width,
        "layer_norm_eps": 1e-6,
        "head_norm_eps": 1e-6,
    }


SIZES = {
    "small": _size(384, 12, 6, 1536, (192, 3, 4)),
    "base": _size(768, 12, 12, 3072, (384, 6, 4)),
    "large": _size(1024, 24, 16, 4096, (512, 8, 12)),
    "huge": _size(1280, 32, 16, 5120, (640, 8, 12)),
    # v2: patches of 14 pixels, and an MLP of 48/11 of the width.
    "giant": {**_size(1408, 40, 16, 6144, (512, 8, 4)), "patch_size": 14},
}


@strict
class VideoMAEConfig(BoxHeadConfig):
    r"""Fields and defaults are those of `transformers.VideoMAEConfig`, so files are interchangeable; ours beyond them:

    Args:
        drop_path_rate: stochastic depth, rising linearly from 0 to this at the last block (fine-tuning recipes: 0.1).
        classifier_dropout: dropout before the classifier (`fc_drop_rate` of the official code).
        head_norm_eps: epsilon of `fc_norm` and `decoder.norm`. 1e-5 is what plain transformers has hard-coded;
            `from_official` sets the official 1e-6.
        cosine_attention: VideoMAE v2's cosine attention in encoder and decoder.
        image_mean, image_std: statistics the processor normalised with; pretraining targets undo them.
        position_grid: (time, rows, columns) that the sine-cosine positions were made for, if not the one of
            `num_frames` and `image_size`; positions are then interpolated. Set when a checkpoint is loaded with other
            sizes.
        position_interpolation: How: "linear", or "bicubic" in space, as the authors' action detection does it.
        static_patches: "drop" encodes only the patches that changed since the tubelet before (run-length tokens,
            Choudhury et al., 2024, arXiv:2411.05222); the others show what was made of the last one that was encoded at
            their place. "keep" encodes all. No weight depends on it: any checkpoint can be loaded with either.
        static_threshold: How much a patch must change to be encoded: the mean absolute difference of its normalised
            pixels, in the processor's deviations (the authors' .1).
        box_resolution to focal_alpha: Of the head for boxes; see `BoxHeadConfig`.

    `VideoMAEConfig.preset(name)` makes the published sizes: "small" to "huge", v2's "giant", and "v2-small-k710" and
    "v2-base-k710", which v2 distilled from the giant on Kinetics-710. v2's models are v1's but for the giant's patches;
    cosine attention is an option that its authors' code leaves off by default.
    """

    model_type = "videomae"
    # What Trainer would take for scores.
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["kept_tokens"]
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        **SIZES,
        "v2-small-k710": {**SIZES["small"], "num_labels": 710},
        "v2-base-k710": {**SIZES["base"], "num_labels": 710},
    }

    image_size: int | list[int] | tuple[int, int] = 224
    patch_size: int | list[int] | tuple[int, int] = 16
    num_channels: int = 3
    num_frames: int = 16
    tubelet_size: int = 2
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    qv_bias: bool = True
    use_mean_pooling: bool = True
    decoder_num_attention_heads: int = 6
    decoder_hidden_size: int = 384
    decoder_num_hidden_layers: int = 4
    decoder_intermediate_size: int = 1536
    norm_pix_loss: bool = True
    drop_path_rate: float | int = 0.0
    classifier_dropout: float | int = 0.0
    head_norm_eps: float = 1e-5
    cosine_attention: bool = False
    image_mean: list[float] | tuple[float, ...] = (0.485, 0.456, 0.406)
    image_std: list[float] | tuple[float, ...] = (0.229, 0.224, 0.225)
    position_grid: list[int] | tuple[int, int, int] | None = None
    position_interpolation: str = "linear"
    static_patches: str = "keep"
    static_threshold: float | int = 0.1
    box_aligned: bool = False
    box_growth: list[int | float] | tuple[int | float, int | float] = (0.1, 0.05)

    def __post_init__(self, **kwargs: Any) -> None:
        if "qkv_bias" in kwargs:  # the name in older files
            self.qv_bias = kwargs.pop("qkv_bias")
        super().__post_init__(**kwargs)

    @property
    def patch(self) -> tuple[int, int, int]:
        """(frames, rows, columns) of one tubelet, in frames and pixels."""
        return (self.tubelet_size, *pair(self.patch_size, "patch_size"))

    @property
    def grid(self) -> tuple[int, int, int]:
        """(time, rows, columns) of tokens that `num_frames` and `image_size` make."""
        height, width = pair(self.image_size, "image_size")
        t, p, q = self.patch
        return self.num_frames // t, height // p, width // q

    def check(self) -> None:
        super().check()
        self._check_heads("decoder_hidden_size", "decoder_num_attention_heads")
        check_choice("position_interpolation", self.position_interpolation, ("linear", "bicubic"), ConfigError)
        check_choice("static_patches", self.static_patches, ("keep", "drop"), ConfigError)
        check_number("static_threshold", self.static_threshold, ConfigError, least=0)
        if min(self.patch) < 1 or min(self.grid) < 1:
            raise ConfigError(
                f"num_frames={self.num_frames}, image_size={self.image_size} hold no tubelet of tubelet_size="
                f"{self.tubelet_size}, patch_size={self.patch_size}."
            )
        if self.hidden_size == 384 and self.num_attention_heads == 16:
            logger.warning_once(
                "This VideoMAE-small config has 16 attention heads; the official model has 6, and files converted "
                "with 16 lose half of their accuracy. Pass num_attention_heads=6."
            )

    @classmethod
    def upgrade_file(cls, config_dict: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
        return cls.remember_grid(config_dict, overrides)
