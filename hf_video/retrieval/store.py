"""A search index on disk, which a killed writer leaves as it was, or one step further.

    index/
      manifest.json             the encoder, the windows, which segments count and which of their files are gone
      segments/000001/
        vectors.npy             float32 (moments, D), read as a memory map
        moments.parquet         file (a number), path, start, end in seconds, in the order of the vectors
        files.parquet           path, size, times, digest, moments, and why a file gave none
      approximate-….faiss       beyond a size, see `approximate`

Segments are never changed: one is written under another name, moved into place, and counts once the manifest that
names it has replaced the last one. What no manifest names is what a killed process left; the next writer deletes it.

The manifest carries the checksums of all files and its own. They are verified when an index is opened, each file once
(about a second for a gigabyte of vectors): what has changed by a bit is refused by its name.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from hf_video.base.version import __version__
from hf_video.base.written_files import DRAFT_PREFIX, file_crc32, read_json, verify_checksum, write_json, writing_into
from hf_video.clips.grid import FeatureGrid, parse_grid
from hf_video.clips.request import SNAPS, Windows, parse_windows
from hf_video.errors import VideoIndexError, VideoOptionError, check_choice
from hf_video.features.shards import import_pyarrow
from hf_video.features.vectors import unit_length

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from hf_video.clips.request import WindowsLike
    from hf_video.retrieval.encoders import Encoder

FORMAT, READABLE = 2, (1, 2)  # 1 had no checksums
MANIFEST, SEGMENTS, LOCK = "manifest.json", "segments", ".lock"
DEFAULT_WINDOW = "2s/1s"


@dataclass(frozen=True)
class FileRecord:
    """A video as it was when it was read: `size` in bytes, times of change in nanoseconds, `digest` of its bytes, and
    how many moments it gave; where none, `kind` and `reason` as in `hf_video.data.rows.Skipped`."""

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    digest: str
    moments: int = 0
    kind: str = ""
    reason: str = ""

    @property
    def stat(self) -> tuple[int, int, int]:
        return self.size, self.mtime_ns, self.ctime_ns


@dataclass(frozen=True)
class IndexedVideo:
    """A file with its vectors (moments, D) float32 and their (start, end) in seconds, float64 (moments, 2)."""

    record: FileRecord
    vectors: np.ndarray
    seconds: np.ndarray

    @classmethod
    def ready_made(cls, path: str | os.PathLike[str], vectors: ArrayLike, seconds: ArrayLike) -> IndexedVideo:
        """Makes a video of vectors (N, D) of any length and seconds (N, 2). Raises VideoOptionError for other shapes,
        and for numbers that are not finite."""
        vectors, seconds = np.asarray(vectors, np.float32), np.asarray(seconds, np.float64)
        if vectors.ndim != 2 or seconds.shape != (len(vectors), 2) or not np.isfinite(vectors).all():
            raise VideoOptionError(
                f"Vectors of shape {vectors.shape} and seconds of shape {seconds.shape} came; finite (N, D) and (N, 2) "
                "are needed."
            )
        return cls(FileRecord(os.fspath(path), 0, 0, 0, "", moments=len(vectors)), unit_length(vectors), seconds)


@dataclass(frozen=True)
class IndexSegment:
    """A part of the index: `vectors` (N, D), `seconds` (N, 2), `owner` (N,) numbers in `files`, and `live` (N,): False
    for the moments of files that are gone or were replaced."""

    name: str
    files: list[FileRecord]
    vectors: np.ndarray
    seconds: np.ndarray
    owner: np.ndarray
    live: np.ndarray
    removed: frozenset[int] = frozenset()

    def entries(self) -> Iterator[IndexedVideo]:
        """Yields the files that are not removed."""
        firsts = np.concatenate([[0], np.cumsum([file.moments for file in self.files])])
        for number, file in enumerate(self.files):
            if number not in self.removed:
                rows = slice(firsts[number], firsts[number + 1])
                yield IndexedVideo(file, self.vectors[rows], self.seconds[rows])


@dataclass
class Manifest:
    """The content of `manifest.json`: `encoder` tells models apart (None before the first update), `windows` are
    (length, step) in seconds or the fields of a grid, `snap` is "keyframe" where moments show keyframes only,
    `segments` the names that count, `removed` numbers of files by segment."""

    encoder: dict[str, Any] | None = None
    windows: tuple[float, float] | dict[str, float | None] | None = None
    snap: str | None = None
    dim: int | None = None
    normalized: bool = True
    segments: list[str] = field(default_factory=list)
    removed: dict[str, list[int]] = field(default_factory=dict)
    approximate: dict[str, Any] | None = None
    checksums: dict[str, dict[str, int]] = field(default_factory=dict)  # of the files of each segment

    @property
    def moments(self) -> Windows | FeatureGrid | None:
        """What each video is cut into."""
        if self.windows is None:
            return None
        return parse_grid(self.windows) if isinstance(self.windows, dict) else Windows(*self.windows)


class IndexStore:
    """The folder of an index."""

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)
        self._verified: set[tuple[str, str, int]] = set()

    # -- manifest ---------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        return (self.folder / MANIFEST).is_file()

    def manifest(self) -> Manifest:
        """Raises VideoIndexError where there is none, or one that can't be read."""
        path = self.folder / MANIFEST
        if not path.is_file():
            raise VideoIndexError(
                f"{self.folder} is not a search index: it has no {MANIFEST}. Make one with hf-video index."
            )
        try:
            found = read_json(path)
            version = found.pop("format")
            found.pop("hf_video", None)
            if version not in READABLE:
                raise VideoIndexError(
                    f"{self.folder} has format {version}; this version reads {FORMAT}. Build it again."
                )
            return Manifest(**found)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            if isinstance(error, VideoIndexError):
                raise
            raise VideoIndexError(f"{path} can't be read ({error}): the index is damaged; build it again.") from error

    def check_encoder(self, known: dict[str, Any] | None, encoder: Encoder) -> None:
        """Raises VideoIndexError where an index was made by another encoder. A model's name may change, its hashes may
        not."""
        if known is None:
            return
        identity, changes = encoder.identity, []
        renamed = set() if "ready-made" in (known["config"], identity["config"]) else {"name"}
        for one in encoder.identities():
            changes.append({name for name in {*known, *one} - renamed if known.get(name) != one.get(name)})
            if not changes[-1]:
                return
        raise VideoIndexError(
            f"{self.folder} was made with {known['name']!r} and {identity['name']!r} came, whose "
            f"{', '.join(sorted(min(changes, key=len)))} differ: vectors of two models can't be compared. Use the same "
            "model, or another folder for the index. Nothing was changed."
        )

    def choose_windows(self, known: Windows | FeatureGrid | None, window: WindowsLike | None) -> Windows | FeatureGrid:
        """What videos are cut into: what was asked, else what is `known` of the index, else a default. Raises
        VideoIndexError where an index was made with others."""
        windows = parse_windows(window) or known or parse_windows(DEFAULT_WINDOW)
        if known is not None and windows != known:
            raise VideoIndexError(
                f"{self.folder} was made with windows of {known}, and {windows} came: leave it out, or choose another "
                "folder."
            )
        return windows

    def choose_snap(
        self, manifest: Manifest, snap: str | None, encoder: Encoder, windows: Windows | FeatureGrid
    ) -> str | None:
        """Whether keyframes alone are shown: as was asked, else as the index has it. Raises VideoIndexError where it
        has exact frames, and VideoOptionError for encoders and windows that need these."""
        check_choice("snap", snap, SNAPS)
        if snap is not None and manifest.encoder is not None and manifest.snap is None:
            raise VideoIndexError(
                f"{self.folder} was made of exact frames, and snap={snap!r} came: leave it out, or take another folder."
            )
        if snap is not None and isinstance(windows, FeatureGrid):
            raise VideoOptionError(f"snap={snap!r} has no regular grid of frames: give windows in seconds.")
        if snap is not None and not encoder.snaps:
            raise VideoOptionError(
                f"snap={snap!r} is for models: {encoder.identity['name']} compares frames of certain instants."
            )
        return snap or manifest.snap

    def commit(self, manifest: Manifest) -> None:
        """The step that makes everything written before it count, at once. Raises VideoIndexError where the disk is
        full or may not be written."""
        sums = {name: manifest.checksums[name] for name in manifest.segments if name in manifest.checksums}
        facts = {"format": FORMAT, "hf_video": __version__, **vars(manifest), "checksums": sums}
        if manifest.snap is None:  # as earlier versions know it
            del facts["snap"]
        with writing_into(self.folder, VideoIndexError):
            write_json(self.folder / MANIFEST, facts)
        _sync(self.folder)

    # -- segments ---------------------------------------------------------------------------------------------------

    def write_segment(self, name: str, entries: Sequence[IndexedVideo], dim: int) -> dict[str, int]:
        """Writes a segment and returns the checksums of its files; it counts once a manifest names it. Raises
        VideoIndexError where the disk is full or may not be written."""
        root = self.folder / SEGMENTS
        with writing_into(self.folder, VideoIndexError):
            root.mkdir(exist_ok=True)
            draft = root / f"{DRAFT_PREFIX}{name}"
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir()
            _write_files(draft, entries, dim)
            for file in draft.iterdir():
                _sync(file)
            sums = {file.name: file_crc32(file) for file in sorted(draft.iterdir())}
            os.rename(draft, root / name)
            _sync(root)
        self._verified |= {(name, file, found) for file, found in sums.items()}
        return sums

    def read_segment(self, name: str, manifest: Manifest) -> IndexSegment:
        """Raises VideoIndexError for files that are missing, damaged, or don't belong together."""
        parquet = import_pyarrow("A search index", "retrieval").parquet
        folder = self.folder / SEGMENTS / name
        file = folder
        removed = manifest.removed.get(name, ())
        try:
            for known, expected in manifest.checksums.get(name, {}).items():
                file = folder / known
                if (name, known, expected) not in self._verified:
                    verify_checksum(file, expected)
                    self._verified.add((name, known, expected))
            file = folder
            vectors = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
            files = parquet.read_table(folder / "files.parquet").to_pylist()
            moments = parquet.read_table(folder / "moments.parquet", columns=["file", "start", "end"])
            records = [FileRecord(**{**file, "path": os.fsdecode(file["path"])}) for file in files]
            owner = moments["file"].to_numpy()
            seconds = np.stack([moments["start"].to_numpy(), moments["end"].to_numpy()], axis=1)
            if not len(vectors) == len(owner) == sum(record.moments for record in records):
                raise ValueError("vectors and moments differ in number")
        except (OSError, EOFError, ValueError, TypeError, KeyError) as error:
            what = "segment" if file == folder else "file"
            raise VideoIndexError(
                f"The {what} {file} can't be read ({error}): the index is damaged; build it again."
            ) from error
        live = ~np.isin(owner, list(removed))
        return IndexSegment(name, records, vectors, seconds, owner, live, frozenset(removed))

    def next_name(self, manifest: Manifest) -> str:
        return f"{max((int(name) for name in manifest.segments), default=0) + 1:06d}"

    # -- writers ----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Only one process writes at a time; what a killed one left is cleared away. Raises VideoIndexError where
        another one does."""
        with writing_into(self.folder, VideoIndexError):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = open(self.folder / LOCK, "a+b")  # noqa: SIM115 - closed below
        with lock as file:
            if not _lock(file):
                raise VideoIndexError(f"{self.folder} is being written by another process: wait until it is done.")
            if self.exists():
                self.clear(self.manifest())
            yield

    def clear(self, manifest: Manifest) -> None:
        """Deletes what `manifest` does not name."""
        root = self.folder / SEGMENTS
        for path in root.iterdir() if root.is_dir() else ():
            if path.name not in manifest.segments:
                shutil.rmtree(path)
        kept = (manifest.approximate or {}).get("file")
        for path in [*self.folder.glob("approximate-*"), *self.folder.glob(f"{DRAFT_PREFIX}*")]:
            if path.name != kept:
                path.unlink()


def _write_files(folder: Path, entries: Sequence[IndexedVideo], dim: int) -> None:
    """Writes the three files of a segment; of the vectors only one video's are in memory at once."""
    arrow = import_pyarrow("A search index", "retrieval")
    records = [entry.record for entry in entries]
    header = {"descr": "<f4", "fortran_order": False, "shape": (sum(len(entry.vectors) for entry in entries), dim)}
    with open(folder / "vectors.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for entry in entries:
            file.write(np.ascontiguousarray(entry.vectors, "<f4").data)
    seconds = np.concatenate([np.zeros((0, 2)), *(entry.seconds for entry in entries)])
    owner = np.repeat(np.arange(len(records), dtype=np.int32), [record.moments for record in records])
    paths = arrow.array([os.fsencode(record.path) for record in records], arrow.binary())  # any bytes name a file
    moments = {"file": owner, "path": paths.take(arrow.array(owner)), "start": seconds[:, 0], "end": seconds[:, 1]}
    arrow.parquet.write_table(arrow.table(moments), folder / "moments.parquet")
    columns = {name: [getattr(record, name) for record in records] for name in _COLUMNS}
    schema = arrow.schema([("path", arrow.binary()), *((n, getattr(arrow, t)()) for n, t in _COLUMNS.items())])
    arrow.parquet.write_table(arrow.table({"path": paths, **columns}, schema=schema), folder / "files.parquet")


_COLUMNS = {
    "size": "int64", "mtime_ns": "int64", "ctime_ns": "int64", "digest": "string", "moments": "int64",
    "kind": "string", "reason": "string",
}  # fmt: skip


def _lock(file: BinaryIO) -> bool:
    """Takes a lock that ends with the process; False where another one has it."""
    try:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # Windows
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except OSError:
        return False
    return True


def _sync(path: Path) -> None:
    """Forces a file or folder to the disk, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
