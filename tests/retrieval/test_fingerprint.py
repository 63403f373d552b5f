"""The moment that a cropped, re-encoded excerpt was taken from is found first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from library import excerpt, textured

from hf_video.retrieval import VideoIndex
from hf_video.video.reader import VideoReader
from hf_video.video.writer import write_video

pytest.importorskip("pyarrow")

REAL = Path(__file__).parents[3] / "shared" / "videos"
WAYS = [(".mp4", "h264", 35, 1), (".mp4", "h265", 32, 1), (".webm", "vp8", 30, 1), (".mp4", "h264", 30, 2)]
WAYS += [(".avi", "mpeg4", None, 1)]


def overlap(moment, start: float, end: float) -> float:
    return max(0.0, min(moment.end, end) - max(moment.start, start))


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("textured")
    clips = {f"{seed}.mp4": textured(6, seed=seed) for seed in range(4)}
    # The same ground with other motion: only time tells them apart.
    clips["same-place.mp4"] = clips["0.mp4"][::-1]
    for name, frames in clips.items():
        write_video(folder / "videos" / name if (folder / "videos").exists() else _made(folder) / name, frames, 24)
    index = VideoIndex.create(folder / "index")
    index.update(folder / "videos", "fingerprint")
    return clips, index


def _made(folder: Path) -> Path:
    (folder / "videos").mkdir()
    return folder / "videos"


@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way[1]}-{way[3]}")
def test_excerpts_of_generated_clips(generated, way, tmp_path):
    clips, index = generated
    suffix, codec, crf, every = way
    for number, (name, frames) in enumerate(clips.items()):
        start = 0.4 + 0.83 * number
        first = round(start * 24)
        path = excerpt(
            tmp_path / f"{number}{suffix}",
            frames[first : first + 48],
            24,
            area=0.7 + 0.05 * number,
            seed=number,
            codec=codec,
            crf=crf,
            every=every,
        )
        best = index.search(video=path, top_k=1)[0]
        assert Path(best.path).name == name
        # Of two moments that share it, the one with more: 3.72 s lies between two that score alike within 0.001, and an
        # encoder with threads doesn't write the same file twice.
        assert overlap(best, start, start + 2) >= 1.2, (name, best)


def test_whole_moments_score_one_and_strangers_little(generated):
    clips, index = generated
    found = index.search(video=clips["1.mp4"][24:72], top_k=20, merge=False)
    assert (Path(found[0].path).name, found[0].seconds) == ("1.mp4", (1.0, 3.0))
    assert found[0].score > 0.97
    assert max(m.score for m in found if Path(m.path).name in ("2.mp4", "3.mp4")) < 0.6


def test_examples_shorter_than_a_moment(generated):
    clips, index = generated
    best = index.search(video=clips["2.mp4"][60:84], top_k=1)[0]
    assert Path(best.path).name == "2.mp4"
    assert overlap(best, 2.5, 3.5) == pytest.approx(1)


def test_a_still_picture_and_a_plain_one_have_vectors(tmp_path):
    still = np.repeat(textured(1, seed=5)[:1], 48, axis=0)
    for name, frames in (("still.mp4", still), ("black.mp4", np.zeros_like(still))):
        write_video(tmp_path / name, frames, 24)
    index = VideoIndex.create(tmp_path / "index")
    index.update(tmp_path, "fingerprint")
    assert np.isfinite(index.vectors()[1]).all()
    assert Path(index.search(video=still, top_k=1)[0].path).name == "still.mp4"
    assert all(np.isfinite(m.score) for m in index.search(video=np.zeros_like(still)))


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the real clips are not here")
def test_excerpts_of_real_clips(tmp_path):
    index = VideoIndex.create(tmp_path / "index")
    index.update(REAL, "fingerprint")
    random = np.random.default_rng(0)
    for number, record in enumerate(index.files):
        with VideoReader(record.path, on_error="repeat") as reader:
            times, rate = reader.timestamps, reader.metadata.fps
            start = random.uniform(times[0], times[0] + reader.metadata.duration - 2)
            frames = reader.get_frames(np.flatnonzero((times >= start) & (times < start + 2))).data
        suffix, codec, crf, every = WAYS[number % len(WAYS)]
        path = excerpt(
            tmp_path / f"excerpt{number}{suffix}",
            frames,
            rate,
            area=random.uniform(0.7, 0.9),
            seed=number,
            codec=codec,
            crf=crf,
            every=every,
        )
        best = index.search(video=path, top_k=1)[0]
        assert best.path == record.path
        assert overlap(best, start, start + 2) >= 1, (best, start)
