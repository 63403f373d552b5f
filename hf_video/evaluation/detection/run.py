"""Detections of a file or of a model against annotations: what `hf-video evaluate --task detection` does."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_video.base.detection.modeling import TemporalDetector
from hf_video.base.detection.types import Detection
from hf_video.base.loading import find_processors, loading, model_entry
from hf_video.data.sources.division import Division, digest
from hf_video.data.sources.event_files import EventFile, ScoredEvent, read_events, read_scored_events, video_key
from hf_video.data.sources.events import FEATURE_ENDINGS, EventRow, find_videos
from hf_video.data.sources.tables import read_text
from hf_video.errors import CheckpointError, DataError, near_path
from hf_video.evaluation.detection.report import DetectionReport, evaluate_detections
from hf_video.features.events import find_events, load_sequence, name_events
from hf_video.features.extraction import skipped_video
from hf_video.features.sequence_encoder import extract_sequences, load_encoder
from hf_video.features.sequences import FeatureSequence, grid_of
from hf_video.features.window_detector import WindowDetector, is_end_to_end

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ClassScores = Mapping[str, Mapping[str, float]]


def evaluate_files(
    predictions: str | os.PathLike[str],
    annotations: str | os.PathLike[str],
    *,
    subset: str | None = None,
    class_scores: str | os.PathLike[str] | None = None,
    label_column: str = "label",
    **options: Any,
) -> DetectionReport:
    """Compares a file of detections with annotations.

    Args:
        predictions: see `read_detections`.
        annotations, label_column: see `read_events`.
        subset: of the annotations: default "testing" where it has events, else "validation", else all.
        class_scores: JSON of {video: {class: score}}; see `name_events`.
        options: `protocol`, `thresholds` and `bounds` of `evaluate_detections`.

    Raises:
        DataError, MetricError: files that can't be read or compared.
    """
    file = read_events(annotations, label_column=label_column)
    chosen = choose_videos(file, subset)
    scores = read_class_scores(class_scores)
    found: dict[str, list[ScoredEvent]] = {}
    for name, events in read_scored_events(predictions).items():
        key = video_key(name, file.videos)
        if key in found:
            raise DataError(f"{os.fspath(predictions)}: {name!r} and another name both mean the video {key!r}.")
        found[key] = list(events) if scores is None else name_events(events, _scores_of(scores, key))
    truth = {name: file.videos[name].events for name in chosen}
    return evaluate_detections(truth, found, model=Path(predictions).name, **options)


def evaluate_detector(
    model: str | os.PathLike[str],
    data: str | os.PathLike[str],
    annotations: str | os.PathLike[str],
    *,
    subset: str | None = None,
    class_scores: str | os.PathLike[str] | None = None,
    label_column: str = "label",
    features: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    backend: str = "auto",
    **options: Any,
) -> DetectionReport:
    """Finds the events of annotated videos and compares. Videos that are missing or can't be read count as videos in
    which nothing was found, and are named.

    Args:
        model: folder or name on the Hub of a detector.
        data: folder of videos, or of ready-made features.
        annotations, subset, class_scores, label_column, options: as in `evaluate_files`. Annotations without subsets
            are divided as when the model was trained on them.
        features: folder where features are kept.
        revision, device, batch_size, backend: of the model, the computation and the reading.

    Raises:
        CheckpointError: no detector, or its encoder isn't there.
        DataError, MetricError: data that can't be read or compared; features of another encoder or grid.
    """
    file = read_events(annotations, label_column=label_column)
    detector = load_detector(model, revision=revision, device=device)
    videos = find_videos(data, file)
    chosen = choose_videos(file, subset)
    known = Division.read(Path(model), data) if subset is None and set(file.subsets()) == {""} else None
    if known is not None:
        chosen = [name for name in chosen if known.splits.get(digest(name)) != "train"]
    scores, skipped = read_class_scores(class_scores), [one for one in videos.skipped if one.name in chosen]
    rows = []
    for name in (name for name in chosen if name in videos.paths):
        about, stated = videos.inspections.get(name), file.videos[name]
        facts = (stated.duration, stated.fps) if about is None else (about.seconds, about.fps)
        rows.append(EventRow(videos.paths[name], (), name, None, tuple(stated.events), *facts))
    sequences: Iterator[FeatureSequence | list[Detection] | Exception]
    if is_end_to_end(detector):
        chosen_processor, other = find_processors(detector, None, None)
        finder = WindowDetector(detector, chosen_processor or other, batch_size=batch_size or 1, backend=backend)
        sequences = finder.events_of(row.source for row in rows)
    elif any(row.source.endswith(FEATURE_ENDINGS) for row in rows):
        sequences = (load_sequence(row, grid_of(detector.config)) for row in rows)
    else:
        given = {"device": device, "batch_size": batch_size, "cache": features, "backend": backend}
        making = {name: value for name, value in given.items() if value is not None}
        encoder = load_encoder(model, detector.config, revision=revision, **making)
        sequences = extract_sequences(encoder, [row.source for row in rows], on_error="return")
    found: dict[str, list[Detection]] = {}
    for row, sequence in zip(rows, sequences, strict=True):
        of_video = None if scores is None else _scores_of(scores, row.name)
        if isinstance(sequence, FeatureSequence):
            found[row.name] = find_events(detector, sequence, class_scores=of_video)
        elif isinstance(sequence, list):
            most = detector.config.detector_config.max_detections
            found[row.name] = sequence if of_video is None else name_events(sequence, of_video, max_events=most)
        else:
            skipped.append(skipped_video(row.name, sequence, row.source))
    truth = {name: file.videos[name].events for name in chosen}
    return evaluate_detections(truth, found, model=os.fspath(model), skipped=skipped, **options)


def choose_videos(file: EventFile, subset: str | None) -> list[str]:
    """Names of the videos of a subset; by default those of the test, else of the validation, else all. Raises DataError
    for a subset that isn't there."""
    if subset is not None:
        return file.choose_subset(subset)
    splits = file.split_names()
    for wanted in ("test", "validation"):
        names = [name for name, video in file.videos.items() if splits.get(video.subset or "") == wanted]
        if any(file.videos[name].events for name in names):
            return names
    return list(file.videos)


