"""`VideoDataset`: clips of video files for a torch `DataLoader` or a `Trainer`, and what streams share with it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import tempfile
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import torch

from hf_video.base.modeling import CLIP_NAMES
from hf_video.clips.request import ClipRequest, Views, parse_views
from hf_video.data.rows import Skipped, VideoRow, VideoRows, plain_reason
from hf_video.errors import (
    BackendError,
    DataError,
    VideoError,
    VideoOptionError,
    check_choice,
    check_count,
    check_number,
    fault_kind,
)
from hf_video.video.decode.sources import plain_source
from hf_video.video.reader import VideoReader

if TYPE_CHECKING:
    from hf_video.data.types import FrameProcessor, Sampler, VideoSource
    from hf_video.video.augment.augmentation import Augmentation
    from hf_video.video.augment.temporal import TemporalAugmentation

# Independent draws for one sample: see `sample_seed`.
FRAMES, PIXELS, ERASING, TIME, REPLACEMENT = range(5)
# What a broken file raises; and what is wrong for every file, and stops.
FILE_ERRORS = (VideoError, OSError, av.FFmpegError)
OPTION_ERRORS = (VideoOptionError, BackendError)
REPLACEMENTS = 20  # files tried in turn before a sample is given up
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_keeping = 0  # the process in which that has been done


def sample_seed(seed: int, epoch: int, index: int, repeat: int = 0, purpose: int = 0) -> int:
    """Returns a number from 0 to 2**63 - 1 for one sample; the same arguments give the same number on every machine.

    Args:
        seed, epoch, index, repeat: Of the run, its pass over the data, the sample and its repetition.
        purpose: Tells apart independent draws for the same sample (which frames, which crop, which replacement).
    """
    entropy = [int(part) for part in (seed, epoch, index, repeat, purpose)]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator(seed: int) -> torch.Generator:
    """A generator of its own, at this seed."""
    return torch.Generator().manual_seed(seed)


class SkippedLog:
    """An append-only JSONL file. Lines are written whole in one system call, so that workers don't mix theirs; each
    process writes a file's fault once. Without a `path` it is a temporary file, removed with the process that made it.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None):
        if path is None:
            handle, path = tempfile.mkstemp(prefix="hf_video_skipped_", suffix=".jsonl")
            os.close(handle)
            weakref.finalize(self, _remove, path, os.getpid())
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._written: set[tuple[str, str]] = set()

    def add(self, entry: Skipped, **more: Any) -> bool:
        """Appends an entry; False where this process wrote it before."""
        key = (entry.name, entry.kind)
        if key in self._written:
            return False
        self._written.add(key)
        line = json.dumps({**entry.as_dict(), **more}, ensure_ascii=False) + "\n"
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, line.encode("utf-8", "surrogateescape"))
        finally:
            os.close(handle)
        return True

    def entries(self) -> list[Skipped]:
        """Every entry so far, each file and kind once, in the order in which they came. A line that was cut off (a
        process was killed) is passed over."""
        return list({(entry.name, entry.kind): entry for entry in self._lines()}.values())

    def _lines(self) -> Iterable[Skipped]:
        try:
            text = self.path.read_text("utf-8", "surrogateescape")
        except FileNotFoundError:
            return
        for line in text.split("\n"):  # names may hold U+2028, at which splitlines cuts
            try:
                given = json.loads(line)
                yield Skipped(*(given[name] for name in ("name", "reason", "kind", "used")))
            except (ValueError, KeyError, TypeError):
                continue


def _remove(path: str, owner: int) -> None:
    if os.getpid() == owner:  # not when a worker that was forked goes
        with contextlib.suppress(OSError):
            os.unlink(path)


def keep_freed_memory() -> None:
    """In a worker, once: glibc gives the memory of clips back to the system and asks for it again with every batch,
    page by page. Without glibc nothing happens."""
    global _keeping
    if _keeping != os.getpid():
        _keeping = os.getpid()
        with contextlib.suppress(OSError, AttributeError, TypeError):
            libc = ctypes.CDLL(None)
            libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
            libc.mallopt(_M_TRIM_THRESHOLD, 512 << 20)


