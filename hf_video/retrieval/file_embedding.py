"""Embeds files in this process, in several on one machine, or on a cluster. Results come in any order, and where a
process dies only the file that killed it is lost."""

from __future__ import annotations

import functools
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np

from hf_video.clips.batching import read_each
from hf_video.clips.grid import FeatureGrid
from hf_video.clips.request import Windows
from hf_video.data.rows import Skipped
from hf_video.errors import BackendError, VideoError, VideoIndexError, VideoOptionError, check_choice, check_count
from hf_video.features.extraction import skipped_video
from hf_video.features.processes import process_pool, run_prepared
from hf_video.retrieval.encoders import Encoder, ModelEncoder
from hf_video.retrieval.store import FileRecord, IndexedVideo

ENGINES = ("local", "ray")
RAY_BLOCK = 8  # files that go to a process of the cluster at once
RAY_TRIES = 5  # for files whose process died


def embed_files(
    encoder: Encoder,
    paths: Sequence[str],
    windows: Windows | FeatureGrid,
    *,
    workers: int = 1,
    engine: str = "local",
    snap: str | None = None,
) -> Iterator[IndexedVideo | Skipped]:
    """An `IndexedVideo` for each file, without vectors where it can't be read; `Skipped` for one that is gone by now or
    that killed the process that read it: these are not remembered, and tried again by the next update."""
    check_engine(workers, engine)
    reading = {} if snap is None else {"snap": snap}  # an encoder of somebody's own may not have it
    if not paths:
        return iter(())
    if engine == "ray":
        return _on_ray(encoder, paths, windows, workers, reading)
    if workers == 1:
        if type(encoder).embed is ModelEncoder.embed:
            return _reading_ahead(encoder, paths, windows, reading)
        return (embed_file(encoder, path, windows, **reading) for path in paths)
    return _in_processes(encoder, paths, windows, workers, reading)


def check_engine(workers: int, engine: str) -> None:
    """Raises VideoOptionError for options that `embed_files` does not know, BackendError for "ray" without Ray."""
    check_choice("engine", engine, ENGINES)
    check_count("workers", workers)
    if engine == "ray":
        _ray()


def embed_file(encoder: Encoder, path: str, windows: Windows | FeatureGrid, **reading: Any) -> IndexedVideo | Skipped:
    """Embeds one file, whose size and times are taken before it is read: later changes are for the next update."""
    try:
        record = file_record(path)
    except OSError as error:
        return skipped_video(path, error)
    return _embedded(record, functools.partial(encoder.embed, path, windows, **reading))


def _reading_ahead(
    encoder: ModelEncoder, paths: Sequence[str], windows: Windows | FeatureGrid, reading: dict[str, Any]
) -> Iterator[IndexedVideo | Skipped]:
    """As `embed_file` of each; the next file is read while the model has this one."""

    def read(path: str) -> Iterator[Any]:
        try:
            record = file_record(path)
        except OSError as error:
            yield skipped_video(path, error)
            return
        yield record
        yield from encoder.read(path, windows, **reading)

    for events in map(iter, read_each(paths, read, None)):
        record = next(events)
        embed = functools.partial(encoder.vectors, events, **reading)
        yield record if isinstance(record, Skipped) else _embedded(record, embed)


def _embedded(record: FileRecord, embed: Callable[[], tuple[np.ndarray, np.ndarray]]) -> IndexedVideo:
    try:
        vectors, seconds = embed()
    except VideoOptionError:
        raise
    except VideoError as error:
        why = skipped_video(record.path, error)
        record = replace(record, kind=why.kind, reason=why.reason)
        return IndexedVideo(record, np.zeros((0, 0), np.float32), np.zeros((0, 2)))
    return IndexedVideo(replace(record, moments=len(vectors)), vectors, seconds)


def file_record(path: str) -> FileRecord:
    """Takes size, times and digest of a file. Raises OSError."""
    status = os.stat(path)
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return FileRecord(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, digest.hexdigest())


