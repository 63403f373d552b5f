"""RTFM (Tian et al., ICCV 2021, arXiv:2101.10030; tianyu0207/RTFM): robust temporal feature magnitude learning. The
segments of a video whose features are longest stand for it: long ones in abnormal videos, short ones in normal
videos."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init

from hf_video.base.detection.anomaly import AnomalyOutput, WeakAnomalyPreTrainedModel
from hf_video.errors import ModelInputError
from hf_video.layers.bag_losses import magnitude_loss, smoothness
from hf_video.models.rtfm.configuration_rtfm import RTFMConfig

DILATIONS = (1, 2, 4)


class RTFMAggregation(nn.Module):
    """The paper's multi-scale temporal network: three dilated convolutions and global attention side by side (B, T, D)
    -> (B, T, D). Attention is a plain product divided by the number of segments, without softmax."""

    def __init__(self, config: RTFMConfig) -> None:
        super().__init__()
        size, width = config.input_size, config.hidden_size
        self.branches = nn.ModuleList(
            nn.Conv1d(size, width, 3, padding=dilation, dilation=dilation) for dilation in DILATIONS
        )
        self.branch_norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in DILATIONS)
        self.reduction = nn.Conv1d(size, width, 1, bias=False)
        for name in ("query", "key", "value"):
            self.add_module(name, nn.Conv1d(width, width // 2, 1))
        self.mixing = nn.Conv1d(width // 2, width, 1)
        self.mixing_norm = nn.BatchNorm1d(width)
        self.fusion = nn.Conv1d(4 * width, size, 3, padding=1, bias=False)
        self.fusion_norm = nn.BatchNorm1d(size)

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """`mask` (B, T): nothing passes from positions without a video to others."""
        valid = mask[:, None].to(features.dtype)
        x = features.transpose(1, 2) * valid
        parts = [norm(F.relu(branch(x))) for branch, norm in zip(self.branches, self.branch_norms, strict=True)]
        y = F.relu(self.reduction(x))
        weights = self.query(y).transpose(1, 2) @ self.key(y) * valid / valid.sum(2, keepdim=True)
        attended = (weights @ self.value(y).transpose(1, 2)).transpose(1, 2)
        parts.append(self.mixing_norm(self.mixing(attended)) + y)
        fused = self.fusion_norm(F.relu(self.fusion(torch.cat(parts, dim=1) * valid)))
        return (fused + x).transpose(1, 2) * mask[..., None]


class RTFMForAnomalyDetection(WeakAnomalyPreTrainedModel):
    """A score for each segment, learnt from videos that are normal or abnormal as a whole, by those of their segments
    whose features are longest."""

    config_class = RTFMConfig
    base_model_prefix = "rtfm"

    def __init__(self, config: RTFMConfig) -> None:
        super().__init__(config)
        first, second = config.classifier_sizes
        self.aggregation = RTFMAggregation(config)
        self.layers = nn.ModuleList([nn.Linear(config.input_size, first), nn.Linear(first, second)])
        self.classifier = nn.Linear(second, 1)
        self.dropout = nn.Dropout(config.dropout)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Xavier; the norm of the attention begins at 0, so that its branch begins as a shortcut."""
        if isinstance(module, nn.Linear | nn.Conv1d):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm1d):
            init.ones_(module.weight)
            init.zeros_(module.bias)
            init.zeros_(module.running_mean)
            init.ones_(module.running_var)
            init.zeros_(module.num_batches_tracked)
        elif isinstance(module, RTFMAggregation):
            init.zeros_(module.mixing_norm.weight)

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
            labels: (B,), 1 for abnormal videos. The loss needs as many normal ones: the n-th of both make a pair.
            return_dict: False for a tuple.

        Returns:
            `AnomalyOutput`.
        """
        features, mask = self.checked(features, mask, labels)
        crops = features.shape[1]
        x = self.aggregation(features.flatten(0, 1), mask.repeat_interleave(crops, 0))
        x = self.dropout(x)
        y = x
        for layer in self.layers:
            y = self.dropout(F.relu(layer(y)))
        scores = self.classifier(y)[..., 0].sigmoid().unflatten(0, (-1, crops)).mean(1) * mask
        magnitudes = x.norm(dim=2).unflatten(0, (-1, crops)).mean(1)
        loss = None
        if labels is not None:
            loss = self.loss(scores, magnitudes, x.unflatten(0, (-1, crops)), mask, labels)
        output = AnomalyOutput(loss=loss, scores=scores, magnitudes=magnitudes)
        return output if return_dict or (return_dict is None and self.config.return_dict) else output.to_tuple()

    def loss(
        self,
        scores: torch.Tensor,
        magnitudes: torch.Tensor,
        features: torch.Tensor,
        mask: torch.Tensor,
        labels: torch.Tensor,
    ) -> torch.Tensor:
        """Cross-entropy of the chosen segments' scores, their magnitudes, and on abnormal videos sparsity and
        smoothness. Some segments are left out of the choice at random, as the authors do."""
        config, is_abnormal = self.config, labels > 0
        count = int(is_abnormal.sum())
        if not count or 2 * count != len(labels):
            raise ModelInputError(f"{count} of {len(labels)} videos are abnormal; half of them must be.")
        if int(mask.sum(1).min()) < config.top_segments:
            raise ModelInputError(f"A video has fewer than top_segments={config.top_segments} segments.")
        kept = magnitudes * self.dropout(torch.ones_like(magnitudes))
        chosen = kept.masked_fill(~mask, -1.0).topk(config.top_segments, dim=1).indices
        bags = scores.gather(1, chosen).mean(1)
        places = chosen[:, None, :, None].expand(-1, features.shape[1], -1, features.shape[3])
        selected = features.gather(2, places)
        loss = F.binary_cross_entropy(bags, is_abnormal.to(bags.dtype))
        # All crops of a video against the same crops of its pair.
        normal, abnormal = (selected[one].transpose(0, 1).flatten(0, 1) for one in (~is_abnormal, is_abnormal))
        loss = loss + config.magnitude_weight * magnitude_loss(normal, abnormal, config.margin)
        return loss + self.regularisation(scores[is_abnormal], mask[is_abnormal])

    def regularisation(self, scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Of the scores (A, T) of abnormal videos: their length as one vector, and `smoothness`."""
        config = self.config
        smooth = smoothness(scores, mask, across_videos=config.smooth_across_videos)
        return config.sparsity_weight * scores.norm() + config.smoothness_weight * smooth
