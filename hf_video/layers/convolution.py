"""Convolutions over space and time: units with batch norm, TensorFlow's padding, the bottleneck of video ResNets.

Maps are (B, D, T, H, W) in here; models hand out tokens (B, T·H·W, D), see `tokens`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

from hf_video.layers.causal import Stream, with_past
from hf_video.layers.linear import is_plain, may_use_onednn

Triple = tuple[int, int, int]  # (frames, rows, columns)
FAST_TYPES = (torch.float32, torch.bfloat16)  # of oneDNN


def same_padding(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after one dimension under TensorFlow's SAME: they depend on the length, and an odd one lies
    behind, so that no fixed symmetric padding stands for it."""
    total = max(kernel - (length % stride or stride), 0)
    return total // 2, total - total // 2


def same_max_pool(x: torch.Tensor, kernel: Triple, stride: Triple) -> torch.Tensor:
    """Max-pooling under SAME: (B, D, T, H, W) -> ceil(T / stride), … Places outside never win: TensorFlow pads zeros
    where we leave them out, which is one thing for maps that a ReLU made."""
    before = [same_padding(n, k, s)[0] for n, k, s in zip(x.shape[2:], kernel, stride, strict=True)]
    # What lies behind is at most one place more than before; ceil_mode opens that last window without a copy.
    return F.max_pool3d(x, kernel, stride, before, ceil_mode=True)


def window_means(feature_map: torch.Tensor, window: Sequence[int]) -> torch.Tensor:
    """Means of all windows of (frames, rows, columns), one step apart: (B, t, h, w, D) -> (B, t', h', w', D). 0 is the
    whole map, and a smaller map is averaged whole. (PyTorch's own pooling knows no bfloat16 on CPUs.)"""
    for axis, size in enumerate(window, start=1):
        length = feature_map.shape[axis]
        feature_map = feature_map.unfold(axis, min(size, length) if size else length, 1).mean(-1)
    return feature_map


def tokens(x: torch.Tensor) -> torch.Tensor:
    """(B, D, T, H, W) -> (B, T·H·W, D), in order frame, row, column: a view."""
    return x.flatten(2).transpose(1, 2)


