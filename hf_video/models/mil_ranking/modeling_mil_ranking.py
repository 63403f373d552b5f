"""Deep MIL ranking (Sultani, Chen, Shah, CVPR 2018, arXiv:1801.04264; WaqasSultani/AnomalyDetectionCVPR2018): a score
for each segment, learnt from videos of which only is known whether something abnormal happens in them."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init

from hf_video.base.detection.anomaly import AnomalyOutput, WeakAnomalyPreTrainedModel
from hf_video.errors import ModelInputError
from hf_video.layers.bag_losses import bag_cross_entropy, ranking_loss, smoothness
from hf_video.models.mil_ranking.configuration_mil_ranking import MILRankingConfig


class MILRankingForAnomalyDetection(WeakAnomalyPreTrainedModel):
    """Three layers on each segment; only the first has an activation, as in the authors' code."""

    config_class = MILRankingConfig
    base_model_prefix = "mil_ranking"

    def __init__(self, config: MILRankingConfig) -> None:
        super().__init__(config)
        self.hidden = nn.Linear(config.input_size, config.hidden_size)
        self.bottleneck = nn.Linear(config.hidden_size, config.bottleneck_size)
        self.classifier = nn.Linear(config.bottleneck_size, 1)
        self.dropout = nn.Dropout(config.dropout)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            init.xavier_normal_(module.weight)
            init.zeros_(module.bias)

    def forward(
        self,
        features: torch.Tensor,
        mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        return_dict: bool | None = None,
    ) -> AnomalyOutput | tuple:
        """Args:
            features: (B, T, input_size), float; or (B, crops, T, input_size), whose scores are averaged.
            mask: (B, T), True where a video is; None for all of it.
            labels: (B,), 1 for abnormal videos.
            return_dict: False for a tuple.

        Returns:
            `AnomalyOutput`; its loss needs a normal and an abnormal video.
        """
        features, mask = self.checked(features, mask, labels)
        x = F.normalize(features, dim=-1) if self.config.normalize else features
        x = self.dropout(F.relu(self.hidden(x)))
        logits = self.classifier(self.dropout(self.bottleneck(x)))[..., 0].mean(1)
        scores = logits.sigmoid() * mask
        loss = None if labels is None else self.loss(scores, logits, mask, labels)
        output = AnomalyOutput(loss=loss, scores=scores)
        return output if return_dict or (return_dict is None and self.config.return_dict) else output.to_tuple()

    def loss(
        self, scores: torch.Tensor, logits: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """The objective, and on abnormal videos sparsity and smoothness."""
        is_abnormal = labels > 0
        if self.config.objective == "cross_entropy":
            loss = bag_cross_entropy(logits, labels, mask.sum(1))
        elif is_abnormal.all() or not is_abnormal.any():
            raise ModelInputError(
                f"{int(is_abnormal.sum())} of {len(labels)} videos are abnormal; both kinds are needed."
            )
        else:
            loss = ranking_loss(scores[~is_abnormal], scores[is_abnormal])
        chosen = scores[is_abnormal]
        smooth = smoothness(chosen, mask[is_abnormal])
        return loss + self.config.sparsity_weight * chosen.sum() + self.config.smoothness_weight * smooth
