"""How well a model tells what people in boxes do: frame-mAP on key frames, and of files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from hf_video.base.loading import find_processors, loading, model_entry
from hf_video.data.datasets.boxes import BoxCollator, BoxDataset
from hf_video.data.datasets.dataset import FILE_ERRORS, OPTION_ERRORS
from hf_video.data.rows import Skipped
from hf_video.data.sources.box_files import read_actions, read_boxes, read_excluded, write_boxes
from hf_video.data.sources.boxes import BoxRow, BoxRows, load_boxes
from hf_video.errors import CheckpointError, DataError, MetricError, fault_kind
from hf_video.evaluation.detection.spatio_temporal import FrameMAP, frame_map

HEAD = "ForSpatioTemporalActionDetection"


@dataclass
class BoxReport:
    """What `evaluate_boxes` finds.

    Args:
        result: Average precision by class.
        rows: Detections as AVA's CSV has them: video, second, x1, y1, x2, y2, action, score.
        found, total: Key frames that could be read, and all.
        skipped: Those that could not.
    """

    result: FrameMAP
    rows: list[tuple[Any, ...]]
    found: int
    total: int
    skipped: list[Skipped] = field(default_factory=list)

    @property
    def mean_average_precision(self) -> float:
        """Frame-mAP at IoU .5."""
        return self.result.mean

    def to_dict(self) -> dict[str, Any]:
        return {
            "frame_map": self.result.mean,
            "protocol": self.result.protocol,
            "average_precision": dict(self.result.ap),
            "found": self.found,
            "total": self.total,
            "skipped": [one.as_dict() for one in self.skipped],
        }

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes `report.json` and `detections.csv`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n")
        write_boxes(folder / "detections.csv", self.rows)


@torch.no_grad()
def evaluate_boxes(
    model: nn.Module,
    processor: Any,
    rows: BoxRows,
    *,
    batch_size: int = 4,
    num_workers: int = 0,
    protocol: str = "activitynet",
) -> BoxReport:
    """Classifies the annotated boxes of key frames, and compares with what they show.

    Args:
        model: A `...ForSpatioTemporalActionDetection`.
        processor: Its image processor.
        rows: Of `load_boxes`.
        batch_size: Clips in one forward.
        num_workers: Processes that read.
        protocol: See `frame_map`.

    Returns:
        `BoxReport`.

    Raises:
        MetricError: Not one key frame could be read.
    """
    dataset = BoxDataset(rows, processor, on_error="raise")
    readable = _Readable(dataset)
    loader = DataLoader(readable, batch_size=batch_size, num_workers=num_workers, collate_fn=list)
    collate, training, device = BoxCollator(), model.training, next(model.parameters())
    found: list[tuple[Any, ...]] = []
    skipped: list[Skipped] = []
    model.eval()
    try:
        for batch in loader:
            skipped += [one for _, one in batch if isinstance(one, Skipped)]
            good = [(number, one) for number, one in batch if not isinstance(one, Skipped)]
            if not good:
                continue
            inputs = collate([one for _, one in good])
            clips = inputs["pixel_values"].to(device.device, device.dtype)
            scores = model(clips, inputs["boxes"].to(device.device)).logits.float().sigmoid().cpu().numpy()
            for (number, _), row_scores in zip(good, scores, strict=True):
                found += _detections(rows[number], row_scores, rows.action_ids)
    finally:
        model.train(training)
    if len(skipped) == len(rows):
        raise MetricError(f"Not one of {len(rows)} key frames could be read. {skipped[0]}")
    names = dict(zip(rows.action_ids, rows.labels, strict=True))
    left_out = {one.name for one in skipped}
    truth = [row for row in rows.ground_truth() if f"{row[0]}@{row[1]:g}" not in left_out]
    result = frame_map(truth, found, names, protocol=protocol)
    return BoxReport(result, found, len(rows) - len(skipped), len(rows), skipped)


def _detections(row: Any, scores: np.ndarray, action_ids: Sequence[int]) -> list[tuple[Any, ...]]:
    assert isinstance(row, BoxRow)
    return [
        (row.video, row.clock, *box, action, float(score))
        for box, ours in zip(row.boxes, scores, strict=False)  # behind them is padding
        for action, score in zip(action_ids, ours, strict=True)
    ]


class _Readable(torch.utils.data.Dataset):
    """Samples with their numbers; in place of one that can't be read, why."""

    def __init__(self, dataset: BoxDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, number: int) -> tuple[int, Any]:
        try:
            return number, self.dataset[number]
        except OPTION_ERRORS:
            raise
        except FILE_ERRORS as error:
            return number, Skipped(self.dataset.rows[number].name, str(error), fault_kind(error))


