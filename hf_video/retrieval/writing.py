"""Writes to an index: videos are held until they make a segment, files are removed in the same step that brings their
new version, and in the end small segments are joined."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from hf_video.base.written_files import file_crc32, writing_into
from hf_video.data.sources.files import canonical_path
from hf_video.errors import VideoIndexError
from hf_video.retrieval import approximate
from hf_video.retrieval.store import IndexedVideo, IndexSegment, IndexStore, Manifest

FLUSH_SECONDS, FLUSH_BYTES = 10.0, 64 * 2**20  # work that a kill may cost, and memory that vectors may take
SMALL, MANY = 65536, 8  # segments of fewer moments are joined where there are more than so many
LARGE = 262144  # moments of a joined segment
DEAD = 0.25  # share of dead moments from which a segment is written anew
LATE = 0.1  # share of moments that the FAISS index does not know from which it is built anew


class IndexWriter:
    """Changes an index under its lock. `finish()` ends the work; without it what was flushed counts all the same."""

    def __init__(self, store: IndexStore, manifest: Manifest, segments: Sequence[IndexSegment]):
        self._store, self._manifest = store, manifest
        self._place = {  # by the file, however its path is spelled
            canonical_path(record.path): (segment.name, number)
            for segment in segments
            for number, record in enumerate(segment.files)
            if number not in segment.removed
        }
        self._held: dict[str, IndexedVideo] = {}
        self._held_bytes = 0
        self._removed: list[tuple[str, int]] = []
        self._since = time.monotonic()

    def replace(self, entry: IndexedVideo) -> None:
        """Replaces the moments of a file."""
        if entry.record.moments:
            width = entry.vectors.shape[1]
            if self._manifest.dim not in (None, width):
                raise VideoIndexError(f"Vectors of {width} numbers came; this index has {self._manifest.dim}.")
            self._manifest = replace(self._manifest, dim=width)
        self.remove(entry.record.path)
        self._held[canonical_path(entry.record.path)] = entry
        self._held_bytes += entry.vectors.nbytes
        if time.monotonic() - self._since > FLUSH_SECONDS or self._held_bytes >= FLUSH_BYTES:
            self.flush()

    def remove(self, path: str) -> None:
        """Removes a file."""
        about = canonical_path(path)
        if about in self._place:
            self._removed.append(self._place.pop(about))
        if about in self._held:
            self._held_bytes -= self._held.pop(about).vectors.nbytes

    def flush(self) -> None:
        """Makes what is held count."""
        manifest = self._manifest
        removed = {name: list(numbers) for name, numbers in manifest.removed.items()}
        for name, number in self._removed:
            removed.setdefault(name, []).append(number)
        segments, checksums = list(manifest.segments), dict(manifest.checksums)
        if self._held:
            name = self._store.next_name(manifest)
            checksums[name] = self._write(name, list(self._held.values()))
            segments.append(name)
            self._place |= {about: (name, number) for number, about in enumerate(self._held)}
        self._commit(replace(manifest, segments=segments, removed=removed, checksums=checksums))
        self._held, self._held_bytes, self._removed, self._since = {}, 0, [], time.monotonic()

    def finish(self) -> None:
        """Flushes, joins segments, builds the FAISS index where it is time, and deletes what no longer counts."""
        self.flush()
        self._compact()
        self._approximate()
        self._store.clear(self._manifest)

    def _write(self, name: str, entries: Sequence[IndexedVideo]) -> dict[str, int]:
        # A file without moments says nothing of the width.
        width = self._manifest.dim or 0
        wide = [
            e if e.record.moments else IndexedVideo(e.record, e.vectors.reshape(0, width), e.seconds) for e in entries
        ]
        return self._store.write_segment(name, wide, width)

    def _commit(self, manifest: Manifest) -> None:
        self._store.commit(manifest)
        self._manifest = manifest

    def _segments(self) -> list[IndexSegment]:
        manifest = self._manifest
        return [self._store.read_segment(name, manifest) for name in manifest.segments]

    def _compact(self) -> None:
        """Small segments become one, and those of which much is dead are written without it."""
        small, worn = [], []
        for segment in self._segments():
            dead = len(segment.removed) > DEAD * len(segment.files) or segment.live.sum() < (1 - DEAD) * len(
                segment.live
            )
            (worn if dead else small if len(segment.live) < SMALL else []).append(segment)
        joined = [*worn, *(small if len(small) > MANY or worn else [])]
        if not joined:
            return
        manifest, names = self._manifest, {segment.name for segment in joined}
        entries = sorted((e for segment in joined for e in segment.entries()), key=lambda entry: entry.record.path)
        kept = [name for name in manifest.segments if name not in names]
        checksums = dict(manifest.checksums)
        for number, part in enumerate(_parts(entries), start=int(self._store.next_name(manifest))):
            name = f"{number:06d}"
            checksums[name] = self._write(name, part)
            kept.append(name)
        removed = {name: numbers for name, numbers in manifest.removed.items() if name not in names}
        self._commit(replace(manifest, segments=kept, removed=removed, checksums=checksums))

    def _approximate(self) -> None:
        segments, facts = self._segments(), self._manifest.approximate
        total = sum(int(segment.live.sum()) for segment in segments)
        covered = {name for name, _ in facts["segments"]} if facts else set()
        known = sum(int(segment.live.sum()) for segment in segments if segment.name in covered)
        if total < approximate.THRESHOLD or approximate.faiss_module() is None:
            if facts and total < approximate.THRESHOLD:
                self._commit(replace(self._manifest, approximate=None))
        elif total - known > LATE * total or sum(size for _, size in facts["segments"]) > (1 + DEAD) * total:
            path = self._store.folder / f"approximate-{self._store.next_name(self._manifest)}-{total}.faiss"
            with writing_into(self._store.folder, VideoIndexError):
                facts = approximate.build_faiss_index(segments, path)
                facts["crc32"] = file_crc32(path)
            self._commit(replace(self._manifest, approximate=facts))


def _parts(entries: Sequence[IndexedVideo]) -> Iterator[list[IndexedVideo]]:
    """In this order, each with LARGE moments at most, or one file."""
    part: list[IndexedVideo] = []
    moments = 0
    for entry in entries:
        if part and moments + len(entry.vectors) > LARGE:
            yield part
            part, moments = [], 0
        part.append(entry)
        moments += len(entry.vectors)
    if part:
        yield part
