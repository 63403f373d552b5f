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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm
from transformers.utils import logging

from hf_video.base.json_lines import JsonLines, read_json_lines
from hf_video.base.loading import check_pair
from hf_video.base.modeling import clip_logits
from hf_video.clips.batching import VideoResult, read_each, run_models
from hf_video.clips.read import Event
from hf_video.clips.shared_read import Reading, read_shared_events
from hf_video.data.rows import Skipped, VideoRow, VideoRows, classes_of
from hf_video.errors import DataError, VideoOptionError, nearest
from hf_video.evaluation.multi_label_report import MultiLabelReport
from hf_video.evaluation.protocol import Protocol
from hf_video.evaluation.protocols import find_protocol
from hf_video.evaluation.report import Report
from hf_video.features.digests import left_out
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


def open_predictions(
    folder: str | os.PathLike[str] | None, run: dict[str, Any]
) -> tuple[JsonLines, dict[str, np.ndarray]]:
    """Opens `folder/predictions.jsonl`: a first line that names the run, then `{"video", "scores"}` for each video.

    Args:
        folder: Where it lies; None keeps nothing.
        run: Model, weights, protocol. The file of another run is moved to `predictions.previous.jsonl`.

    Returns:
        The file, and what an earlier call of the same run wrote: names to scores (classes,) float32.
    """
    if folder is None:
        return JsonLines(None), {}
    path = Path(folder) / "predictions.jsonl"
    lines, size = read_json_lines(path)
    if not lines or lines[0] != {"run": json.loads(json.dumps(run))}:
        if path.exists():
            os.replace(path, path.with_name("predictions.previous.jsonl"))
            logger.warning(f"{path} was of another run and is now predictions.previous.jsonl; starting anew.")
        lines, size = [], 0
    log = JsonLines(path, size)
    if not lines:
        log.write({"run": run})
    return log, {one["video"]: np.asarray(one["scores"], dtype=np.float32) for one in lines[1:]}


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
    num_workers: int | None = None,
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
        num_workers: Processes that read. None: a thread of this one reads ahead; 0: nothing is read ahead.
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
    one = Evaluation(model, processor, rows, protocol, output=output, on_error=on_error, backend=backend)
    forward = ClipVectors(model, compute=one.compute)
    seconds = score_videos([one], [forward], rows, batch_size=batch_size, num_workers=num_workers, progress=progress)
    return one.report(seconds)