def evaluate_box_model(
    model: str | os.PathLike[str],
    data: str | os.PathLike[str],
    annotations: str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]],
    *,
    split: str = "test",
    actions: str | os.PathLike[str] | Mapping[int, str] | None = None,
    excluded: str | os.PathLike[str] | None = None,
    first_second: float = 0.0,
    test_size: float | None = None,
    group_pattern: str | None = None,
    revision: str | None = None,
    device: str | None = None,
    **options: Any,
) -> BoxReport:
    """Classifies the annotated boxes of videos with a saved model, and compares.

    Args:
        model: Folder or name on the Hub of a `...ForSpatioTemporalActionDetection`.
        data, annotations, excluded, first_second, test_size, group_pattern: As in `load_boxes`, which divides
            annotations without splits as `hf-video train` does.
        split: "train", "validation", "test" or "all". Where there is no test split, the validation split is that.
        actions: As in `load_boxes`; default: those that the model was trained on.
        revision, device: Of the model, and where it computes.
        options: `batch_size`, `num_workers` and `protocol` of `evaluate_boxes`.

    Returns:
        `BoxReport`.

    Raises:
        CheckpointError: Not such a model.
        DataError: A split that isn't there, and as `load_boxes`.
    """
    from transformers import AutoConfig

    with loading(model):
        config = AutoConfig.from_pretrained(model, revision=revision)
    if not any(HEAD in name for name in config.architectures or ()):
        raise CheckpointError(
            f"{os.fspath(model)!r} is a {config.model_type} that tells nothing of boxes: give a model of hf-video "
            "train --task spatio-temporal-detection."
        )
    entry = model_entry(config.model_type)
    with loading(model):
        loaded = entry.load(entry.prefix + HEAD).from_pretrained(model, revision=revision)
    loaded = loaded if device is None else loaded.to(device)
    image_processor, video_processor = find_processors(loaded, None, None)
    labels = [name for _, name in sorted(loaded.config.id2label.items())]
    if actions is None and getattr(config, "action_ids", None):
        actions = dict(zip(config.action_ids, labels, strict=True))
    division = {"test_size": test_size, "group_pattern": group_pattern, "first_second": first_second}
    try:
        splits = load_boxes(data, annotations, actions=actions, excluded=excluded, labels=labels, **division)
    except KeyError as error:
        raise DataError(
            f"The model tells the actions {', '.join(labels[:5])}, …, and {error} is not one of the annotations'."
        ) from error
    there = {name: rows for name, rows in splits.items() if len(rows)}
    wanted = "validation" if split == "test" and "test" not in there else split
    if split != "all" and wanted not in there:
        raise DataError(f"There is no split {split!r} with key frames; there are {', '.join(there)}, and all.")
    chosen = list(there.values()) if split == "all" else [there[wanted]]
    rows = BoxRows([row for part in chosen for row in part], chosen[0].labels, chosen[0].skipped, root=chosen[0].root)
    rows.action_ids = chosen[0].action_ids
    return evaluate_boxes(loaded, image_processor or video_processor, rows, **options)


def frame_map_of_files(
    detections: str | os.PathLike[str],
    ground_truth: str | os.PathLike[str],
    *,
    actions: str | os.PathLike[str] | Mapping[int, str] | None = None,
    excluded: str | os.PathLike[str] | None = None,
    protocol: str = "activitynet",
) -> FrameMAP:
    """Frame-mAP of AVA's files.

    Args:
        detections, ground_truth: CSV files, see `hf_video.data.sources.box_files`.
        actions: The list of the actions that count, a `.pbtxt` or numbers and names; default: all of the ground truth.
        excluded: A CSV of frames that do not count.
        protocol: "activitynet" (official), "slowfast" or "mmaction2"; see
            `hf_video.evaluation.detection.spatio_temporal`.

    Returns:
        `FrameMAP`.

    Raises:
        DataError: A file can't be read; the message has the number of the line.
        MetricError: An unknown protocol.
    """
    truth = read_boxes(ground_truth)
    known = read_actions(actions) if isinstance(actions, (str, os.PathLike)) else actions
    if known is None:
        numbers = sorted({line.action for line in truth.lines if line.action is not None})
        known = {number: str(number) for number in numbers}
    left_out = read_excluded(excluded) if excluded is not None else ()
    found = read_boxes(detections, invalid="drop")
    return frame_map(truth.rows(), found.rows(), known, excluded=left_out, protocol=protocol)
