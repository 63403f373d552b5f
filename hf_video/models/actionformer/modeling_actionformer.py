"""ActionFormer (Zhang, Wu, Li, ECCV 2022, arXiv:2202.07925; happyharrycn/actionformer_release): actions with their
start and end, found at the points of a pyramid over a sequence of features, without anchors or proposals."""

from __future__ import annotations

import math

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
from hf_video.layers.linear import in_turn, on_rows
from hf_video.layers.local_attention import local_attention
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
from hf_video.models.actionformer.configuration_actionformer import ActionFormerConfig


class ActionFormerAttention(nn.Module):
    """Attention with a depthwise convolution and a LayerNorm before each of query, key and value; the convolutions
    halve the sequence where `stride` is 2. Within a window, or over all positions where `window` is at most 1."""

    def __init__(self, config: ActionFormerConfig, window: int, stride: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.num_heads, self.window, self.stride = config.num_attention_heads, window, stride
        self.dropout_p = config.attention_dropout
        for name in ("query", "key", "value"):
            self.add_module(f"{name}_conv", TemporalConv(width, width, 3, stride, groups=width, bias=False))
            self.add_module(f"{name}_norm", nn.LayerNorm(width, config.layer_norm_eps))
            self.add_module(name, nn.Linear(width, width))
        self.output = nn.Linear(width, width)
        self.dropout = nn.Dropout(config.dropout)
        self.relative_positions = None
        if config.use_relative_positions and window > 1:
            self.relative_positions = nn.Parameter(torch.zeros(self.num_heads, window))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, T, C), and the mask of the output (B, T / stride, 1) -> (B, T / stride, C)."""
        query, key, value = (
            on_rows(getattr(self, name), getattr(self, f"{name}_norm")(masked(getattr(self, f"{name}_conv")(x), mask)))
            .unflatten(2, (self.num_heads, -1))
            .transpose(1, 2)
            for name in ("query", "key", "value")
        )
        dropout, valid = self.dropout_p if self.training else 0.0, mask[..., 0]
        if self.window > 1:
            out = local_attention(query, key, value, valid, self.window, bias=self.relative_positions, dropout=dropout)
        else:
            # A video that is all padding at this level has no key: attending to all alike keeps NaN out.
            seen = valid.bool() | ~valid.bool().any(1, keepdim=True)
            out = F.scaled_dot_product_attention(query, key, value, seen[:, None, None], dropout_p=dropout)
        return masked(self.dropout(on_rows(self.output, out.transpose(1, 2).flatten(2))), mask)


class ActionFormerBlock(nn.Module):
    """Attention and MLP, each behind a LayerNorm and, with stochastic depth, a learnt scale; the shortcut is a maximum
    over three positions where the block halves the sequence."""

    def __init__(self, config: ActionFormerConfig, window: int, stride: int) -> None:
        super().__init__()
        width, rate = config.hidden_size, config.drop_path_rate
        self.stride = stride
        self.attention_norm = nn.LayerNorm(width, config.layer_norm_eps)
        self.attention = ActionFormerAttention(config, window, stride)
        self.mlp_norm = nn.LayerNorm(width, config.layer_norm_eps)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(config.dropout),
            nn.Linear(4 * width, width), nn.Dropout(config.dropout),
        )  # fmt: skip
        self.attention_path = AffineDropPath(width, rate) if rate > 0 else nn.Identity()
        self.mlp_path = AffineDropPath(width, rate) if rate > 0 else nn.Identity()

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mask = downsample_mask(mask, self.stride)
        update = self.attention(self.attention_norm(x), mask)
        if self.stride > 1:
            x = halved(x)
        x = add_update(masked(x, mask), update, self.attention_path)
        return add_update(x, masked(in_turn(self.mlp, self.mlp_norm(x)), mask), self.mlp_path), mask


class ActionFormerPreTrainedModel(TemporalDetectionPreTrainedModel):
    config_class = ActionFormerConfig
    base_model_prefix = "actionformer"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """PyTorch's own draw for weights, as the official code leaves it, with biases at 0."""
        if isinstance(module, (nn.Linear, nn.Conv1d)):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, AffineDropPath):
            init.constant_(module.scale, 1e-4)
        elif isinstance(module, LevelScale):
            init.ones_(module.scale)
        elif isinstance(module, ActionFormerAttention) and module.relative_positions is not None:
            init.trunc_normal_(module.relative_positions, std=(2.0 / self.config.hidden_size) ** 0.5)
        elif isinstance(module, TemporalDetectionLoss):
            init.constant_(module.normalizer, float(self.config.loss_normalizer))
        elif isinstance(module, ActionFormerForTemporalActionDetection):
            prior = torch.full((self.config.num_labels,), self.config.prior_probability)
            prior[list(self.config.empty_classes)] = 1e-6
            init.copy_(module.class_head.output.bias, prior.logit())


class ActionFormerModel(ActionFormerPreTrainedModel, TemporalPyramid):
    """The backbone: features (B, T, C) to a pyramid of `branch_layers` + 1 levels, each half as long."""

    def make_blocks(self, config: ActionFormerConfig) -> nn.ModuleList:
        windows = config.window_sizes
        plan = [(windows[0], 1)] * config.stem_layers + [(window, 2) for window in windows[1:]]
        return nn.ModuleList(ActionFormerBlock(config, window, stride) for window, stride in plan)


class ActionFormerForTemporalActionDetection(ActionFormerPreTrainedModel, TemporalDetector):
    """The pyramid and two heads shared by its levels: class scores, and distances to start and end."""

    def __init__(self, config: ActionFormerConfig) -> None:
        super().__init__(config)
        self.actionformer = ActionFormerModel(config)
        head = (config.neck_size, config.head_size)
        shape = (
            config.head_layers,
            config.head_kernel_size,
            config.head_norm,
            config.eps_behind_convolutions,
            config.mask_norms,
        )
        self.class_head = SharedHead(*head, config.num_labels, *shape)
        self.offset_head = SharedHead(*head, 2, *shape)
        self.offset_scales = nn.ModuleList(LevelScale() for _ in config.strides)
        self.detection_loss = TemporalDetectionLoss(config)
        self.post_init()

    def predict(self, levels: list[tuple[torch.Tensor, torch.Tensor]]) -> TemporalDetectionOutput:
        lengths, gap = [x.shape[1] for x, _ in levels], self.config.head_kernel_size // 2
        joined = join_levels(levels, gap)
        logits = split_levels(self.class_head(*joined), lengths, gap)
        offsets = split_levels(self.offset_head(*joined), lengths, gap)
        offsets = [F.relu(scale(x)) for scale, x in zip(self.offset_scales, offsets, strict=True)]
        return TemporalDetectionOutput(logits=torch.cat(logits, dim=1), offsets=torch.cat(offsets, dim=1))
