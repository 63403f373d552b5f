"""What a training did: `training_summary.json`, the lines printed at its end, and `training_curve.png`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hf_video.base.version import __version__
from hf_video.data.rows import Skipped, VideoRows
from hf_video.training.plan import TrainingPlan, format_clip_rate, rough_duration
from hf_video.training.recipes import SECTIONS, recipe_title
from hf_video.training.run_folder import SUMMARY_FILE
from hf_video.training.runs.model_loading import ModelSource
from hf_video.training.trainer import VideoTrainer

SHOWN = 50  # files that are named on the screen; the file names all
# Of some hundred training arguments, those that decide what comes out.
_HYPER_PARAMETERS = (
    "learning_rate", "base_learning_rate", "min_learning_rate", "warmup_epochs", "warmup_steps", "schedule",
    "lr_scheduler_type", "optim", "optim_args", "adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay",
    "layer_decay", "backbone_rate", "decay_all", "ema_decay", "max_grad_norm", "num_train_epochs",
    "per_device_train_batch_size",
    "gradient_accumulation_steps", "label_smoothing_factor", "bf16", "fp16", "seed",
)  # fmt: skip


def make_summary(
    trainer: VideoTrainer,
    splits: Mapping[str, VideoRows],
    source: ModelSource,
    recipe: Mapping[str, Any],
    plan: TrainingPlan,
    metrics: Mapping[str, float],
    *,
    data: Any,
    reports: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Counts by split and class, every file that was left out or has a remark, settings, losses, speed, results."""
    skipped = {(one.name, one.kind): one for rows in splits.values() for one in rows.skipped}
    skipped |= {(one.name, one.kind): one for one in trainer.train_dataset.skipped()}
    reports = reports or {}
    for report in reports.values():
        for one in report.skipped:
            if not any(one.name == name for name, _ in skipped):
                skipped[one.name, one.kind] = one
    logged, hyper = trainer.state.log_history, {name: getattr(trainer.args, name) for name in _HYPER_PARAMETERS}
    return {
        **describe_start(source, recipe, splits, skipped.values(), data=data),
        "plan": plan.facts,
        "hyper_parameters": {
            **{
                name: getattr(value, "value", value) for name, value in hyper.items() if value is not None
            },  # enumerations
            "effective_batch_size": trainer.args.rows_per_step,
        },
        "epochs": round(float(trainer.state.epoch or 0), 4),
        "steps": trainer.state.global_step,
        "seconds": round(metrics.get("train_runtime", 0.0), 2),
        "clips_per_second": metrics.get("clips_per_second"),
        "decode_wait": metrics.get("decode_wait"),
        "train_loss": next((e["loss"] for e in reversed(logged) if "loss" in e), metrics.get("train_loss")),
        "eval_loss": next((entry["eval_loss"] for entry in reversed(logged) if "eval_loss" in entry), None),
        "device": plan.facts.get("device"),
        "evaluation": describe_reports(reports),
    }


def describe_start(
    source: ModelSource,
    recipe: Mapping[str, Any],
    splits: Mapping[str, VideoRows],
    skipped: Iterable[Skipped],
    *,
    data: Any,
) -> dict[str, Any]:
    """What a summary says of versions, model, recipe and data."""
    base, is_path = source.checkpoint, isinstance(data, (str, os.PathLike))
    return {
        "hf_video": __version__,
        "versions": {"hf_video": __version__} | {name: version(name) for name in ("transformers", "torch", "av")},
        # A folder's whole path: "runs/base" would look like a name on the Hub.
        "base_model": str(Path(base).resolve()) if base and Path(base).exists() else base,
        "from_scratch": source.checkpoint is None,
        "model_type": source.model_type,
        "recipe": recipe_title(recipe),
        "recipe_sections": {name: recipe.get(name) for name in SECTIONS},
        "data": {
            "source": str(Path(data).resolve().name) if is_path else type(data).__name__,
            "dataset_id": data if isinstance(data, str) and not Path(data).exists() else None,
            "splits": {name: {"videos": len(r), "classes": r.counts()} for name, r in splits.items()},
            "skipped": [one.as_dict() for one in skipped],
        },
    }


