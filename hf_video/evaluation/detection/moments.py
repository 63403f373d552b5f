"""Moments and highlights that a sentence describes: the metrics of QVHighlights (Lei et al., NeurIPS 2021,
arXiv:2107.09609; moment_detr/standalone_eval)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hf_video.errors import MetricError
from hf_video.evaluation.detection.temporal import average_precisions, temporal_iou

LENGTHS = {"short": (0, 10), "middle": (10, 30), "long": (30, 150), "full": (0, np.inf)}  # seconds, upper end included
THRESHOLDS = [round(0.5 + 0.05 * step, 2) for step in range(10)]
MOST_WINDOWS = 10  # of a query that count for the mean average precision
CLIP_SECONDS = 2
LEVELS = {"Fair": 2, "Good": 3, "VeryGood": 4}  # lowest of the annotators' 0 to 4 that is a highlight

# What is predicted, and what the ground truth needs for it.
PREDICTED = {
    "pred_relevant_windows": ("relevant_windows",),
    "pred_saliency_scores": ("duration", "relevant_clip_ids", "saliency_scores"),
}

Query = Mapping[str, Any]


def moment_metrics(
    predictions: Sequence[Query], ground_truth: Sequence[Query], *, match_number: bool = True
) -> dict[str, dict]:
    """Metrics of moments and highlights, in percent, rounded to two places as the official code rounds them.

    Args:
        predictions: for each query "qid", "pred_relevant_windows", [[start, end, score], …] in seconds, best first, and
            where highlights are scored "pred_saliency_scores", one for each clip of 2 seconds.
        ground_truth: "qid", "duration" in seconds, "relevant_windows", and for highlights "relevant_clip_ids" and
            "saliency_scores", three annotators' numbers from 0 to 4 for each of these clips.
        match_number: whether both sides must have the same queries; False leaves out those that one side lacks.

    Returns:
        "full", "short", "middle", "long" (by the length of the true windows): "MR-mAP" (tIoU .5 to .95 and "average",
        over the first ten windows) and "MR-R1" (the first window against the true one that it overlaps most); for
        highlights "HL-min-Fair", "HL-min-Good", "HL-min-VeryGood": "HL-mAP" and "HL-Hit1"; and "brief", what papers
        report.

    Raises:
        MetricError: other queries on one side than on the other, a query twice, without windows or a field that is
            needed, highlights of clips beyond the video, or no query at all.
    """
    for side in (predictions, ground_truth):
        if repeated := [qid for qid, count in Counter(query["qid"] for query in side).items() if count > 1]:
            raise MetricError(f"Query {repeated[0]!r} has more than one entry; join them.")
    found = {query["qid"]: query for query in predictions}
    truth = {query["qid"]: query for query in ground_truth}
    if not match_number:
        found = {qid: query for qid, query in found.items() if qid in truth}
        truth = {qid: query for qid, query in truth.items() if qid in found}
    if set(found) != set(truth) or not truth:
        raise MetricError(
            f"{len(found)} queries were predicted and {len(truth)} have a ground truth; both need the same qid. In one "
            f"only: {sorted(map(str, set(found) ^ set(truth)))[:5]}."
        )
    predicted = [name for name in PREDICTED if any(name in query for query in found.values())]
    for queries, names in (
        (found, predicted or list(PREDICTED)),
        (truth, [needed for name in predicted for needed in PREDICTED[name]]),
    ):
        for qid, query in queries.items():
            if missing := [name for name in names if name not in query]:
                raise MetricError(f"Query {qid!r} has no {missing[0]!r}, which every query needs here.")
    metrics: dict[str, dict] = {}
    if "pred_relevant_windows" in predicted:
        if empty := [qid for qid, query in found.items() if not query["pred_relevant_windows"]]:
            raise MetricError(f"Query {empty[0]!r} has no predicted window; the first one is needed for R1.")
        for name, (low, high) in LENGTHS.items():
            windows = {
                qid: [
                    window
                    for window in query["relevant_windows"]
                    if low < window[1] - window[0] <= high or name == "full"
                ]
                for qid, query in truth.items()
            }
            windows = {qid: kept for qid, kept in windows.items() if kept}
            if windows:
                metrics[name] = _windows({qid: found[qid]["pred_relevant_windows"] for qid in windows}, windows)
    if "pred_saliency_scores" in predicted:
        for name, level in LEVELS.items():
            metrics[f"HL-min-{name}"] = _highlights(found, truth, level)
    return {"brief": _brief(metrics), **metrics}


def _percent(value: float) -> float:
    return float(f"{100 * value:.2f}")


def _windows(found: Mapping[object, Sequence], truth: Mapping[object, Sequence]) -> dict[str, dict[str, float]]:
    precision, first = [], []
    for qid, windows in truth.items():
        rows = [("", start, end, score) for start, end, score in found[qid][:MOST_WINDOWS]]
        # Of equal scores the later comes first there; here the earlier one does.
        true_rows = [("", *window, 1.0) for window in windows]
        precision.append(average_precisions(true_rows, rows[::-1], np.array(THRESHOLDS)))
        best = temporal_iou(np.array(found[qid][0][:2], dtype=float), np.array(windows, dtype=float))
        first.append(np.nan_to_num(best).max())
    means = np.mean(precision, axis=0)
    average = {"average": _percent(means.mean())}
    return {
        "MR-mAP": {str(limit): _percent(mean) for limit, mean in zip(THRESHOLDS, means, strict=True)} | average,
        "MR-R1": {str(limit): _percent(np.mean(np.array(first) >= limit)) for limit in THRESHOLDS},
    }


def _highlights(found: Mapping[object, Query], truth: Mapping[object, Query], level: int) -> dict[str, float]:
    hits, precision = [], []
    for qid, query in truth.items():
        marks = np.zeros((int(query["duration"] / CLIP_SECONDS), 3))
        clips, given = np.array(query["relevant_clip_ids"], dtype=int), np.array(query["saliency_scores"], dtype=float)
        if (given.shape != (len(clips), 3) and len(clips)) or (clips >= len(marks)).any() or (clips < 0).any():
            raise MetricError(
                f"Query {qid!r} needs three saliency_scores for each of relevant_clip_ids, clips of {CLIP_SECONDS} "
                f"seconds within its {query['duration']}."
            )
        if len(clips):
            marks[clips] = given
        right = marks >= level
        scores = np.asarray(found[qid]["pred_saliency_scores"], dtype=float)
        if scores.ndim != 1 or not len(scores) or not np.isfinite(scores).all():
            raise MetricError(f"Query {qid!r} needs a finite number for each clip in pred_saliency_scores.")
        best = int(scores.argmax())
        hits.append(right[best].max() if best < len(right) else 0)
        padded = np.zeros(len(right))
        padded[: min(len(scores), len(right))] = scores[: len(right)]
        precision.append([highlight_precision(column, padded) for column in right.T])
    return {"HL-mAP": _percent(np.mean(precision)), "HL-Hit1": _percent(np.mean(hits))}


def highlight_precision(right: np.ndarray, scores: np.ndarray) -> float:
    """Mean of the interpolated precision at each score that adds a highlight (video2gif's average precision); 0 without
    highlights, 1 with nothing else."""
    if right.all() or not right.any():
        return float(right.all())
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # of each group of equal scores
    hits = right[order].cumsum()[last]
    precision = np.maximum.accumulate((hits / (last + 1))[::-1])[::-1]
    recall = (hits / hits[-1]).astype(np.float32)
    return float(precision[np.flatnonzero(np.diff(recall, prepend=np.float32(0)))].mean())


def _brief(metrics: Mapping[str, dict]) -> dict[str, float]:
    brief: dict[str, float] = {}
    if "full" in metrics:
        full = metrics["full"]
        brief |= {f"MR-full-R1@{limit}": full["MR-R1"][limit] for limit in ("0.5", "0.7")}
        brief |= {"MR-full-mAP": full["MR-mAP"]["average"]}
        brief |= {f"MR-full-mAP@{limit}": full["MR-mAP"][limit] for limit in ("0.5", "0.75")}
        brief |= {f"MR-{n}-mAP": metrics[n]["MR-mAP"]["average"] for n in ("long", "middle", "short") if n in metrics}
    for name, values in metrics.items():
        if name.startswith("HL"):
            brief |= {f"{name}-{key.removeprefix('HL-')}": value for key, value in values.items()}
    return brief
