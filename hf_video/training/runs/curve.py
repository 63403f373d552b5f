"""`training_curve.png`: loss, what was measured, and learning rate over the steps of a training."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FILE = "training_curve.png"
# What is drawn beside the losses where it was measured: shares of 1, by the names that trainers log.
SHARES = {
    "eval_accuracy": "accuracy, held out",
    "eval_top5": "right among five answers",
    "eval_mean_average_precision": "mean average precision, held out",
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