def describe_reports(reports: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The one number of each split's report, and how many of its videos could be read."""
    return {
        name: {measure: getattr(report, measure), "found": report.found, "total": report.total}
        for name, report in reports.items()
        for measure in (("top1",) if hasattr(report, "top1") else ("mean_average_precision",))
    }


def write_summary(output: Path, summary: Mapping[str, Any]) -> None:
    (output / SUMMARY_FILE).write_text(json.dumps(summary, indent=2, ensure_ascii=False))


def format_summary(summary: Mapping[str, Any], output: Path) -> str:
    """The summary in a few lines, with the name of every file that was left out or has a remark."""
    rate = summary.get("clips_per_second")
    speed = f", {format_clip_rate(rate)} clips a second" if rate else ""
    waited = f", {summary['decode_wait']:.0%} of the time waiting for decoding" if speed else ""
    lines = [f"Trained {summary['steps']} steps in {rough_duration(summary['seconds'])}{speed}{waited}."]
    for split, found in summary["evaluation"].items():
        one = f"Accuracy on {split}: {found['top1']:.1%}" if "top1" in found else None
        measured = one or f"Mean average precision on {split}: {found['mean_average_precision']:.1%}"
        lines.append(f"{measured} (found {found['found']} of {found['total']} videos)")
    skipped = summary["data"]["skipped"]
    if skipped:
        lines.append(f"{len(skipped)} files were left out or looked odd:")
        first = sorted(skipped, key=lambda one: one["used"])[:SHOWN]
        lines += [f"  {Skipped(**one)}" for one in first]
        lines += [f"  and {len(skipped) - SHOWN} more, in {SUMMARY_FILE}"] if len(skipped) > SHOWN else []
    lines.append(f"Saved to {output}")
    return "\n".join(lines)


FILE = "training_curve.png"
# What is drawn beside the losses where it was measured: shares of 1, by the names that trainers log.
SHARES = {
    "eval_accuracy": "accuracy, held out",
    "eval_top5": "right among five answers",
    "eval_mean_average_precision": "mean average precision, held out",
    "eval_video_auc": "AUC of videos, held out",
    "eval_mAP": "mAP of events, held out",
    "eval_mAP@0.5": "mAP at tIoU 0.5",
    "eval_text_to_video_R1": "text to video, R@1",
    "eval_video_to_text_R1": "video to text, R@1",
    "probe_top1": "linear probe, top-1",
}
LOSSES = {"loss": "training", "eval_loss": "held out", "eval_masked_loss": "held out"}
_COLOURS = ("#1f6feb", "#d9822b", "#268452", "#8250df", "#c4382f")


def training_curve(history: Sequence[Mapping[str, Any]], folder: str | os.PathLike[str]) -> Path | None:
    """Draws a Trainer's `log_history` into `training_curve.png` of a folder. None where nothing was logged."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    losses = _series(history, LOSSES)
    if not losses:
        return None
    if "eval_masked_loss" in losses:
        losses.pop("eval_loss", None)  # the same numbers
    shares, rates = _series(history, SHARES), _series(history, {"learning_rate": ""})
    heights = [3, *([2] if shares else []), 1]
    figure = Figure(figsize=(8, 1.4 * sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(len(heights), sharex=True, height_ratios=heights))
    for name, (steps, values) in losses.items():
        training = name == "loss"
        colour = "#9aa3ad" if training else _COLOURS[0]
        axes[0].plot(steps, values, color=colour, marker=_marker(values, training), markersize=3, label=LOSSES[name])
    axes[0].set_ylabel("loss")
    axes[0].legend(frameon=False, fontsize=9)
    if shares:
        for colour, (name, (steps, values)) in zip(_COLOURS, shares.items(), strict=False):
            axes[1].plot(steps, [100 * v for v in values], color=colour, marker="o", markersize=3, label=SHARES[name])
        axes[1].set_ylim(0, 102)
        axes[1].set_ylabel("%")
        axes[1].legend(frameon=False, fontsize=9)
    for steps, values in rates.values():
        axes[-1].plot(steps, values, color="#57606a", marker=_marker(values, True), markersize=3)
    axes[-1].set_ylabel("rate")
    axes[-1].ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    axes[-1].set_xlabel("step")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    path = Path(folder) / FILE
    figure.savefig(path, dpi=120)
    return path


def _series(history: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> dict[str, tuple[list, list]]:
    found = {}
    for name in names:
        rows = [row for row in history if isinstance(row.get(name), (int, float))]
        if rows:
            found[name] = [row["step"] for row in rows], [row[name] for row in rows]
    return found


def _marker(values: Sequence[float], thin: bool) -> str:
    """Dots where a line alone would not be seen, or says less."""
    return "" if thin and len(values) > 1 else "o"
