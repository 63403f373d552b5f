"""ActionFormer (Zhang, Wu, Li, ECCV 2022, arXiv:2202.07925; happyharrycn/actionformer_release): actions with their
start and end, found at the points of a pyramid over a sequence of features, without anchors or proposals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init

from hf_video.base.modeling_detection import (
    TemporalDetectionLoss,
    TemporalDetectionOutput,
    TemporalDetectionPreTrainedModel,
    TemporalDetector,
    TemporalPyramidOutput,
)
from hf_video.layers.local_attention import local_attention
from hf_video.layers.positions import sinusoid_table
from hf_video.layers.tables import Tables
from hf_video.layers.temporal import AffineDropPath, LevelScale, SharedHead, TemporalConv, downsample_mask
from hf_video.models.actionformer.configuration_actionformer import ActionFormerConfig


class ActionFormerEmbeddings(nn.Module):
    """Features to the width of the backbone (section 3.2): a projection for each of several features, then convolutions
    with LayerNorm and ReLU, then positions where the configuration wants them."""

    def __init__(self, config: ActionFormerConfig) -> None:
        super().__init__()
        sizes, width = config.input_sizes, config.hidden_size
        self.input_sizes = sizes
        self.max_length = config.max_length
        streams = zip(sizes, config.stream_sizes or (), strict=bool(config.stream_sizes))
        self.projections = nn.ModuleList(nn.Linear(*stream) for stream in streams)
        first = width if config.stream_sizes else sizes[0]
        self.layers = nn.ModuleList(
            TemporalConv(width if i else first, width, config.embedding_kernel_size, bias=not config.embedding_norm)
            for i in range(config.embedding_layers)
        )
        self.norms = nn.ModuleList(
            nn.LayerNorm(width, config.layer_norm_eps) if config.embedding_norm else nn.Identity() for _ in self.layers
        )
        self.positions = None
        if config.use_absolute_positions:
            self.positions = Tables(positions=sinusoid_table(config.max_length, width)[None] / width**0.5)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, T, C) and its mask (B, T, 1) -> (B, T, hidden_size)."""
        if len(self.projections):
            parts = x.split(self.input_sizes, dim=2)
            x = torch.cat([layer(part) * mask for layer, part in zip(self.projections, parts, strict=True)], dim=2)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = F.relu(norm(layer(x) * mask))
        if self.positions is not None:
            table = self.positions.table("positions", x.device)
            if x.shape[1] > self.max_length:  # a longer video than any in training: positions are stretched over it
                table = F.interpolate(table.transpose(1, 2), x.shape[1], mode="linear").transpose(1, 2)
            x = x + table[:, : x.shape[1]].to(x.dtype) * mask
        return x


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
            getattr(self, name)(getattr(self, f"{name}_norm")(getattr(self, f"{name}_conv")(x) * mask))
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
        return self.dropout(self.output(out.transpose(1, 2).flatten(2))) * mask


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
        update = self.attention_path(self.attention(self.attention_norm(x), mask))
        if self.stride > 1:
            x = F.max_pool1d(x.transpose(1, 2), 3, self.stride, padding=1).transpose(1, 2)
        x = x * mask + update
        return x + self.mlp_path(self.mlp(self.mlp_norm(x)) * mask), mask


