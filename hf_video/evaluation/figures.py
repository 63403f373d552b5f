"""Figures of an evaluation, drawn without a display. All raise BackendError without matplotlib, which is an extra."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_video.errors import BackendError, MetricError
from hf_video.evaluation.metrics import Reliability

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hf_video.base.detection.curve import AnomalyCurve

INK, GREY, BLUE, RED = "#222222", "#9a9a9a", "#2f6db5", "#c8553d"
# Up to so many classes every cell holds its number and every class its name.
NUMBERED, NAMED = 16, 60
CONFUSIONS, HARDEST = 20, 10
LONGEST = 34  # letters of a class name


def confusion_figure(confusion: np.ndarray, labels: Sequence[str], path: str | os.PathLike[str]) -> Path:
    """Draws a confusion matrix, colours being shares of a row.

    Few classes have names, and numbers in every cell; those without a video that were never predicted are left out. Of
    more than 60 the matrix shows the pattern as dots, and lists name the most frequent confusions and hardest classes.

    Args:
        confusion: (C, C) counts, rows the truth.
        labels: The C class names.
        path: The PNG to write, which is returned; its folder is made.

    Raises:
        MetricError: For other shapes.
    """
    confusion = np.asarray(confusion)
    if confusion.shape != (len(labels), len(labels)) or not confusion.sum():
        raise MetricError(f"A confusion matrix of {len(labels)} classes with videos is needed; {confusion.shape} came.")
    labels = [str(label).replace("$", r"\$") for label in labels]  # a dollar sign would begin a formula
    labels = [label if len(label) <= LONGEST else label[: LONGEST - 1] + "…" for label in labels]
    used = np.flatnonzero((confusion.sum(0) > 0) | (confusion.sum(1) > 0))
    if len(used) > NAMED:
        return _many(confusion, labels, path)
    return _few(confusion[np.ix_(used, used)], [labels[i] for i in used], path)


def _few(confusion: np.ndarray, labels: list[str], path: str | os.PathLike[str]) -> Path:
    from matplotlib.colors import PowerNorm
    from matplotlib.ticker import PercentFormatter

    count = len(labels)
    letters = max(map(len, labels))
    side = max(2.2, count * (0.55 if count <= NUMBERED else 0.2))
    margin = 0.8 + 0.075 * letters
    figure = new_figure(side + margin + 0.9, side + margin + 0.4)
    axes = figure.add_subplot()
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    # The square root lets a class that is taken for another in 2 % of the cases be seen.
    norm = PowerNorm(1.0 if count <= NUMBERED else 0.5, 0, 1)
    picture = axes.imshow(shares, cmap="Blues", norm=norm, interpolation="nearest")
    axes.set_xticks(range(count), labels, rotation=45 if letters > 3 else 0, ha="right" if letters > 3 else "center")
    axes.set_yticks(range(count), labels)
    axes.tick_params(labelsize=9 if count <= NUMBERED else 7, length=0, colors=INK)
    if count <= NUMBERED:
        for (i, j), value in np.ndenumerate(confusion):
            if value:
                color = "white" if shares[i, j] > 0.55 else INK
                axes.text(j, i, f"{value}", ha="center", va="center", fontsize=9, color=color)
    _name_axes(axes, confusion)
    bar = figure.colorbar(picture, ax=axes, fraction=0.046, pad=0.03, format=PercentFormatter(1))
    bar.set_label("share of the true class", fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=8, colors=INK)
    bar.outline.set_visible(False)
    return save_figure(figure, path)


def _many(confusion: np.ndarray, labels: list[str], path: str | os.PathLike[str]) -> Path:
    figure = new_figure(15.5, 9.2)
    left, right = figure.subplots(1, 2, width_ratios=(9, 6))
    _dots(left, confusion)
    _name_axes(left, confusion, "class number")
    wrong = np.where(np.eye(len(labels), dtype=bool), 0, confusion)
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS]
    pairs = [(i, j) for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True) if wrong[i, j]]
    rows = [(f"{wrong[i, j]}", f"{labels[i]}  →  {labels[j]}", f"{i}, {j}") for i, j in pairs]
    right.set_axis_off()
    right.set(xlim=(0, 1), ylim=(CONFUSIONS + HARDEST + 3, -1))
    _list(right, 0, "Most frequent confusions: videos, truth → predicted, class numbers", rows)
    videos = confusion.sum(1)
    accuracy = np.where(videos > 0, np.diag(confusion) / np.maximum(videos, 1), 2.0)
    hardest = [i for i in np.argsort(accuracy, kind="stable")[:HARDEST] if videos[i]]
    rows = [(f"{accuracy[i]:.0%}", f"{labels[i]}  ({videos[i]} videos)", f"{i}") for i in hardest]
    _list(right, CONFUSIONS + 2, "Hardest classes: share that is right", rows)
    return save_figure(figure, path)


def _dots(axes: Axes, confusion: np.ndarray) -> None:
    """Draws right answers on the diagonal and wrong ones as dots whose areas are shares of a row."""
    from matplotlib.ticker import MultipleLocator

    count = len(confusion)
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    rows, columns = np.nonzero(np.where(np.eye(count, dtype=bool), 0, confusion))
    size = 60000 / count
    axes.scatter(columns, rows, s=shares[rows, columns] * size, color=RED, linewidths=0, label="wrong")
    axes.scatter(range(count), range(count), s=np.diag(shares) * size / 4, color=BLUE, linewidths=0, label="right")
    axes.set(xlim=(-1, count), ylim=(count, -1), aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MultipleLocator(50 if count > 150 else 10))
    axes.tick_params(labelsize=8, colors=INK)
    axes.grid(color="#eeeeee", linewidth=0.6)
    axes.set_axisbelow(True)


def _list(axes: Axes, top: int, title: str, rows: Sequence[tuple[str, str, str]]) -> None:
    axes.text(0, top - 0.3, title, va="center", fontsize=10, color=INK, weight="bold")
    for row, (number, text, place) in enumerate(rows or [("", "none", "")], start=top + 1):
        axes.text(0.06, row, number, ha="right", va="center", fontsize=8.5, color=RED, weight="bold")
        axes.text(0.08, row, text, va="center", fontsize=8.5, color=INK)
        axes.text(1, row, place, ha="right", va="center", fontsize=8, color=GREY)


def _name_axes(axes: Axes, confusion: np.ndarray, unit: str = "") -> None:
    right, total = int(np.trace(confusion)), int(confusion.sum())
    axes.set_title(f"{right} of {total} right ({right / total:.1%})", fontsize=11, color=INK)
    suffix = f" ({unit})" if unit else ""
    axes.set_xlabel("predicted" + suffix, color=INK)
    axes.set_ylabel("truth" + suffix, color=INK)


def reliability_figure(calibration: Reliability, path: str | os.PathLike[str]) -> Path:
    """Draws a reliability diagram: accuracy by confidence, and below how many videos have that confidence.

    Args:
        calibration: From `hf_video.evaluation.reliability`.
        path: The PNG to write, which is returned; its folder is made.
    """
    figure = new_figure(5.2, 6.2)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    edges, counts = calibration.edges, calibration.counts
    middle, width = (edges[:-1] + edges[1:]) / 2, np.diff(edges)
    full = counts > 0
    above.bar(middle[full], calibration.accuracy[full], width[full] * 0.94, color=BLUE, label="share that is right")
    gap = calibration.confidence - calibration.accuracy
    above.bar(
        *(middle[full], gap[full], width[full] * 0.94, calibration.accuracy[full]),
        color=(0, 0, 0, 0), edgecolor=RED, hatch="////", linewidth=0.8, label="gap to the mean confidence",
    )  # fmt: skip
    above.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1)
    above.set(xlim=(0, 1), ylim=(0, 1), ylabel="share of right answers")
    above.set_title(f"expected calibration error {calibration.error:.1%} on {counts.sum()} videos", fontsize=10)
    above.legend(loc="upper left", fontsize=8, frameon=False)
    below.bar(middle, counts, width * 0.94, color=GREY)
    below.set(xlabel="confidence of the answer", ylabel="videos")
    for axes in (above, below):
        style_axes(axes)
    return save_figure(figure, path)


def anomaly_figure(curves: Mapping[str, AnomalyCurve], path: str | os.PathLike[str]) -> Path:
    """Draws for each video its score over time, the threshold and the events.

    Args:
        curves: For each video its curve, such as `AnomalyDetector.score` gives.
        path: The PNG to write, which is returned; its folder is made.
    """
    figure = new_figure(9, 0.6 + 1.5 * len(curves))
    rows = figure.subplots(len(curves), 1, squeeze=False, sharey=True)[:, 0]
    for axes, (video, curve) in zip(rows, curves.items(), strict=True):
        begin, end = float(curve.frame_seconds[0]), curve.end
        for number, event in enumerate(curve.events):
            axes.axvspan(event.start, event.end, color=RED, alpha=0.18, linewidth=0, label="" if number else "event")
        middles = curve.seconds.mean(1)
        axes.plot(middles, curve.distances, color=GREY, linewidth=0.7, label="distance")
        thin = len(middles) > 1
        axes.plot(middles, curve.scores, color=BLUE, linewidth=1.4, marker="" if thin else "o", label="score")
        if curve.threshold is not None:
            axes.axhline(curve.threshold, color=RED, linewidth=0.9, linestyle="--", label="threshold")
        name = os.path.basename(video).replace("$", r"\$")
        axes.set_title(name if len(name) <= 90 else name[:89] + "…", fontsize=9, color=INK, loc="left")
        axes.set(xlim=(begin, end))
        style_axes(axes)
    highest = max(max(curve.distances.max(), curve.threshold or 0) for curve in curves.values())
    rows[0].set_ylim(0, 1.08 * max(highest, 1e-6))  # of all rows
    kinds = {label: handle for axes in rows for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    rows[0].legend(
        kinds.values(), kinds, fontsize=7.5, frameon=False, ncols=4, loc="lower right", bbox_to_anchor=(1, 1)
    )
    rows[-1].set_xlabel("seconds", fontsize=9, color=INK)
    return save_figure(figure, path)


def loss_figure(history: Iterable[Mapping[str, Any]], path: str | os.PathLike[str]) -> Path:
    """Draws the curves of a training run: `loss` and `eval_loss` by `step`, and below accuracies, where there are some.

    Args:
        history: `trainer.state.log_history`.
        path: The PNG to write, which is returned; its folder is made.

    Raises:
        MetricError: For a history without a loss.
    """
    curves: dict[str, list[tuple[float, float]]] = {}
    for entry in history:
        for name, value in entry.items():
            if isinstance(value, (int, float)) and "step" in entry:
                curves.setdefault(name, []).append((entry["step"], value))
    losses = [name for name in ("loss", "eval_loss") if name in curves]
    if not losses:
        raise MetricError("The history has no entry with step and loss; give trainer.state.log_history.")
    shares = [
        name
        for name, points in curves.items()
        if name in ("eval_accuracy", "eval_top1", "eval_top5") and all(0 <= y <= 1 for _, y in points)
    ]
    figure = new_figure(6.4, 5.4 if shares else 3.6)
    rows = np.atleast_1d(figure.subplots(2 if shares else 1, 1, sharex=True))
    for axes, names, unit in zip(rows, (losses, shares), ("loss", "share of right answers"), strict=False):
        for name, color in zip(names, (BLUE, RED, GREY), strict=False):
            x, y = np.array(curves[name], dtype=float).T
            label = {"loss": "training", "eval_loss": "evaluation"}.get(name, name.removeprefix("eval_"))
            axes.plot(x, y, color=color, linewidth=1.4, label=label, marker="o" if len(x) < 20 else None, markersize=3)
        axes.set_ylabel(unit)
        axes.legend(fontsize=8, frameon=False)
        style_axes(axes)
    if shares:
        rows[1].set_ylim(0, 1.02)
    rows[-1].set_xlabel("step")
    return save_figure(figure, path)


def precision_recall_figure(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], threshold: float, path: str | os.PathLike[str]
) -> Path:
    """Draws precision over recall, a line for each class; names where there are few.

    Args:
        curves: For each class precision and recall (N,).
        threshold: The overlap at which a detection counts, for the title.
        path: The PNG to write, which is returned; its folder is made.
    """
    figure = new_figure(5.4, 4.2)
    axes = figure.add_subplot()
    named = len(curves) <= NUMBERED
    for label, (precision, recall) in curves.items():
        shown = label if len(label) <= LONGEST else label[: LONGEST - 1] + "…"
        hull = np.maximum.accumulate(precision[::-1])[::-1]
        axes.plot(recall, hull, linewidth=1.4 if named else 0.6, label=shown.replace("$", r"\$") if named else None)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    axes.set_title(f"detections that overlap an event by {threshold:g}", fontsize=9, color=INK)
    if named and curves:
        axes.legend(fontsize=8, frameon=False)
    style_axes(axes)
    return save_figure(figure, path)


def bars_figure(
    shares: Mapping[str, np.ndarray],
    ticks: Sequence[float],
    xlabel: str,
    ylabel: str,
    path: str | os.PathLike[str],
) -> Path:
    """Draws a stacked bar for each tick.

    Args:
        shares: For each part its height (T,) in every bar.
        ticks: What the T bars are.
        xlabel, ylabel: Names of the axes.
        path: The PNG to write, which is returned; its folder is made.
    """
    figure = new_figure(1.8 + 0.55 * max(len(ticks), 4), 3.6)
    axes, below = figure.add_subplot(), np.zeros(len(ticks))
    colors = ("#4f9a5b", RED, "#e0a458", BLUE, "#8a6fb0", GREY)
    for (name, heights), color in zip(shares.items(), colors, strict=False):
        axes.bar(range(len(ticks)), heights, bottom=below, color=color, width=0.75, label=name)
        below = below + heights
    axes.set_xticks(range(len(ticks)), [f"{tick:g}" for tick in ticks])
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    style_axes(axes)
    return save_figure(figure, path)


def holdings_figure(
    counts: np.ndarray, clients: Sequence[str], labels: Sequence[str], path: str | os.PathLike[str]
) -> Path:
    """Draws who holds what: a disc for each client and class, whose area is the number of videos.

    Args:
        counts: (K, C) videos of each client and class.
        clients, labels: The K and C names.
        path: The PNG to write, which is returned; its folder is made.

    Raises:
        MetricError: For other shapes.
    """
    counts = np.asarray(counts)
    if counts.shape != (len(clients), len(labels)) or not counts.sum():
        raise MetricError(
            f"Counts of {len(clients)} clients and {len(labels)} classes with videos are needed; {counts.shape} came."
        )
    labels = [str(label).replace("$", r"\$") for label in labels]
    labels = [label if len(label) <= LONGEST else label[: LONGEST - 1] + "…" for label in labels]
    cell = 0.42 if max(counts.shape) <= NUMBERED else 0.22 if max(counts.shape) <= NAMED else 0.1
    beside, below = (max(map(len, names)) for names in (clients, labels))
    figure = new_figure(2.2 + 0.075 * beside + cell * len(labels), 1.8 + 0.06 * below + cell * len(clients))
    axes = figure.add_subplot()
    rows, columns = np.nonzero(counts)
    sizes = counts[rows, columns] / counts.max() * (72 * cell) ** 2 * 0.9
    axes.scatter(columns, rows, s=sizes, color=BLUE, linewidths=0)
    axes.set(xlim=(-0.6, len(labels) - 0.4), ylim=(len(clients) - 0.4, -0.6))
    if len(labels) <= NAMED:
        axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    if len(clients) <= NAMED:
        totals = counts.sum(1)
        axes.set_yticks(range(len(clients)), [f"{one}  ({n})" for one, n in zip(clients, totals, strict=True)])
    axes.set(xlabel="class", ylabel="client (videos)", title=f"largest disc: {counts.max()} videos")
    axes.title.set_size(8)
    style_axes(axes)
    return save_figure(figure, path)


def style_axes(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=INK)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)


def new_figure(width: float, height: float) -> Figure:
    """Inches. Not made by pyplot, which would keep it, and would ask for a display."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BackendError(
            f"Figures need matplotlib, which can't be imported here ({error}): pip install matplotlib."
        ) from error
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, format="png", bbox_inches="tight", pad_inches=0.15)
    return path