def load_detector(
    model: str | os.PathLike[str], *, revision: str | None = None, device: str | None = None
) -> TemporalDetector | PreTrainedModel:
    """A saved ActionFormer, TriDet or AdaTAD, in eval mode. Raises CheckpointError for anything else."""
    from transformers import AutoConfig

    with loading(model):
        config = AutoConfig.from_pretrained(model, revision=revision)
    if not any("ForTemporalActionDetection" in name for name in config.architectures or ()):
        raise CheckpointError(f"{os.fspath(model)!r} is a {config.model_type} that finds no events: give a detector.")
    entry = model_entry(config.model_type)
    with loading(model):
        found = entry.load(f"{entry.prefix}ForTemporalActionDetection").from_pretrained(model, revision=revision)
    return found.eval() if device is None else found.to(device).eval()


def read_class_scores(path: str | os.PathLike[str] | None) -> ClassScores | None:
    """Class scores of videos, JSON of {video: {class: score}}; None without a path. Raises DataError."""
    if path is None:
        return None
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There is no file of class scores {path}.{near_path(path)}")
    try:
        given = json.loads(read_text(path))
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(given, dict) or not all(isinstance(one, dict) for one in given.values()):
        raise DataError(f"{path} must hold {{video: {{class: score}}}}.")
    return given


def _scores_of(scores: ClassScores, video: str) -> Mapping[str, float]:
    if video not in scores:
        raise DataError(f"The class scores hold nothing of the video {video!r}.")
    return scores[video]


def parse_thresholds(text: str) -> str | Sequence[float]:
    """tIoU thresholds from "activitynet", "thumos", "epic", or numbers such as "0.5,0.75"."""
    from hf_video.errors import VideoOptionError
    from hf_video.evaluation.detection.temporal import THRESHOLDS

    if text in THRESHOLDS:
        return text
    try:
        found = sorted(float(one) for one in text.split(","))
    except ValueError:
        found = []
    if not found or not all(0 < one <= 1 for one in found):
        raise VideoOptionError(
            f"tIoU thresholds {text!r} must be one of {', '.join(THRESHOLDS)}, or numbers from 0 to 1: 0.5,0.75."
        )
    return found
