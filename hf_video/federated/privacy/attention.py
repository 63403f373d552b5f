"""Fused attention of several samples under `torch.func.vmap`.

PyTorch has no rule for its fused kernel on the CPU under vmap: it calls it once for each sample, or, as plain products,
keeps all attention weights. The samples are a batch, and attention is the same for each row of it: they are laid
together, the kernel is called once, and they are taken apart again; in the backward pass too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_FORWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class FoldedAttention(TorchFunctionMode):
    """Inside, attention on the CPU without mask and dropout is the fused kernel's, under vmap too."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if func is F.scaled_dot_product_attention and len(args) == 3 and _is_plain(args, options):
            scale = options.get("scale")
            return _Attention.apply(*args, args[0].shape[-1] ** -0.5 if scale is None else scale)[0]
        return func(*args, **options)


def _is_plain(tensors: Sequence[torch.Tensor], options: Mapping[str, Any]) -> bool:
    """Whether the kernel takes it: four dimensions, one length of the heads, nothing masked or dropped."""
    quiet = options.get("attn_mask") is None and not options.get("dropout_p") and not options.get("is_causal")
    same = all(one.ndim == 4 and one.device.type == "cpu" and one.shape[-1] == tensors[0].shape[-1] for one in tensors)
    return quiet and same and not options.get("enable_gqa")


def _fold(batch: int, dims: Sequence[int | None], tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Lays the samples of a vmap, whose dimension is one of `dims`, and the first dimension together."""
    moved = (
        one.expand(batch, *one.shape) if dim is None else one.movedim(dim, 0)
        for one, dim in zip(tensors, dims, strict=True)
    )
    return [one.flatten(0, 1) for one in moved]


class _Attention(torch.autograd.Function):
    """(q, k, v, scale) -> the output and the logarithms of the sums, which the backward pass needs."""

    @staticmethod
    def forward(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
        return _FORWARD(q, k, v, 0.0, False, attn_mask=None, scale=scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
        *tensors, ctx.scale = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*tensors, *output)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
        return *_AttentionBackward.apply(gradients[0], *ctx.saved_tensors, ctx.scale), None

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[int | None], *inputs: Any) -> tuple[Any, Any]:
        *tensors, scale = inputs
        found = _Attention.apply(*_fold(info.batch_size, in_dims[:-1], tensors), scale)
        return tuple(one.unflatten(0, (info.batch_size, -1)) for one in found), (0, 0)


class _AttentionBackward(torch.autograd.Function):
    """(gradient, q, k, v, output, logarithms, scale) -> gradients of q, k and v."""

    @staticmethod
    def forward(gradient: torch.Tensor, *inputs: Any) -> tuple[torch.Tensor, ...]:
        *saved, scale = inputs
        return _BACKWARD(gradient, *saved, 0.0, False, attn_mask=None, scale=scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
        raise NotImplementedError("Fused attention has no second derivative.")

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[int | None], *inputs: Any) -> tuple[Any, Any]:
        *tensors, scale = inputs
        found = _AttentionBackward.apply(*_fold(info.batch_size, in_dims[:-1], tensors), scale)
        return tuple(one.unflatten(0, (info.batch_size, -1)) for one in found), (0, 0, 0)
