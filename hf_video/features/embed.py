"""A folder of videos to shards of features that can be killed at any moment and go on where they stopped.

    output/
      manifest.json                what was asked for, of which videos, by which model; at the end the counts
      features-00000.safetensors   (or .parquet) the vectors of the first `shard_size` videos, the next ones, ...

A shard is written under another name and moved into place, so one that is there is whole; it holds the names of its
videos and of those that could not be read. Running again makes what is missing. `load_features` reads them back.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from hf_video.base.output_paths import check_output_folder
from hf_video.base.written_files import crc32_of, writing_into
from hf_video.data.rows import Skipped, VideoRows
from hf_video.errors import DataError, check_choice, check_count
from hf_video.features.extraction import extract_features
from hf_video.features.shards import (
    FORMATS,
    complete_manifest,
    load_features,
    open_manifest,
    pyarrow,
    read_shard,
    record_checksums,
    shard_path,
    write_shard,
)


@dataclass
class EmbedReport:
    """What an output folder holds: `videos` asked for, `vectors` made of them, `found` videos that gave any, the width
    `dim` of a vector, what was `skipped`, how many shards this call made and found, and which files were `damaged` and
    are made again."""

    videos: int
    found: int
    vectors: int
    dim: int
    made: int
    kept: int
    skipped: list[Skipped] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)


def embed_videos(
    load: Callable[[int], tuple[Any, Any]],
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
    """Writes the features of all `rows` to `output` as shards of `shard_size` videos, those already there excepted.

    `load(number)` gives the model and its processor in process `number`, such as `ModelLoader(folder)`: with
    `processes` above 1 it is called in each, so it must be picklable, and shards are handed out as processes become
    free. `options` are those of `extract_features`; what decides the vectors is part of the manifest. `on_shard(done,
    all)` is called after each shard, `on_videos(number)` whenever so many more videos are done.

    A shard that is damaged, by its checksum, is made again, and named in the report.

    Raises DataError where `output` holds features of other videos, another model or other options, or can't be written,
    and BackendError for Parquet without pyarrow.
    """
    check_choice("data_format", data_format, FORMATS)
    check_count("shard_size", shard_size, unit="clips")
    check_count("processes", processes)
    if not len(rows):
        raise DataError("There are no videos to make features of.")
    if data_format == "parquet":
        pyarrow()
    check_output_folder(output)
    folder = Path(output)
    with writing_into(folder, DataError):
        folder.mkdir(parents=True, exist_ok=True)
    worker = _Worker(load, rows, folder, data_format, shard_size, options)
    count = -(-len(rows) // shard_size)
    checksums, damaged = open_manifest(folder, worker.settings(), rows.labels)
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
            unsigned[path.name] = crc32_of(path)
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
    """`load(number)` for a model's folder or name on the Hub: an encoder and its processor, on the device `number` of
    those there are. Without a `device` accelerators are used where there are any."""

    def __init__(self, model: str, *, revision: str | None = None, device: str | None = None, dtype: str = "auto"):
        self.model, self.revision, self.device, self.dtype = model, revision, device, dtype

    def __call__(self, number: int = 0) -> tuple[Any, Any]:
        import transformers

        from hf_video.base.loading import loading
        from hf_video.clips.processors import find_processors

        with loading(self.model):
            where = {"revision": self.revision}
            config = transformers.AutoConfig.from_pretrained(self.model, **where)
            labelled = any("ForVideoClassification" in name for name in config.architectures or ())
            auto = transformers.AutoModelForVideoClassification if labelled else transformers.AutoModel
            model = auto.from_pretrained(self.model, dtype=self.dtype, **where).eval()
        image, video = find_processors(model, None, None)
        return model.to(self._place(number)), image if image is not None else video

    def _place(self, number: int) -> str:
        if self.device is not None:
            return self.device
        return f"cuda:{number % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"


@dataclass
class _Worker:
    """Makes shards; the model is loaded when the first one is asked for."""

    load: Callable[[int], tuple[Any, Any]]
    rows: VideoRows
    folder: Path
    data_format: str
    shard_size: int
    options: dict[str, Any]
    number: int = 0
    loaded: Any = None
    on_video: Callable[[], None] | None = None

    def part(self, shard: int) -> VideoRows:
        """The videos of a shard."""
        return self.rows[shard * self.shard_size : (shard + 1) * self.shard_size]

    def settings(self) -> dict[str, Any]:
        """All that a vector depends on, and how the videos are dealt out."""
        speed = ("batch_size", "num_workers", "device", "on_error")
        names = hashlib.sha256("\0".join(row.name for row in self.rows).encode()).hexdigest()[:16]
        return {
            "model": getattr(self.load, "model", None),
            "model_digest": weights_digest(self.ready()[0]),
            "format": self.data_format,
            "shard_size": self.shard_size,
            "videos": len(self.rows),
            "names_digest": names,
            "options": {k: v for k, v in sorted(self.options.items()) if v is not None and k not in speed},
        }

    def ready(self) -> tuple[Any, Any]:
        if self.loaded is None:
            self.loaded = self.load(self.number)
        return self.loaded

    def __call__(self, shard: int) -> tuple[int, int]:
        """Makes a shard; its number and checksum."""
        model, processor = self.ready()
        features = extract_features(model, processor, self.part(shard), on_video=self.on_video, **self.options)
        return shard, write_shard(shard_path(self.folder, shard, self.data_format), features)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "loaded": None, "on_video": None}  # every process loads its own


def _run(worker: _Worker, shards: Sequence[int], processes: int) -> Iterator[tuple[int, int]]:
    if processes == 1 or len(shards) < 2:
        yield from map(worker, shards)
        return
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    count = min(processes, len(shards))
    numbers = context.Queue()
    for number in range(count):
        numbers.put(number)
    threads = max(torch.get_num_threads() // count, 1)
    with context.Pool(count, initializer=_start, initargs=(worker, numbers, threads)) as pool:
        yield from pool.imap_unordered(_make, shards)


_HERE: list[_Worker] = []


def _start(worker: _Worker, numbers: Any, threads: int) -> None:
    torch.set_num_threads(threads)
    worker.number = numbers.get()
    _HERE[:] = [worker]


def _make(shard: int) -> tuple[int, int]:
    return _HERE[0](shard)


def weights_digest(model: Any) -> str:
    """16 hex digits that tell weights apart: of every tensor's name and bytes."""
    seen = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(model.state_dict().items()):
        seen.update(name.encode())
        seen.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return seen.hexdigest()


__all__ = ["EmbedReport", "ModelLoader", "embed_videos", "load_features"]
