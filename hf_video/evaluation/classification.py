"""Evaluates a classifier on a data set by a protocol; every video is decoded once for all its views.

report = evaluate_videos(model, processor, load_videos("clips")["test"], protocol="paper")
print(report)
report.save("evaluation/test")
"""

from __future__ import annotations

import functools
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from hf_video.base.pairing import check_pair
from hf_video.clips.batching import read_each, run_videos
from hf_video.clips.read import read_events
from hf_video.data.rows import Skipped, VideoRow, VideoRows, classes_of
from hf_video.errors import CheckpointError, DataError
from hf_video.evaluation.label_matching import match_labels
from hf_video.evaluation.multi_label_report import MultiLabelReport
from hf_video.evaluation.prediction_log import PredictionLog, weights_checksum
from hf_video.evaluation.protocols import Protocol, find_protocol
from hf_video.evaluation.report import Report
from hf_video.features.extraction import ClipVectors, skipped_video
from hf_video.pipelines.video_classification import thresholds_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hf_video.data.types import FrameProcessor


def evaluate_videos(
    model: PreTrainedModel,
    processor: FrameProcessor,
    rows: VideoRows,
    *,
    protocol: str | Protocol = "1x1",
    batch_size: int | None = None,
    num_workers: int = 0,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    output: str | os.PathLike[str] | None = None,
    on_error: str = "raise",
    backend: str = "auto",
    progress: bool = True,
) -> Report | MultiLabelReport:
    """Evaluates a classifier on labelled videos.

    A video that can't be read or has no label is skipped, named in the report with the reason, and counted in "found N
    of M videos".

    Args:
        model: A model whose output has `logits` (views, classes). It is set to eval mode and back.
        processor: Its image or video processor.
        rows: Videos with labels (`hf_video.data.load_videos`). Class names are matched to the model's, see
            `match_labels`.
        protocol: A name or a `Protocol`, see `hf_video.evaluation.protocols`.
        batch_size: Views in one forward, filled from several videos. None: each video on its own, at most 8 at once.
        num_workers: Processes that decode; 0 decodes in this one.
        device: Where the model is moved to; None leaves it where it is.
        dtype: The precision that the model is converted to; None leaves it as it is.
        output: A folder for `predictions.jsonl`. A second call with the same model, weights and protocol goes on from
            what is there; videos that failed are tried again.
        on_error: "raise": a video with damaged frames is skipped. "repeat": these show their nearest good neighbour.
        backend: Of `VideoReader`.
        progress: Whether to show a bar on stderr, where that is a terminal.

    Returns:
        A `Report` (top-1, top-5, per class, calibration), or a `MultiLabelReport` (mean average precision, F1) of a
        model with `config.problem_type = "multi_label_classification"`.

    Raises:
        DataError: No video could be scored, or the videos have classes that the model doesn't have.
        VideoOptionError: The protocol is unknown, or not possible with this processor.
        SamplingError: The protocol's sampler does not fit.
        CheckpointError: The model gives no logits.
    """
    if device is not None or dtype is not None:
        model.to(device=device, dtype=dtype)
    check_pair(model, processor)
    protocol = find_protocol(protocol, model.config, processor=processor)
    several = getattr(model.config, "problem_type", None) == "multi_label_classification"
    if several:
        protocol = replace(protocol, average="sigmoid")
    elif rows.multi_label:
        raise DataError(
            "The videos have several labels each, and the model gives one of its classes: train it on such videos, or "
            'set config.problem_type = "multi_label_classification" if that is what it was trained for.'
        )
    request, process = protocol.request(model.config, processor, on_error=on_error, backend=backend)
    labels = [model.config.id2label[i] for i in sorted(model.config.id2label)]
    classes = match_labels(rows.labels, dict(enumerate(labels)))
    names = _unique_names(rows)
    skipped = [entry for entry in rows.skipped if not entry.used]
    skipped += [Skipped(row.name, "has no label", "unlabelled") for row in rows if row.label is None]
    labelled = {name: row for name, row in zip(names, rows, strict=True) if row.label is not None}

    start = time.monotonic()
    name_of_model = getattr(model, "name_or_path", "") or type(model).__name__
    run = {"model": name_of_model, "protocol": protocol.to_dict(), "classes": len(labels)}
    if output is not None:
        run["weights"] = weights_checksum(model)
    with PredictionLog(output, run) as log:
        scores = {name: log.known[name] for name in labelled if name in log.known}
        resumed = len(scores)
        todo = {name: row for name, row in labelled.items() if name not in scores}
        read = functools.partial(read_events, request=request, process=process)
        events = read_each([row.source for row in todo.values()], read, num_workers)
        hidden = None if progress else True  # None: hidden where stderr is no terminal
        shown = {"desc": "evaluating", "unit": "video", "file": sys.stderr, "disable": hidden}
        bar = tqdm(total=len(labelled), initial=resumed, **shown)
        with ClipVectors(model, compute=_logits) as forward:
            for (name, row), result in zip(
                todo.items(), run_videos(events, forward, batch_size=batch_size), strict=True
            ):
                if result.error is not None:
                    skipped.append(skipped_video(row.name, result.error, row.source))
                else:
                    scores[name] = protocol.combine(torch.stack(result.logits[0])).numpy()
                    log.add(name, scores[name])
                bar.update()
        bar.close()
    if not scores:
        why = f"None of the {len(skipped)} videos could be scored. {skipped[0]}" if skipped else ""
        raise DataError(why or "There are no videos to evaluate.")
    found = [labelled[name] for name in labelled if name in scores]
    facts: dict[str, Any] = {
        "model": name_of_model,
        "protocol": protocol,
        "labels": labels,
        "names": [row.name for row in found],
        "scores": np.stack([scores[name] for name in labelled if name in scores]),
        "skipped": skipped,
        "seconds": time.monotonic() - start,
        "resumed": resumed,
    }
    if not several:
        return Report(truth=np.array([classes[row.label] for row in found]), **facts)
    truth = np.zeros((len(found), len(labels)), dtype=bool)
    for number, row in enumerate(found):
        truth[number, [classes[label] for label in classes_of(row.label)]] = True
    return MultiLabelReport(truth=truth, thresholds=thresholds_of(model.config, len(labels)), **facts)


def _logits(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    if model.main_input_name not in inputs and len(inputs) == 1:  # the processor has another name for clips
        inputs = {model.main_input_name: next(iter(inputs.values()))}
    logits = getattr(model(**inputs), "logits", None)
    if logits is None:
        raise CheckpointError(
            f"{type(model).__name__} gives no logits. Load the model with AutoModelForVideoClassification."
        )
    return logits


def _unique_names(rows: Iterable[VideoRow]) -> list[str]:
    """The rows' names, a second one of the same name with its number behind it."""
    seen: Counter[str] = Counter()
    names = []
    for row in rows:
        seen[row.name] += 1
        names.append(row.name if seen[row.name] == 1 else f"{row.name}#{seen[row.name]}")
    return names