class Evaluation:
    """One model's part in evaluating `rows`: how it reads them, its classes, and the scores of each video so far.

    Arguments and exceptions are those of `evaluate_videos`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: FrameProcessor,
        rows: VideoRows,
        protocol: str | Protocol,
        *,
        output: str | os.PathLike[str] | None,
        on_error: str,
        backend: str,
    ) -> None:
        check_pair(model, processor)
        self.model = model
        self.name = getattr(model, "name_or_path", "") or type(model).__name__
        self.output = output
        self.multi_label = getattr(model.config, "problem_type", None) == "multi_label_classification"
        self.protocol = find_protocol(protocol, model.config, processor=processor)
        if self.multi_label:
            self.protocol = replace(self.protocol, average="sigmoid")
        elif rows.multi_label:
            raise DataError(
                "The videos have several labels each, and the model gives one of its classes: train it on such videos, "
                'or set config.problem_type = "multi_label_classification" if that is what it was trained for.'
            )
        exported = hasattr(model, "graphs")
        if self.protocol.joined and (exported or not hasattr(model, "classify_tokens")):
            kind = type(model).__name__
            kind = f"an exported {kind}" if exported else f"{kind} of {type(model).__module__.partition('.')[0]}"
            raise VideoOptionError(
                f"The protocol {self.protocol.name} classifies the tokens of all clips together, and {kind} can't: "
                "load hf_video.VJEPA2ForVideoClassification, or use clips x crops, such as "
                f'"{self.protocol.clips}x{self.protocol.crops}".'
            )
        self.reading = self.protocol.request(model.config, processor, on_error=on_error, backend=backend)
        self.labels = [str(model.config.id2label[i]) for i in sorted(model.config.id2label)]
        self.classes = match_labels(rows.labels, dict(enumerate(self.labels)))
        self.rows = {name: row for name, row in zip(unique_names(rows), rows, strict=True) if row.label is not None}
        self.skipped = [entry for entry in rows.skipped if not entry.used]
        self.skipped += [Skipped(row.name, "has no label", "unlabelled") for row in rows if row.label is None]
        self.scores: dict[str, np.ndarray] = {}
        self.resumed = 0

    @property
    def compute(self) -> Callable[[Any, dict[str, torch.Tensor]], torch.Tensor]:
        """What is kept of clips until all of a video are there: logits, or the tokens that its classifier reads."""
        return clip_tokens if self.protocol.joined else clip_scores

    def open_log(self) -> JsonLines:
        """The log in the output folder; what it knows of these videos counts as scored."""
        run = {"model": self.name, "protocol": self.protocol.to_dict(), "classes": len(self.labels)}
        run |= left_out(self.model.config)
        if self.output is not None:
            run["weights"] = weights_checksum(self.model)
        log, known = open_predictions(self.output, run)
        self.scores = {name: known[name] for name in self.rows if name in known}
        self.resumed = len(self.scores)
        return log

    def add(self, name: str, result: VideoResult, log: JsonLines) -> None:
        """Takes what the model said of a video."""
        if result.error is not None:
            self.skipped.append(skipped_video(self.rows[name].name, result.error, self.rows[name].source))
            return
        views = result.views(0)
        logits = classify_joined(self.model, views, self.protocol.crops) if self.protocol.joined else views
        self.scores[name] = self.protocol.combine(logits).numpy()
        # Nine digits bring a float32 back to the bit.
        log.write({"video": name, "scores": [float(f"{x:.9g}") for x in self.scores[name].tolist()]})

    def report(self, seconds: float) -> Report | MultiLabelReport:
        """What came out, after so many seconds. Raises DataError where no video could be scored."""
        if not self.scores:
            why = f"None of the {len(self.skipped)} videos could be scored. {self.skipped[0]}" if self.skipped else ""
            raise DataError(why or "There are no videos to evaluate.")
        found = {name: row for name, row in self.rows.items() if name in self.scores}
        facts: dict[str, Any] = {
            "model": self.name,
            "protocol": self.protocol,
            "labels": self.labels,
            "names": [row.name for row in found.values()],
            "scores": np.stack([self.scores[name] for name in found]),
            "skipped": self.skipped,
            "seconds": seconds,
            "resumed": self.resumed,
        }
        numbers = [[self.classes[label] for label in classes_of(row.label)] for row in found.values()]
        if not self.multi_label:
            return Report(truth=np.array([number for (number,) in numbers]), **facts)
        truth = np.zeros((len(found), len(self.labels)), dtype=bool)
        for place, shown in enumerate(numbers):
            truth[place, shown] = True
        limits = thresholds_of(self.model.config, len(self.labels))
        return MultiLabelReport(truth=truth, thresholds=limits, **facts)


def score_videos(
    evaluations: Sequence[Evaluation],
    forwards: Sequence[ClipVectors],
    rows: VideoRows,
    *,
    batch_size: int | None,
    num_workers: int | None,
    progress: bool,
) -> float:
    """Scores the videos that the logs don't know, each read once for all models that still need it.

    Args:
        evaluations: Of the models; they take the scores.
        forwards: What computes each model.
        rows, batch_size, num_workers, progress: As in `evaluate_videos`.

    Returns:
        The seconds that it took.
    """
    start = time.monotonic()
    with ExitStack() as stack:
        logs = [stack.enter_context(one.open_log()) for one in evaluations]
        names = list(evaluations[0].rows)
        todo = {name: [n for n, one in enumerate(evaluations) if name not in one.scores] for name in names}
        todo = {name: numbers for name, numbers in todo.items() if numbers}
        videos: list[Any] = [(evaluations[0].rows[name].source, numbers) for name, numbers in todo.items()]
        events = read_each(videos, functools.partial(_read, [one.reading for one in evaluations]), num_workers)
        hidden = None if progress else True  # None: hidden where stderr is no terminal
        doing = "evaluating" if len(evaluations) == 1 else f"evaluating {len(evaluations)} models"
        shown = {"desc": doing, "unit": "video", "file": sys.stderr, "disable": hidden}
        bar = stack.enter_context(tqdm(total=len(names), initial=len(names) - len(todo), **shown))
        for forward in forwards:
            stack.enter_context(forward)
        results = run_models(events, forwards, batch_size=batch_size)
        for (name, numbers), found in zip(todo.items(), results, strict=True):
            for number in numbers:
                evaluations[number].add(name, found[number], logs[number])
            bar.update()
    return time.monotonic() - start


def _read(readings: Sequence[Reading], video: tuple[Any, Sequence[int]]) -> Iterator[tuple[int, Event]]:
    """The events of a video for the models of these numbers."""
    source, numbers = video
    for place, event in read_shared_events(source, [readings[number] for number in numbers]):
        yield numbers[place], event


def clip_scores(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits (views, classes) of clips."""
    return clip_logits(model, model(**inputs))


def clip_tokens(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Tokens (views, n, D) of clips."""
    return model.encode_tokens(**inputs)


@torch.inference_mode()
def classify_joined(model: Any, tokens: torch.Tensor, crops: int) -> torch.Tensor:
    """Tokens of a video's views (clips · crops, n, D) -> logits (crops, classes), each of the tokens of all clips."""
    joined = tokens.unflatten(0, (-1, crops)).transpose(0, 1).flatten(1, 2)
    return torch.cat([model.classify_tokens(one[None].to(model.device, model.dtype)) for one in joined]).float().cpu()


def unique_names(rows: Iterable[VideoRow]) -> list[str]:
    """The rows' names, a second one of the same name with its number behind it."""
    seen: Counter[str] = Counter()
    names = []
    for row in rows:
        seen[row.name] += 1
        names.append(row.name if seen[row.name] == 1 else f"{row.name}#{seen[row.name]}")
    return names
