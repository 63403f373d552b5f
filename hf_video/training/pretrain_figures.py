"""Pictures of a pretraining: what the model makes of hidden tubelets, and the loss over time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from hf_video.training.masked_pretraining import Reconstruction

_PAPER, _INK, _FAINT = (250, 250, 248), (30, 32, 36), (120, 124, 130)
_ROWS = {"input": "input", "masked": "seen", "means": "mean colour", "predicted": "predicted"}
_GAP, _MARGIN, _SIDE, _CAPTION, _LINE = 3, 20, 106, 42, 17
_NARROWEST = 640  # pixels, for the words


def reconstruction_sheet(
    shown: Reconstruction, captions: Sequence[tuple[str, str]], *, title: str = "", note: str = "", frames: int = 8
) -> Image.Image:
    """A PIL image with four rows for each clip: its frames, the same with hidden tubelets in grey, with their true mean
    in their place, and with the prediction; at most `frames` of them, evenly spread, time from left to right. A caption
    is two lines, the second one faint."""
    clips, count, _, height, width = shown.input.shape
    picks = np.linspace(0, count - 1, min(frames, count)).round().astype(int)
    scale = max(round(112 / width), 1)  # whole, so that pixels stay pixels
    w, h = width * scale, height * scale
    across = max(_SIDE + len(picks) * (w + _GAP) + _MARGIN, _NARROWEST)
    words = _wrapped(note, across - 2 * _MARGIN, _font(12))
    block = _CAPTION + len(_ROWS) * (h + _GAP) + _MARGIN
    head = 46 + _LINE * len(words)
    sheet = Image.new("RGB", (across, head + clips * block), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, 12), title, fill=_INK, font=_font(20))
    for number, line in enumerate(words):
        draw.text((_MARGIN, 38 + _LINE * number), line, fill=_FAINT, font=_font(12))
    for number, (caption, more) in enumerate(captions[:clips]):
        top = head + number * block
        draw.text((_SIDE, top), caption, fill=_INK, font=_font(14))
        draw.text((_SIDE, top + 20), more, fill=_FAINT, font=_font(12))
        for row, (name, title) in enumerate(_ROWS.items()):
            y = top + _CAPTION + row * (h + _GAP)
            draw.text((_MARGIN, y + h // 2 - 8), title, fill=_FAINT, font=_font(13))
            pixels = getattr(shown, name)[number, picks].mul(255).round().to(torch.uint8).cpu()
            for column, frame in enumerate(pixels.permute(0, 2, 3, 1).numpy()):
                image = Image.fromarray(frame).resize((w, h), Image.Resampling.NEAREST)
                sheet.paste(image, (_SIDE + column * (w + _GAP), y))
    return sheet


def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def _wrapped(text: str, width: int, font: Any) -> list[str]:
    """Lines of at most `width` pixels."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def loss_curve(history: Sequence[dict[str, Any]], path: str | os.PathLike[str]) -> bool:
    """Draws the training loss, the held-out masked loss and the trivial predictors' over epochs, from a Trainer's
    `log_history`, and the linear probe's accuracy beneath where there was one. False where matplotlib is missing."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    probed = _series(history, "probe_top1")
    figure = Figure(figsize=(8, 7 if probed[0] else 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2 if probed[0] else 1, squeeze=False, sharex=True)[:, 0]
    _plot_losses(axes[0], history)
    if probed[0]:
        axes[1].plot(probed[0], [100 * v for v in probed[1]], color="#268452", marker="o", markersize=4)
        axes[1].set_ylabel("linear probe, top-1 in %")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    axes[-1].set_xlabel("epoch")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return True


def _plot_losses(axis: Any, history: Sequence[dict[str, Any]]) -> None:
    of_features = bool(_series(history, "eval_mean_of_seen")[0])
    training, held_out = _series(history, "loss"), _series(history, "eval_masked_loss")
    axis.plot(*training, color="#9aa3ad", linewidth=1, label="training clips")
    axis.plot(*held_out, color="#1f6feb", marker="o", markersize=3, label="held out: this model")
    # Random weights begin so far above that all that follows would look flat.
    shown = [value for _, values in (training, held_out) for value in values[len(values) // 10 :]]
    shown += _series(history, "eval_mean_of_patch")[1] + _series(history, "eval_mean_of_seen")[1]
    low, high = min(shown, default=0.0), max(shown, default=1.0)
    top = high + 0.3 * (high - low)
    for name, colour, label in (
        ("eval_mean_of_patch", "#c4382f", "mean of the patch"),
        ("eval_mean_of_seen", "#c4382f", "mean of what is seen, at the end"),
        ("eval_copy_of_nearest", "#d9822b", "copy of the nearest visible tube" + ", at the end" * of_features),
    ):
        for value in _series(history, name)[1][-1:]:
            # A line far above would flatten the curves too; its number is enough.
            where = f"{value:.3f}" if value <= top else f"{value:.3f}, far above"
            axis.plot([], [], color=colour, linestyle="--", linewidth=1, label=f"held out: {label} ({where})")
            if value <= top:
                axis.axhline(value, color=colour, linestyle="--", linewidth=1)
    if high > low:
        axis.set_ylim(low - 0.1 * (high - low), top)
    axis.set_ylabel(f"mean {'' if of_features else 'squared '}error of {'features of ' * of_features}hidden tokens")
    axis.legend(frameon=False, fontsize=9)


def _series(history: Sequence[dict[str, Any]], name: str) -> tuple[list[float], list[float]]:
    rows = [row for row in history if name in row]
    return [row["epoch"] for row in rows], [row[name] for row in rows]
