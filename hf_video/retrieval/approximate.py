"""Approximate nearest-neighbour search: FAISS finds candidates, which are scored by the stored vectors.

Inverted lists (IVF) of codes of 4 bits for two or more dimensions (PQ, scanned by SIMD: André et al. 2015, VLDB,
"Cache locality is not enough"). A code is a sixteenth of a vector, so that even all lists together are scanned in
milliseconds, and candidates are scored by their full vectors, read from the memory map. How many lists must be looked
into depends on the data (few where it is clustered, nearly all for vectors of no structure) and is measured when the
index is built, against exact search.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_video.base.written_files import verify_checksum
from hf_video.errors import VideoIndexError
from hf_video.retrieval.store import IndexSegment

if TYPE_CHECKING:
    from faiss import IndexIVFPQFastScan, IndexPreTransform

THRESHOLD = 200_000  # moments; exact search takes some tens of milliseconds there
RECALL, TOP = 0.98, 10  # to reach on sample queries, of the exact best TOP
SAMPLES = 96  # sample queries
CANDIDATES = 500  # scored by their full vectors, at least
MOST_CODES = 384  # codes of a vector: longer ones have more dimensions to a code
SLACK = 16  # more than asked for, as products of matrices round
_BLOCK = 65536


def faiss_module() -> ModuleType | None:
    """FAISS, or None where it is not installed: search is exact then."""
    try:
        import faiss
    except ImportError:
        return None
    return faiss


def build_faiss_index(segments: Sequence[IndexSegment], path: Path, *, seed: int = 0) -> dict[str, Any]:
    """Writes a FAISS index of all rows of `segments` and returns what a manifest says of it."""
    faiss = faiss_module()
    sizes = [len(segment.vectors) for segment in segments]
    total, dim = sum(sizes), segments[0].vectors.shape[1]
    lists = 2 ** round(np.log2(np.sqrt(total)))
    random = np.random.default_rng(seed)
    sample = gather_vectors(segments, np.sort(random.choice(total, min(total, 64 * lists), replace=False)))
    width = -(-dim // 64) * 64  # after rotation
    codes = width // next(n for n in (2, 4, 8, 16, 32, 64) if width // n <= MOST_CODES or n == 64)
    rotation = faiss.RandomRotationMatrix(dim, width)  # spreads the variance over all codes, and fills up to `width`
    rotation.init(seed)
    inner = faiss.IndexIVFPQFastScan(faiss.IndexFlatIP(width), width, lists, codes, 4, faiss.METRIC_INNER_PRODUCT)
    index = faiss.IndexPreTransform(rotation, inner)
    index.train(sample)
    for segment in segments:
        for first in range(0, len(segment.vectors), _BLOCK):
            index.add(np.ascontiguousarray(segment.vectors[first : first + _BLOCK]))
    probes, recall = _tune(index, inner, segments, sample, random)
    inner.nprobe = probes
    faiss.write_index(index, str(path))
    covered = [[segment.name, size] for segment, size in zip(segments, sizes, strict=True)]
    return {"file": path.name, "segments": covered, "lists": lists, "probes": probes, "recall": round(recall, 4)}


def _tune(
    index: IndexPreTransform,
    inner: IndexIVFPQFastScan,
    segments: Sequence[IndexSegment],
    sample: np.ndarray,
    random: np.random.Generator,
) -> tuple[int, float]:
    """Finds the fewest lists with which both kinds of sample queries reach RECALL: vectors of the index with as much
    noise, and random directions of the same spread, which belong to no cluster (as sentences may, among videos)."""
    count = SAMPLES // 2
    near = sample[random.choice(len(sample), count, replace=len(sample) < count)]
    near = near + random.standard_normal(near.shape).astype(np.float32) * np.linalg.norm(near) / near.size**0.5
    mixed = random.standard_normal((count, len(sample))).astype(np.float32) @ (sample - sample.mean(0))
    queries = np.concatenate([near, mixed / np.linalg.norm(mixed, axis=1, keepdims=True)]).astype(np.float32)
    truth, _ = exact_search(segments, queries, TOP, live=False)
    lists = inner.nlist
    probes, recall = lists, 0.0
    for probes in sorted({*(2**i for i in range(3, int(np.log2(lists)))), lists * 3 // 4, lists}):
        inner.nprobe = probes
        found = _rescored(segments, queries, index.search(queries, CANDIDATES)[1])
        hits = [len(set(a[:TOP]) & set(b)) / len(b) for a, b in zip(found, truth, strict=True)]
        recall = float(min(np.mean(hits[:count]), np.mean(hits[count:])))
        if recall >= RECALL:
            break
    return probes, recall


def _rescored(segments: Sequence[IndexSegment], queries: np.ndarray, rows: np.ndarray) -> list[np.ndarray]:
    """Candidates of each query, the best first."""
    found = []
    for query, mine in zip(queries, rows, strict=True):
        mine = mine[mine >= 0]
        found.append(mine[np.argsort(-(gather_vectors(segments, mine) @ query))])
    return found


class FaissIndex:
    """The FAISS index of a folder, and which moments its numbers mean."""

    def __init__(self, folder: str | os.PathLike[str], facts: dict[str, Any], segments: Sequence[IndexSegment]):
        faiss = faiss_module()
        self._index = faiss.read_index(str(Path(folder) / facts["file"]))
        here = {segment.name: number for number, segment in enumerate(segments)}
        firsts = np.concatenate([[0], np.cumsum([len(segment.live) for segment in segments])]).astype(np.int64)
        # From its numbers to rows of all segments together; -1 for what is in no segment any more.
        self._row = np.concatenate(
            [
                np.arange(size) + firsts[here[name]] if name in here else np.full(size, -1)
                for name, size in facts["segments"]
            ]
        )
        self.covered = {name for name, _ in facts["segments"]}

    def candidates(self, queries: np.ndarray, count: int) -> np.ndarray:
        """Rows that may be among the best of any query (Q, D), each once."""
        _, found = self._index.search(np.ascontiguousarray(queries, np.float32), count)
        rows = self._row[np.unique(found[found >= 0])]
        return rows[rows >= 0]

    def best_rows(
        self, segments: Sequence[IndexSegment], queries: np.ndarray, count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `exact_rows`, nearly: candidates of the FAISS index, and exact search in what came after it, by their full
        vectors."""
        rows = self.candidates(queries, max(CANDIDATES, 4 * count))
        rows = rows[np.concatenate([segment.live for segment in segments])[rows]]
        first = 0
        for segment in segments:
            if segment.name not in self.covered:
                more, _ = exact_rows([segment], queries, count)
                rows = np.concatenate([rows, more + first])
            first += len(segment.live)
        return best_of(segments, rows, queries, count)


