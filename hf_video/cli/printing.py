"""Results as text and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_video.pipelines.video_classification import Predictions


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


def format_result(file: str, result: Predictions | list[dict[str, Any]]) -> str:
    """A pipeline's result as text: a line for the file and one per label, or with windows one line per window."""
    from hf_video.pipelines.video_classification import Predictions

    if isinstance(result, Predictions):
        lines = [f"{file}  ({_span(result.seconds)}){_damage(result)}"]
        return "\n".join(lines + [f"  {_score(p['score']):>7}  {p['label']}" for p in result])
    lines = [file]
    for window in result:
        labels = ", ".join(f"{p['label']} {_score(p['score'])}" for p in window["predictions"])
        lines.append(f"  {_span(window['seconds'])}  {labels}{_damage(window['predictions'])}")
    return "\n".join(lines)


def _span(seconds: tuple[float, float]) -> str:
    return f"{seconds[0]:.2f}-{seconds[1]:.2f} s"


def _score(score: float) -> str:
    return f"{score:.1%}" if 0 <= score <= 1 else f"{score:.4g}"


def _damage(predictions: Predictions) -> str:
    count = len(predictions.repeated)
    return f"  [{count} damaged frames replaced by neighbours]" if count else ""