# --- several processes ---------------------------------------------------------------------------------------------


def _in_processes(
    encoder: Encoder, paths: Iterable[str], windows: Windows | FeatureGrid, workers: int, reading: dict[str, Any]
) -> Iterator[IndexedVideo | Skipped]:
    """Where a process dies all of its pool is lost: those that were in work are then suspects, read again one at a
    time, so that the one to blame is found and the others are not lost with it."""
    todo = deque((path, False) for path in paths)
    prepare = functools.partial(_prepared, encoder, windows, reading)
    while todo:
        yield from _pool(prepare, todo, workers)


def _pool(
    prepare: Callable[[int], Callable[[str], IndexedVideo | Skipped]], todo: deque[tuple[str, bool]], workers: int
) -> Iterator[IndexedVideo | Skipped]:
    """Works on `todo` until it is empty, a process dies, or the kind of its first changes (suspect or not)."""
    alone = todo[0][1]
    count = 1 if alone else min(workers, len(todo))
    running: dict[Future, str] = {}
    with process_pool(count, prepare) as pool:
        try:
            while running or (todo and todo[0][1] == alone):
                while todo and todo[0][1] == alone and len(running) < (1 if alone else 2 * count):
                    future = pool.submit(run_prepared, todo[0][0])  # a pool that is broken raises here too
                    running[future] = todo.popleft()[0]
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    result = done.result()
                    del running[done]
                    yield result
        except BrokenProcessPool:
            if alone:
                (path,) = running.values()
                yield Skipped(path, "the process that read it died", "damaged")
            else:
                todo.extendleft((path, True) for path in running.values())


def _prepared(
    encoder: Encoder, windows: Windows | FeatureGrid, reading: dict[str, Any], number: int
) -> Callable[[str], IndexedVideo | Skipped]:
    encoder.prepare(number)
    return functools.partial(embed_file, encoder, windows=windows, **reading)


# --- a cluster -----------------------------------------------------------------------------------------------------


class _RayEncoder:
    """An actor of Ray Data: a batch of paths to a batch of pickled results."""

    def __init__(self, encoder: Encoder, windows: Windows | FeatureGrid, reading: dict[str, Any]):
        encoder.prepare()
        self.embed = functools.partial(embed_file, encoder, windows=windows, **reading)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        import pickle

        return {"result": [pickle.dumps(self.embed(os.fsdecode(path))) for path in batch["path"]]}


def _on_ray(
    encoder: Encoder, paths: Sequence[str], windows: Windows | FeatureGrid, workers: int, reading: dict[str, Any]
) -> Iterator[IndexedVideo | Skipped]:
    """Ray Data starts actors that died anew and gives their files to others. Paths must be the same on all machines."""
    import pickle

    ray = _ray()
    rows = [{"path": os.fsencode(path)} for path in paths]
    blocks = max(-(-len(rows) // RAY_BLOCK), min(workers, len(rows)))
    data = ray.data.from_items(rows, override_num_blocks=blocks)
    count = min(workers, len(rows))
    gpus = ray.cluster_resources().get("GPU", 0) if encoder.uses_device else 0
    results = data.map_batches(
        _RayEncoder,
        fn_constructor_args=(encoder, windows, reading),
        batch_size=RAY_BLOCK,
        compute=ray.data.ActorPoolStrategy(size=count),
        max_restarts=-1,
        max_task_retries=RAY_TRIES,
        **({"num_gpus": min(1.0, gpus / count)} if gpus else {}),
    )
    try:
        for row in results.iter_rows():
            yield pickle.loads(row["result"])
    except ray.exceptions.RayError as error:
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        raise VideoIndexError(
            f"Ray gave up ({reason}). What was embedded stays in the "
            'index; engine="local" with several workers finds a file that kills its process.'
        ) from error


def _ray() -> ModuleType:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise BackendError('engine="ray" needs Ray: pip install "hf_video[ray]", or use engine="local".') from error
    return ray
