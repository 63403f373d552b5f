"""TriDet (Shi et al., CVPR 2023, arXiv:2303.07347; dingfengshi/TriDet): ActionFormer's pyramid with blocks of
convolutions in place of attention, and boundaries as distributions over the positions around them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init

from hf_video.base.detection.modeling import (
    TemporalDetectionLoss,
    TemporalDetectionOutput,
    TemporalDetectionPreTrainedModel,
    TemporalDetector,
    TemporalPyramid,
)
from hf_video.layers.linear import in_turn
from hf_video.layers.segments import center_distance_iou_loss, offset_iou, sigmoid_focal_loss
from hf_video.layers.temporal import (
    AffineDropPath,
    LevelScale,
    SharedHead,
    TemporalConv,
    add_update,
    downsample_mask,
    halved,
    join_levels,
    masked,
    split_levels,
)
from hf_video.models.tridet.configuration_tridet import GROUPS, TriDetConfig


@dataclass
class TriDetOutput(TemporalDetectionOutput):
    """`offsets` are (B, P, classes, 2) with the trident head. Besides `TemporalDetectionOutput`:

    Args:
        center_offsets: (B, P, 2 · (bins + 1)), what the centre head gives; the first half is of the start.
        start_logits, end_logits: (B, P, classes), what the boundary heads give.
    """

    center_offsets: torch.Tensor | None = None
    start_logits: torch.Tensor | None = None
    end_logits: torch.Tensor | None = None


class TriDetDownsample(nn.Module):
    """Half as many positions: the maximum of three neighbours, or the mean of two and a product."""

    def __init__(self, config: TriDetConfig) -> None:
        super().__init__()
        self.kind = config.downsampling
        self.projection = nn.Linear(config.hidden_size, config.hidden_size) if self.kind == "avg" else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind == "avg":
            return self.projection(F.avg_pool1d(x.transpose(1, 2), 2).transpose(1, 2))
        return halved(x)


class TriDetBlock(nn.Module):
    """Scalable-granularity perception (section 3.2): an instant level, scaled by the mean over time, and a window
    level, two kernels gated by a third; then an MLP. Mean and GroupNorm run over padding too, as in the official code:
    the output depends on the length that a sequence is padded to."""

    def __init__(self, config: TriDetConfig, window: int, stride: int, drop_path: float) -> None:
        super().__init__()
        width = config.hidden_size
        wide = round((window + 1) * config.window_scale)
        wide += wide % 2 == 0
        self.stride = stride
        self.downsample = TriDetDownsample(config) if stride > 1 else nn.Identity()
        self.norm = nn.LayerNorm(width, config.layer_norm_eps)
        self.instant = TemporalConv(width, width, 1, groups=width)
        self.instant_scale = TemporalConv(width, width, 1, groups=width)
        self.window = TemporalConv(width, width, window, groups=width)
        self.wide_window = TemporalConv(width, width, wide, groups=width)
        self.gate = TemporalConv(width, width, window, groups=width)
        self.mlp_norm = nn.GroupNorm(GROUPS, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, config.intermediate_size), nn.GELU(), nn.Linear(config.intermediate_size, width)
        )
        self.path = AffineDropPath(width, drop_path) if drop_path > 0 else nn.Identity()
        self.mlp_path = AffineDropPath(width, drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T, C) and its mask (B, T, 1) -> (B, T / stride, C) and its mask."""
        x, mask = self.downsample(x), downsample_mask(mask, self.stride)
        out = self.norm(x)
        instant = self.instant(out) * F.relu(self.instant_scale(out.mean(1, keepdim=True)))
        update = instant + (self.window(out) + self.wide_window(out)) * self.gate(out) + out
        x = add_update(masked(x, mask), update, self.path)
        return add_update(x, in_turn(self.mlp, self.mlp_norm(x.transpose(1, 2)).transpose(1, 2)), self.mlp_path), mask


class TriDetPreTrainedModel(TemporalDetectionPreTrainedModel):
    config_class = TriDetConfig
    base_model_prefix = "tridet"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """PyTorch's own draw for weights, as the official code leaves it, with biases at 0; depthwise kernels of the
        blocks with deviation `kernel_std`."""
        if isinstance(module, (nn.Linear, nn.Conv1d)):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, (nn.LayerNorm, nn.GroupNorm)):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, AffineDropPath):
            init.constant_(module.scale, 1e-4)
        elif isinstance(module, LevelScale):
            init.ones_(module.scale)
        elif isinstance(module, TriDetBlock):
            for layer in (module.instant, module.instant_scale, module.window, module.wide_window, module.gate):
                init.normal_(layer.weight, std=self.config.kernel_std)
        elif isinstance(module, TemporalDetectionLoss):
            init.constant_(module.normalizer, float(self.config.loss_normalizer))
        elif isinstance(module, TriDetForTemporalActionDetection):
            prior = torch.full((self.config.num_labels,), self.config.prior_probability)
            prior[list(self.config.empty_classes)] = 1e-6
            for head in module.class_heads:
                init.copy_(head.output.bias, prior.logit())


