"""Blocks of one-dimensional detectors (ActionFormer, Zhang et al., ECCV 2022, arXiv:2202.07925; TriDet, Shi et al.,
CVPR 2023, arXiv:2303.07347). Sequences are (batch, time, channels); a mask (batch, time, 1) is 1 where the video is
and 0 in the padding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig

from hf_video.layers.embeddings import Tables, sinusoid_table
from hf_video.layers.linear import is_untouched
from hf_video.layers.temporal_convolution import TemporalConv
from hf_video.layers.vit import DropPath


def downsample_mask(mask: torch.Tensor, stride: int) -> torch.Tensor:
    """The mask of every `stride`th position, the first one included."""
    return mask[:, ::stride]


def masked(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """x where the video is, 0 in the padding; x itself where nothing is padded, to spare a walk through memory."""
    seen = mask.device.type == "cpu" and not (torch.compiler.is_compiling() or torch.jit.is_tracing())
    return x if seen and bool(mask.all()) else x * mask


def is_eager_inference(x: torch.Tensor) -> bool:
    """Whether no graph is made of what happens to x, by autograd or a compiler, and a CPU's cache decides its time."""
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return x.device.type == "cpu" and not torch.is_grad_enabled() and not traced


def halved(x: torch.Tensor) -> torch.Tensor:
    """The maximum of three neighbours at every second position: (B, T, C) -> (B, T / 2, C)."""
    if x.shape[1] % 2 or not is_eager_inference(x):
        return F.max_pool1d(x.transpose(1, 2), 3, 2, padding=1).transpose(1, 2)
    out = torch.maximum(x[:, ::2], x[:, 1::2])
    torch.maximum(out[:, 1:], x[:, 1:-1:2], out=out[:, 1:])
    return out


class AffineDropPath(DropPath):
    """A learnt scale for each channel of a residual branch (CaiT's LayerScale, begun at `init`), then stochastic depth
    per sample."""

    def __init__(self, channels: int, p: float = 0.0, init: float = 1e-4) -> None:
        super().__init__(p)
        self.scale = nn.Parameter(torch.full((channels,), init))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x * self.scale)


def add_update(x: torch.Tensor, update: torch.Tensor, path: nn.Module) -> torch.Tensor:
    """x + path(update), in one walk through memory where `path` only scales."""
    if path.training or not is_untouched(path, AffineDropPath) or not x.dtype == update.dtype == path.scale.dtype:
        return x + path(update)
    return torch.addcmul(x, update, path.scale)


