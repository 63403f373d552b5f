"""`VideoStream`: clips from sources that are read from end to end: tar shards, also by URL, and `datasets` streams."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hf_video.clips.request import Views
from hf_video.data.datasets.dataset import FILE_ERRORS, OPTION_ERRORS, SampleBuilder, sample_seed
from hf_video.data.rows import Skipped, VideoRow, plain_reason
from hf_video.data.sources.datasets_library import columns_of, label_text, undecoded
from hf_video.data.sources.files import is_dataset
from hf_video.data.sources.tar_shards import folder_of, shard_paths, shard_samples
from hf_video.errors import DataError, VideoError, fault_kind
from hf_video.video.decode.http_file import HttpFile
from hf_video.video.frames.addresses import scheme_of

if TYPE_CHECKING:
    from datasets import IterableDataset

    from hf_video.data.types import FrameProcessor, Sampler, StreamSource, VideoSource
    from hf_video.video.augment.augmentation import Augmentation
    from hf_video.video.augment.temporal import TemporalAugmentation

# So many files may fail before their share counts: of the first ten, one is a large share and says nothing.
ALLOWED = 10
SHARD_BLOCK = 8 << 20  # larger than for a video: a shard is read from end to end


class VideoStream(SampleBuilder, torch.utils.data.IterableDataset):
    """Samples as `VideoDataset`'s, from WebDataset shards or a streaming data set of `datasets`, in their order.

    Workers share out the shards (with fewer shards than workers: the samples). In a distributed `Trainer`, accelerate
    shares out among the processes. It has no length: give the Trainer `max_steps`. A sample's random choices come from
    (seed, epoch, name, repeat), so that they don't depend on who reads it.

    Args:
        source: Shards as in `load_videos` (paths, glob, `{000..012}.tar`, folder, list), plain or gzipped, local or
            http(s); or a `datasets` IterableDataset.
        labels: Class names in order; needed where labels are names. Labels that are numbers are taken as they are.
        shuffle: Videos held in memory, undecoded, from which the next is drawn; 0 keeps the order.
        on_error: "skip" passes over files that can't be read, and records them; "raise" stops.
        max_errors: Share of the videos seen that may fail (after the first ten) before `DataError` stops.
        num_frames, sampler, sampler_options, augmentation, temporal, repeats: As in `VideoDataset`.
        seed, skipped_log, resize, label_column, video_column: As in `VideoDataset` and `load_videos`.
    """

    def __init__(
        self,
        source: StreamSource,
        processor: FrameProcessor,
        *,
        labels: Sequence[str] | None = None,
        shuffle: int = 0,
        num_frames: int | None = None,
        sampler: Sampler | None = None,
        sampler_options: Mapping[str, Any] | None = None,
        augmentation: Augmentation | None = None,
        temporal: TemporalAugmentation | None = None,
        repeats: int = 1,
        on_error: str = "skip",
        max_errors: float = 0.1,
        seed: int = 0,
        skipped_log: str | os.PathLike[str] | None = None,
        resize: int | tuple[int, int] | None = None,
        label_column: str = "label",
        video_column: str = "video",
    ):
        self.source = source if is_dataset(source) else shard_paths(source)
        self.labels = None if labels is None else list(labels)
        self.shuffle = shuffle
        self._number = {name: number for number, name in enumerate(self.labels or ())}
        self.num_labels = len(self._number)
        self._columns = (video_column, label_column)
        self._configure(
            processor,
            num_frames=num_frames,
            sampler=sampler,
            sampler_options=sampler_options,
            augmentation=augmentation,
            temporal=temporal,
            repeats=repeats,
            views=Views(),
            on_error=on_error,
            max_errors=max_errors,
            seed=seed,
            skipped_log=skipped_log,
            resize=resize,
        )

    def skipped(self) -> list[Skipped]:
        """Everything that was skipped in any worker or process so far."""
        return self._log.entries()

    def __iter__(self) -> Iterator[dict[str, Any] | list[dict[str, Any]]]:
        seen = failed = 0
        epoch = self.epoch
        for row in self._shuffled(epoch):
            seen += 1
            index = int.from_bytes(hashlib.blake2b(row.name.encode(), digest_size=8).digest(), "big")
            try:
                sample = self._make(row, epoch, index)
            except OPTION_ERRORS:
                raise
            except FILE_ERRORS as error:
                if self.on_error == "raise":
                    raise
                failed += 1
                self._record(row, error, seen, failed)
                continue
            yield sample

    def _record(self, row: VideoRow, error: Exception, seen: int, failed: int) -> None:
        reason = plain_reason(error, row.source, row.name)
        self._log.add(Skipped(row.name, reason, fault_kind(error)), epoch=self.epoch)
        if failed > max(ALLOWED, self.max_errors * seen):
            raise DataError(
                f"{failed} of {seen} videos could not be read, and max_errors={self.max_errors:g} allows fewer. The "
                f"last: {row.name}: {reason}. All are named in {self._log.path}."
            )

    def _shuffled(self, epoch: int) -> Iterator[VideoRow]:
        rows = self._from_datasets(epoch) if is_dataset(self.source) else self._from_shards(epoch)
        if not self.shuffle:
            yield from rows
            return
        worker = torch.utils.data.get_worker_info()
        rng = np.random.default_rng(sample_seed(self.seed, epoch, worker.id if worker else 0))
        held: list[VideoRow] = []
        for row in rows:
            if len(held) < self.shuffle:
                held.append(row)
                continue
            place = int(rng.integers(len(held)))
            held[place], row = row, held[place]
            yield row
        yield from (held[i] for i in rng.permutation(len(held)))

    # -- sources ----------------------------------------------------------------------------------------------------

    def _from_shards(self, epoch: int) -> Iterator[VideoRow]:
        worker = torch.utils.data.get_worker_info()
        mine, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        shards = list(self.source)
        if self.shuffle:  # alike in all workers, so that each shard has one reader
            shards = [
                shards[i] for i in np.random.default_rng(sample_seed(self.seed, epoch, 0)).permutation(len(shards))
            ]
        by_shard = len(shards) >= workers
        number = 0
        for shard in shards[mine::workers] if by_shard else shards:
            for row in self._shard(shard):
                if by_shard or number % workers == mine:
                    yield row
                number += 1

    def _shard(self, shard: str) -> Iterator[VideoRow]:
        short = os.path.basename(shard)
        try:
            with (
                HttpFile(shard, block=SHARD_BLOCK) if scheme_of(shard) else open(shard, "rb") as file,
                tarfile.open(fileobj=file, mode="r|*") as tar,
            ):
                for sample in shard_samples(tar, self._columns[1], lambda member: tar.extractfile(member).read()):
                    if sample.video is not None:
                        folder = folder_of(sample.name)
                        text = sample.label or (folder if folder in self._number else None)
                        yield self._row(sample.video, text, f"{short}/{sample.name}")
        except (tarfile.TarError, VideoError, OSError, EOFError) as error:
            if self.on_error == "raise":
                raise DataError(f"The shard {shard} can't be read to its end: {error}.") from error
            self._log.add(Skipped(short, f"the shard can't be read to its end: {error}", fault_kind(error)))

    def _from_datasets(self, epoch: int) -> Iterator[VideoRow]:
        part = self.source
        if hasattr(part, "set_epoch"):
            part.set_epoch(epoch)
        video_at, label_at = columns_of(part, *self._columns)
        names = getattr((part.features or {}).get(label_at), "names", None)
        # Each worker of a loader gets its own shards from `datasets` itself.
        for number, cell in enumerate(self._cells(undecoded(part, video_at))):
            value = cell[video_at]
            path = value.get("path") if isinstance(value, Mapping) else value if isinstance(value, str) else None
            name = cell.get("__key__") or path or f"{number:08d}"
            given = cell[label_at] if label_at else (cell.get("json") or {}).get(self._columns[1])
            text = label_text(given, names)
            if isinstance(text, str) and names is not None and self.labels is None:
                text = str(names.index(text))
            yield self._row(value, text, str(name))

    @staticmethod
    def _cells(part: IterableDataset) -> Iterator[Mapping[str, Any]]:
        try:
            yield from part
        except ImportError as error:  # an operation on the stream, before ours, wanted frames
            raise DataError(
                f"The stream decodes its videos itself ({error}). Call "
                ".cast_column(name of the column, datasets.Video(decode=False)) on it right after loading it."
            ) from error

    def _row(self, source: VideoSource, label: str | tuple[str, ...] | None, name: str) -> VideoRow:
        if label is None:
            return VideoRow(source, None, name)
        if isinstance(label, tuple):
            if self.labels is None:
                raise DataError(f"{name} has several labels: pass labels=, the names of the classes in order.")
            return VideoRow(source, tuple(sorted({self._row(source, one, name).label for one in label})), name)
        if label in self._number:
            return VideoRow(source, self._number[label], name)
        if label.isdecimal() and (self.labels is None or int(label) < len(self.labels)):
            return VideoRow(source, int(label), name)
        known = f"none of the {len(self.labels)} classes" if self.labels else "a name: pass labels=, the names in order"
        raise DataError(f"{name} has the label {label!r}, which is {known}.")