def channels_last(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The same map with its channels side by side in memory, for `convolve`, if `weight` learns nothing from it on a
    CPU: depth-wise convolutions then take a fifth of the time."""
    if x.dtype in FAST_TYPES and may_use_onednn(x, weight):
        return x.contiguous(memory_format=torch.channels_last_3d)
    return x


def convolve(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Triple,
    padding: Triple,
    dilation: Triple = (1, 1, 1),
    groups: int = 1,
    *,
    relu: bool = False,
) -> torch.Tensor:
    """`F.conv3d`, then ReLU if asked. Where `x` lies channels last on a CPU and nothing is to be learnt, places are
    rows of a product, and convolutions over time or space alone are of images: PyTorch has faster kernels for those."""
    fast = x.dtype in FAST_TYPES and may_use_onednn(x, weight, bias)
    if not (fast and x.is_contiguous(memory_format=torch.channels_last_3d)):
        y = F.conv3d(x, weight, bias, stride, padding, dilation, groups)
        return y.relu_() if relu else y
    over_time, *over_space = weight.shape[2:]
    if weight.shape[2:].numel() == groups == 1 and not any(padding):
        rows = x[:, :, :: stride[0], :: stride[1], :: stride[2]].permute(0, 2, 3, 4, 1)
        act = "relu" if relu else "none"
        return torch.ops.mkldnn._linear_pointwise(rows, weight.flatten(1), bias, act, [], "").permute(0, 4, 1, 2, 3)
    if over_space == [1, 1] and stride[1:] == (1, 1) and padding[1:] == (0, 0):
        image = (
            x.permute(0, 2, 3, 4, 1).flatten(2, 3).permute(0, 3, 1, 2)
        )  # (B, C, time, places); x.flatten(3) may copy
        sizes = (stride[0], 1), (padding[0], 0), (dilation[0], 1)
        y = F.conv2d(image, weight.squeeze(-1), bias, *sizes, groups).unflatten(-1, x.shape[3:])
    elif over_time == stride[0] == 1 and padding[0] == 0:
        frames = x.transpose(1, 2).flatten(0, 1)
        y = F.conv2d(frames, weight.squeeze(2), bias, stride[1:], padding[1:], dilation[1:], groups)
        y = y.unflatten(0, (x.shape[0], -1)).transpose(1, 2)
    else:
        y = F.conv3d(x, weight, bias, stride, padding, dilation, groups)
    return y.relu_() if relu else y


class BatchNorm(nn.BatchNorm3d):
    """Batch norm that `frozen` keeps on its stored statistics in training too: right for fine-tuning with batches of a
    few clips, whose own statistics are noise."""

    frozen = False

    def train(self, mode: bool = True):
        return super().train(mode and not self.frozen)


def set_batch_norm(model: nn.Module, *, eps: float, momentum: float, frozen: bool = False) -> None:
    """The same settings for every norm of a model; `momentum` is the share of the new batch."""
    for module in model.modules():
        if isinstance(module, BatchNorm):
            module.eps, module.momentum, module.frozen = eps, momentum, frozen
            module.train(module.training)


def exchange_batch_norms(model: nn.Module) -> list[str]:
    """Puts a GroupNorm of gcd(32, C) groups, with the same weight and bias, in the place of every batch norm; returns
    their names. Running statistics are dropped: a model that learned with them must learn again."""
    found = [name for name, module in model.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for name in found:
        old = model.get_submodule(name)
        new = nn.GroupNorm(math.gcd(32, old.num_features), old.num_features, eps=old.eps, affine=old.affine)
        new.weight, new.bias = old.weight, old.bias
        new.starts_at_zero = getattr(old, "starts_at_zero", False)
        model.set_submodule(name, new)
    return found


class ConvNormAct(nn.Module):
    """Convolution without bias, batch norm, ReLU: (B, C, T, H, W) -> (B, D, T', H', W').

    `padding="same"` is TensorFlow's (see `same_padding`), "half" is kernel // 2 on both sides, times `dilation`, which
    is that of rows and columns; `causal` puts the padding of time before the first frame. Out of training the norm is
    folded into the convolution's weights, which spares two passes over the map.
    """

    dilation: Triple = (1, 1, 1)
    past = 0  # frames of the input that a causal convolution sees besides the one at hand

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Triple = (1, 1, 1),
        stride: Triple = (1, 1, 1),
        *,
        padding: str = "half",
        dilation: int = 1,
        groups: int = 1,
        act: bool = True,
        causal: bool = False,
    ) -> None:
        super().__init__()
        # With stride 1 and odd kernels the two paddings are one.
        self.pads_by_size = padding == "same" and max(stride) > 1
        self.kernel, self.stride, self.groups = kernel, stride, groups
        self.dilation = (1, dilation, dilation)
        half = tuple(d * (k // 2) for d, k in zip(self.dilation, kernel, strict=True))
        if causal:
            self.past, half = kernel[0] - 1, (0, *half[1:])
        self.padding = (0, 0, 0) if self.pads_by_size else half
        sizes = (kernel, stride, self.padding, self.dilation)
        self.conv = nn.Conv3d(in_channels, out_channels, *sizes, groups=groups, bias=False)
        self.norm = BatchNorm(out_channels)
        self.act = act

    def pad(self, x: torch.Tensor) -> torch.Tensor:
        sizes = zip(x.shape[2:], self.kernel, self.stride, strict=True)
        front_t, back_t, front_h, back_h, front_w, back_w = [n for size in sizes for n in same_padding(*size)]
        return F.pad(x, (front_w, back_w, front_h, back_h, front_t, back_t))

    def folded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias of the one convolution that convolution and norm are out of training."""
        norm = self.norm
        scale = norm.weight.float() * (norm.running_var.float() + norm.eps).rsqrt()
        weight = self.conv.weight.float() * scale.view(-1, 1, 1, 1, 1)
        bias = norm.bias.float() - norm.running_mean.float() * scale
        return weight.to(self.conv.weight.dtype), bias.to(self.conv.weight.dtype)

    def forward(self, x: torch.Tensor, stream: Stream | None = None) -> torch.Tensor:
        if self.pads_by_size:
            x = self.pad(x)
        if self.past:
            x = with_past(x, self.past, self, stream)
        private = is_plain(self.norm, BatchNorm)
        if private and not self.norm.training and is_plain(self.conv, nn.Conv3d):
            sizes = self.stride, self.padding, self.dilation, self.groups
            return convolve(x, *self.folded(), *sizes, relu=self.act)
        x = self.norm(self.conv(x))
        # In place only where no hook has seen the map: it may have kept it, and full backward hooks forbid it.
        return F.relu(x, inplace=private) if self.act else x


@contextmanager
def statistics_kept(block: nn.Module):
    """Batch norms of the block leave their running statistics as they are, also in training."""
    norms = [m for m in block.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    saved = [(m.momentum, m.num_batches_tracked) for m in norms]
    try:
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        yield
    finally:
        for norm, (momentum, count) in zip(norms, saved, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def checkpoint_by_inputs(reentrant: Callable, other: Callable, forward: Callable, *inputs):
    """Reentrant checkpointing where an input has a gradient; a block that sees pixels would get none by it."""
    return (reentrant if any(getattr(x, "requires_grad", False) for x in inputs) else other)(forward, *inputs)


class ConvBlock(GradientCheckpointingLayer):
    """A block that may hold batch norms. Gradient checkpointing runs it twice; its statistics see the batch once."""

    @property
    def _gradient_checkpointing_func(self):
        run = self.checkpoint
        if not isinstance(run, partial) or "context_fn" in run.keywords or torch.compiler.is_compiling():
            return run
        once = partial(run, use_reentrant=False, context_fn=lambda: (nullcontext(), statistics_kept(self)))
        return once if run.keywords.get("use_reentrant") is False else partial(checkpoint_by_inputs, run, once)

    @_gradient_checkpointing_func.setter
    def _gradient_checkpointing_func(self, run: Callable) -> None:
        self.checkpoint = run

    @_gradient_checkpointing_func.deleter
    def _gradient_checkpointing_func(self) -> None:
        del self.checkpoint


class Bottleneck(ConvBlock):
    """The residual block of video ResNets (Feichtenhofer et al., 2019, arXiv:1812.03982): 1×1 over `time` frames, 3×3,
    1×1, and a shortcut that is a convolution where the shape changes. `pool` max-pools what comes in over that many
    frames; `stride` and `dilation` are those of the 3×3. (B, C, T, H, W) -> (B, D, T', H', W')."""

    def __init__(
        self,
        in_channels: int,
        inner: int,
        out_channels: int,
        *,
        time: int,
        stride: int = 1,
        dilation: int = 1,
        pool: int = 1,
    ):
        super().__init__()
        self.pool = (pool, 1, 1)
        self.conv_a = ConvNormAct(in_channels, inner, (time, 1, 1))
        self.conv_b = ConvNormAct(inner, inner, (1, 3, 3), (1, stride, stride), dilation=dilation)
        self.conv_c = ConvNormAct(inner, out_channels, act=False)
        # Told to the norm itself: initialisation visits only modules that own parameters.
        self.conv_c.norm.starts_at_zero = True
        self.shortcut = None
        if in_channels != out_channels or stride > 1:
            self.shortcut = ConvNormAct(in_channels, out_channels, stride=(1, stride, stride), act=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.pool[0] > 1:
            x = F.max_pool3d(x, self.pool)
        update = self.conv_c(self.conv_b(self.conv_a(x)))
        return F.relu(update + (x if self.shortcut is None else self.shortcut(x)))
