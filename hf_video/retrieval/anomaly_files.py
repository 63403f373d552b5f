"""The files that curves of anomalies are written to."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_video.base.detection.curve import AnomalyCurve
from hf_video.base.detection.types import subrip, webvtt
from hf_video.base.written_files import EVENT_FILES, SUBTITLES, atomic_write, writing_into
from hf_video.errors import OutputError, VideoOptionError
from hf_video.features.anomaly_head import AnomalyHead
from hf_video.retrieval.anomalies import AnomalyDetector

DIGITS = 6  # of scores in files


def check_suffix(path: str | os.PathLike[str], videos: int) -> None:
    """Raises VideoOptionError where curves of so many videos can't be written to a file of this name."""
    suffix = Path(path).suffix
    if suffix not in EVENT_FILES:
        raise VideoOptionError(f"{str(path)!r} must end in one of {', '.join(EVENT_FILES)}.")
    if suffix in SUBTITLES and videos != 1:
        raise VideoOptionError(f"{str(path)!r} holds the events of one video; {videos} came. Use .json or .csv.")


def write_curves(
    path: str | os.PathLike[str],
    curves: Mapping[str, AnomalyCurve],
    detector: AnomalyDetector | AnomalyHead | None = None,
) -> None:
    """Writes curves, in the form that the suffix names.

    Args:
        path: `.csv`, a row for each moment: video, start, end, score, distance; `.json`, the same with events, the
            threshold and a score for each frame, which `hf-video evaluate --task anomaly` reads; `.vtt` or
            `.srt`, the events of one video for players.
        curves: For each video its curve.
        detector: That made them; JSON says what it was.

    Raises:
        VideoOptionError: Another suffix, or several videos for `.vtt` or `.srt`.
        OutputError: The file can't be written.
    """
    path = Path(path)
    check_suffix(path, len(curves))
    if path.suffix == ".json":
        text = json.dumps(_facts(curves, detector), ensure_ascii=False) + "\n"
    elif path.suffix == ".csv":
        text = _csv(curves)
    else:
        text = (subrip if path.suffix == ".srt" else webvtt)(next(iter(curves.values())).events)
    with writing_into(path.parent, OutputError), atomic_write(path) as draft:
        draft.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")


def _facts(curves: Mapping[str, AnomalyCurve], detector: AnomalyDetector | AnomalyHead | None) -> dict[str, Any]:
    about: dict[str, Any] = {}
    if isinstance(detector, AnomalyHead):
        config = detector.model.config
        about = {
            "head": config.model_type,
            "encoder": config.encoder,
            "grid": str(detector.encoder.grid),
            "smooth": detector.smooth,
            "threshold": detector.threshold,
        }
    elif detector is not None:
        about = {
            "encoder": detector.index.identity,
            "grid": str(detector.grid),
            "k": detector.k,
            "smooth": detector.smooth,
            "threshold": detector.threshold.value,
            "threshold_rule": detector.threshold.rule,
            "usual": detector.threshold.usual,
            "normal_videos": len(detector.index.files),
        }
    videos = {
        video: {
            "duration": curve.end - float(curve.frame_seconds[0]),
            "events": [
                {"label": one.label, "score": one.score, "segment": [one.start, one.end]} for one in curve.events
            ],
            "seconds": curve.seconds.round(DIGITS).tolist(),
            "scores": curve.scores.round(DIGITS).tolist(),
            "distances": curve.distances.round(DIGITS).tolist(),
            "frame_scores": curve.frame_scores().round(DIGITS).tolist(),
        }
        for video, curve in curves.items()
    }
    return {**about, "videos": videos}


def _csv(curves: Mapping[str, AnomalyCurve]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("video", "start", "end", "score", "distance"))
    for video, curve in curves.items():
        columns = (curve.seconds.round(DIGITS), curve.scores.round(DIGITS), curve.distances.round(DIGITS))
        writer.writerows(
            (video, *span.tolist(), score, distance) for span, score, distance in zip(*columns, strict=True)
        )
    return text.getvalue()
