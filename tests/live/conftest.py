from __future__ import annotations

import threading

import pytest
import tiny
from transformers import pipeline


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    """Of reading and of serving; the servers of tests have names of their own."""
    yield
    left = [one for one in threading.enumerate() if one.name.startswith("Live")]
    for one in left:
        one.join(10)
    assert not [one.name for one in left if one.is_alive()]


@pytest.fixture(scope="session")
def videomae(tmp_path_factory):
    """Folder of a tiny VideoMAE with its processor."""
    return tiny.save_tiny(tmp_path_factory.mktemp("videomae"))


@pytest.fixture(scope="session")
def classify(videomae):
    return pipeline("video-classification", model=str(videomae), device="cpu")


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """1.2 seconds at 20 fps."""
    return tiny.write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", 24, fps=20)
