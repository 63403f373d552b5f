"""FAISS beyond a size: recall and time against exact search, removed files, and what came after it was built."""

from __future__ import annotations

import time

import numpy as np
import pytest

from hf_video.errors import VideoIndexError
from hf_video.retrieval import VideoIndex, approximate

pytest.importorskip("pyarrow")
pytest.importorskip("faiss")


def vectors(count: int, dim: int, *, seed: int, clusters: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    found = random.standard_normal((count, dim), dtype=np.float32)
    if clusters:
        centres = np.random.default_rng(0).standard_normal((clusters, dim), dtype=np.float32)
        found = centres[random.integers(0, clusters, count)] + 0.7 * found
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def files(count: int, dim: int, *, each: int = 1000, clusters: int = 0):
    seconds = np.stack([np.arange(each), np.arange(each) + 2.0], 1)
    return ((f"/{i}.mp4", vectors(each, dim, seed=i, clusters=clusters), seconds) for i in range(count))


def recall(index: VideoIndex, queries: np.ndarray) -> float:
    rows, _ = approximate.exact_search(index._segments, queries, 10)
    truth = [{(m.path, m.start) for m in index._moments(dict.fromkeys(r.tolist(), 0.0))} for r in rows]
    found = [{(m.path, m.start) for m in index.search(vector=query)} for query in queries]
    return float(np.mean([len(a & b) / 10 for a, b in zip(truth, found, strict=True)]))


@pytest.fixture(scope="module", params=[0, 50], ids=["no structure", "clustered"])
def large(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(approximate, "THRESHOLD", 5000)
        index = VideoIndex.create(tmp_path_factory.mktemp("index") / "index")
        index.add_many(files(12, 48, clusters=request.param))
        yield index, request.param


def test_recall(large):
    index, clusters = large
    assert index._approximate is not None
    assert index._manifest.approximate["recall"] >= 0.95
    assert recall(index, vectors(40, 48, seed=999, clusters=clusters)) >= 0.95
    assert recall(index, vectors(40, 48, seed=998)) >= 0.95
    found = index.search(vector=vectors(1, 48, seed=999)[0])
    assert [m.score for m in found] == sorted((m.score for m in found), reverse=True)


def test_what_was_added_and_replaced_since(large):
    index, clusters = large
    query = vectors(1000, 48, seed=3, clusters=clusters)[5]
    assert index.search(vector=query, top_k=1)[0].path == "/3.mp4"
    built = index._manifest.approximate["file"]
    index.add("/3.mp4", -query[None], [[0, 1]])
    index.add("/new.mp4", query[None], [[0, 1]])
    assert index._manifest.approximate["file"] == built
    found = VideoIndex.open(index._store.folder).search(vector=query, top_k=3)
    assert found[0].path == "/new.mp4"
    assert "/3.mp4" not in {m.path for m in found}


def test_without_faiss_search_is_exact(large, monkeypatch):
    index, _ = large
    monkeypatch.setattr(approximate, "faiss_module", lambda: None)
    plain = VideoIndex.open(index._store.folder)
    assert plain._approximate is None
    assert recall(plain, vectors(3, 48, seed=999)) == 1


def test_a_damaged_faiss_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(approximate, "THRESHOLD", 1000)
    index = VideoIndex.create(tmp_path / "index")
    index.add_many(files(2, 16))
    (path,) = (tmp_path / "index").glob("approximate-*")
    sound = path.read_bytes()
    places = [0, len(sound) - 1, *np.random.default_rng(0).integers(0, len(sound), 20)]
    flipped = [sound[:i] + bytes([sound[i] ^ (1 << i % 8)]) + sound[i + 1 :] for i in places]
    for damaged in (b"no index", sound[:-7], *flipped):
        path.write_bytes(damaged)
        with pytest.raises(VideoIndexError, match=rf"{path.name}.*damaged"):
            VideoIndex.open(tmp_path / "index")
    path.write_bytes(sound)
    assert len(VideoIndex.open(tmp_path / "index")) == len(index)


@pytest.mark.slow
@pytest.mark.parametrize("clusters", [0, 2000])
def test_a_million_vectors(clusters, tmp_path):
    """2 GB of vectors, with and without structure. Time is that of the processor: others may share it."""
    index = VideoIndex.create(tmp_path / "index")
    index.add_many(files(1000, 512, clusters=clusters))
    queries = vectors(100, 512, seed=10**6, clusters=clusters)
    for query in queries[:5]:
        index.search(vector=query)
    taken = []
    for query in queries:
        start = time.process_time()
        index.search(vector=query)
        taken.append(time.process_time() - start)
    print(f"p95 {np.percentile(taken, 95) * 1e3:.1f} ms of processor time")
    assert recall(index, queries) >= 0.95
    assert np.percentile(taken, 95) <= 0.1  # on two threads: 50 ms
