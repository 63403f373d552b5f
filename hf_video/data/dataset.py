"""`VideoDataset`: clips of video files for a torch `DataLoader` or a `Trainer`."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import av
import numpy as np
import torch

from hf_video.data.clip_plan import clip_plan, parse_views, reader_size
from hf_video.data.failures import FailureLog
from hf_video.data.rows import Skipped, VideoRow, VideoRows, plain_reason
from hf_video.data.seeds import generator, sample_seed
from hf_video.errors import BackendError, DataError, VideoError, VideoOptionError
from hf_video.video.reader import VideoReader

# Independent draws for one sample: see `sample_seed`.
FRAMES, PIXELS, ERASING, REPLACEMENT = 0, 1, 2, 3
REPLACEMENTS = 20  # files tried in turn before a sample is given up


class VideoDataset(torch.utils.data.Dataset):
    """Clips of `rows`, ready for a model.

    A sample is a dict: `pixel_values` float32 (T, C, H, W), with `flow_values` for processors that make flow, `labels`
    (an int; absent where the row has none) and `seed`, from which the collator draws. With `repeats` above 1 a sample
    is a list of so many dicts: the file is decoded once, and the same frames are augmented each time anew (Hoffer et
    al. 2020, as VideoMAE's loader does it).

    **Every random choice is drawn from (seed, epoch, index, repeat) alone**: not from the worker, the batch size, the
    process, or where training was resumed.

    Args:
        rows: One split of `load_videos`.
        processor: The model's image or video processor.
        num_frames, sampler, sampler_options: How clips are sampled (`hf_video.video.sampling`); what is not given
            comes from the processor, for training at random places instead of fixed ones.
        augmentation: `hf_video.video.augment.Augmentation`, on uint8 frames; the processor then only normalises. None
            is for evaluation: the processor resizes and crops.
        temporal: `hf_video.video.temporal.TemporalAugmentation`.
        repeats: Samples of each video.
        views: Clips of each video, or (clips, crops) with 1 or 3 crops, for evaluation: `len` is videos x clips x
            crops, and sample i is view `i % views` of video `i // views`.
        on_error: "skip" replaces a file that can't be read by another one, chosen by the same seed, and records it;
            "raise" stops.
        max_errors: Share of the rows that may fail (rounded up) before `DataError` stops the training.
        skipped_log: JSONL file of what was skipped, shared by workers and processes; None keeps a temporary one.
        resize: Short side, or (height, width), in pixels, at which frames are read, before augmentation.
    """

    def __init__(
        self,
        rows: VideoRows,
        processor: Any,
        *,
        num_frames: int | None = None,
        sampler: Any = None,
        sampler_options: Mapping[str, Any] | None = None,
        augmentation: Any = None,
        temporal: Any = None,
        repeats: int = 1,
        views: int | tuple[int, int] = 1,
        on_error: str = "skip",
        max_errors: float = 0.1,
        seed: int = 0,
        skipped_log: str | os.PathLike[str] | None = None,
        resize: int | tuple[int, int] | None = None,
    ):
        if on_error not in ("skip", "raise"):
            raise VideoOptionError(f'on_error={on_error!r} must be "skip" or "raise".')
        if not 0 <= max_errors <= 1:
            raise VideoOptionError(f"max_errors={max_errors!r} must be a share of the rows, from 0 to 1.")
        if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 1:
            raise VideoOptionError(f"repeats={repeats!r} must be a whole number of 1 or more.")
        if not len(rows):
            raise DataError("There are no videos to make a data set of; rows.skipped says what was left out.")
        self.clips, self.crops = parse_views(views)
        if augmentation is not None and self.clips * self.crops > 1:
            raise VideoOptionError("views are for evaluation: leave augmentation out, or use repeats for training.")
        self.rows = rows
        self.processor = processor
        self.augmentation = augmentation
        self.temporal = temporal
        self.repeats = repeats
        self.on_error = on_error
        self.max_errors = max_errors
        self.seed = seed
        self.plan = clip_plan(
            processor, num_frames=num_frames, sampler=sampler, options=sampler_options, clips=self.clips,
            training=augmentation is not None,
        )  # fmt: skip
        self._reader_options = reader_size(resize, processor, augmentation)
        self._log = FailureLog(skipped_log)
        # In shared memory, so that workers that live on between epochs see the new number.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """From now on samples are drawn for this epoch, in all workers, also persistent ones."""
        self._epoch.fill_(int(epoch))

    @property
    def epoch(self) -> int:
        return int(self._epoch)

    def __len__(self) -> int:
        return len(self.rows) * self.clips * self.crops

    def __getitem__(self, index: int) -> dict[str, Any] | list[dict[str, Any]]:
        index = int(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        index %= len(self)
        number, view = divmod(index, self.clips * self.crops)
        for attempt in range(REPLACEMENTS):
            try:
                return self._samples(self.rows[number], index, view)
            except (VideoOptionError, BackendError):
                raise  # wrong for every file
            except (VideoError, OSError, av.FFmpegError) as error:
                if self.on_error == "raise":
                    raise
                self._record(self.rows[number], error)
                number = self._replacement(index, attempt)
        raise DataError(f"{REPLACEMENTS} files in a row could not be read; {self._log.path} names them.")

    def skipped(self) -> list[Skipped]:
        """Everything that was skipped: when the rows were loaded, and in any worker or process since."""
        entries = {(entry.name, entry.kind): entry for entry in (*self.rows.skipped, *self._log.entries())}
        return list(entries.values())

    # -- one sample -------------------------------------------------------------------------------------------------

    def _samples(self, row: VideoRow, index: int, view: int) -> dict[str, Any] | list[dict[str, Any]]:
        frames, needed = self._read(row, index, view // self.crops)
        samples = []
        for repeat in range(self.repeats):
            seed = sample_seed(self.seed, self.epoch, index, repeat, PIXELS)
            sample, label = self._inputs(frames, needed, row.label, seed, view % self.crops)
            samples.append({**sample, **({} if label is None else {"labels": label}), "seed": seed})
        return samples if self.repeats > 1 else samples[0]

    def _read(self, row: VideoRow, index: int, clip: int) -> tuple[torch.Tensor, np.ndarray]:
        """Decoded frames (N, H, W, 3) and, numbered in them, what the clip needs of them: (T,), or (T, L + 1) where
        flow is made from neighbouring frames."""
        seed = sample_seed(self.seed, self.epoch, index, 0, FRAMES)
        with VideoReader(self._opened(row.source), **self._reader_options) as reader:
            sample = self.plan.choose(reader, seed)
            indices, total = sample.indices[clip], reader.metadata.num_frames
            if self.temporal is not None:
                indices = self.temporal(indices, total=total, generator=generator(seed))
            if hasattr(self.processor, "frames_needed"):
                indices = self.processor.frames_needed(indices, 0, total)
            wanted, places = np.unique(indices, return_inverse=True)
            frames = torch.from_numpy(reader.get_frames(wanted).data)
        if total < self.plan.num_frames:
            self._note_short(row, total)
        return frames, places.reshape(indices.shape)

    @staticmethod
    def _opened(source: Any) -> Any:
        if isinstance(source, Mapping):  # a row of a `datasets` Video column
            return source["bytes"] if source.get("bytes") is not None else source["path"]
        return source

    def _inputs(
        self, frames: torch.Tensor, needed: np.ndarray, label: int | None, seed: int, crop: int
    ) -> tuple[dict[str, Any], int | None]:
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
            inputs = self.processor(frames[torch.from_numpy(needed)], do_sample_frames=False, **options)
        sample = {name: value[crop] for name, value in inputs.items()}
        if self.augmentation is not None and "pixel_values" in sample:
            erasing = generator(sample_seed(seed, 0, 0, 0, ERASING))
            sample["pixel_values"] = self.augmentation.erase(sample["pixel_values"], generator=erasing)
        return sample, label

    # -- what can't be read -----------------------------------------------------------------------------------------

    def _replacement(self, index: int, attempt: int) -> int:
        return sample_seed(self.seed, self.epoch, index, attempt, REPLACEMENT) % len(self.rows)

    def _record(self, row: VideoRow, error: Exception) -> None:
        reason = plain_reason(error, row.source, row.name)
        new = self._log.add(Skipped(row.name, reason, "damaged"), epoch=self.epoch)
        if not new:
            return
        ours = {row.name for row in self.rows}  # the file may hold an earlier run's
        failed = {one.name for one in self._log.entries() if not one.used} & ours
        limit = math.ceil(self.max_errors * len(self.rows))
        if len(failed) > limit:
            raise DataError(
                f"{len(failed)} of {len(self.rows)} videos could not be read, and max_errors={self.max_errors:g} "
                f"allows {limit}. The last: {row.name}: {reason}. All are named in {self._log.path}; "
                "`hf-video check` finds them before training."
            ) from error

    def _note_short(self, row: VideoRow, total: int) -> None:
        reason = f"{total} frames, and a clip takes {self.plan.num_frames}: some are shown more than once"
        self._log.add(Skipped(row.name, reason, "short", used=True))
