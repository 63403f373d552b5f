"""One step of VideoMAE-B pretraining, forward and backward, 2 clips, tube mask 0.9: stock and ours in float32 and under
bfloat16 autocast, and ours with the decoder masked as VideoMAE v2 does (running cells, half of the tokens). Where a
processor multiplies tiles of bfloat16 (AMX), ours with PyTorch's own backward of fused attention stands beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch

from benchmarks import models
from benchmarks.measure import Row, compare, race, require_close
from benchmarks.setting import Setting
from hf_video.layers import attention
from hf_video.layers.linear import has_tiles

AREA = "pretraining"
TARGET, MASKED_TARGET, KERNEL_TARGET, FULL_TARGET = 0.7, 0.5, 0.8, 0.42
BATCH = 2
HALF, KERNEL = "hf_video autocast bf16", "hf_video autocast bf16, PyTorch's backward of attention"
GRADIENT_TOLERANCE = 1e-3  # relative, of the whole gradient's norm


def run(setting: Setting) -> list[Row]:
    from hf_video.models.videomae.masking import running_cell_mask, tube_mask

    settings = models.options({**models.VIDEOMAE, "use_mean_pooling": False}, setting.quick)
    if setting.quick:
        settings.update(decoder_hidden_size=32, decoder_num_hidden_layers=1, decoder_num_attention_heads=2)
    ours, stock = (model.train() for model in models.pair("VideoMAEForPreTraining", settings, "sdpa"))
    clip = models.video(BATCH, settings)
    side = settings["image_size"] // 16
    grid = (settings["num_frames"] // 2, side, side)
    generator = torch.Generator().manual_seed(0)
    masks = {"bool_masked_pos": tube_mask(BATCH, grid, 0.9, generator=generator)}
    cells = {**masks, "decoder_masked_pos": running_cell_mask(BATCH, grid, 0.5, generator=generator)}
    note = check(ours, stock, clip, masks)
    candidates = {
        "stock fp32": lambda: step(stock, clip, masks),
        "hf_video fp32": lambda: step(ours, clip, masks),
        "hf_video fp32, decoder masked": lambda: step(ours, clip, cells),
        "stock autocast bf16": lambda: step(stock, clip, masks, autocast=True),
        HALF: lambda: step(ours, clip, masks, autocast=True),
        **of_the_kernel(lambda: step(ours, clip, masks, autocast=True)),
        "hf_video autocast bf16, decoder masked": lambda: step(ours, clip, cells, autocast=True),
    }
    times = race(candidates, (setting.rounds + 1) // 2)
    job = f"pretraining step, {'small VideoMAE' if setting.quick else 'VideoMAE-B 16x224²'}, batch {BATCH}"
    compared = [
        ("hf_video fp32", "stock fp32", TARGET, note),
        ("hf_video fp32, decoder masked", "stock fp32", MASKED_TARGET, "decodes half of the tokens: another objective"),
        (HALF, "stock autocast bf16", TARGET, ""),
        (HALF, "stock fp32", FULL_TARGET, ""),
        *([(HALF, KERNEL, KERNEL_TARGET, "")] if KERNEL in candidates else []),
        ("hf_video autocast bf16, decoder masked", "stock autocast bf16", MASKED_TARGET, ""),
    ]
    return [
        compare(times, a, b, area=AREA, job=job, target=setting.target(goal), note=text)
        for a, b, goal, text in compared
    ]


def of_the_kernel(job: Callable[[], Any]) -> dict[str, Callable[[], Any]]:
    """The job with PyTorch's backward of fused attention, where ours is by products."""

    def by_the_kernel() -> Any:
        with mock.patch.object(attention, "backward_by_products_pays", return_value=False):
            return job()

    return {KERNEL: by_the_kernel} if has_tiles() else {}


def step(model, clip: torch.Tensor, inputs: dict[str, torch.Tensor], *, autocast: bool = False) -> torch.Tensor:
    """Loss of one forward and backward. No optimiser: it would do the same work for both."""
    model.zero_grad(set_to_none=True)
    context = torch.autocast("cpu", dtype=torch.bfloat16) if autocast else contextlib.nullcontext()
    with context:
        loss = model(clip, **inputs).loss
    loss.backward()
    return loss.detach()


def check(ours, stock, clip: torch.Tensor, inputs: dict[str, torch.Tensor]) -> str:
    """Equal loss and an equally long gradient."""
    losses, norms = [], []
    for model in (ours, stock):
        losses.append(step(model, clip, inputs).item())
        grads = [p.grad.norm() for p in model.parameters() if p.grad is not None]
        norms.append(torch.stack(grads).norm().item())
    difference = abs(losses[0] - losses[1])
    require_close("loss", difference, models.TOLERANCE)
    require_close("norm of the gradient", abs(norms[0] / norms[1] - 1), GRADIENT_TOLERANCE)
    return f"|Δ loss| {difference:.1e}"