def open_approximate(folder: Path, facts: dict[str, Any] | None, segments: Sequence[IndexSegment]) -> FaissIndex | None:
    """The FAISS index that a manifest's `facts` are of; None without one, or without FAISS. Raises VideoIndexError
    where it is damaged."""
    if facts is None or faiss_module() is None:
        return None
    try:
        if "crc32" in facts:
            verify_checksum(folder / facts["file"], facts["crc32"])
        return FaissIndex(folder, facts, segments)
    except (RuntimeError, OSError, ValueError) as error:
        raise VideoIndexError(f"{facts['file']} in {folder} can't be read ({error}): the index is damaged.") from error


def exact_rows(segments: Sequence[IndexSegment], queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows (at most `count`) nearest to any of the queries (Q, D), and their best products, the best first."""
    rows, scores = exact_search(segments, queries, count + SLACK)
    return best_of(segments, np.unique(rows[np.isfinite(scores)]), queries, count)


def best_of(
    segments: Sequence[IndexSegment], rows: np.ndarray, queries: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The best `count` of some rows and their products with the nearest of the queries, the best first. Summed row by
    row in float64: a product of matrices rounds otherwise where an index is cut into other segments."""
    vectors = gather_vectors(segments, rows).astype(np.float64)
    scores = np.stack([(vectors * query.astype(np.float64)).sum(1) for query in queries]).max(0)
    keep = np.argsort(-scores, kind="stable")[:count]
    return rows[keep], scores[keep]


def exact_search(
    segments: Sequence[IndexSegment], queries: np.ndarray, count: int, *, live: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Rows (Q, count) of all segments together with the largest products, and these, the best first. With `live` those
    of removed files don't count."""
    found: list[tuple[np.ndarray, np.ndarray]] = []
    base = 0
    for segment in segments:
        for first in range(0, len(segment.vectors), _BLOCK):
            block = slice(first, first + _BLOCK)
            scores = queries @ segment.vectors[block].T
            if live and not (alive := segment.live[block]).all():
                scores[:, ~alive] = -np.inf
            picks, scores = _largest(scores, count)
            found.append((picks + base + first, scores))
        base += len(segment.vectors)
    if not found:
        return np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0), np.float32)
    rows, scores = (np.concatenate(part, axis=1) for part in zip(*found, strict=True))
    picks, scores = _largest(scores, count)
    order = np.argsort(-scores, axis=1, kind="stable")
    rows = np.take_along_axis(np.take_along_axis(rows, picks, 1), order, 1)
    return rows, np.take_along_axis(scores, order, 1)


def _largest(scores: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns (Q, count) of the largest scores of each row, in no order, and these."""
    if scores.shape[1] <= count:
        return np.broadcast_to(np.arange(scores.shape[1]), scores.shape), scores
    picks = np.argpartition(scores, -count, axis=1)[:, -count:]
    return picks, np.take_along_axis(scores, picks, 1)


def gather_vectors(segments: Sequence[IndexSegment], rows: np.ndarray) -> np.ndarray:
    """Vectors (N, D) of rows of all segments together."""
    firsts = np.concatenate([[0], np.cumsum([len(segment.vectors) for segment in segments])])
    found = np.zeros((len(rows), segments[0].vectors.shape[1]), np.float32)
    part = np.searchsorted(firsts, rows, side="right") - 1
    for number in np.unique(part):
        mine = part == number
        found[mine] = segments[number].vectors[rows[mine] - firsts[number]]
    return found
