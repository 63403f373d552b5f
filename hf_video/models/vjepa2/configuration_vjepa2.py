"""V-JEPA 2 (Assran et al., 2025, arXiv:2506.09985): configuration."""

from __future__ import annotations

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict

from hf_video.base.configuration import VideoConfig, pair
from hf_video.errors import ConfigError, check_count, check_number


def _size(width: int, depth: int, heads: int, crop: int = 256, ratio: float = 4.0) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "mlp_ratio": ratio,
        "crop_size": crop,
    }


@strict
class VJEPA2Config(VideoConfig):
    r"""Fields and defaults are those of `transformers.VJEPA2Config`, so files are interchangeable. `num_frames`,
    `image_size` and `num_channels` are second names of `frames_per_clip`, `crop_size` and `in_chans`. Ours beyond them:

    Args:
        pooler_num_attention_heads: Heads of the attentive pooler, if not `num_attention_heads`. The authors' probes
            have 16 on every encoder, also on ViT-g with its 22.
        pooler_layer_norm_eps: Epsilon of the pooler's norms, if not `layer_norm_eps`; 1e-5 in the authors' probes.
        pooler_layers: Blocks, counted from 0, whose normed outputs the pooler reads side by side, if not the last one
            alone. The authors' probes on Diving48 and Jester read four: [17, 19, 21, 23] of ViT-L.
        classifier_dropout: Dropout before the classifier.
        pred_mask_token: Number of the mask token that stands for what the predictor is to tell; numbers start anew
            behind the last one. 1 is what transformers and the authors' predictor take where nothing is said. The
            authors' pretraining gives each number of frames one of its own: 0 the first.
        loss_exponent: Of the error in pretraining: 1, as the authors have it, is its mean size.

    `VJEPA2Config.preset(name)` makes the published sizes: "large", "huge", "giant" and "giant-384".
    """

    model_type = "vjepa2"
    attribute_map: ClassVar[dict[str, str]] = {
        "num_frames": "frames_per_clip",
        "image_size": "crop_size",
        "num_channels": "in_chans",
    }
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "large": _size(1024, 24, 16),
        "huge": _size(1280, 32, 16),
        "giant": _size(1408, 40, 22, ratio=48 / 11),
        "giant-384": _size(1408, 40, 22, crop=384, ratio=48 / 11),
    }

    patch_size: int | list[int] | tuple[int, int] = 16
    crop_size: int = 256
    frames_per_clip: int = 64
    tubelet_size: int = 2
    hidden_size: int = 1024
    in_chans: int = 3
    num_attention_heads: int = 16
    num_hidden_layers: int = 24
    drop_path_rate: float | int = 0.0
    mlp_ratio: int | float = 4.0
    layer_norm_eps: float = 1e-6
    qkv_bias: bool = True
    attention_probs_dropout_prob: float | int = 0.0
    hidden_act: str = "gelu"
    initializer_range: float = 0.02
    attention_dropout: float | int = 0.0
    num_pooler_layers: int = 3
    pred_hidden_size: int = 384
    pred_num_attention_heads: int = 12
    pred_num_hidden_layers: int = 12
    pred_num_mask_tokens: int = 10
    pred_zero_init_mask_tokens: bool = True
    pred_mlp_ratio: int | float = 4.0
    pooler_num_attention_heads: int | None = None
    pooler_layer_norm_eps: float | None = None
    pooler_layers: list[int] | tuple[int, ...] | None = None
    classifier_dropout: float | int = 0.0
    pred_mask_token: int = 1
    loss_exponent: float | int = 1.0

    @property
    def patch(self) -> tuple[int, int, int]:
        """(frames, rows, columns) of one tubelet, in frames and pixels."""
        return (self.tubelet_size, *pair(self.patch_size, "patch_size"))

    @property
    def grid(self) -> tuple[int, int, int]:
        """(time, rows, columns) of tokens that `frames_per_clip` and `crop_size` make; an image makes one time."""
        t, p, q = self.patch
        return max(self.frames_per_clip // t, 1), self.crop_size // p, self.crop_size // q

    def check(self) -> None:
        super().check()
        self._check_heads("pred_hidden_size", "pred_num_attention_heads")
        for name in ("tubelet_size", "pred_num_hidden_layers", "pred_num_mask_tokens"):
            check_count(name, getattr(self, name), ConfigError)
        check_count("pred_mask_token", self.pred_mask_token, ConfigError, least=0)
        check_number("loss_exponent", self.loss_exponent, ConfigError, above=0)
        if self.pooler_num_attention_heads is not None:
            check_count("pooler_num_attention_heads", self.pooler_num_attention_heads, ConfigError)
            self._check_heads("hidden_size", "pooler_num_attention_heads")
        if min(self.patch) < 1 or min(self.grid) < 1:
            raise ConfigError(f"crop_size={self.crop_size} holds no patch of patch_size={self.patch_size}.")
        layers = self.pooler_layers
        if layers is not None and not (layers and all(0 <= i < self.num_hidden_layers for i in layers)):
            raise ConfigError(
                f"pooler_layers={layers} must be numbers of blocks, 0 to {self.num_hidden_layers - 1}, or None for the "
                "last one."
            )