class LevelScale(nn.Module):
    """One learnt number that multiplies the offsets of a pyramid level."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


def relu_of_norm(norm: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """relu(norm(x)); in place where nobody else holds what the norm gave."""
    return F.relu(norm(x), inplace=is_eager_inference(x) and is_untouched(norm, nn.LayerNorm))


class SharedHead(nn.Module):
    """Convolutions, each with LayerNorm and ReLU, and a last one to `outputs` columns; the same for every level. With
    `mask_norms` the padding is 0 behind norms, and what the last convolution makes of it stays (OpenTAD); without, it
    is 0 behind every convolution."""

    def __init__(
        self,
        channels: int,
        hidden: int,
        outputs: int,
        layers: int,
        kernel_size: int,
        norm: bool,
        eps: float = 1e-5,
        mask_norms: bool = False,
    ) -> None:
        super().__init__()
        self.is_masking_norms = mask_norms
        widths = [channels] + [hidden] * (layers - 1)
        self.layers = nn.ModuleList(
            TemporalConv(width, hidden, kernel_size, bias=not norm) for width in widths[: layers - 1]
        )
        self.norms = nn.ModuleList(nn.LayerNorm(hidden, eps) if norm else nn.Identity() for _ in range(layers - 1))
        self.output = TemporalConv(widths[-1], outputs, kernel_size)

    def forward(self, x: torch.Tensor, mask: torch.Tensor, gaps: torch.Tensor) -> torch.Tensor:
        """(B, T, C), its mask (B, T, 1) and the positions between levels (see `join_levels`) -> (B, T, outputs)."""
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = relu_of_norm(norm, masked(layer(x), mask))
            x = masked(x, mask) if self.is_masking_norms else x
            x = x.index_fill(1, gaps, 0.0) if torch.is_grad_enabled() else x.index_fill_(1, gaps, 0.0)
        return self.output(x) if self.is_masking_norms else masked(self.output(x), mask)


def join_levels(
    levels: Sequence[tuple[torch.Tensor, torch.Tensor]], gap: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """States (B, T, C) and masks (B, T, 1) of a pyramid's levels as one sequence, so that a head is called once: one
    after another, with `gap` zeros between them, as many as a convolution sees beyond an end. And the gaps'
    positions."""
    first, first_mask = levels[0]
    states, masks, gaps = [first], [first_mask], []
    place = first.shape[1]
    for x, mask in levels[1:]:
        states += [x.new_zeros(x.shape[0], gap, x.shape[2]), x]
        masks += [mask.new_ones(x.shape[0], gap, 1), mask]
        gaps += range(place, place + gap)
        place += gap + x.shape[1]
    return torch.cat(states, dim=1), torch.cat(masks, dim=1), torch.tensor(gaps, dtype=torch.long, device=first.device)


def split_levels(joined: torch.Tensor, lengths: Sequence[int], gap: int) -> list[torch.Tensor]:
    """What `join_levels` joined, (B, T, C) of each level, without gaps."""
    parts, place = [], 0
    for length in lengths:
        parts.append(joined[:, place : place + length])
        place += length + gap
    return parts


class TemporalEmbeddings(nn.Module):
    """Features to the width of the backbone (section 3.2): a projection for each of several features, then convolutions
    with LayerNorm and ReLU, then positions where the configuration wants them. `standardize_features` brings columns to
    mean 0 and deviation 1 first."""

    feature_mean: torch.Tensor
    feature_std: torch.Tensor

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        sizes, width = config.input_sizes, config.hidden_size
        self.input_sizes = sizes
        self.max_length = config.max_length
        self.is_standardizing, self.is_masking_norms = config.standardize_features, config.mask_norms
        if self.is_standardizing:
            self.register_buffer("feature_mean", torch.zeros(sum(sizes)))
            self.register_buffer("feature_std", torch.ones(sum(sizes)))
        streams = zip(sizes, config.stream_sizes or (), strict=bool(config.stream_sizes))
        self.projections = nn.ModuleList(nn.Linear(*stream) for stream in streams)
        first = width if config.stream_sizes else sizes[0]
        self.layers = nn.ModuleList(
            TemporalConv(width if i else first, width, config.embedding_kernel_size, bias=not config.embedding_norm)
            for i in range(config.embedding_layers)
        )
        self.norms = nn.ModuleList(
            nn.LayerNorm(width, config.eps_behind_convolutions) if config.embedding_norm else nn.Identity()
            for _ in self.layers
        )
        self.positions = None
        if config.use_absolute_positions:
            self.positions = Tables(positions=sinusoid_table(config.max_length, width)[None] / width**0.5)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, T, C) and its mask (B, T, 1) -> (B, T, hidden_size)."""
        if self.is_standardizing:
            x = (x - self.feature_mean) / self.feature_std * mask
        if len(self.projections):
            parts = x.split(self.input_sizes, dim=2)
            x = torch.cat(
                [masked(layer(part), mask) for layer, part in zip(self.projections, parts, strict=True)], dim=2
            )
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = relu_of_norm(norm, masked(layer(x), mask))
            x = masked(x, mask) if self.is_masking_norms else x
        if self.positions is not None:
            table = self.positions.table("positions", x.device)
            if x.shape[1] > self.max_length:  # a longer video than any in training: positions are stretched over it
                table = F.interpolate(table.transpose(1, 2), x.shape[1], mode="linear").transpose(1, 2)
            x = x + table[:, : x.shape[1]].to(x.dtype) * mask
        return x


class TemporalConvBlock(nn.Module):
    """The block of the paper's convolutional ablation: two convolutions and a shortcut."""

    def __init__(self, config: PreTrainedConfig, stride: int) -> None:
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


class TemporalNeck(nn.Module):
    """The levels' last norm; with `neck="fpn"` after a top-down pyramid (section 3.3)."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        levels, width, norm = config.branch_layers + 1, config.neck_size, config.neck_norm
        self.is_pyramid = config.neck == "fpn"
        self.norms = nn.ModuleList(
            nn.LayerNorm(width, config.eps_behind_convolutions) if norm else nn.Identity() for _ in range(levels)
        )
        if self.is_pyramid:
            self.laterals = nn.ModuleList(nn.Linear(config.hidden_size, width, bias=not norm) for _ in range(levels))
            self.convs = nn.ModuleList(
                TemporalConv(width, width, 3, groups=width, bias=not norm) for _ in range(levels)
            )

    def forward(self, levels: Sequence[torch.Tensor], masks: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        levels = list(levels)
        if self.is_pyramid:
            levels = [masked(layer(x), mask) for layer, x, mask in zip(self.laterals, levels, masks, strict=True)]
            for i in range(len(levels) - 1, 0, -1):
                levels[i - 1] = levels[i - 1] + levels[i].repeat_interleave(2, dim=1)
            levels = [masked(conv(x), mask) for conv, x, mask in zip(self.convs, levels, masks, strict=True)]
        return tuple(norm(x) for norm, x in zip(self.norms, levels, strict=True))
