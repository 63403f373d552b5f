"""Compares an index with a folder: which files are new, changed, gone, or known under another name."""

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
    """The result of an update: `videos` now in the folder, `moments` in the whole index, files `embedded`, `copied`
    (known by their content under another name or date), `unchanged`, `removed`, and `skipped` (not readable, now or
    before); `snap` is "keyframe" where moments show keyframes only; `left_out` are files of the folder that are not
    videos, or other names of one."""

    videos: int = 0
    moments: int = 0
    embedded: int = 0
    copied: int = 0
    unchanged: int = 0
    removed: int = 0
    snap: str | None = None
    skipped: list[Skipped] = field(default_factory=list)
    left_out: list[Skipped] = field(default_factory=list)


class UpdatePlan:
    """The steps from the files `known` to an index to those that are below `root` now."""

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
        """Removes what is gone, copies what is known by its bytes, embeds the rest."""
        report = IndexReport(videos=len(self._paths))
        todo = [path for path in self._paths if not self._is_known(path, writer, report)]
        here = set(map(canonical_path, self._paths))
        for key, entry in self._known.items():
            path = entry.record.path
            folder = os.path.realpath(os.path.dirname(path))  # of a link that is gone only its folder can be asked
            below = os.path.isabs(path) and os.path.commonpath([folder, self._root]) == self._root
            if key not in here and below:
                writer.remove(path)
                report.removed += 1
        done = len(self._paths) - len(todo)
        for number, entry in enumerate(embed(todo), start=1):
            if isinstance(entry, Skipped):
                report.skipped.append(entry)
            else:
                report.embedded += 1
                writer.replace(entry)
                _add_skipped(report, entry.record)
            if on_progress is not None:
                on_progress(done + number, len(self._paths))
        return report

    def _is_known(self, path: str, writer: IndexWriter, report: IndexReport) -> bool:
        """Keeps a file that is unchanged, or copies what is known of one with these bytes; False for any other."""
        found = self._known.get(canonical_path(path))
        try:
            status = os.stat(path)
            if found is not None and found.record.stat == (status.st_size, status.st_mtime_ns, status.st_ctime_ns):
                report.unchanged += 1
                _add_skipped(report, found.record)
                return True
            same_size = self._by_size.get(status.st_size, [])
            now = file_record(path) if same_size else None
        except OSError:
            return False
        found = next((one for one in same_size if one.record.digest == now.digest), None)
        if found is None or now is None:
            return False
        known = found.record
        record = replace(now, moments=known.moments, kind=known.kind, reason=known.reason)
        writer.replace(replace(found, record=record))
        report.copied += 1
        _add_skipped(report, record)
        return True


def find_videos(root: str) -> tuple[list[str], list[Skipped]]:
    """Lists all videos below a folder, and what of it is left out. Raises DataError where there are none."""
    if not os.path.isdir(root):
        raise DataError(f"There is no folder {root}.{near_path(root)} Give the folder that holds the videos.")
    names, others = videos_below(root)
    if not names:
        raise DataError(f"There are no videos in {root} (by their endings, such as .mp4). Nothing was changed.")
    return [os.path.join(root, name) for name in names], others


def _add_skipped(report: IndexReport, record: FileRecord) -> None:
    if record.kind:
        report.skipped.append(Skipped(record.path, record.reason, record.kind))
