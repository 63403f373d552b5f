"""What is known of a video after opening it, and what is wrong with it: kept in a small file, so that a second look
at ten thousand videos takes a second."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av

from hf_video.errors import NotAVideoError, VideoError, check_choice, fault_kind
from hf_video.video.decode.container import OpenVideo
from hf_video.video.decode.sources import media_of, plain_source
from hf_video.video.frames.part import VideoPart
from hf_video.video.reader import VideoReader

if TYPE_CHECKING:
    from hf_video.data.types import VideoSource

LEVELS = ("open", "full")
SHOW_PROGRESS_FROM = 200
CHUNK = 16  # frames that are in memory at once
VERSION = 2  # of what is kept: raise it when an inspection sees more


@dataclass(frozen=True)
class Inspection:
    """One video: `frames`, `fps`, `seconds`, `height` and `width` in pixels, `codec`; zeros where it can't be opened.

    `kind` is None for a good one, else "empty", "damaged", "missing" or "not a video", and `reason` says more. `usable`
    is False where nothing can be read from it.
    """

    frames: int = 0
    fps: float = 0.0
    seconds: float = 0.0
    height: int = 0
    width: int = 0
    codec: str = ""
    kind: str | None = None
    reason: str = ""
    usable: bool = True


def inspect_video(source: VideoSource, *, level: str = "open") -> Inspection:
    """Opens one video, finds its frames and decodes the first; with `level="full"` all of them, by a decoder that
    reports what it would otherwise conceal. Never raises for a source that is broken, whatever the way.

    Damage within a picture that still decodes (smeared frames) can't be told from a picture.
    """
    facts: dict[str, Any] = {}
    try:
        with VideoReader(source) as reader:
            about = reader.metadata
            facts = {
                "frames": about.num_frames, "fps": about.fps, "seconds": about.duration,
                "height": about.height, "width": about.width, "codec": about.codec,
            }  # fmt: skip
            reader.get_frames([0])
            encoded = reader.backend != "none"
        wrong = _cut_off(source, facts) if encoded else ""
        if not wrong and encoded and level == "full":
            wrong = _undecodable(source)
    except NotAVideoError as error:
        return Inspection(kind=fault_kind(error), reason=str(error), usable=False)
    except (VideoError, av.FFmpegError, OSError) as error:
        # Frames that can be read may be many: the file is used, and the sampler decides whether it meets bad ones.
        return Inspection(**facts, kind=fault_kind(error), reason=str(error), usable=bool(facts))
    return Inspection(**facts, kind="damaged" if wrong else None, reason=wrong)


def _cut_off(source: VideoSource, facts: dict[str, Any]) -> str:
    """See `stated_more`. Only for paths."""
    if not isinstance(source, str) or not os.path.isfile(source):
        return ""
    with (
        contextlib.suppress(av.FFmpegError, OSError, ValueError, IndexError),
        av.open(f"file:{os.path.abspath(source)}", metadata_errors="replace") as file,
    ):
        return stated_more(file, file.streams.video[0], facts, os.path.getsize(source))
    return ""


def stated_more(file: av.container.InputContainer, stream: av.VideoStream, facts: dict[str, Any], size: int) -> str:
    """What the header of an open container promises and its file of `size` bytes does not hold: a download that
    stopped. `facts` are the `frames` and `seconds` that are there."""
    if file.format.name.startswith("matroska"):
        stated = _clock_seconds(stream.metadata.get("DURATION", ""))
        if facts["seconds"] < 0.95 * stated - 0.2:
            return f"cut off: {facts['seconds']:.1f} of {stated:.1f} s are in the file"
        return ""
    count = stream.frames if file.format.name == "avi" else 0
    lost = max(0, count - facts["frames"])
    if file.format.name.startswith("mov"):
        entries = stream.index_entries
        count = len(entries)
        lost = sum(entry.pos + entry.size > size for entry in entries)
    if lost > 1:  # some writers count one more than they write
        return f"cut off: the last {lost} of {count} frames are not in the file"
    return ""


def _clock_seconds(text: str) -> float:
    """ "00:01:02.5" in seconds, 0 where it is no such time."""
    try:
        hours, minutes, seconds = text.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return 0.0


def _undecodable(source: VideoSource) -> str:
    """Decodes everything; what went wrong, or an empty text."""
    if isinstance(source, VideoPart):
        with VideoReader(source) as reader:  # raises what it meets
            for _ in reader.chunks(CHUNK):
                pass
        return ""
    media = media_of(plain_source(source))
    video = OpenVideo(media)
    try:
        return decode_strictly(video)
    finally:
        video.close()


def decode_strictly(video: OpenVideo, on_frame: Callable[[Any], None] = lambda frame: None) -> str:
    """Decodes everything from where an opened video stands; what went wrong, or an empty text."""
    packets = bad = corrupt = 0
    for packet in video.packets():
        packets += 1
        try:
            for frame in packet.decode():
                corrupt += bool(frame.is_corrupt)
                on_frame(frame)
        except av.FFmpegError:
            bad += 1
    return f"{max(bad, corrupt)} of {packets - 1} frames don't decode cleanly" if bad or corrupt else ""


class InspectionCache:
    """Inspections of files on disk, by path, size and time of change: lines of JSON that are only ever appended.

    One file for each root, in `folder` (default: `hf_video/inspected` in XDG_CACHE_HOME or ~/.cache). A cache that
    can't be read or written is done without.
    """

    def __init__(self, root: str, folder: str | os.PathLike[str] | None = None):
        if folder is None:
            base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
            folder = os.path.join(base, "hf_video", "inspected")
        digest = hashlib.blake2b(os.path.abspath(root).encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()
        self.path = Path(folder) / f"{digest}.jsonl"
        self._known = dict(self._read())

    @staticmethod
    def key(source: VideoSource, level: str) -> str | None:
        """None for what has no place on disk."""
        path, inner = (source, "") if isinstance(source, str) else (getattr(source, "path", None), repr(source))
        try:
            status = os.stat(path)
        except (OSError, TypeError, ValueError):
            return None
        return f"{VERSION}:{level}:{os.path.abspath(path)}:{inner}:{status.st_size}:{status.st_mtime_ns}"

    def get(self, key: str | None) -> Inspection | None:
        return None if key is None else self._known.get(key)

    def add(self, found: Iterable[tuple[str | None, Inspection]]) -> None:
        lines = [json.dumps({"key": key, **asdict(one)}) + "\n" for key, one in found if key is not None]
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write("".join(lines))

    def _read(self) -> Iterable[tuple[str, Inspection]]:
        names = {field.name for field in fields(Inspection)}
        try:
            lines = self.path.read_text("utf-8", "replace").split("\n")
        except OSError:
            return
        for line in lines:
            with contextlib.suppress(ValueError, TypeError, KeyError):
                entry = json.loads(line)
                yield entry.pop("key"), Inspection(**{name: entry[name] for name in names})


def inspect_all(
    sources: Sequence[Any],
    *,
    level: str = "open",
    root: str = "",
    cache_dir: str | os.PathLike[str] | None = None,
    description: str = "opening videos",
    look: Callable[[int], Inspection] | None = None,
) -> list[Inspection]:
    """`inspect_video` of each, on all cores, from the cache where the file has not changed since. `look` does it in
    place of `inspect_video`, for the source of a number. Raises VideoOptionError for an unknown level."""
    check_choice("inspect", level, (*LEVELS, None))
    cache = InspectionCache(root, cache_dir)
    keys = [cache.key(source, level) for source in sources]
    found = [cache.get(key) for key in keys]
    left = [number for number, one in enumerate(found) if one is None]
    wholes = _Wholes()
    look = look or (lambda i: wholes.inspect(sources[i], level))
    for number, one in zip(left, in_threads(look, left, description), strict=True):
        found[number] = one
    cache.add((keys[number], found[number]) for number in left)
    return found


class _Wholes:
    """Inspections of parts: each file is opened once, however many parts of it are named."""

    def __init__(self):
        self._found: dict[str, Inspection] = {}
        self._locks: dict[str, threading.Lock] = {}

    def inspect(self, source: VideoSource, level: str) -> Inspection:
        if not isinstance(source, VideoPart) or not isinstance(source.source, str) or level == "full":
            return inspect_video(source, level=level)
        with self._locks.setdefault(source.source, threading.Lock()):
            if source.source not in self._found:
                self._found[source.source] = inspect_video(source.source, level=level)
        whole = self._found[source.source]
        rate = 1.0 if source.unit == "seconds" else whole.fps
        seconds = 0.0
        if rate:
            end = whole.seconds if source.end is None else min(source.end / rate, whole.seconds)
            seconds = end - source.start / rate
        if not whole.usable:
            return whole
        if seconds <= 0:
            return inspect_video(source, level=level)  # says what is wrong
        return replace(whole, seconds=seconds, frames=max(round(seconds * whole.fps), 1))


def in_threads(function: Callable[[Any], Any], items: Sequence[Any], description: str) -> list[Any]:
    """`function` of each item, in order; FFmpeg works without Python's lock. Shows a bar where it takes a while."""
    if not items:
        return []
    # One more than there are cores: further threads would only wait for each other's Python.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(cores + 1) as pool:
        results = pool.map(function, items)
        if len(items) >= SHOW_PROGRESS_FROM:
            from tqdm.auto import tqdm

            results = tqdm(results, total=len(items), desc=description, unit="video", disable=None)
        return list(results)
