"""Forward of VideoMAE-B (16x224²), TimeSformer-B (8x224²), V-JEPA 2 ViT-L (16x256²) and VideoPrism-B (16x288²): one
clip, stock and ours, float32 and bfloat16."""

from __future__ import annotations

import copy

import torch

from benchmarks import models
from benchmarks.measure import Row, compare, race, require_close
from benchmarks.setting import Setting

AREA = "forward"
# name of the class, settings, stock's fastest attention, target of float32, target of bfloat16 against stock's float32
CASES = {
    "VideoMAE-B 16x224²": ("VideoMAEForVideoClassification", models.VIDEOMAE, "sdpa", 1.0, 0.45),
    "TimeSformer-B 8x224²": ("TimesformerForVideoClassification", models.TIMESFORMER, "eager", 0.85, 0.45),
    "V-JEPA-2-L 16x256²": ("VJEPA2ForVideoClassification", models.VJEPA2, "sdpa", 0.85, 0.45),
    "VideoPrism-B 16x288²": ("VideoPrismForVideoClassification", models.VIDEOPRISM, "eager", 0.7, 0.45),
}
SMALL = {"VideoPrism-B 16x288²": models.QUICK_VIDEOPRISM, "V-JEPA-2-L 16x256²": models.QUICK_VJEPA2}
AGREEMENT_CLIPS = 4


@torch.inference_mode()
def run(setting: Setting) -> list[Row]:
    return [row for job in CASES for row in case_rows(setting, job)]


def case_rows(setting: Setting, job: str) -> list[Row]:
    name, base, attention, target, bf16_target = CASES[job]
    small = SMALL.get(job, models.QUICK)
    settings = models.options({**base, "num_labels": 400}, setting.quick, small)
    ours, stock = models.pair(name, settings, attention)
    ours16, stock16 = (copy.deepcopy(model).to(torch.bfloat16) for model in (ours, stock))
    difference, agreement = check(ours, stock, ours16, settings)
    clip = models.video(1, settings)
    candidates = {
        "stock fp32": lambda: stock(clip).logits,
        "hf_video fp32": lambda: ours(clip).logits,
        "stock bf16": lambda: stock16(clip.bfloat16()).logits,
        "hf_video bf16": lambda: ours16(clip.bfloat16()).logits,
    }
    times = race(candidates, setting.rounds)
    job = f"forward, {job}" if not setting.quick else f"forward, small {job.split('-')[0]}"
    compared = [
        ("hf_video fp32", "stock fp32", target, f"stock is {attention}; max |Δ| {difference:.1e} of the largest logit"),
        ("hf_video bf16", "stock fp32", bf16_target, agreement),
        ("hf_video bf16", "stock bf16", None, ""),
    ]
    return [
        compare(times, a, b, area=AREA, job=job, target=goal and setting.target(goal), note=note)
        for a, b, goal, note in compared
    ]


def check(ours, stock, ours16, settings: dict) -> tuple[float, str]:
    """(largest relative difference from stock in float32, what bfloat16 does to the answer in words)."""
    clips = [models.video(1, settings, seed) for seed in range(AGREEMENT_CLIPS)]
    exact = torch.cat([ours(clip).logits for clip in clips])
    difference = ((exact[:1] - stock(clips[0]).logits).abs().max() / exact.abs().max()).item()
    require_close(f"logits of {type(ours).__name__}, relative", difference, models.TOLERANCE)
    rounded = torch.cat([ours16(clip.bfloat16()).logits.float() for clip in clips])
    best = exact.argmax(-1)
    same, answers = int((best == rounded.argmax(-1)).sum()), len(best.unique())
    relative = ((exact - rounded).abs().max() / exact.abs().max()).item()
    # Random weights put the logits close together: agreement is stricter here than with trained ones.
    top = f"same top-1 as fp32 on {same} of {len(clips)} clips ({answers} different answers)"
    return difference, f"{top}; max |Δ| {100 * relative:.1f} % of the largest logit"
