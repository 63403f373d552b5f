"""What models that learn anomalies from labels of whole videos have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from hf_video.base.configuration import VideoConfig
from hf_video.base.safe_weights import SafeWeights
from hf_video.errors import ConfigError, ModelInputError, check_count, check_number


@strict
class WeakAnomalyConfig(VideoConfig):
    r"""Fields of models over feature sequences that are trained on videos which are normal or not.

    Args:
        input_size: columns of the features.
        feature_stride, feature_frames, feature_fps: of the features' grid, see `hf_video.clips.grid.FeatureGrid`.
        encoder: `name` and `digest` of the encoder whose features it was trained on; None where that is not known.
        num_segments: stretches that a video is divided into for training, of whose features the means are taken; whole
            sequences are scored afterwards.
        dropout: of the layers.
        sparsity_weight, smoothness_weight: of the two terms of the loss that hold the scores of abnormal videos down,
            and like their neighbours.
    """

    input_size: int = 2048
    feature_stride: int | float = 16
    feature_frames: int | float = 16
    feature_fps: int | float | None = None
    encoder: dict[str, Any] | None = None
    num_segments: int = 32
    dropout: float | int = 0.6
    sparsity_weight: float | int = 8e-5
    smoothness_weight: float | int = 8e-5
    initializer_range: float = 0.02

    @property
    def input_sizes(self) -> list[int]:
        return [self.input_size]

    def check(self) -> None:
        super().check()
        for name in ("input_size", "num_segments"):
            check_count(name, getattr(self, name), ConfigError)
        for name in ("sparsity_weight", "smoothness_weight"):
            check_number(name, getattr(self, name), ConfigError, least=0)


@dataclass
class AnomalyOutput(ModelOutput):
    """Scores of the segments of each video.

    Args:
        loss: scalar, with `labels`.
        scores: (B, T), from 0 to 1; 0 where there is no video.
        magnitudes: (B, T), lengths of the features that RTFM chooses segments by.
    """

    loss: torch.Tensor | None = None
    scores: torch.Tensor | None = None
    magnitudes: torch.Tensor | None = None


class WeakAnomalyPreTrainedModel(SafeWeights, PreTrainedModel):
    """Base of models over features (B, T, D)."""

    config_class = WeakAnomalyConfig
    main_input_name = "features"
    supports_gradient_checkpointing = False
    loss_joins_samples = True  # as of VideoPreTrainedModel

    def checked(
        self, features: torch.Tensor, mask: torch.Tensor | None, labels: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (B, crops, T, D) and mask (B, T). Raises ModelInputError for other shapes and numbers of columns."""
        width = self.config.input_size
        if features is not None and features.ndim == 3:
            features = features[:, None]
        if features is None or features.ndim != 4 or features.shape[3] != width or not features.shape[2]:
            came = "nothing" if features is None else f"shape {tuple(features.shape)}"
            raise ModelInputError(
                f"features must be (batch, [crops,] time, {width}) with one step or more; {came} came."
            )
        size = (features.shape[0], features.shape[2])
        if mask is None:
            mask = torch.ones(size, dtype=torch.bool, device=features.device)
        elif tuple(mask.shape) != size:
            raise ModelInputError(f"mask has shape {tuple(mask.shape)}; expected (batch, time) = {size}.")
        if labels is not None and len(labels) != len(features):
            raise ModelInputError(f"{len(labels)} labels came for {len(features)} videos.")
        return features, mask.bool()
