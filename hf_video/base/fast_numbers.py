"""Which numbers and which layout a processor computes fastest in."""

from __future__ import annotations

import functools
from typing import Any

import torch


@functools.lru_cache
def has_bf16() -> bool:
    """Whether this processor has instructions for bfloat16: AMX or AVX512-BF16 of x86, BF16 of ARM. Without them torch
    computes in it all the same, about half as fast as in float32."""
    told: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # of newer torch
    names = ("amx_tile", "avx512_bf16")  # torch has known these since 2.6
    return any(told.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16", "arm_bf16")) or any(
        getattr(torch.cpu, f"_is_{name}_supported", bool)() for name in names
    )


@functools.lru_cache
def lacks_fp16() -> bool:
    """Whether this processor is one of x86 that is known to have no instructions for float16 (AVX512-FP16, AMX): torch
    then computes in it about a quarter as fast as in float32."""
    told: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return told.get("architecture") == "x86_64" and not (told.get("avx512_fp16") or told.get("amx_fp16"))


def why_slow(model: Any) -> str | None:
    """Says that a model's numbers are slower than float32 where it is; None where they aren't."""
    if model.device.type != "cpu" or hasattr(model, "graphs") or getattr(model, "hf_quantizer", None) is not None:
        return None
    if model.dtype == torch.bfloat16 and not has_bf16():
        slow = "bfloat16 is about half as fast as float32"
    elif model.dtype == torch.float16 and lacks_fp16():
        slow = "float16 is about a quarter as fast as float32"
    else:
        return None
    return (
        f"{slow} on this processor, which has no instructions for it: dtype=hf_video.fast_dtype(), or --dtype auto, "
        "takes what is fast here"
    )


def fast_dtype(device: str | torch.device = "cpu") -> torch.dtype:
    """The dtype in which inference is fast: bfloat16 where the processor has instructions for it (AMX, AVX512-BF16) or
    the GPU computes in it (NVIDIA's since Ampere; older ones do so by emulation), else float32.

    transformers' own `dtype="auto"` means something else: the dtype that a checkpoint was saved in.

    Args:
        device: Where the model runs.

    Returns:
        For `dtype=` of a pipeline or `from_pretrained`.
    """
    kind = torch.device(device).type
    fast = torch.cuda.is_bf16_supported(including_emulation=False) if kind == "cuda" else kind == "cpu" and has_bf16()
    return torch.bfloat16 if fast else torch.float32


def for_processor(model: Any) -> Any:
    """Puts a model into the numbers and the layout that are fast where it is: `fast_dtype`, and the kernels of a
    convolutional model channels last. Exported and quantised models, which have their own, stay as they are.

    Args:
        model: Any; it is changed in place.

    Returns:
        The model.
    """
    if not hasattr(model, "graphs") and getattr(model, "hf_quantizer", None) is None:
        model.to(fast_dtype(model.device))
        if hasattr(model, "run_blocks"):  # of ConvVideoPreTrainedModel; elsewhere patches are read as rows of a matrix
            channels_last(model)
    return model


def channels_last(model: Any) -> None:
    """Kernels of 2-D and 3-D convolutions channels last: their maps follow, and are computed faster on CPUs."""
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    for module in model.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Conv3d)):
            module.weight.data = module.weight.data.contiguous(memory_format=layouts[module.weight.ndim])
