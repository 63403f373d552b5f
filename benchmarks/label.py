"""File to label with VideoMAE-B on the 10 s clip, model loaded: what a user waits for.

Two stock paths. The stock pipeline reads only the file's first 16 frames; `stock, 16 uniform frames` is what one would
write by hand to see the whole clip, as ours does.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from benchmarks import clips, models, readers
from benchmarks.measure import Row, compare, race, require_close
from benchmarks.processor import processors
from benchmarks.setting import Setting

AREA = "label"
TARGET = 0.45
# Of the logits' spread: resized pixels may be one level of 255 off PIL's.
LOGIT_TOLERANCE = 0.02


def run(setting: Setting) -> list[Row]:
    from transformers.pipelines.video_classification import VideoClassificationPipeline as StockPipeline

    recipe = (clips.QUICK if setting.quick else clips.FULL)["short"]
    path = clips.clip(recipe, setting.cache)
    settings = models.options({**models.VIDEOMAE, "num_labels": 400}, setting.quick)
    our_model, stock_model = models.pair("VideoMAEForVideoClassification", settings, "sdpa")
    our_processor, stock_processor = processors()
    if setting.quick:
        size = {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}}
        our_processor, stock_processor = (type(p)(**{**p.to_dict(), **size}) for p in (our_processor, stock_processor))
    stock_pipeline = StockPipeline(model=stock_model, image_processor=stock_processor, device="cpu")
    ours = our_pipelines(our_model, our_processor)

    @torch.inference_mode()
    def stock_uniform(video: Path) -> torch.Tensor:
        inputs = stock_processor(list(readers.stock(video)), return_tensors="pt")
        return stock_model(inputs["pixel_values"]).logits[0]

    note = check(ours["hf_video fp32"], stock_uniform(path), path)
    candidates = {
        "stock pipeline": lambda: stock_pipeline(str(path)),
        "stock, 16 uniform frames": lambda: stock_uniform(path).softmax(-1).topk(5),
        **{name: lambda classify=classify: classify(str(path)) for name, classify in ours.items()},
    }
    times = race(candidates, setting.rounds)
    compared = [
        ("hf_video fp32", "stock pipeline", None, "stock sees only the first 16 frames"),
        ("hf_video bf16", "stock pipeline", TARGET, "stock sees only the first 16 frames"),
        ("hf_video fp32", "stock, 16 uniform frames", None, note),
        ("hf_video bf16", "stock, 16 uniform frames", TARGET, ""),
    ]
    job = f"file to label, {recipe.name}"
    return [
        compare(times, a, b, area=AREA, job=job, target=goal and setting.target(goal), note=text)
        for a, b, goal, text in compared
    ]


def our_pipelines(model, processor) -> dict:
    """By the three lines of the README: a folder, `pipeline(...)`, a call."""
    from transformers import pipeline

    import hf_video  # noqa: F401 - puts ours behind pipeline()

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        return {
            f"hf_video {name}": pipeline("video-classification", model=folder, device="cpu", dtype=dtype)
            for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
        }


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
