"""The metrics of `hf_video.evaluation.metrics` for the Trainer, and as `evaluate.Metric` classes that need no network.

    trainer = Trainer(..., compute_metrics=classification_metrics)

    metric = load_metric("top_k_accuracy")               # also: hf_metrics.TopKAccuracy()
    metric.add_batch(predictions=logits, references=labels)
    metric.compute(k=5)                                  # {"top5": 0.93}

`evaluate.load` fetches a metric's code from the Hub; these are classes of this package. `evaluate` is imported when the
first one is made.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_video.errors import MetricError
from hf_video.evaluation import metrics


def classification_metrics(prediction: Any) -> dict[str, float]:
    """`compute_metrics` for a Trainer: an `EvalPrediction`, or a pair, of logits (N, C) and labels to numbers.

    Labels (N,) give accuracy, top5 (with more than 5 classes), mean_class_accuracy, macro_f1, log_loss and
    calibration_error; labels (N, C) of 0 and 1 (several a video) give mean_average_precision. Models that return more
    than logits are fine: the first array counts. Raises MetricError for NaN and other shapes.
    """
    logits, labels = tuple(prediction)[:2]
    logits = np.asarray(logits[0] if isinstance(logits, (tuple, list)) else logits)
    labels = np.asarray(labels)
    if labels.ndim == 2:
        return {"mean_average_precision": metrics.mean_average_precision(logits, labels)}
    return classification_scores(logits, labels)


def classification_scores(logits: Any, labels: Any) -> dict[str, float]:
    """See `classification_metrics`."""
    logits, labels = np.asarray(logits), np.asarray(labels)
    top5 = {"top5": metrics.top_k_accuracy(logits, labels, 5)} if logits.ndim == 2 and logits.shape[1] > 5 else {}
    accuracy = metrics.top_k_accuracy(logits, labels)
    confusion = metrics.confusion_matrix(logits.argmax(1), labels, logits.shape[1])
    probabilities = metrics.softmax(logits)
    return {
        "accuracy": accuracy,
        **top5,
        "mean_class_accuracy": metrics.mean_class_accuracy(confusion),
        "macro_f1": metrics.macro_f1(confusion),
        "log_loss": metrics.log_loss(probabilities, labels),
        "calibration_error": metrics.expected_calibration_error(probabilities, labels),
    }


def _top_k(predictions: Any, references: Any, k: int = 1) -> dict[str, float]:
    return {f"top{k}": metrics.top_k_accuracy(predictions, references, k)}


def _calibration(predictions: Any, references: Any, bins: int = 15) -> dict[str, float]:
    probabilities = metrics.softmax(predictions)
    return {"calibration_error": metrics.expected_calibration_error(probabilities, references, bins)}


def _mean_average_precision(predictions: Any, references: Any) -> dict[str, float]:
    return {"mean_average_precision": metrics.mean_average_precision(predictions, references)}


@dataclass(frozen=True)
class _Entry:
    class_name: str
    function: Callable[..., dict[str, float]]
    description: str
    several_labels: bool = False


METRICS = {
    "video_classification": _Entry(
        *("VideoClassification", classification_scores),
        "Accuracy, top 5, mean class accuracy, macro F1, log loss and calibration error of logits.",
    ),
    "top_k_accuracy": _Entry(
        *("TopKAccuracy", _top_k), "The share of videos whose class is among the k (default 1) highest scores."
    ),
    "calibration_error": _Entry(
        *("CalibrationError", _calibration), "The expected calibration error of logits, in `bins` (default 15) bins."
    ),
    "mean_average_precision": _Entry(
        *("MeanAveragePrecision", _mean_average_precision),
        "Mean average precision, for videos of several labels: references are 0 or 1 for each class.",
        several_labels=True,
    ),
}


def load_metric(name: str, **options: Any) -> Any:
    """A metric of `METRICS` by name; `options` as of `evaluate.Metric` (`num_process`, `experiment_id`, …). Raises
    MetricError for an unknown name."""
    return _metric_class(name)(**options)


@functools.cache
def _metric_class(name: str) -> type:
    if name not in METRICS:
        raise MetricError(f"There is no metric {name!r}; there are {', '.join(METRICS)}.")
    import datasets
    import evaluate

    entry = METRICS[name]
    numbers = datasets.Sequence(datasets.Value("float32"))
    classes = datasets.Sequence(datasets.Value("int32")) if entry.several_labels else datasets.Value("int32")

    def info(self: Any) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=entry.description,
            citation="",
            inputs_description="predictions: scores (N, C), such as logits. references: class numbers (N,)"
            + (", as 0 or 1 (N, C)." if entry.several_labels else "."),
            features=datasets.Features({"predictions": numbers, "references": classes}),
        )

    def compute(self: Any, predictions: Any, references: Any, **options: Any) -> dict[str, float]:
        return entry.function(np.asarray(predictions), np.asarray(references), **options)

    body = {"_info": info, "_compute": compute, "__module__": __name__, "__doc__": entry.description}
    return type(entry.class_name, (evaluate.Metric,), body)


def __getattr__(name: str) -> Any:
    for key, entry in METRICS.items():
        if name == entry.class_name:
            return _metric_class(key)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
