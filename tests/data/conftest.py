"""Small clips for the tests of data sets: encoded once, copied where a test changes them."""

from __future__ import annotations

import shutil

import pytest

from hf_video import VideoMAEImageProcessor
from hf_video.data.moving_glyphs import write_moving_glyphs


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Inspections of a test stay in its folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """16 clips of 8 frames of 32x32, 4 of each direction: `clips/<direction>/<number>.mp4`."""
    folder = tmp_path_factory.mktemp("clips")
    write_moving_glyphs(folder, 16, seed=1, size=32, speed=4)
    return folder


@pytest.fixture
def folder(clips, tmp_path):
    """A copy of `clips` that a test may change."""
    return shutil.copytree(clips, tmp_path / "videos")


@pytest.fixture(scope="session")
def processor():
    return VideoMAEImageProcessor(size={"shortest_edge": 32}, crop_size=32, num_frames=4)
