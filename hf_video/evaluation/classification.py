"""Evaluates a classifier on a data set by a protocol; every video is decoded once for all its views.

report = evaluate_videos(model, processor, load_videos("clips")["test"], protocol="paper")
print(report)
report.save("evaluation/test")

Class names of data set and model may be spelled differently. A log of scores, one line of JSON a video, is what an
interrupted evaluation goes on from.
"""

from __future__ import annotations

import functools
import json
import os
import re
import sys
import time
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm
from transformers.utils import logging

from hf_video.base.loading import check_pair
from hf_video.base.modeling import clip_logits
from hf_video.clips.batching import read_each, run_videos
from hf_video.clips.read import read_events
from hf_video.data.rows import Skipped, VideoRow, VideoRows, classes_of
from hf_video.errors import DataError, nearest
from hf_video.evaluation.multi_label_report import MultiLabelReport
from hf_video.evaluation.protocols import Protocol, find_protocol
from hf_video.evaluation.report import Report
from hf_video.features.extraction import ClipVectors, skipped_video
from hf_video.pipelines.video_classification import thresholds_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hf_video.data.types import FrameProcessor


def normalize_label(label: str) -> str:
    """Brings a class name to lower case, without accents, punctuation, parentheses and repeated blanks:
    "Petting animal_(not cat)" becomes "petting animal not cat"."""
    letters = unicodedata.normalize("NFKD", str(label)).replace("&", " and ")
    kept = "".join(c for c in letters if not unicodedata.combining(c)).lower().replace("'", "").replace("’", "")
    return " ".join(re.findall(r"\w+", kept.replace("_", " ")))


def match_labels(data: Sequence[str], model: Mapping[int, str]) -> list[int]:
    """Finds the model's class of each class name of a data set.

    The same spelling comes first, then `normalize_label`. Names that are numbers are the model's class numbers, and a
    model whose classes are only numbered ("LABEL_0", …) takes as many names in their order.

    Args:
        data: The data set's class names.
        model: The model's, by number (`config.id2label`).

    Returns:
        For each name of `data` the number of the model's class.

    Raises:
        DataError: For names that the model doesn't know, each with the nearest that it knows.
    """
    names = {int(number): str(name) for number, name in model.items()}
    exact = {name: number for number, name in names.items()}
    if len(data) == len(names) and all(re.fullmatch(r"LABEL_\d+", name) for name in names.values()):
        if set(data) != set(exact):
            return sorted(names)
    elif all(name.isdecimal() and int(name) in names for name in data) and not set(data) & set(exact):
        return [int(name) for name in data]
    counts = Counter(normalize_label(name) for name in exact)
    plain = {normalize_label(name): number for name, number in exact.items() if counts[normalize_label(name)] == 1}
    found = [exact.get(name, plain.get(normalize_label(name))) for name in data]
    unknown = [name for name, number in zip(data, found, strict=True) if number is None]
    if unknown:
        near = [nearest(name, exact) for name in unknown[:10]]
        named = [f"{a!r} (is it {b!r}?)" if b else repr(a) for a, b in zip(unknown[:10], near, strict=True)]
        raise DataError(
            f"{len(unknown)} of the data's {len(data)} classes are none of the model's {len(names)}: "
            + ", ".join(named)
            + (", …" if len(unknown) > 10 else "")
            + ". Rename the folders or the list's labels, or evaluate the model that was trained on them."
        )
    return [number for number in found if number is not None]


logger = logging.get_logger(__name__)

NAME = "predictions.jsonl"


class PredictionLog:
    """`folder/predictions.jsonl`: a first line that names the run, then `{"video", "scores"}` for each video.

    `known` has what an earlier call with the same `run` (model, weights, protocol) wrote: names to scores (classes,)
    float32. A line that was cut off is dropped. A file of another run is moved to `predictions.previous.jsonl`.
    Without a folder nothing is kept.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, run: dict[str, Any]):
        self.known: dict[str, np.ndarray] = {}
        self._file = None
        if folder is None:
            return
        self.path = Path(folder) / NAME
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._read(run):
            self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 - closed by `__exit__`
        else:
            self._file = open(self.path, "w", encoding="utf-8")  # noqa: SIM115
            self._write({"run": run})

    def add(self, video: str, scores: np.ndarray) -> None:
        # Nine digits bring a float32 back to the bit.
        self._write({"video": video, "scores": [float(f"{x:.9g}") for x in scores.tolist()]})

    def __enter__(self) -> PredictionLog:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def _write(self, entry: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(entry) + "\n")  # in ASCII: names of files need not be UTF-8
            self._file.flush()

    def _read(self, run: dict[str, Any]) -> bool:
        """Reads the whole lines of this run's file and cuts off what is behind them; False without such a file."""
        if not self.path.exists():
            return False
        with open(self.path, "rb+") as file:
            if _entry(file.readline()) != {"run": json.loads(json.dumps(run))}:
                os.replace(self.path, self.path.with_name("predictions.previous.jsonl"))
                logger.warning(f"{self.path} was of another run and is now predictions.previous.jsonl; starting anew.")
                return False
            whole = file.tell()
            while (entry := _entry(line := file.readline())) is not None and "scores" in entry:
                self.known[entry["video"]] = np.asarray(entry["scores"], dtype=np.float32)
                whole += len(line)
            file.truncate(whole)
        return True


def _entry(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def weights_checksum(model: torch.nn.Module) -> str:
    """Computes a checksum of all parameters and buffers, which tells two epochs of one folder apart."""
    check = 0
    for name, value in model.state_dict().items():
        data = value.detach().cpu().contiguous().reshape(-1)
        check = zlib.crc32(data.view(torch.uint8).numpy() if data.numel() else b"", zlib.crc32(name.encode(), check))
    return f"{check:08x}"


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
                    scores[name] = protocol.combine(result.views(0)).numpy()
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
        return Report(truth=np.array([classes[label] for row in found for label in classes_of(row.label)]), **facts)
    truth = np.zeros((len(found), len(labels)), dtype=bool)
    for number, row in enumerate(found):
        truth[number, [classes[label] for label in classes_of(row.label)]] = True
    return MultiLabelReport(truth=truth, thresholds=thresholds_of(model.config, len(labels)), **facts)


def _logits(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return clip_logits(model, model(**inputs))


def _unique_names(rows: Iterable[VideoRow]) -> list[str]:
    """The rows' names, a second one of the same name with its number behind it."""
    seen: Counter[str] = Counter()
    names = []
    for row in rows:
        seen[row.name] += 1
        names.append(row.name if seen[row.name] == 1 else f"{row.name}#{seen[row.name]}")
    return names
