"""What an update of an index has to do: which files are new, changed, gone, or known under another name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from hf_video.data.rows import Skipped
from hf_video.data.sources.files import canonical_path, videos_below
from hf_video.errors import DataError, near_path
from hf_video.retrieval.file_embedding import file_record
from hf_video.retrieval.store import FileRecord, IndexedVideo
from hf_video.retrieval.writing import IndexWriter


@dataclass
class IndexReport:
    """What an update did: `videos` now in the folder, `moments` in the whole index, files `embedded`, `copied` (known
    by their content under another name or date), `unchanged`, `removed`, and what could not be read, now or before;
    `left_out` are files of the folder that are no videos, or other names of one."""

    videos: int = 0
    moments: int = 0
    embedded: int = 0
    copied: int = 0
    unchanged: int = 0
    removed: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    left_out: list[Skipped] = field(default_factory=list)


class UpdatePlan:
    """From the files `known` to an index to those that are below `root` now."""

    def __init__(self, root: str, paths: Sequence[str], known: Sequence[IndexedVideo]):
        self._root, self._paths = os.path.realpath(root), paths
        self._known = {canonical_path(entry.record.path): entry for entry in known}  # however they are spelled
        self._by_size: dict[int, list[IndexedVideo]] = {}
        for entry in known:
            self._by_size.setdefault(entry.record.size, []).append(entry)

    def apply(
        self,
        writer: IndexWriter,
        embed: Callable[[list[str]], Iterable[IndexedVideo | Skipped]],
        on_progress: Callable[[int, int], None] | None = None,
    ) -> IndexReport:
        """Strikes out what is gone, copies what is known by its bytes, embeds the rest."""
        report = IndexReport(videos=len(self._paths))
        todo = [path for path in self._paths if not self._is_known(path, writer, report)]
        here = set(map(canonical_path, self._paths))
        for key, entry in self._known.items():
            if key not in here and _below(entry.record.path, self._root):
                writer.remove(entry.record.path)
                report.removed += 1
        done = len(self._paths) - len(todo)
        for number, entry in enumerate(embed(todo), start=1):
            if isinstance(entry, Skipped):
                report.skipped.append(entry)
            else:
                report.embedded += 1
                writer.replace(entry)
                _note(report, entry.record)
            if on_progress is not None:
                on_progress(done + number, len(self._paths))
        return report

    def _is_known(self, path: str, writer: IndexWriter, report: IndexReport) -> bool:
        found = self._known.get(canonical_path(path))
        if found is not None and found.record.stat == _stat(path):
            report.unchanged += 1
        elif (found := _same_content(path, self._by_size)) is not None:
            report.copied += 1
            writer.replace(found)
        else:
            return False
        _note(report, found.record)
        return True


def find_videos(root: str) -> tuple[list[str], list[Skipped]]:
    """All videos below a folder, and what of it is left out. Raises DataError where there are none."""
    if not os.path.isdir(root):
        raise DataError(f"There is no folder {root}.{near_path(root)} Give the folder that holds the videos.")
    names, others = videos_below(root)
    if not names:
        raise DataError(f"There are no videos in {root} (by their endings, such as .mp4). Nothing was changed.")
    return [os.path.join(root, name) for name in names], others


def _below(path: str, root: str) -> bool:
    """Whether a path is in the real folder `root`. Of a link that is gone only its folder can be asked."""
    folder = os.path.realpath(os.path.dirname(path))
    return os.path.isabs(path) and os.path.commonpath([folder, root]) == root


def _stat(path: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _same_content(path: str, by_size: dict[int, list[IndexedVideo]]) -> IndexedVideo | None:
    """What is known of a file with these very bytes, as of this file."""
    stat = _stat(path)
    if stat is None or stat[0] not in by_size:
        return None
    try:
        now = file_record(path)
    except OSError:
        return None
    for entry in by_size[stat[0]]:
        if entry.record.digest == now.digest:
            about = {name: getattr(entry.record, name) for name in ("moments", "kind", "reason")}
            return IndexedVideo(replace(now, **about), entry.vectors, entry.seconds)
    return None


def _note(report: IndexReport, record: FileRecord) -> None:
    if record.kind:
        report.skipped.append(Skipped(record.path, record.reason, record.kind))
