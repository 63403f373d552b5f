"""File to label with VideoMAE-B and TimeSformer-B on the 10 s clip, model loaded: what a user waits for.

Two stock paths. The stock pipeline reads only the file's first frames, as many as the model takes; `stock, uniform
frames` is what one would write by hand to see the whole clip, as ours does. The exports are those of `backends.py`,
OpenVINO's in bfloat16 where the processor has it.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import backends, clips, readers
from benchmarks.measure import Row, absent, compare, race, require_close
from benchmarks.processor import processors
from benchmarks.setting import Setting, why_absent
from hf_video.base.fast_numbers import has_bf16

AREA = "label"
# Of the logits' spread: resized pixels may be one level of 255 off PIL's.
LOGIT_TOLERANCE = 0.02


@dataclass(frozen=True)
class Case:
    """A model of `backends.CASES`, an export of it, and the most that our bfloat16 and the export may take of stock."""

    model: str
    export: str
    half_target: float
    export_target: float


CASES = (
    Case("VideoMAE-B 16x224²", "OpenVINO", 0.3, 0.25),
    Case("TimeSformer-B 8x224²", "OpenVINO int8", 0.3, 0.17),
)


def run(setting: Setting) -> list[Row]:
    return [row for case in CASES for row in rows(case, setting)]


def rows(case: Case, setting: Setting) -> list[Row]:
    from transformers.pipelines.video_classification import VideoClassificationPipeline as StockPipeline

    recipe = (clips.QUICK if setting.quick else clips.FULL)["short"]
    path = clips.clip(recipe, setting.cache)
    our_model, stock_model, settings = backends.make(backends.CASES[case.model], setting.quick)
    our_processor, stock_processor = processors()
    if setting.quick:
        size = {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}}
        our_processor, stock_processor = (type(p)(**{**p.to_dict(), **size}) for p in (our_processor, stock_processor))
    our_processor.num_frames = settings["num_frames"]
    stock_pipeline = StockPipeline(model=stock_model, image_processor=stock_processor, device="cpu")
    ours, missing = our_pipelines(case, our_model, our_processor, setting)

    @torch.inference_mode()
    def stock_uniform(video: Path) -> torch.Tensor:
        inputs = stock_processor(list(readers.stock(video, settings["num_frames"])), return_tensors="pt")
        return stock_model(inputs["pixel_values"]).logits[0]

    same = check(ours["hf_video fp32"], stock_uniform(path), path)
    candidates = {
        "stock pipeline": lambda: stock_pipeline(str(path)),
        "stock, uniform frames": lambda: stock_uniform(path).softmax(-1).topk(5),
        **{name: lambda classify=classify: classify(str(path)) for name, classify in ours.items()},
    }
    times = race(candidates, setting.rounds)
    job = f"{case.model}: file to label, {recipe.name}"
    targets = {"hf_video bf16": case.half_target, f"hf_video {case.export}": case.export_target}
    seen = f"stock sees only the first {settings['num_frames']} frames"
    compared = []
    for peer, note in (("stock pipeline", seen), ("stock, uniform frames", same)):
        for name in ours:
            target = setting.target(targets[name]) if name in targets else None
            compared.append(compare(times, name, peer, area=AREA, job=job, target=target, note=note))
    if missing:
        compared.append(
            absent(f"hf_video {case.export}", None, "stock pipeline", missing, area=AREA, job=job, kind="wall")
        )
    return compared


def our_pipelines(case: Case, model, processor, setting: Setting) -> tuple[dict[str, Any], str | None]:
    """By the three lines of the README: a folder, `pipeline(...)`, a call. And why there is no export here."""
    from transformers import pipeline

    import hf_video  # noqa: F401 - puts ours behind pipeline()

    missing = why_absent("openvino") or why_absent("nncf")
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        found = {
            f"hf_video {name}": pipeline("video-classification", model=folder, device="cpu", dtype=dtype)
            for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
        }
    if missing is None:
        folder = backends.exported(
            case.model, backends.CASES[case.model], model, backends.EXPORTS[case.export], setting.cache, setting.quick
        )
        # What 8 bits leave is in bfloat16 by itself.
        dtype = torch.bfloat16 if has_bf16() and case.export == "OpenVINO" else None
        found[f"hf_video {case.export}"] = pipeline(
            "video-classification", model=str(folder), device="cpu", dtype=dtype
        )
    return found, missing


def check(classify, expected: torch.Tensor, path: Path) -> str:
    """Our pipeline's logits for the file against stock's on the same frames."""
    answer = classify(str(path), function_to_apply="none", top_k=None)
    labels = classify.model.config.label2id
    got = torch.zeros_like(expected)
    for item in answer:
        got[labels[item["label"]]] = item["score"]
    difference = ((got - expected).abs().max() / expected.std()).item()
    require_close("logits of the pipelines", difference, LOGIT_TOLERANCE)
    return f"same frames; max |Δ logit| {difference:.1e} of their standard deviation"
