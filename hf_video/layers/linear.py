"""Linear maps as products of matrices, and which layers such a shortcut may replace by their weights.

Several linear maps as one product, a convolution over patches as a product, a norm folded into the convolution before
it: all of these read a layer's weights and don't call the layer. That is right only where a call does nothing else. A
layer that somebody hooked, offloaded, pruned, quantised, sharded, parametrised or put an adapter around must be called.
Every shortcut asks `is_plain`, and calls the layer where the answer is no.
"""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.nn.modules import module as torch_module
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from transformers.activations import ACT2FN

GELUS = tuple(type(ACT2FN[name]) for name in ("gelu", "gelu_pytorch_tanh"))
FEW_ROWS = 64  # with fewer, finding the kernel takes longer than it saves


def is_plain(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a call of `layer` is what the class `kind` does with the layer's own `weight` and `bias`, and no more:
    `is_untouched`, and weights that are ordinary dense tensors in memory, not quantised, sharded, sparse or meta."""
    return is_untouched(layer, kind) and all(is_ordinary(getattr(layer, name)) for name in ("weight", "bias"))


def is_untouched(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a call of `module` runs the class's `forward` alone.

    False for any class but `kind` (parametrised and quantised layers are subclasses of it, adapters are other modules),
    for a hook of whatever sort, the module's own or a global one (pruning, the old weight and spectral norms and
    `accelerate`'s offloading are hooks), and for a `forward` that was put on the module itself."""
    return (
        type(module) is kind
        and "forward" not in module.__dict__
        and not module._forward_pre_hooks
        and not module._forward_hooks
        and not module._backward_pre_hooks
        and not module._backward_hooks
        and not torch_module._global_forward_pre_hooks
        and not torch_module._global_forward_hooks
        and not torch_module._global_backward_pre_hooks
        and not torch_module._global_backward_hooks
    )


def is_ordinary(tensor: torch.Tensor | None) -> bool:
    """Whether there is no tensor, or a dense one with memory that is `torch.Tensor` or `nn.Parameter` itself. While a
    graph is traced tensors stand for others, and are of the tracer's own class."""
    if tensor is None:
        return True
    known = type(tensor) in (nn.Parameter, torch.Tensor)
    traced = torch.compiler.is_compiling() and not is_traceable_wrapper_subclass(tensor)
    return (known or traced) and tensor.layout is torch.strided and tensor.device.type != "meta"


def on_rows(layer: nn.Module, x: torch.Tensor, act: nn.Module | None = None) -> torch.Tensor:
    """act(layer(x)) for (B, ..., D). The layer gets (B, rows, D): bitsandbytes' 8-bit ones know no more dimensions."""
    if takes_onednn(x) and isinstance(layer, nn.Linear) and is_plain(layer, nn.Linear):
        return product(x, layer.weight, layer.bias, act)
    x = layer(x) if x.ndim <= 3 else layer(x.flatten(1, -2)).unflatten(1, x.shape[1:-1])
    return x if act is None else act(x)


def in_turn(layers: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    """layers(x), its linear maps by `on_rows`."""
    if not is_untouched(layers, nn.Sequential):
        return layers(x)
    for layer in layers:
        x = on_rows(layer, x) if isinstance(layer, nn.Linear) else layer(x)
    return x


def product(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, act: nn.Module | None = None
) -> torch.Tensor:
    """act(x weightᵀ + bias) for (..., D): by oneDNN where that is faster and nothing has to be learnt. It adds the bias
    and applies GELU before it rounds to bfloat16."""
    # oneDNN was slow where a weight is a view of another.
    if not (takes_onednn(x, weight, bias) and weight.is_contiguous()):
        y = F.linear(x, weight, bias)
        return y if act is None else act(y)
    approximate = None if act is None else gelu_approximation(act)
    name = "none" if approximate is None else "gelu"
    y = torch.ops.mkldnn._linear_pointwise(x, weight, bias, name, [], approximate or "")
    return y if act is None or approximate else act(y)


def gelu_approximation(act: nn.Module) -> str | None:
    """ "none" or "tanh" where a call of `act` is that GELU and no more."""
    if not is_untouched(act, type(act)):
        return None
    if type(act) is nn.GELU:
        return act.approximate
    function = act.act if type(act) in GELUS else None
    if isinstance(function, functools.partial) and function.func is F.gelu and not function.args:
        return function.keywords.get("approximate", "none")
    return "none" if function is F.gelu else None


@functools.lru_cache
def mkl_is_slow() -> bool:
    """A processor with AVX512 that is not Intel's: MKL, which torch multiplies float32 by, keeps to AVX2 there, and
    oneDNN, which it has besides, takes half of the time."""
    there = torch.backends.mkl.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    if not (there and getattr(torch.cpu, "_is_avx512_supported", bool)()):
        return False
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


@functools.lru_cache
def multiplies_bf16() -> bool:
    """A processor with instructions for bfloat16. `F.linear` goes to oneDNN there by itself, but copies the bias into
    every row of its output first, which is a sixth of the time."""
    vectors = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
    return hasattr(torch.ops.mkldnn, "_linear_pointwise") and (vectors or has_tiles())


@functools.lru_cache
def has_tiles() -> bool:
    """A processor that multiplies tiles of bfloat16 (AMX)."""
    return getattr(torch.cpu, "_is_amx_tile_supported", bool)()


def takes_onednn(x: torch.Tensor, *others: torch.Tensor | None) -> bool:
    """Whether a product of these tensors is asked of oneDNN: where it is faster, of many rows, and `may_use_onednn`."""
    if torch.compiler.is_compiling():
        return False
    faster = (x.dtype == torch.float32 and mkl_is_slow()) or (x.dtype == torch.bfloat16 and multiplies_bf16())
    return faster and x.shape[:-1].numel() >= FEW_ROWS and may_use_onednn(x, *others)


def may_use_onednn(x: torch.Tensor, *others: torch.Tensor | None) -> bool:
    """Whether these tensors are ordinary ones of one type on a CPU, nothing is to be learnt, and nobody looks on:
    compilers, transforms, modes and autocast don't know oneDNN's own operations. torch may be built without
    oneDNN, which refuses bfloat16 on processors without AVX512."""
    if torch.compiler.is_compiling() or not torch.backends.mkldnn.is_available():
        return False
    if x.dtype == torch.bfloat16 and not multiplies_bf16():
        return False
    tensors = [x, *(other for other in others if other is not None)]
    return (
        all(type(t) in (torch.Tensor, nn.Parameter) and t.dtype == x.dtype for t in tensors)
        and all(t.device.type == "cpu" and t.layout is torch.strided for t in tensors)
        and not (torch.is_grad_enabled() and any(t.requires_grad for t in tensors))
        and not torch.jit.is_tracing()
        and not torch.is_autocast_enabled("cpu")
        and torch._C._get_mkldnn_enabled()
        and torch._C._len_torch_dispatch_stack() == 0
        and not transformed()
    )


def transformed() -> bool:
    """Whether a transform of `torch.func` or forward-mode differentiation is at work."""
    return torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0


def side_by_side(x: torch.Tensor, layers: tuple[nn.Linear, ...], bias: torch.Tensor | None = None) -> torch.Tensor:
    """(..., D) -> the layers' outputs joined along the last dimension, plus `bias` where the layers have none."""
    if not all(is_plain(layer, nn.Linear) for layer in layers):
        joined = torch.cat([on_rows(layer, x) for layer in layers], dim=-1)
        return joined if bias is None else joined + bias
    if layers[0].bias is not None:
        bias = torch.cat([layer.bias for layer in layers])
    return product(x, torch.cat([layer.weight for layer in layers]), bias)


def chain(x: torch.Tensor, first: nn.Linear, second: nn.Linear) -> torch.Tensor:
    """second(first(x)) for two linear maps with nothing between them: as one map where that is fewer operations, which
    it is as soon as there are more rows than channels."""
    exporting = torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()
    # Rows of one sample: a batch must not change its samples' rounding, nor a graph with a dynamic batch ask its size.
    many = not exporting and x.shape[1:-1].numel() > x.shape[-1]
    if not (many and is_plain(first, nn.Linear) and is_plain(second, nn.Linear)):
        return on_rows(second, on_rows(first, x))
    return product(x, second.weight @ first.weight, F.linear(first.bias, second.weight, second.bias))
