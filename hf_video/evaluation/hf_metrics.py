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
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_video.errors import MetricError, unknown_name
from hf_video.evaluation import metrics

if TYPE_CHECKING:
    from evaluate import Metric
    from numpy.typing import ArrayLike
    from transformers import EvalPrediction


def classification_metrics(
    prediction: EvalPrediction | tuple[ArrayLike | tuple[ArrayLike, ...], ArrayLike],
) -> dict[str, float]:
    """Computes the metrics of a classifier: a `compute_metrics` for transformers' `Trainer`.

    Args:
        prediction: Logits (N, C) and labels. Labels are class numbers (N,), or 0 and 1 (N, C) for videos with several
            classes. Of a model that returns more than logits the first array counts.

    Returns:
        accuracy, top5 (with more than 5 classes), mean_class_accuracy, macro_f1, log_loss and calibration_error by
        name; for labels (N, C) mean_average_precision.

    Raises:
        MetricError: For NaN and other shapes.
    """
    logits, labels = tuple(prediction)[:2]
    logits = np.asarray(logits[0] if isinstance(logits, (tuple, list)) else logits)
    labels = np.asarray(labels)
    if labels.ndim == 2:
        return {"mean_average_precision": metrics.mean_average_precision(logits, labels)}
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


def _top_k(predictions: np.ndarray, references: np.ndarray, k: int = 1) -> dict[str, float]:
    return {f"top{k}": metrics.top_k_accuracy(predictions, references, k)}


def _calibration(predictions: np.ndarray, references: np.ndarray, bins: int = 15) -> dict[str, float]:
    probabilities = metrics.softmax(predictions)
    return {"calibration_error": metrics.expected_calibration_error(probabilities, references, bins)}


@dataclass(frozen=True)
class _Metric:
    class_name: str
    function: Callable[..., dict[str, float]]
    description: str
    several_labels: bool = False


METRICS = {
    "video_classification": _Metric(
        *("VideoClassification", lambda predictions, references: classification_metrics((predictions, references))),
        "Accuracy, top 5, mean class accuracy, macro F1, log loss and calibration error of logits.",
    ),
    "top_k_accuracy": _Metric(
        *("TopKAccuracy", _top_k), "The share of videos whose class is among the k (default 1) highest scores."
    ),
    "calibration_error": _Metric(
        *("CalibrationError", _calibration), "The expected calibration error of logits, in `bins` (default 15) bins."
    ),
    "mean_average_precision": _Metric(
        *("MeanAveragePrecision", lambda predictions, references: classification_metrics((predictions, references))),
        "Mean average precision, for videos of several labels: references are 0 or 1 for each class.",
        several_labels=True,
    ),
}


def load_metric(name: str, **options: Any) -> Metric:
    """Makes an `evaluate.Metric` without fetching code from the Hub.

    Args:
        name: "video_classification", "top_k_accuracy", "calibration_error" or "mean_average_precision".
        **options: Of `evaluate.Metric`: `num_process`, `experiment_id`, …

    Raises:
        MetricError: For an unknown name.
    """
    return _metric_class(name)(**options)


@functools.cache
def _metric_class(name: str) -> type[Metric]:
    if name not in METRICS:
        raise MetricError(unknown_name("There is no metric", name, METRICS))
    import datasets
    import evaluate

    entry = METRICS[name]
    numbers = datasets.Sequence(datasets.Value("float32"))
    classes = datasets.Sequence(datasets.Value("int32")) if entry.several_labels else datasets.Value("int32")

    def info(self: Metric) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=entry.description,
            citation="",
            inputs_description="predictions: scores (N, C), such as logits. references: class numbers (N,)"
            + (", as 0 or 1 (N, C)." if entry.several_labels else "."),
            features=datasets.Features({"predictions": numbers, "references": classes}),
        )

    def compute(self: Metric, predictions: ArrayLike, references: ArrayLike, **options: int) -> dict[str, float]:
        return entry.function(np.asarray(predictions), np.asarray(references), **options)

    body = {"_info": info, "_compute": compute, "__module__": __name__, "__doc__": entry.description}
    return type(entry.class_name, (evaluate.Metric,), body)


def __getattr__(name: str) -> type[Metric]:
    for key, entry in METRICS.items():
        if name == entry.class_name:
            return _metric_class(key)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
