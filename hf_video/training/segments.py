"""Sequences of features, or windows of frames, with their events, as detectors are trained on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from hf_video.base.detection.configuration import TemporalDetectionConfig
from hf_video.base.processing import ClipProcessing
from hf_video.clips.frame_windows import FrameWindows, to_steps
from hf_video.data.datasets.captions import flattened
from hf_video.data.datasets.dataset import (
    FRAMES,
    PIXELS,
    VideoDataset,
    generator,
    keep_freed_memory,
    sample_seed,
)
from hf_video.data.rows import Skipped, VideoRow, VideoRows
from hf_video.data.sources.events import EventRow
from hf_video.errors import ConfigError, check_number, is_number
from hf_video.features.sequences import FeatureSequence
from hf_video.video.reader import VideoReader

TRIALS = 200  # places that a crop is looked for in, as in the official code


@dataclass(frozen=True)
class Crop:
    """How training cuts sequences (ActionFormer's `truncate_feats`).

    Args:
        length: of the longest piece in steps; a longer video gives a random piece of it.
        kept: share of an event that must lie in the piece for it to count; a piece holds one such event at least,
            where that can be.
        ratio: shorter videos are cut to a random share of theirs between these two; None leaves them whole.
        margin: steps by which events may reach over the piece's ends, half a clip of the grid.
    """

    length: int
    kept: float = 0.5
    ratio: tuple[float, float] | None = (0.9, 1.0)
    margin: float = 0.0

    def __post_init__(self) -> None:
        check_number("data.truncation_threshold", self.kept, ConfigError, above=0, most=1)
        bounds = () if self.ratio is None else tuple(self.ratio)
        good = len(bounds) == 2 and all(map(is_number, bounds)) and 0 < bounds[0] <= bounds[1] <= 1
        if self.ratio is not None and not good:
            raise ConfigError(f"data.crop_ratio={self.ratio!r} must be two shares of 1, such as [0.9, 1.0], or null.")

    def choose(
        self, steps: int, segments: torch.Tensor, draw: torch.Generator
    ) -> tuple[int, int, torch.Tensor, torch.Tensor]:
        """A piece of a sequence of `steps`: its first step, the one after its last, its segments (M, 2) counted from
        there, and which of `segments` (N, 2) they are, bool (N,)."""
        length, every = self.length, torch.ones(len(segments), dtype=torch.bool)
        if steps <= self.length:
            if self.ratio is None:
                return 0, steps, segments, every
            low, high = (round(share * steps) for share in self.ratio)
            low, high = max(low, 1), min(high, steps)
            length = int(torch.randint(low, max(high, low) + 1, (), generator=draw))
            if length == steps:
                return 0, steps, segments, every
        for _ in range(TRIALS if len(segments) else 1):
            first = int(torch.randint(steps - length + 1, (), generator=draw))
            cut = segments.clamp(first - self.margin, first + length + self.margin)
            share = (cut[:, 1] - cut[:, 0]) / (segments[:, 1] - segments[:, 0]).clamp_min(1e-8)
            enough = share >= self.kept
            if enough.any():
                break
        return first, first + length, cut[enough] - first, enough


class SegmentDataset(Dataset):
    """Videos with events as samples of `features` (T, D) float32, `segments` (N, 2) in steps and `labels` (N,) int64.

    Args:
        rows: the videos.
        sequences: their features, in the same order.
        config: of the detector.
        numbers: number of each label.
        crop: see `Crop`; None for whole videos.
        seed: of the crops, which are drawn anew in each epoch, the same in every process and after resuming.
        repeats: how often an epoch shows each video.
    """

    repeats = 1  # samples of one item

    def __init__(
        self,
        rows: Sequence[VideoRow],
        sequences: Sequence[FeatureSequence],
        config: TemporalDetectionConfig,
        numbers: dict[str, int],
        crop: Crop | None = None,
        seed: int = 0,
        repeats: int = 1,
    ) -> None:
        self.rows: list[EventRow] = [row for row in rows if isinstance(row, EventRow)]
        self.sequences, self.crop, self.seed, self.times = list(sequences), crop, seed, repeats
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # also for workers that live on
        self.samples = []
        for row, sequence in zip(self.rows, self.sequences, strict=True):
            seen = sequence.resized(config.max_length) if config.fixed_length else sequence
            times = np.array([(event.start, event.end) for event in row.events], dtype=np.float64).reshape(-1, 2)
            segments = torch.from_numpy(seen.to_steps(times)).float()
            labels = torch.tensor([numbers[event.label] for event in row.events], dtype=torch.int64)
            if config.fixed_length and crop is not None:
                # Durations that annotations state may be longer than what features cover: ActivityNet's.
                end = len(seen) + 0.5 * seen.grid.num_frames / seen.grid.stride
                share = (segments[:, 1].clamp(max=end) - segments[:, 0]) / (segments[:, 1] - segments[:, 0])
                kept = (segments[:, 0] < end) & (share >= crop.kept)
                segments, labels = segments[kept].clamp(max=end), labels[kept]
            self.samples.append((torch.from_numpy(np.array(seen.vectors)), segments, labels))

    def set_epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    def skipped(self) -> list[Skipped]:
        return []

    def __len__(self) -> int:
        return len(self.samples) * self.times

    def __getitem__(self, index: int) -> dict[str, Any]:
        features, segments, labels = self.samples[index % len(self.samples)]
        if self.crop is not None:
            draw = generator(sample_seed(self.seed, int(self._epoch), index))
            first, last, segments, kept = self.crop.choose(len(features), segments, draw)
            features, labels = features[first:last], labels[kept]
        return {"features": features, "segments": segments, "labels": labels}


class WindowDataset(VideoDataset):
    """Windows of the frames of videos with their events, for detectors that are trained end to end: `pixel_values`
    (T, C, H, W) normalised, `mask` (steps,), `segments` (N, 2) in steps of the window and `labels` (N,) int64.

    Args:
        rows: the videos.
        processor: of the detector.
        windows: how videos are cut.
        numbers: number of each label.
        crop: which piece of a video a sample is, see `Crop`; with `FrameWindows.whole` all of it.
        options: of `VideoDataset`; without an augmentation the processor resizes and crops.
    """

    def __init__(
        self,
        rows: VideoRows,
        processor: ClipProcessing,
        windows: FrameWindows,
        numbers: dict[str, int],
        crop: Crop,
        **options: Any,
    ) -> None:
        super().__init__(rows, processor, **options)
        self.windows, self.numbers, self.crop = windows, numbers, crop

    def _make(self, row: EventRow, epoch: int, index: int, view: int = 0) -> dict[str, Any] | list[dict[str, Any]]:
        if torch.utils.data.get_worker_info() is not None:
            keep_freed_memory()
        samples = [self._sample(row, epoch, index, repeat) for repeat in range(self.repeats)]
        return samples if self.repeats > 1 else samples[0]

    def _sample(self, row: EventRow, epoch: int, index: int, repeat: int) -> dict[str, Any]:
        times = np.array([(event.start, event.end) for event in row.events], dtype=np.float64).reshape(-1, 2)
        labels = tuple(self.numbers[event.label] for event in row.events)
        with VideoReader(self._opened(row.source), **self.request.decode) as reader:
            numbers, length = self.windows.frames(reader), self.windows.frames_per_step
            segments = torch.from_numpy(to_steps(times, self.windows.timeline(reader))).float()
            first, steps = 0, self.windows.steps
            if not self.windows.whole:
                draw = generator(sample_seed(self.seed, epoch, index, repeat, FRAMES))
                first, last, segments, kept = self.crop.choose(-(-len(numbers) // length), segments, draw)
                steps = last - first
                labels = tuple(label for label, keep in zip(labels, kept.tolist(), strict=True) if keep)
            window = self.windows.cut(numbers, first, steps)
            wanted, places = np.unique(window.indices, return_inverse=True)
            frames = torch.from_numpy(reader.get_frames(wanted).data)
        options: dict[str, Any] = {"return_tensors": "pt", "do_sample_frames": False, "num_crops": 1}
        draw = generator(sample_seed(self.seed, epoch, index, repeat, PIXELS))
        if self.augmentation is not None:
            frames, changed = self.augmentation.with_label(frames, labels, generator=draw)
            assert isinstance(changed, tuple)
            labels = changed
            options.update(do_resize=False, do_center_crop=False)
        clip = self.processor(frames, input_data_format="channels_last", **options)["pixel_values"][0][places]
        if self.augmentation is not None:
            clip = self.augmentation.erase(clip, generator=draw, in_place=True)
        return {
            "pixel_values": clip,
            "mask": torch.arange(self.windows.steps) < window.steps,
            "segments": segments,
            "labels": torch.tensor(labels, dtype=torch.int64),
        }


class WindowCollator:
    """Samples of a `WindowDataset` to a batch: `pixel_values` (B, T, C, H, W) and `mask` (B, steps), `segments` and
    `labels` as lists."""

    def __call__(self, samples: Sequence[Any]) -> dict[str, Any]:
        flat = flattened(samples)
        return {
            **{name: torch.stack([one[name] for one in flat]) for name in ("pixel_values", "mask")},
            **{name: [one[name] for one in flat] for name in ("segments", "labels")},
        }


class SegmentCollator:
    """Samples to a batch: `features` (B, T, D) and `mask` (B, T) of the longest one, `segments` and `labels` as lists.
    The model pads on to the length that its configuration wants."""

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        lengths = torch.tensor([len(one["features"]) for one in samples])
        return {
            "features": torch.nn.utils.rnn.pad_sequence([one["features"] for one in samples], batch_first=True),
            "mask": torch.arange(int(lengths.max())) < lengths[:, None],
            "segments": [one["segments"] for one in samples],
            "labels": [one["labels"] for one in samples],
        }
