"""Scores of anomalies in files against the annotations of a data set."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hf_video.data.sources.anomalies import FORMS, AnomalyAnnotations, read_anomalies
from hf_video.errors import DataError, MetricError, check_choice, check_count, check_number, near_path
from hf_video.evaluation.detection.anomaly import AnomalyMetrics, anomaly_metrics

NAMES = {
    "micro_auc": "frame AUC, all frames together (micro)",
    "macro_auc": "frame AUC, mean over videos (macro)",
    "abnormal_auc": "frame AUC, videos with anomalies (micro)",
    "average_precision": "average precision, all frames",
    "pr_auc": "area under precision-recall by trapezoids",
    "equal_error_rate": "equal error rate, all frames",
}
# The numbers that papers give for a data set.
PUBLISHED = {
    "ucf-crime": ("micro_auc",),
    "shanghaitech": ("micro_auc",),
    "xd-violence": ("average_precision",),
    "avenue": ("micro_auc", "macro_auc"),
    "ubnormal": ("micro_auc", "macro_auc"),
}


@dataclass(frozen=True)
class AnomalyReport:
    """`metrics` of `videos` with so many `frames`, of which `abnormal_frames`; `protocol` is the data set whose numbers
    are marked, `smooth` the deviation of the smoothing in frames."""

    metrics: AnomalyMetrics
    videos: int
    frames: int
    abnormal_frames: int
    protocol: str
    repeat: int
    smooth: float | None

    def as_dict(self) -> dict[str, Any]:
        """All numbers, None for those that are not defined."""
        metrics = {name: None if value != value else value for name, value in asdict(self.metrics).items()}
        about = {name: value for name, value in asdict(self).items() if name != "metrics"}
        return {**metrics, **about}

    def __str__(self) -> str:
        smoothed = f", smoothed by {self.smooth:g} frames" if self.smooth else ""
        lines = [
            f"{self.videos} videos, {self.frames:,} frames, {self.abnormal_frames:,} of them abnormal{smoothed}",
            *(
                f"{title:<45}{getattr(self.metrics, name):8.4f}"
                + (f"  ({self.protocol}'s number)" if name in PUBLISHED.get(self.protocol, ()) else "")
                for name, title in NAMES.items()
            ),
        ]
        return "\n".join(lines)


def read_scores(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Scores of videos, float64 (T,) each.

    Args:
        path: what `hf-video anomalies` wrote as JSON (a score for each frame); {video: [scores]} as JSON; or a folder
            of `video.npy`.

    Raises:
        DataError: it isn't there, or holds something else.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"There is no {path}.{near_path(path)} Give the scores.")
    try:
        if path.is_dir():
            found = {file.stem: np.load(file, allow_pickle=False) for file in sorted(path.glob("*.npy"))}
        else:
            about = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(about.get("videos"), dict):
                about = {video: one["frame_scores"] for video, one in about["videos"].items()}
            found = about
        scores = {video: np.asarray(one, dtype=np.float64) for video, one in found.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{path} holds no scores ({error}): give the .json of hf-video anomalies, {{video: [scores]}} as JSON, or "
            "a folder of .npy."
        ) from error
    if not scores or any(one.ndim != 1 for one in scores.values()):
        raise DataError(f"{path} must hold a row of scores for each video.")
    return scores


def evaluate_anomalies(
    scores: str | os.PathLike[str] | Mapping[str, np.ndarray],
    annotations: str | os.PathLike[str] | AnomalyAnnotations,
    *,
    protocol: str | None = None,
    repeat: int = 1,
    smooth: float | None = None,
) -> AnomalyReport:
    """Compares scores with annotations, frame by frame; see `anomaly_metrics`.

    Args:
        scores: see `read_scores`.
        annotations: see `read_anomalies`.
        protocol: the data set, which says how annotations are read and which numbers its papers give; None for what the
            annotations look like.
        repeat: frames that a score stands for: 16 for the published features of UCF-Crime and XD-Violence.
        smooth: deviation of a Gaussian over each video's frames, in frames; part of many papers' numbers.

    Raises:
        DataError: files that are missing or not what they should be; a video with scores and no annotation, or the
            other way round; an anomaly beyond the end of its video; other numbers of scores than of frames.
        MetricError: scores that are not finite.
    """
    if protocol is not None:
        check_choice("protocol", protocol, FORMS, MetricError)
    check_count("repeat", repeat, MetricError)
    check_number("smooth", smooth, MetricError, above=0, optional=True)
    if not isinstance(annotations, AnomalyAnnotations):
        annotations = read_anomalies(annotations, protocol)
    given = scores if isinstance(scores, Mapping) else read_scores(scores)
    named: dict[str, np.ndarray] = {}
    for video, line in given.items():
        key = annotations.find(video)
        if key is None or key in named:
            what = "is not annotated" if key is None else f"has scores twice, as {key}"
            raise DataError(f"{video} {what}. {len(annotations.segments)} videos are: {_some(annotations.segments)}.")
        named[key] = line
    if missing := sorted(set(annotations.segments) - set(named)):
        raise DataError(
            f"{len(missing)} of {len(annotations.segments)} annotated videos have no scores: {_some(missing)}."
        )
    frames = {}
    for video, line in named.items():
        frames[video] = annotations.frames.get(video, repeat * len(line))
        if not -repeat < repeat * len(line) - frames[video] < repeat:
            raise DataError(
                f"{video} has {len(line)} scores for {repeat} frames each and {frames[video]} annotated frames. Use "
                "another repeat, or give a score for each frame."
            )
        for first, last in annotations.segments.get(video, ()):
            # The published ends lie up to one step beyond the features, which cover whole steps.
            if first >= frames[video] or last > frames[video] + repeat:
                raise DataError(
                    f"{video}: an anomaly from frame {first} to {last}, and the video has {frames[video]} frames."
                )
    segments = {video: annotations.segments.get(video, []) for video in named}
    metrics = anomaly_metrics(named, segments, frames, repeat=repeat, gaussian_sigma=smooth)
    masks = {video: np.zeros(count, bool) for video, count in frames.items()}
    for video, mask in masks.items():
        for first, last in segments[video]:
            mask[first:last] = True
    abnormal = int(sum(mask.sum() for mask in masks.values()))
    return AnomalyReport(metrics, len(named), sum(frames.values()), abnormal, annotations.form, repeat, smooth)


def _some(names: Any) -> str:
    return ", ".join(list(names)[:3]) + (", …" if len(names) > 3 else "")
