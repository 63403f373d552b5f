"""Tar shards in the WebDataset layout: the files of one sample stand together and share a name up to the first dot.

    000000.tar:  clip1.mp4  clip1.cls  clip2.webm  clip2.json ...

The label is the text of `.cls` or `.txt`, the entry `label_column` of `.json`, or else the folder that a member stands
in. A local tar that is not compressed is read in place, member by member, in any order.
"""

from __future__ import annotations

import glob
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hf_video.data.rows import ListedVideo, Skipped, SourceListing
from hf_video.data.sources.files import is_video, split_name
from hf_video.data.sources.labels import read_label
from hf_video.errors import DataError
from hf_video.video.frames.addresses import local_path, natural_key

if TYPE_CHECKING:
    from hf_video.data.types import StrPath

TAR_ENDINGS = (".tar", ".tar.gz", ".tgz")
LABEL_ENDINGS = (".cls", ".txt", ".json")
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(frozen=True, slots=True)
class TarMember:
    """A video within a tar: read from there when it is needed. `VideoReader` takes it as it takes a file."""

    path: str
    name: str
    offset: int
    size: int

    def read(self) -> bytes:
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass
class ShardSample:
    """The members of one key: a video (`name` within the tar) and what is said of it."""

    key: str
    video: TarMember | bytes | None = None
    name: str = ""
    label: str | tuple[str, ...] | None = None


def shard_paths(source: StrPath | Sequence[StrPath]) -> list[str]:
    """Shards for a path, a glob, a brace range (`{000..012}.tar`), a folder or a list of these. URLs stay as they are.

    Raises DataError where there are none.
    """
    given = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    found = [path for one in given for path in _expand(local_path(one))]
    if not found:
        raise DataError(f"{source} names no tar shard; give a .tar, a folder of them, or a range such as {{0..9}}.tar.")
    return found


def _expand(text: str) -> list[str]:
    braces = _BRACES.search(text)
    if braces:
        first, last = braces.groups()
        numbers = range(int(first), int(last) + 1)
        return [p for n in numbers for p in _expand(text.replace(braces[0], str(n).zfill(len(first)), 1))]
    if "://" in text:
        return [text]
    if os.path.isdir(text):
        names = (os.path.join(folder, file) for folder, _, files in os.walk(text) for file in files)
        return sorted((name for name in names if name.lower().endswith(TAR_ENDINGS)), key=natural_key)
    if any(mark in text for mark in "*?["):
        return sorted(glob.glob(text), key=natural_key)
    if not os.path.exists(text):
        raise DataError(f"The shard {text!r} does not exist (looked in {os.getcwd()}); check the path.")
    return [text]


def list_shards(source: StrPath | Sequence[StrPath], *, label_column: str = "label") -> SourceListing:
    """The videos of local shards, without reading them. The split is in the shard's name or folder, where it is.

    Raises DataError for URLs and compressed tars, which can only be read as a stream, and for damaged ones.
    """
    paths = shard_paths(source)
    local = [os.path.dirname(os.path.abspath(path)) for path in paths if "://" not in path]
    root = os.path.commonpath(local) if local else ""
    listing = SourceListing(root, numbers=True)
    for path in paths:
        if "://" in path or not path.lower().endswith(".tar"):
            raise DataError(f"{path} can only be read from end to end: use hf_video.data.VideoStream, or unpack it.")
        _list_shard(listing, path, label_column)
    if not listing.videos:
        raise DataError(f"{source} holds no video.")
    folders = [folder_of(video.source.name) for video in listing.videos]
    # Shards that were packed from label folders; a single folder says nothing.
    if all(video.label is None for video in listing.videos) and None not in folders and len(set(folders)) > 1:
        for video, folder in zip(listing.videos, folders, strict=True):
            video.label = folder
    return listing


def folder_of(member: str) -> str | None:
    """The name of the folder that a member of a tar stands in, None at the top."""
    return member.rpartition("/")[0].rpartition("/")[2] or None


def _list_shard(listing: SourceListing, path: str, label_column: str) -> None:
    shard = os.path.relpath(path, listing.root)
    split = next(filter(None, map(split_name, re.split(r"[/\\._-]", shard))), None)
    try:
        with tarfile.open(path) as tar:
            for sample in shard_samples(
                tar, label_column, lambda one: TarMember(path, one.name, one.offset_data, one.size)
            ):
                name = f"{shard}/{sample.name or sample.key}"
                if sample.video is None:
                    listing.skipped.append(Skipped(name, "no video among the files of this key", "format"))
                else:
                    listing.videos.append(ListedVideo(sample.video, name, sample.label, split))
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{path} can't be read as a tar: {error}. Was it copied completely?") from None


def shard_samples(
    tar: tarfile.TarFile, label_column: str, video_of: Callable[[tarfile.TarInfo], TarMember | bytes]
) -> Iterator[ShardSample]:
    """The samples of an open tar, in their order: files next to each other with one key make one."""
    current: ShardSample | None = None
    for member in tar:
        folder, _, file = member.name.rpartition("/")
        if not member.isfile() or file.startswith("."):
            continue
        key = f"{folder}/{file.split('.', 1)[0]}"
        if current is None or current.key != key:
            if current is not None:
                yield current
            current = ShardSample(key)
        if is_video(file):
            current.video, current.name = video_of(member), member.name
        elif file.lower().endswith(LABEL_ENDINGS):
            current.label = _label(file, tar.extractfile(member).read(), label_column)
    if current is not None:
        yield current


def _label(file: str, data: bytes, column: str) -> str | tuple[str, ...] | None:
    text = data.decode("utf-8", "replace").strip()
    if not file.lower().endswith(".json"):
        return read_label(text, file)
    try:
        value = json.loads(text)
    except ValueError:
        return None
    value = value.get(column) if isinstance(value, dict) else value
    return None if isinstance(value, dict) else read_label(value, file)
