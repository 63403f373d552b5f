"""The same index through Ray Data, with an actor that dies on the way. Slow, and only where Ray is."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from library import write_library

from hf_video.errors import BackendError
from hf_video.retrieval import VideoIndex
from hf_video.retrieval.encoders import FingerprintEncoder

pytest.importorskip("pyarrow")


def test_without_ray_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(BackendError, match=r"hf_video\[ray\]"):
        VideoIndex.build(tmp_path / "index", write_library(tmp_path / "clips", 1), "fingerprint", engine="ray")
    assert not (tmp_path / "index").exists()


class DiesOnce(FingerprintEncoder):
    """Its process is killed at one file, the first time."""

    def __init__(self, mark: str):
        self.mark = mark

    def embed(self, source, windows):
        if source.endswith("clip7.mkv") and not os.path.exists(self.mark):
            open(self.mark, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().embed(source, windows)


@pytest.mark.slow
def test_an_actor_that_dies_loses_nothing(tmp_path):
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    clips = write_library(tmp_path / "clips", 24, frames=16, size=32)
    paths = os.pathsep.join([os.path.dirname(__file__), os.path.dirname(os.path.dirname(__file__))])
    here = os.pathsep.join([paths, *(p for p in [os.environ.get("PYTHONPATH")] if p)])
    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": here}})
    try:
        index = VideoIndex.create(tmp_path / "index")
        mark = tmp_path / "killed"
        report = index.update(clips, DiesOnce(str(mark)), engine="ray", workers=2)
    finally:
        ray.shutdown()
    assert mark.exists()
    assert (report.embedded, report.skipped) == (24, [])
    local = VideoIndex.create(tmp_path / "local")
    local.update(clips, "fingerprint")
    (moments, vectors), (others, more) = index.vectors(), local.vectors()
    assert moments == others
    np.testing.assert_array_equal(vectors, more)