class SampleBuilder:
    """What `VideoDataset` and `VideoStream` share: all that a sample depends on besides its row, epoch and index.

    Attributes: `processor`, `request` (which frames, at which size), `augmentation`, `temporal`, `repeats`, `crops`
    (views cut from each clip where nothing is augmented), `num_labels` (classes), `seed`, `on_error` and `max_errors`.
    """

    num_labels = 0

    def _configure(
        self,
        processor: FrameProcessor,
        *,
        num_frames: int | None,
        sampler: Sampler | None,
        sampler_options: Mapping[str, Any] | None,
        augmentation: Augmentation | None,
        temporal: TemporalAugmentation | None,
        repeats: int,
        views: Views,
        on_error: str,
        max_errors: float,
        seed: int,
        skipped_log: str | os.PathLike[str] | None,
        resize: int | tuple[int, int] | None,
    ) -> None:
        """Sets the attributes. Raises VideoOptionError for values without meaning."""
        check_choice("on_error", on_error, ("skip", "raise"))
        check_number("max_errors", max_errors, least=0, most=1, hint=" It is a share of the videos.")
        check_count("repeats", repeats)
        self.processor = processor
        self.augmentation = augmentation
        self.temporal = temporal
        self.repeats = repeats
        self.clips, self.crops = views.clips, views.crops
        self.on_error = on_error
        self.max_errors = max_errors
        self.seed = seed
        if resize is None and augmentation is not None:
            resize = _first_resize(augmentation)
        request = ClipRequest.resolve(
            processor,
            None,
            num_frames=num_frames,
            sampler=sampler,
            sampler_options=sampler_options,
            views=views,
            resize=resize,
        )
        training = augmentation is not None
        self.request = request.for_training(sampler_asked=sampler is not None) if training else request
        self._log = SkippedLog(skipped_log)
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
        if total < self.request.num_frames:
            reason = f"{total} frames, and a clip takes {self.request.num_frames}: some are shown more than once"
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
    def _opened(source: VideoSource) -> Any:
        """What `VideoReader` takes, for a cell of a `datasets` Video column."""
        return plain_source(source)

    def _read(self, row: VideoRow, epoch: int, index: int, clip: int) -> tuple[torch.Tensor, np.ndarray, int]:
        """Decoded frames (N, H, W, 3); numbered in them, what the clip needs of them: (T,), or (T, L + 1) where flow is
        made from neighbouring frames; and the frames of the video."""
        with VideoReader(self._opened(row.source), **self.request.decode) as reader:
            sample = self.request.choose(reader, sample_seed(self.seed, epoch, index, 0, FRAMES))
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
        self, frames: torch.Tensor, needed: np.ndarray, label: int | tuple[int, ...] | None, seed: int, crop: int
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
        for name in CLIP_NAMES if self.augmentation is not None else ():
            if name in sample:
                draw = generator(sample_seed(seed, 0, 0, 0, ERASING))
                sample[name] = self.augmentation.erase(sample[name], generator=draw, in_place=True)
        return sample, label


def _first_resize(augmentation: Any) -> dict[str, Any]:
    """Options of `VideoReader` for the resize that an augmentation always begins with; {} where it has none."""
    low, high = getattr(augmentation, "short_side", None) or (0, 1)
    always = augmentation.crop in ("random", "center") and not augmentation.rand_augment if low == high else False
    return {"shortest_edge": low} if always and augmentation.interpolation == "bilinear" else {}


class VideoDataset(SampleBuilder, torch.utils.data.Dataset):
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

    Raises:
        DataError: There are no rows, or, later, more files than `max_errors` allows could not be read.
        VideoOptionError: An option has no meaning.
    """

    def __init__(
        self,
        rows: VideoRows,
        processor: FrameProcessor,
        *,
        num_frames: int | None = None,
        sampler: Sampler | None = None,
        sampler_options: Mapping[str, Any] | None = None,
        augmentation: Augmentation | None = None,
        temporal: TemporalAugmentation | None = None,
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
        pair = parse_views((views, 1) if isinstance(views, int) else views)
        if augmentation is not None and pair.total > 1:
            raise VideoOptionError("views are for evaluation: leave augmentation out, or use repeats for training.")
        self.rows = rows
        self.num_labels = len(rows.labels)
        self._configure(
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
