"""One row to samples: read, augmented, processed. Shared by the map-style and the streaming data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import av
import numpy as np
import torch

from hf_video.clips.clip_plan import clip_plan, reader_size
from hf_video.data.datasets.failures import FailureLog
from hf_video.data.datasets.shared_batches import keep_freed_memory
from hf_video.data.rows import Skipped, VideoRow
from hf_video.data.seeds import generator, sample_seed
from hf_video.errors import BackendError, VideoError, VideoOptionError
from hf_video.video.decode.given import plain_source
from hf_video.video.reader import VideoReader

# Independent draws for one sample: see `sample_seed`.
FRAMES, PIXELS, ERASING, TIME, REPLACEMENT = range(5)
# What a broken file raises; and what is wrong for every file, and stops.
FILE_ERRORS = (VideoError, OSError, av.FFmpegError)
OPTION_ERRORS = (VideoOptionError, BackendError)


class SampleMaker:
    """What `VideoDataset` and `VideoStream` share: all that a sample depends on besides its row, epoch and index.

    Attributes: `processor`, `plan` (which frames), `augmentation`, `temporal`, `repeats`, `crops` (views cut from each
    clip where nothing is augmented), `num_labels` (classes), `seed`, `reader_options` (`size` or `shortest_edge` at
    which frames are read), `on_error` and `max_errors`.
    """

    num_labels = 0

    def _prepare(
        self,
        processor: Any,
        *,
        num_frames: int | None,
        sampler: Any,
        sampler_options: Mapping[str, Any] | None,
        augmentation: Any,
        temporal: Any,
        repeats: int,
        views: tuple[int, int],
        on_error: str,
        max_errors: float,
        seed: int,
        skipped_log: Any,
        resize: int | tuple[int, int] | None,
    ) -> None:
        """Sets the attributes. Raises VideoOptionError for values without meaning."""
        _check(repeats, on_error, max_errors)
        self.processor = processor
        self.augmentation = augmentation
        self.temporal = temporal
        self.repeats = repeats
        self.clips, self.crops = views
        self.on_error = on_error
        self.max_errors = max_errors
        self.seed = seed
        self.plan = clip_plan(
            processor,
            num_frames=num_frames,
            sampler=sampler,
            options=sampler_options,
            clips=self.clips,
            training=augmentation is not None,
        )
        self.reader_options = reader_size(resize, processor, augmentation)
        self._log = FailureLog(skipped_log)
        # In shared memory, so that workers that live on between epochs see the new number.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """From now on samples are drawn for this epoch, in all workers, also persistent ones."""
        self._epoch.fill_(int(epoch))

    @property
    def epoch(self) -> int:
        return int(self._epoch)

    def _make(self, row: VideoRow, epoch: int, index: int, view: int = 0) -> dict[str, Any] | list[dict[str, Any]]:
        """A sample of a row, or a list of `repeats`. Raises FILE_ERRORS and OPTION_ERRORS."""
        if torch.utils.data.get_worker_info() is not None:
            keep_freed_memory()
        frames, needed, total = self._read(row, epoch, index, view // self.crops)
        samples = []
        for repeat in range(self.repeats):
            seed = sample_seed(self.seed, epoch, index, repeat, PIXELS)
            sample, label = self._inputs(frames, needed, row.label, seed, view % self.crops)
            samples.append({**sample, **({} if label is None else {"labels": self._target(label)}), "seed": seed})
        if total < self.plan.num_frames:
            reason = f"{total} frames, and a clip takes {self.plan.num_frames}: some are shown more than once"
            self._log.add(Skipped(row.name, reason, "short", used=True))
        return samples if self.repeats > 1 else samples[0]

    def _target(self, label: int | tuple[int, ...]) -> int | torch.Tensor:
        """The class number, or 0 and 1 for every class, float32 (classes,), where videos show several."""
        if not isinstance(label, tuple):
            return label
        target = torch.zeros(self.num_labels)
        target[list(label)] = 1
        return target

    @staticmethod
    def _opened(source: Any) -> Any:
        """What `VideoReader` takes, for a cell of a `datasets` Video column."""
        return plain_source(source)

    def _read(self, row: VideoRow, epoch: int, index: int, clip: int) -> tuple[torch.Tensor, np.ndarray, int]:
        """Decoded frames (N, H, W, 3); numbered in them, what the clip needs of them: (T,), or (T, L + 1) where flow is
        made from neighbouring frames; and the frames of the video."""
        with VideoReader(self._opened(row.source), **self.reader_options) as reader:
            sample = self.plan.choose(reader, sample_seed(self.seed, epoch, index, 0, FRAMES))
            indices, total = sample.indices[clip], len(reader)
            # A clip that was looped, because its video is short, has no direction or speed to change.
            if self.temporal is not None and (np.diff(indices) >= 0).all():
                draw = generator(sample_seed(self.seed, epoch, index, 0, TIME))
                indices = self.temporal(indices, total, generator=draw)
            if hasattr(self.processor, "frames_needed"):
                indices = self.processor.frames_needed(indices, 0, total)
            wanted, places = np.unique(indices, return_inverse=True)
            frames = torch.from_numpy(reader.get_frames(wanted).data)
        return frames, places.reshape(indices.shape), total

    def _inputs(
        self, frames: torch.Tensor, needed: np.ndarray, label: Any, seed: int, crop: int
    ) -> tuple[dict[str, Any], Any]:
        """The model's inputs for one clip, without the batch dimension, and the label: a mirrored clip may show another
        class."""
        options: dict[str, Any] = {"return_tensors": "pt", "num_crops": self.crops}
        if self.augmentation is not None:
            frames, label = self.augmentation.with_label(frames, label, generator=generator(seed))
            options.update(do_resize=False, do_center_crop=False, num_crops=1)
        if hasattr(self.processor, "process_needed"):
            if torch.utils.data.get_worker_info() is not None:
                options["flow_workers"] = 1  # the other cores have workers of their own
            inputs = self.processor.process_needed(frames.numpy(), needed, **options)
        else:
            clip = frames if len(needed) == len(frames) and (np.diff(needed) == 1).all() else frames[needed]
            inputs = self.processor(clip, do_sample_frames=False, **options)
        sample = {name: value[crop] for name, value in inputs.items()}
        if self.augmentation is not None and "pixel_values" in sample:
            draw = generator(sample_seed(seed, 0, 0, 0, ERASING))
            sample["pixel_values"] = self.augmentation.erase(sample["pixel_values"], generator=draw)
        return sample, label


def _check(repeats: int, on_error: str, max_errors: float) -> None:
    """Raises VideoOptionError for values without meaning."""
    if on_error not in ("skip", "raise"):
        raise VideoOptionError(f'on_error={on_error!r} must be "skip" or "raise".')
    if not 0 <= max_errors <= 1:
        raise VideoOptionError(f"max_errors={max_errors!r} must be a share of the videos, from 0 to 1.")
    if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 1:
        raise VideoOptionError(f"repeats={repeats!r} must be a whole number of 1 or more.")
