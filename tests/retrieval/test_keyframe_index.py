"""`hf-video index --snap keyframe`: moments at keyframes, said in the index, and nothing mixed with exact ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny
from library import save_videoclip

from hf_video import cli
from hf_video.errors import VideoIndexError, VideoOptionError
from hf_video.retrieval import VideoIndex
from hf_video.video.writer import write_video

pytest.importorskip("pyarrow")
FPS = 10


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_videoclip(tmp_path_factory.mktemp("videoclip"))


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    for gop in (10, 100):
        frames = tiny.moving_frames(250, seed=gop)
        options = {"preset": "ultrafast", "sc_threshold": "0"}
        write_video(folder / f"{gop}.mp4", frames, FPS, "h264", keyframe_interval=gop, options=options)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def index(archive, model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index") / "fast"
    words = ["index", archive, "--model", model, "--output", folder, "--snap", "keyframe", "--quiet"]
    assert cli.main([str(word) for word in words]) == cli.SOME_FAILED
    return folder


def test_moments_are_those_of_keyframes(index):
    assert json.loads((index / "manifest.json").read_text())["snap"] == "keyframe"
    opened = VideoIndex.open(index)
    assert opened.snap == "keyframe"
    moments, vectors = opened.vectors()
    found = {gop: [m for m in moments if m.path.endswith(f"/{gop}.mp4")] for gop in (10, 100)}
    for gop, several in found.items():
        assert len({(m.start, m.end) for m in several}) == len(several)
        starts, ends = (np.array([getattr(m, name) for m in several]) for name in ("start", "end"))
        for keys in (starts * FPS / gop, (ends * FPS - 1) / gop):
            np.testing.assert_allclose(keys, keys.round(), atol=1e-6)
        assert starts.min() == 0
    assert len(found[100]) == 5  # each of three keyframes alone, and the two pairs of neighbours
    assert len(found[10]) > 20
    best = opened.search(video=str(found[100][0].path), top_k=1)
    assert best[0].path == found[100][0].path
    assert np.isfinite(vectors).all()


def test_an_update_goes_on_as_the_index_began(index, archive, model, capsys):
    before = VideoIndex.open(index).vectors()[1]
    report = VideoIndex.build(index, archive, str(model))
    assert (report.unchanged, report.embedded, report.snap) == (3, 0, "keyframe")
    np.testing.assert_array_equal(VideoIndex.open(index).vectors()[1], before)
    assert cli.main(["index", str(archive), "--output", str(index), "--quiet"]) == cli.SOME_FAILED
    assert "keyframes only" in capsys.readouterr().out


def test_exact_moments_and_those_of_keyframes_are_not_mixed(archive, model, tmp_path):
    exact = tmp_path / "exact"
    VideoIndex.build(exact, archive, str(model))
    assert VideoIndex.open(exact).snap is None
    assert "snap" not in json.loads((exact / "manifest.json").read_text())
    with pytest.raises(VideoIndexError, match="exact frames"):
        VideoIndex.build(exact, archive, str(model), snap="keyframe")
    with pytest.raises(VideoOptionError, match="is for models"):
        VideoIndex.build(tmp_path / "prints", archive, "fingerprint", snap="keyframe")
