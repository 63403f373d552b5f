"""`VideoDataset`: clips of video files for a torch `DataLoader` or a `Trainer`."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import torch

from hf_video.clips.clip_plan import parse_views
from hf_video.data.datasets.samples import FILE_ERRORS, OPTION_ERRORS, REPLACEMENT, SampleMaker
from hf_video.data.rows import Skipped, VideoRow, VideoRows, plain_reason
from hf_video.data.seeds import sample_seed
from hf_video.errors import DataError, VideoOptionError, fault_kind

REPLACEMENTS = 20  # files tried in turn before a sample is given up


class VideoDataset(SampleMaker, torch.utils.data.Dataset):
    """Clips of `rows`, ready for a model.

    A sample is a dict: `pixel_values` float32 (T, C, H, W), with `flow_values` for processors that make flow, `labels`
    (an int, or float32 (classes,) of 0 and 1 where videos show several; absent where the row has none) and `seed`, from
    which the collator draws. With `repeats` above 1 a sample is a list of so many dicts: the file is decoded once, and
    the same frames are augmented each time anew (Hoffer et al. 2020, as VideoMAE's loader does it).

    **Every random choice is drawn from (seed, epoch, index, repeat) alone**: not from the worker, the batch size, the
    process, or where training was resumed.

    Args:
        rows: One split of `load_videos`.
        processor: The model's image or video processor.
        num_frames, sampler, sampler_options: How clips are sampled (`hf_video.video.sampling`); what is not given
            comes from the processor, for training at random places instead of fixed ones.
        augmentation: `hf_video.video.augment.Augmentation`, on uint8 frames; the processor then only normalises. None
            is for evaluation: the processor resizes and crops.
        temporal: `hf_video.video.augment.TemporalAugmentation`.
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
        if not len(rows):
            raise DataError("There are no videos to make a data set of; rows.skipped says what was left out.")
        pair = parse_views(views)
        if augmentation is not None and pair != (1, 1):
            raise VideoOptionError("views are for evaluation: leave augmentation out, or use repeats for training.")
        self.rows = rows
        self.num_labels = len(rows.labels)
        self._prepare(
            processor,
            num_frames=num_frames,
            sampler=sampler,
            sampler_options=sampler_options,
            augmentation=augmentation,
            temporal=temporal,
            repeats=repeats,
            views=pair,
            on_error=on_error,
            max_errors=max_errors,
            seed=seed,
            skipped_log=skipped_log,
            resize=resize,
        )

    def __len__(self) -> int:
        return len(self.rows) * self.clips * self.crops

    def __getitem__(self, index: int) -> dict[str, Any] | list[dict[str, Any]]:
        index = int(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        index %= len(self)
        number, view = divmod(index, self.clips * self.crops)
        for attempt in range(REPLACEMENTS):
            row = self.rows[number]
            try:
                return self._make(row, self.epoch, index, view)
            except OPTION_ERRORS:
                raise
            except FILE_ERRORS as error:
                if self.on_error == "raise":
                    raise
                self._record(row, error)
                number = sample_seed(self.seed, self.epoch, index, attempt, REPLACEMENT) % len(self.rows)
        raise DataError(f"{REPLACEMENTS} files in a row could not be read; {self._log.path} names them.")

    def skipped(self) -> list[Skipped]:
        """Everything that was skipped: when the rows were loaded, and in any worker or process since."""
        entries = {(entry.name, entry.kind): entry for entry in (*self.rows.skipped, *self._log.entries())}
        return list(entries.values())

    def _record(self, row: VideoRow, error: Exception) -> None:
        reason = plain_reason(error, row.source, row.name)
        new = self._log.add(Skipped(row.name, reason, fault_kind(error)), epoch=self.epoch)
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
