"""Clips around key frames with their boxes: samples and batches for classifiers of boxes.

splits = load_boxes("videos/", "ava.csv")
data = BoxDataset(splits["train"], processor, augmentation=BoxAugmentation(size=224, short_side=(256, 320)))
batch = BoxCollator()([data[0], data[1]])      # pixel_values, boxes, labels
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hf_video.base.processing_config import clip_geometry
from hf_video.clips.key_frames import KeyFrameSampling, around_key_frames, frames_around
from hf_video.data.datasets.captions import flattened
from hf_video.data.datasets.collate import VideoCollator
from hf_video.data.datasets.dataset import (
    PIXELS,
    VideoDataset,
    generator,
    keep_freed_memory,
    sample_seed,
)
from hf_video.data.rows import VideoRows
from hf_video.data.sources.boxes import BoxRow
from hf_video.errors import DataError, VideoOptionError, check_count, check_number
from hf_video.video.augment.labels import MIRROR_WORDS, check_unmirrored, mirror_indices
from hf_video.video.frames.pixels import shortest_edge_size
from hf_video.video.reader import VideoReader
from hf_video.video.transforms import crop, horizontal_flip, resize

LEFT_OUT = -100  # a label that does not count
TRIES = 10  # places of a crop, until a person stands in it


@dataclass(frozen=True)
class BoxAugmentation:
    """What happens to a training clip and its boxes alike.

    Args:
        size: Sides of the crop in pixels, at a random place where a person's middle lies in it; None takes the whole
            frame.
        short_side: The frame's short side becomes a number of pixels drawn from (low, high) before. None leaves it.
        shift: By how much of its sides the picture moves at most, in each direction; what it leaves is filled with its
            edge.
        brightness: Each color channel is multiplied by a number from 1 - brightness to 1 + brightness.
        flip: Probability of a mirror; "swap" is a half, and classes that tell left from right exchange their labels.
        jitter: How far each side of a box moves, as shares of its width and height: outwards and inwards in x, outwards
            and inwards in y (VideoMAE: .2, .1, .1, .05).
        max_boxes: Boxes of a clip, drawn where it has more.
    """

    size: int | None = None
    short_side: tuple[int, int] | int | None = None
    shift: float = 0.0
    brightness: float = 0.0
    flip: float | str = 0.5
    jitter: Sequence[float] = (0.0, 0.0, 0.0, 0.0)
    max_boxes: int = 100

    def __post_init__(self) -> None:
        check_count("size", self.size, optional=True)
        check_count("max_boxes", self.max_boxes)
        check_number("shift", self.shift, least=0, below=1)
        check_number("brightness", self.brightness, least=0, below=1)
        if self.flip != "swap":
            check_number("flip", self.flip, least=0, most=1, hint=' Or "swap".')
        if len(self.jitter) != 4 or min(self.jitter) < 0 or max(self.jitter[1], self.jitter[3]) >= 0.5:
            raise VideoOptionError(
                f"jitter={self.jitter} must be four shares, outwards and inwards in x and in y; those inwards below .5."
            )

    def check_labels(self, labels: Sequence[str]) -> None:
        """Raises VideoOptionError where a mirror would make labels wrong."""
        if self.flip == "swap":
            mirror_indices(labels, MIRROR_WORDS)
        elif self.flip:
            check_unmirrored(labels, MIRROR_WORDS)

    def __call__(
        self, frames: torch.Tensor, boxes: np.ndarray, draw: torch.Generator
    ) -> tuple[torch.Tensor, np.ndarray, np.ndarray, bool]:
        """(T, H, W, 3) uint8 and boxes (N, 4) in pixels -> the clip, boxes that are left, their numbers, and whether it
        was mirrored."""

        def uniform(low: float, high: float, *shape: int) -> np.ndarray:
            return (low + (high - low) * torch.rand(*shape, generator=draw)).numpy()

        if self.short_side is not None:
            low, high = (self.short_side,) * 2 if isinstance(self.short_side, int) else self.short_side
            height, width = frames.shape[1], frames.shape[2]
            edge = int(torch.randint(low, high + 1, (), generator=draw))
            frames = resize(frames, shortest_edge_size(height, width, edge))
            boxes = boxes * np.array([frames.shape[2] / width, frames.shape[1] / height] * 2)
        kept = np.arange(len(boxes))
        if self.size is not None:
            frames, boxes, kept = self._cropped(frames, boxes, self.size, draw)
        if self.shift:
            frames, boxes, inside = self._shifted(frames, boxes, draw)
            kept = kept[inside]
        if self.brightness:
            gain = torch.from_numpy(uniform(1 - self.brightness, 1 + self.brightness, 3))
            frames = (frames * gain).clamp(0, 255).to(torch.uint8)
        mirrored = bool(torch.rand((), generator=draw) < (0.5 if self.flip == "swap" else self.flip))
        height, width = frames.shape[1:3]
        if mirrored:
            frames = horizontal_flip(frames)
            boxes = np.stack((width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]), axis=1)
        if any(self.jitter):
            out_x, in_x, out_y, in_y = self.jitter
            sides = boxes[:, 2:] - boxes[:, :2]
            moves = np.stack(
                [uniform(-out, into, len(boxes)) for out, into in ((out_x, in_x), (out_y, in_y))]
                + [uniform(-into, out, len(boxes)) for out, into in ((out_x, in_x), (out_y, in_y))],
                axis=1,
            )
            boxes = boxes + moves * np.tile(sides, 2)
        boxes = boxes.clip(0, [width, height, width, height])
        if len(boxes) > self.max_boxes:
            chosen = torch.randperm(len(boxes), generator=draw)[: self.max_boxes].sort().values.numpy()
            boxes, kept = boxes[chosen], kept[chosen]
        return frames, boxes, kept, mirrored

    def _shifted(
        self, frames: torch.Tensor, boxes: np.ndarray, draw: torch.Generator
    ) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
        """The picture somewhere else, as far as somebody stays in it; people whose middle leaves it are left out."""
        sides = np.array([frames.shape[2], frames.shape[1]])
        middles = (boxes[:, :2] + boxes[:, 2:]) / 2
        for _ in range(TRIES):
            move = np.round(self.shift * sides * (2 * torch.rand(2, generator=draw).numpy() - 1)).astype(int)
            inside = ((middles + move >= 0) & (middles + move <= sides)).all(1)
            if inside.any():
                break
        else:
            move, inside = np.zeros(2, dtype=int), np.ones(len(boxes), dtype=bool)
        columns, rows = (
            torch.from_numpy((np.arange(side) - by).clip(0, side - 1)) for side, by in zip(sides, move, strict=True)
        )
        return frames[:, rows][:, :, columns], boxes[inside] + np.tile(move, 2), np.flatnonzero(inside)

    def _cropped(
        self, frames: torch.Tensor, boxes: np.ndarray, size: int, draw: torch.Generator
    ) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
        """A random place; people whose middle lies outside are left out."""
        height, width = frames.shape[1:3]
        rows, columns = min(size, height), min(size, width)
        middles = (boxes[:, :2] + boxes[:, 2:]) / 2
        for _ in range(TRIES):
            top = int(torch.randint(height - rows + 1, (), generator=draw))
            left = int(torch.randint(width - columns + 1, (), generator=draw))
            inside = ((middles >= (left, top)) & (middles <= (left + columns, top + rows))).all(1)
            if inside.any():
                break
        else:  # around somebody
            x, y = middles[int(torch.randint(len(boxes), (), generator=draw))]
            top = int(np.clip(y - rows / 2, 0, height - rows))
            left = int(np.clip(x - columns / 2, 0, width - columns))
            inside = ((middles >= (left, top)) & (middles <= (left + columns, top + rows))).all(1)
        kept = np.flatnonzero(inside)
        return crop(frames, top, left, (rows, columns)), boxes[kept] - np.array([left, top] * 2), kept


class BoxDataset(VideoDataset):
    """A `VideoDataset` of `BoxRow`s: the clip around each key frame. Its samples have `pixel_values` (T, C, H, W),
    `boxes` (N, 4) in pixels of the clip and `labels` (N, classes), float32 of 0 and 1.

    Without an augmentation the processor resizes (and crops, where it does), and all boxes stay. Raises DataError for
    other rows.
    """

    def __init__(self, rows: VideoRows, processor: Any, *, augmentation: BoxAugmentation | None = None, **options: Any):
        bare = next((row for row in rows if not getattr(row, "boxes", ())), None)
        if bare is not None:
            raise DataError(f"{bare.name} has no boxes: make the rows with load_boxes.")
        super().__init__(rows, processor, **options)
        self.box_augmentation = augmentation
        self.request = around_key_frames(self.request, None)
        self.mirrored = list(range(len(rows.labels)))
        if augmentation is not None:
            augmentation.check_labels(rows.labels)
            if augmentation.flip == "swap":
                self.mirrored = list(mirror_indices(rows.labels, MIRROR_WORDS))

    def _make(self, row: BoxRow, epoch: int, index: int, view: int = 0) -> Any:
        if torch.utils.data.get_worker_info() is not None:
            keep_freed_memory()
        frames = self._frames(row)
        samples = []
        for repeat in range(self.repeats):
            seed = sample_seed(self.seed, epoch, index, repeat, PIXELS)
            samples.append({**self._sample(frames, row, seed), "seed": seed})
        return samples if self.repeats > 1 else samples[0]

    def _frames(self, row: BoxRow) -> torch.Tensor:
        """(T, H, W, 3) of the clip around the key frame."""
        sampling = self.request.sampling
        assert isinstance(sampling, KeyFrameSampling)
        with VideoReader(self._opened(row.source)) as reader:
            seconds = np.array([row.second])
            indices = frames_around(reader.timestamps, seconds, sampling.num_frames, *sampling.distance())[0, :-1]
            wanted, places = np.unique(indices, return_inverse=True)
            return torch.from_numpy(reader.get_frames(wanted).data)[places]

    def _sample(self, frames: torch.Tensor, row: BoxRow, seed: int) -> dict[str, torch.Tensor]:
        height, width = frames.shape[1:3]
        boxes = np.array(row.boxes) * np.array([width, height] * 2)
        targets = torch.zeros(len(boxes), self.num_labels)
        for target, actions in zip(targets, row.actions, strict=True):
            target[list(actions)] = 1
        options: dict[str, Any] = {"return_tensors": "pt", "do_sample_frames": False}
        if self.box_augmentation is None:
            boxes = clip_geometry(self.processor, height, width).place(boxes)
        else:
            frames, boxes, kept, mirrored = self.box_augmentation(frames, boxes, generator(seed))
            targets = targets[kept]
            targets = targets[:, self.mirrored] if mirrored else targets
            options.update(do_resize=False, do_center_crop=False)
        clip = self.processor(frames, input_data_format="channels_last", **options)
        inputs = {name: value[0] for name, value in clip.items()}
        return {**inputs, "boxes": torch.as_tensor(boxes, dtype=torch.float32), "labels": targets}


class BoxCollator:
    """Makes a batch of samples of a `BoxDataset`: `pixel_values` (B, T, C, H, W), smaller clips with zeros on the right
    and below; `boxes` (B, N, 4) and `labels` (B, N, classes), where clips with fewer boxes have labels of -100."""

    def __init__(self) -> None:
        self._videos = VideoCollator()

    def __call__(self, samples: Sequence[Any]) -> dict[str, torch.Tensor]:
        flat = flattened(samples)
        most = max(len(one["boxes"]) for one in flat)
        sides = [max(one["pixel_values"].shape[axis] for one in flat) for axis in (2, 3)]
        padded = []
        for one in flat:
            clip, count = one["pixel_values"], len(one["boxes"])
            rest = (0, sides[1] - clip.shape[3], 0, sides[0] - clip.shape[2])
            boxes = torch.zeros(most, 4)
            labels = torch.full((most, one["labels"].shape[1]), float(LEFT_OUT))
            boxes[:count], labels[:count] = one["boxes"], one["labels"]
            filled = torch.nn.functional.pad(clip, rest) if any(rest) else clip
            padded.append({**one, "pixel_values": filled, "boxes": boxes, "labels": labels})
        return self._videos(padded)
