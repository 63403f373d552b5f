"""Writes the features of videos as shards; when it is interrupted, the next call makes what is missing.

    output/
      manifest.json                what was asked for, of which videos, by which model; at the end the counts
      features-00000.safetensors   (or .parquet) the vectors of the first `shard_size` videos, the next ones, ...

A shard is written under another name and moved into place, so one that is there is whole; it holds the names of its
videos and of those that could not be read. `load_features` reads them back.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hf_video.base.written_files import check_output_folder, file_crc32, writing_into
from hf_video.data.rows import Skipped, VideoRows
from hf_video.errors import DataError, check_choice, check_count
from hf_video.features.compiled import compile_model
from hf_video.features.digests import left_out, weights_digest
from hf_video.features.extraction import extract_features
from hf_video.features.processes import process_pool, run_prepared
from hf_video.features.shards import (
    FORMATS,
    complete_manifest,
    import_pyarrow,
    load_features,
    open_manifest,
    read_shard,
    record_checksums,
    settings_digest,
    shard_path,
    write_shard,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hf_video.data.types import FrameProcessor

    Load = Callable[[int], tuple[PreTrainedModel, FrameProcessor]]


@dataclass
class EmbedReport:
    """The content of an output folder: `videos` asked for, `vectors` made of them, `found` videos that gave any, the
    width `dim` of a vector, what was `skipped`, how many shards this call `made` and `kept`, and which files were
    `damaged` and are made again."""

    videos: int
    found: int
    vectors: int
    dim: int
    made: int
    kept: int
    skipped: list[Skipped] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)


def embed_videos(
    load: Load,
    rows: VideoRows,
    output: str | os.PathLike[str],
    *,
    data_format: str = "safetensors",
    shard_size: int = 512,
    processes: int = 1,
    on_shard: Callable[[int, int], None] | None = None,
    on_videos: Callable[[int], None] | None = None,
    **options: Any,
) -> EmbedReport:
    """Writes the features of all videos to a folder as shards. Those already there are kept; one that is damaged, by
    its checksum, is made again, and named in the report.

    Args:
        load: Called with the number of a process, it returns the model and its processor, as `ModelLoader(folder)`
            does. With `processes` above 1 it is called in each, so it must be picklable.
        rows: The videos.
        output: The folder.
        data_format: "safetensors" or "parquet".
        shard_size: Videos of a shard.
        processes: How many, each with a model of its own; shards are handed out as processes become free.
        on_shard: Called with (done, all) after each shard.
        on_videos: Called with a number whenever so many more videos are done.
        **options: Of `extract_features`. Those that decide the vectors are part of the manifest.

    Raises:
        DataError: `output` holds features of other videos, another model or other options, or can't be written.
        BackendError: Parquet without pyarrow.
    """
    check_choice("data_format", data_format, FORMATS)
    check_count("shard_size", shard_size, unit="videos")
    check_count("processes", processes)
    if not len(rows):
        raise DataError("There are no videos to make features of.")
    if data_format == "parquet":
        import_pyarrow("Parquet", "train")
    check_output_folder(output)
    folder = Path(output)
    with writing_into(folder, DataError):
        folder.mkdir(parents=True, exist_ok=True)
    worker = _Worker(load, rows, folder, data_format, shard_size, options)
    count = -(-len(rows) // shard_size)
    settings = worker.settings()
    worker.settings_digest = settings_digest(settings)
    checksums, damaged = open_manifest(folder, settings, rows.labels)
    missing, unsigned = [], {}
    for number in range(count):
        path = shard_path(folder, number, data_format)
        if not path.exists() or (checksums is not None and path.name not in checksums):
            missing.append(number)  # one without a checksum was written in the moment of a kill
            continue
        try:
            read_shard(path, (checksums or {}).get(path.name))
        except DataError as error:
            damaged.append(f"{error.args[0].partition(': delete')[0]}: it is made again")
            missing.append(number)
            continue
        if checksums is None:  # of version 0.1.0
            unsigned[path.name] = file_crc32(path)
    if unsigned:
        record_checksums(folder, unsigned)
    if on_videos is not None:
        on_videos(len(rows) - sum(len(worker.part(shard)) for shard in missing))
        worker.on_video = functools.partial(on_videos, 1) if processes == 1 else None
    for done, (shard, checksum) in enumerate(_run(worker, missing, processes), start=count - len(missing) + 1):
        record_checksums(folder, {shard_path(folder, shard, data_format).name: checksum})
        if on_shard is not None:
            on_shard(done, count)
        if on_videos is not None and worker.on_video is None:
            on_videos(len(worker.part(shard)))
    counts = complete_manifest(folder, count, data_format)
    return EmbedReport(videos=len(rows), made=len(missing), kept=count - len(missing), damaged=damaged, **counts)


class ModelLoader:
    """Loads an encoder and its processor, when it is called with the number of a process.

    Args:
        model: A folder or a name on the Hub.
        revision: Of the model on the Hub.
        device: Where the model is put; None takes the accelerator of the process's number, where there are any.
        dtype: As in `from_pretrained`.
        compile: Whether to compile it (`hf_video.compile_model`), or what then takes the lines that say so.
    """

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        device: str | None = None,
        dtype: str = "auto",
        compile: bool | Callable[[str], None] = False,
    ):
        self.model, self.revision, self.device, self.dtype = model, revision, device, dtype
        self.compile = compile

    def __call__(self, number: int = 0) -> tuple[PreTrainedModel, FrameProcessor]:
        import transformers

        from hf_video.base.loading import find_processors, loading

        with loading(self.model):
            where = {"revision": self.revision}
            config = transformers.AutoConfig.from_pretrained(self.model, **where)
            labelled = any("ForVideoClassification" in name for name in config.architectures or ())
            auto = transformers.AutoModelForVideoClassification if labelled else transformers.AutoModel
            model = auto.from_pretrained(self.model, dtype=self.dtype, **where).eval()
        image, video = find_processors(model, None, None)
        model.to(self.device_of(number))
        if self.compile:
            compile_model(model, say=self.compile if callable(self.compile) else None)
        return model, image if image is not None else video

    def device_of(self, number: int) -> str:
        """Chooses the device of a process.

        Args:
            number: Of the process, from 0.

        Returns:
            The device asked for; else the GPUs in turn, or the CPU.
        """
        if self.device is not None:
            return self.device
        return f"cuda:{number % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"


@dataclass
class _Worker:
    """Makes shards; the model is loaded when the first one is asked for."""

    load: Load
    rows: VideoRows
    folder: Path
    data_format: str
    shard_size: int
    options: dict[str, Any]
    settings_digest: str = ""
    number: int = 0
    loaded: tuple[PreTrainedModel, FrameProcessor] | None = None
    on_video: Callable[[], None] | None = None

    def part(self, shard: int) -> VideoRows:
        """The videos of a shard."""
        return self.rows[shard * self.shard_size : (shard + 1) * self.shard_size]

    def settings(self) -> dict[str, Any]:
        """Returns all that a vector depends on, and how the videos are split into shards."""
        speed = ("batch_size", "num_workers", "device", "on_error")
        names = hashlib.sha256("\0".join(row.name for row in self.rows).encode()).hexdigest()[:16]
        model = self.ready()[0]
        return {
            "model": getattr(self.load, "model", None),
            "model_digest": weights_digest(model),
            **left_out(model.config),
            "format": self.data_format,
            "shard_size": self.shard_size,
            "videos": len(self.rows),
            "names_digest": names,
            "options": {k: v for k, v in sorted(self.options.items()) if v is not None and k not in speed},
        }

    def numbered(self, number: int) -> _Worker:
        self.number = number
        return self

    def ready(self) -> tuple[PreTrainedModel, FrameProcessor]:
        if self.loaded is None:
            self.loaded = self.load(self.number)
        return self.loaded

    def __call__(self, shard: int) -> tuple[int, int]:
        """Makes a shard; its number and checksum."""
        model, processor = self.ready()
        features = extract_features(model, processor, self.part(shard), on_video=self.on_video, **self.options)
        return shard, write_shard(shard_path(self.folder, shard, self.data_format), features, self.settings_digest)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "loaded": None, "on_video": None}  # every process loads its own


def _run(worker: _Worker, shards: Sequence[int], processes: int) -> Iterator[tuple[int, int]]:
    if processes == 1 or len(shards) < 2:
        yield from map(worker, shards)
        return
    pool = process_pool(min(processes, len(shards)), worker.numbered)
    try:
        for done in as_completed([pool.submit(run_prepared, shard) for shard in shards]):
            yield done.result()
    except BrokenProcessPool as error:
        raise DataError(
            "A process that made features died; it may have run out of memory. The shards that are complete stay: run "
            "the same again, with fewer processes."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


__all__ = ["EmbedReport", "ModelLoader", "embed_videos", "load_features"]