class ActionFormerConvBlock(nn.Module):
    """The block of the paper's convolutional ablation: two convolutions and a shortcut."""

    def __init__(self, config: ActionFormerConfig, stride: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.stride = stride
        self.conv1 = TemporalConv(width, 2 * width, 3, stride)
        self.conv2 = TemporalConv(2 * width, width, 3)
        self.shortcut = TemporalConv(width, width, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        down = downsample_mask(mask, self.stride)
        out = self.conv2(F.relu(self.conv1(x) * down)) * down
        shortcut = self.shortcut(x) * down if self.stride > 1 else x
        return F.relu(out + shortcut), down


class ActionFormerNeck(nn.Module):
    """The levels' last norm; with `neck="fpn"` after a top-down pyramid (section 3.3)."""

    def __init__(self, config: ActionFormerConfig) -> None:
        super().__init__()
        levels, width, norm = config.branch_layers + 1, config.neck_size, config.neck_norm
        self.is_pyramid = config.neck == "fpn"
        self.norms = nn.ModuleList(
            nn.LayerNorm(width, config.layer_norm_eps) if norm else nn.Identity() for _ in range(levels)
        )
        if self.is_pyramid:
            self.laterals = nn.ModuleList(nn.Linear(config.hidden_size, width, bias=not norm) for _ in range(levels))
            self.convs = nn.ModuleList(
                TemporalConv(width, width, 3, groups=width, bias=not norm) for _ in range(levels)
            )

    def forward(self, levels: Sequence[torch.Tensor], masks: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        levels = list(levels)
        if self.is_pyramid:
            levels = [layer(x) * mask for layer, x, mask in zip(self.laterals, levels, masks, strict=True)]
            for i in range(len(levels) - 1, 0, -1):
                levels[i - 1] = levels[i - 1] + levels[i].repeat_interleave(2, dim=1)
            levels = [conv(x) * mask for conv, x, mask in zip(self.convs, levels, masks, strict=True)]
        return tuple(norm(x) for norm, x in zip(self.norms, levels, strict=True))


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


class ActionFormerModel(ActionFormerPreTrainedModel):
    """The backbone: features (B, T, C) to a pyramid of `branch_layers` + 1 levels, each half as long."""

    def __init__(self, config: ActionFormerConfig) -> None:
        super().__init__(config)
        self.embeddings = ActionFormerEmbeddings(config)
        windows = config.window_sizes
        plan = [(windows[0], 1)] * config.stem_layers + [(window, 2) for window in windows[1:]]
        if config.backbone == "transformer":
            self.blocks = nn.ModuleList(ActionFormerBlock(config, *block) for block in plan)
        else:
            self.blocks = nn.ModuleList(ActionFormerConvBlock(config, stride) for _, stride in plan)
        self.neck = ActionFormerNeck(config)
        self.post_init()

    def forward(
        self, features: torch.Tensor, mask: torch.Tensor | None = None, return_dict: bool | None = None
    ) -> TemporalPyramidOutput | tuple:
        """Args:
            features: (B, T, input_size), float.
            mask: (B, T), True where a video is; None for all of it.
            return_dict: False for a tuple.

        Returns:
            `TemporalPyramidOutput`; T is padded as `config.padded_length` says.
        """
        x, valid = self.padded(features, mask)
        valid = valid.to(x.dtype)
        x = self.embeddings(x, valid)
        levels, masks = [], []
        for i, block in enumerate(self.blocks):
            x, valid = block(x, valid)
            if i >= self.config.stem_layers - 1:
                levels.append(x)
                masks.append(valid)
        states = self.neck(levels, masks)
        output = TemporalPyramidOutput(hidden_states=states, masks=tuple(one[..., 0].bool() for one in masks))
        return output if return_dict or (return_dict is None and self.config.return_dict) else output.to_tuple()


class ActionFormerForTemporalActionDetection(TemporalDetector, ActionFormerPreTrainedModel):
    """The pyramid and two heads shared by its levels: class scores, and distances to start and end."""

    def __init__(self, config: ActionFormerConfig) -> None:
        super().__init__(config)
        self.actionformer = ActionFormerModel(config)
        head = (config.neck_size, config.head_size)
        shape = (config.head_layers, config.head_kernel_size, config.head_norm, config.layer_norm_eps)
        self.class_head = SharedHead(*head, config.num_labels, *shape)
        self.offset_head = SharedHead(*head, 2, *shape)
        self.offset_scales = nn.ModuleList(LevelScale() for _ in config.strides)
        self.detection_loss = TemporalDetectionLoss(config)
        self.post_init()

    def forward(
        self,
        features: torch.Tensor,
        mask: torch.Tensor | None = None,
        segments: Sequence[torch.Tensor] | None = None,
        labels: Sequence[torch.Tensor] | None = None,
        return_dict: bool | None = None,
    ) -> TemporalDetectionOutput | tuple:
        """Args:
            features: (B, T, input_size), float.
            mask: (B, T), True where a video is; None for all of it.
            segments: for the loss, (N, 2) for each video, start and end in steps of the feature grid.
            labels: for the loss, (N,) class numbers for each video.
            return_dict: False for a tuple.

        Returns:
            `TemporalDetectionOutput`; `find_segments` turns it into segments.
        """
        pyramid = self.actionformer(features, mask, return_dict=True)
        masks = [one[..., None].to(features.dtype) for one in pyramid.masks]
        logits = [self.class_head(x, one) for x, one in zip(pyramid.hidden_states, masks, strict=True)]
        offsets = [
            F.relu(scale(self.offset_head(x, one)))
            for scale, x, one in zip(self.offset_scales, pyramid.hidden_states, masks, strict=True)
        ]
        output = TemporalDetectionOutput(
            logits=torch.cat(logits, dim=1),
            offsets=torch.cat(offsets, dim=1),
            mask=torch.cat(pyramid.masks, dim=1),
            points=self.points_of([x.shape[1] for x in pyramid.hidden_states], features.device),
        )
        if segments is not None:
            output = self.detection_loss(output, segments, labels)
        return output if return_dict or (return_dict is None and self.config.return_dict) else output.to_tuple()
