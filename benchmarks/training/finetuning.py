"""One step of fine-tuning VideoMAE-S, forward and backward, 2 clips: stock and ours in float32 and under bfloat16
autocast. Where a processor multiplies tiles of bfloat16 (AMX), ours with PyTorch's own backward of fused attention
stands beside it."""

from __future__ import annotations

import torch

from benchmarks import models
from benchmarks.measure import Row, compare, race
from benchmarks.setting import Setting
from benchmarks.training.pretraining import BATCH, FULL_TARGET, HALF, KERNEL, check, of_the_kernel, step

AREA = "finetuning"
TARGET, KERNEL_TARGET = 1.0, 0.78


def run(setting: Setting) -> list[Row]:
    settings = models.options({**models.VIDEOMAE_SMALL, "num_labels": 10}, setting.quick)
    ours, stock = (model.train() for model in models.pair("VideoMAEForVideoClassification", settings, "sdpa"))
    clip, labels = models.video(BATCH, settings), {"labels": torch.arange(BATCH)}
    note = check(ours, stock, clip, labels)
    candidates = {
        "stock fp32": lambda: step(stock, clip, labels),
        "hf_video fp32": lambda: step(ours, clip, labels),
        "stock autocast bf16": lambda: step(stock, clip, labels, autocast=True),
        HALF: lambda: step(ours, clip, labels, autocast=True),
        **of_the_kernel(lambda: step(ours, clip, labels, autocast=True)),
    }
    times = race(candidates, (setting.rounds + 1) // 2)
    job = f"fine-tuning step, {'small VideoMAE' if setting.quick else 'VideoMAE-S 16x224²'}, batch {BATCH}"
    compared = [
        ("hf_video fp32", "stock fp32", TARGET, note),
        (HALF, "stock autocast bf16", TARGET, ""),
        (HALF, "stock fp32", FULL_TARGET, ""),
        *([(HALF, KERNEL, KERNEL_TARGET, "")] if KERNEL in candidates else []),
    ]
    return [
        compare(times, a, b, area=AREA, job=job, target=setting.target(goal), note=text)
        for a, b, goal, text in compared
    ]
