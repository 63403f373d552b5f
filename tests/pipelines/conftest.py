from __future__ import annotations

import pytest
import tiny
from transformers import pipeline


@pytest.fixture(scope="session")
def videomae(tmp_path_factory):
    """Folder of a tiny VideoMAE with its processor."""
    return tiny.save_tiny(tmp_path_factory.mktemp("videomae"))


@pytest.fixture(scope="session")
def timesformer(tmp_path_factory):
    return tiny.save_tiny(tmp_path_factory.mktemp("timesformer"), "timesformer")


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """Three mp4 files of 24 frames at 8 fps, 80x48."""
    folder = tmp_path_factory.mktemp("clips")
    return [tiny.write_clip(folder / f"clip{i}.mp4", seed=i) for i in range(3)]


@pytest.fixture(scope="session")
def classify(videomae):
    return pipeline("video-classification", model=str(videomae), device="cpu")