class TriDetModel(TriDetPreTrainedModel, TemporalPyramid):
    """The backbone: features (B, T, C) to a pyramid of `branch_layers` + 1 levels, each half as long."""

    def padded(self, features: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """As every detector's; in training with noise on the features, on padding too, as in the official code."""
        features, mask = super().padded(features, mask)
        if self.training and self.config.input_noise:
            features = features + torch.randn_like(features) * self.config.input_noise
        return features, mask

    def make_blocks(self, config: TriDetConfig) -> nn.ModuleList:
        plan = [(1, 1, 0.0)] * config.stem_layers
        plan += [(window, 2, config.drop_path_rate) for window in config.window_sizes[1:]]
        return nn.ModuleList(TriDetBlock(config, *block) for block in plan)


def neighbours(logits: torch.Tensor, before: int, after: int) -> torch.Tensor:
    """Each position's logits with those of its neighbours, (B, T, classes) -> (B, T, classes, before + 1 + after); 0
    where there is no position."""
    return F.pad(logits, (0, 0, before, after)).unfold(1, before + 1 + after, 1)


class TriDetLoss(TemporalDetectionLoss):
    """ActionFormer's loss with each positive's classification loss weighed by how well its segment fits (section 3.4),
    and a segment for each class of a point."""

    def forward(
        self, output: TemporalDetectionOutput, segments: Sequence[torch.Tensor], labels: Sequence[torch.Tensor]
    ) -> TemporalDetectionOutput:
        if not self.config.use_trident_head:
            return super().forward(output, segments, labels)
        classes, offsets = self.targets(output.points, segments, labels)
        positive = (classes.sum(-1) > 0) & output.mask
        normalizer = self.update(positive)
        pairs = classes.bool() & positive[..., None]
        predicted = output.offsets[pairs].float()
        target = offsets[:, :, None].expand_as(output.offsets)[pairs]
        focal = sigmoid_focal_loss(output.logits, self.smoothed(classes)) * output.mask[..., None]
        weight = torch.ones_like(focal).masked_scatter(
            pairs, offset_iou(predicted, target) ** self.config.iou_weight_power
        )
        output.classification_loss = (focal * weight).sum() / normalizer
        output.regression_loss = center_distance_iou_loss(predicted, target).sum() / normalizer
        output.loss = self.combined(output.classification_loss, output.regression_loss)
        return output


class TriDetForTemporalActionDetection(TriDetPreTrainedModel, TemporalDetector):
    """The pyramid, a class head, and the trident head (section 3.3): a start and an end head that give each position a
    score of being a boundary, and a centre head that says how to weigh the positions around a point."""

    voting = "score"

    def __init__(self, config: TriDetConfig) -> None:
        super().__init__(config)
        self.tridet = TriDetModel(config)
        bins = config.num_bins if config.use_trident_head else 0
        size = (config.neck_size, config.head_size)
        tail = (config.head_norm, config.eps_behind_convolutions, config.mask_norms)
        self.class_head = SharedHead(*size, config.num_labels, config.head_layers, config.head_kernel_size, *tail)
        self.offset_head = SharedHead(*size, 2 * (bins + 1), config.head_layers, config.head_kernel_size, *tail)
        self.offset_scales = nn.ModuleList(LevelScale() for _ in config.strides)
        if config.use_trident_head:
            for name in ("start_head", "end_head"):
                head = SharedHead(*size, config.num_labels, config.head_layers, config.boundary_kernel_size, *tail)
                self.add_module(name, head)
        self.detection_loss = TriDetLoss(config)
        self.post_init()

    @property
    def class_heads(self) -> list[SharedHead]:
        return [self.class_head] + ([self.start_head, self.end_head] if self.config.use_trident_head else [])

    def predict(self, levels: list[tuple[torch.Tensor, torch.Tensor]]) -> TriDetOutput:
        lengths, gap = [x.shape[1] for x, _ in levels], self.config.head_kernel_size // 2
        x, mask, gaps = join_levels(levels, gap)
        offsets = split_levels(self.offset_head(x, mask, gaps), lengths, gap)
        centers = [F.relu(scale(one)) for scale, one in zip(self.offset_scales, offsets, strict=True)]
        logits = split_levels(self.class_head(x, mask, gaps), lengths, gap)
        output = TriDetOutput(logits=torch.cat(logits, dim=1), center_offsets=torch.cat(centers, dim=1))
        if self.config.use_trident_head:
            gap = self.config.boundary_kernel_size // 2
            detached = [(x.detach(), mask) for x, mask in levels]
            joined = join_levels(detached, gap)
            starts, ends = (split_levels(head(*joined), lengths, gap) for head in (self.start_head, self.end_head))
            decoded = [self._distances(*level) for level in zip(centers, starts, ends, strict=True)]
            output.offsets = torch.cat(decoded, dim=1)
            output.start_logits, output.end_logits = torch.cat(starts, dim=1), torch.cat(ends, dim=1)
        else:
            output.offsets = output.center_offsets
        return output

    def _distances(self, centers: torch.Tensor, starts: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        """Expected distances to start and end, (B, T, classes, 2): means over the positions up to `num_bins` before and
        after a point, weighed by the boundary heads' scores there plus the centre head's."""
        bins = self.config.num_bins
        distance = torch.arange(bins + 1, device=centers.device, dtype=centers.dtype)
        before, after = centers[:, :, None].chunk(2, dim=-1)
        start = (neighbours(starts, bins, 0) + before).softmax(-1) @ distance.flip(0)
        end = (neighbours(ends, 0, bins) + after).softmax(-1) @ distance
        return torch.stack((start, end), dim=-1)
