"""Results as text and as JSON, and what is said besides."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_video.pipelines.video_classification import Predictions


NONE = "none"  # in place of the labels of a video of which nothing passes the threshold


def say(line: str) -> None:
    """A line on stderr, above a progress bar if there is one."""
    from tqdm import tqdm

    tqdm.write(f"hf-video: {line}", file=sys.stderr)


def error_line(file: str, message: str) -> str:
    """The line on stderr for a file that can't be read; the file is named once."""
    return f"hf-video: {message}" if file in message else f"hf-video: {file}: {message}"


def json_result(file: str, result: Predictions | list[dict[str, Any]] | dict[str, Any]) -> dict[str, Any]:
    """A pipeline's result for one file as plain JSON values.

    `{"file", "seconds": [start, end], "predictions": [{"score", "label"}]}`; with windows
    `{"file", "windows": [{"seconds", "predictions"}]}`; `{"file", "error", "kind", "message"}` for one that can't be
    read.
    """
    if isinstance(result, dict):
        return {"file": file, **result}
    from hf_video.pipelines.video_classification import Predictions

    if isinstance(result, Predictions):
        return {"file": file, **_json_clip(result.seconds, result)}
    return {"file": file, "windows": [_json_clip(one["seconds"], one["predictions"]) for one in result]}


def _json_clip(seconds: tuple[float, float], predictions: Predictions) -> dict[str, Any]:
    more = {"repeated_frames": list(predictions.repeated)} if predictions.repeated else {}
    return {"seconds": list(seconds), "predictions": list(predictions), **more}


def format_result(result: dict[str, Any]) -> str:
    """What `json_result` made of one file as text: a line for the file and one per label, or with windows one line per
    window; `NONE` where no label passes the threshold."""
    if "windows" not in result:
        lines = [f"{result['file']}  ({_span(result['seconds'])}){_damage(result)}"]
        return "\n".join(lines + [f"  {_score(p)}  {p['label']}{_interest(p)}" for p in _shown(result)])
    lines = [result["file"]]
    for window in result["windows"]:
        lines.append(f"  {format_window(window)}{_damage(window)}")
    return "\n".join(lines)


def format_window(window: dict[str, Any]) -> str:
    """The seconds and labels of a window in one line."""
    labels = ", ".join(f"{p['label']} {_score(p).strip()}".rstrip() + _interest(p) for p in _shown(window))
    return f"{_span(window['seconds'])}  {labels}"


def _shown(window: dict[str, Any]) -> list[dict[str, Any]]:
    return window["predictions"] or [{"label": NONE}]


def _span(seconds: Sequence[float]) -> str:
    return f"{seconds[0]:.2f}-{seconds[1]:.2f} s"


def _score(prediction: dict[str, Any]) -> str:
    score = prediction.get("score")
    if score is None:
        return " " * 7
    return f"{score:.1%}".rjust(7) if 0 <= score <= 1 else f"{score:.4g}".rjust(7)


def _interest(prediction: dict[str, Any]) -> str:
    return " (of interest)" if prediction.get("of_interest") else ""


def _damage(window: dict[str, Any]) -> str:
    count = len(window.get("repeated_frames", ()))
    return f"  [{count} damaged frames replaced by neighbours]" if count else ""
