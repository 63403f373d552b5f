"""Results for people and for programs."""

from __future__ import annotations

from typing import Any


def fault(file: str, message: str) -> str:
    """The line on stderr for a file that can't be read; most messages name it themselves."""
    return f"hf-video: {message}" if file in message else f"hf-video: {file}: {message}"


def json_result(file: str, result: Any) -> dict[str, Any]:
    """A pipeline's result for one file as plain JSON values.

    `{"file", "seconds": [start, end], "predictions": [{"score", "label"}]}`; with windows
    `{"file", "windows": [{"seconds", "predictions"}]}`; `{"file", "error", "message"}` for one that can't be read.
    """
    if isinstance(result, dict):
        return {"file": file, **result}
    if result and "predictions" in result[0]:
        return {"file": file, "windows": [_window(window) for window in result]}
    more = {"repeated_frames": list(result.repeated)} if result.repeated else {}
    return {"file": file, "seconds": list(result.seconds), "predictions": list(result), **more}


def _window(window: dict[str, Any]) -> dict[str, Any]:
    predictions = window["predictions"]
    more = {"repeated_frames": list(predictions.repeated)} if predictions.repeated else {}
    return {"seconds": list(window["seconds"]), "predictions": list(predictions), **more}


def table(file: str, result: Any) -> str:
    """The same for people: a line for the file, one for each label; with windows the labels of a window on one line."""
    if result and "predictions" in result[0]:
        lines = [file]
        for window in result:
            labels = ", ".join(f"{p['label']} {_score(p['score'])}" for p in window["predictions"])
            lines.append(f"  {_span(window['seconds'])}  {labels}{_damage(window['predictions'])}")
        return "\n".join(lines)
    lines = [f"{file}  ({_span(result.seconds)}){_damage(result)}"]
    return "\n".join(lines + [f"  {_score(p['score']):>7}  {p['label']}" for p in result])


def _span(seconds: tuple[float, float]) -> str:
    return f"{seconds[0]:.2f}-{seconds[1]:.2f} s"


def _score(score: float) -> str:
    return f"{score:.1%}" if 0 <= score <= 1 else f"{score:.4g}"


def _damage(predictions: Any) -> str:
    count = len(predictions.repeated)
    return f"  [{count} damaged frames replaced by neighbours]" if count else ""
