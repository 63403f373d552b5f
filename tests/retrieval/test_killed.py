"""kill -9 at random moments, then completed: the same index as without."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import tiny
from library import write_library

from hf_video.errors import VideoIndexError
from hf_video.features.embed import load_features
from hf_video.retrieval import VideoIndex, writing
from hf_video.retrieval.encoders import FingerprintEncoder

pytest.importorskip("pyarrow")

SCRIPT = textwrap.dedent("""
    import os, sys
    from hf_video.retrieval import VideoIndex, writing
    writing.FLUSH_SECONDS = {flush}
    print("ready", flush=True)
    report = VideoIndex.build({index!r}, {clips!r}, "fingerprint", on_progress=lambda n, of: print(n, flush=True))
    print("done", report.embedded, flush=True)
""")


def building(clips, index, flush: float) -> subprocess.Popen:
    code = SCRIPT.format(index=str(index), clips=str(clips), flush=flush)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def kill_after(process: subprocess.Popen, seconds: float) -> None:
    """From when it begins to read videos."""
    for line in process.stdout:
        if line.strip() != "ready":
            break
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()


def uninterrupted_index(clips, folder) -> VideoIndex:
    VideoIndex.build(folder, clips, "fingerprint")
    return VideoIndex.open(folder)


def complete_and_compare(clips, index, uninterrupted: VideoIndex) -> int:
    left = VideoIndex.build(index, clips, "fingerprint")
    assert left.embedded + left.unchanged == len(uninterrupted.files)
    (moments, vectors), (others, more) = VideoIndex.open(index).vectors(), uninterrupted.vectors()
    assert moments == others
    np.testing.assert_array_equal(vectors, more)
    query = vectors[len(vectors) // 2]
    assert VideoIndex.open(index).search(vector=query, top_k=20) == uninterrupted.search(vector=query, top_k=20)
    assert VideoIndex.open(index).update(clips).embedded == 0
    assert not list(index.rglob(".writing-*"))
    return left.unchanged


@pytest.mark.slow
def test_killed_three_times_while_200_clips_are_indexed(tmp_path):
    clips = write_library(tmp_path / "clips", 200, frames=16, size=32)
    chance = random.Random(0)
    for _ in range(3):
        process = building(clips, tmp_path / "index", flush=0.05)
        kill_after(process, chance.uniform(0.05, 0.6))
    kept = complete_and_compare(clips, tmp_path / "index", uninterrupted_index(clips, tmp_path / "whole"))
    assert kept > 0  # what was done before the kills was not done again


class Killed(BaseException):
    """Not an Exception: nothing may catch it, as nothing catches SIGKILL."""


@pytest.mark.parametrize("step", range(12))
def test_stopped_at_every_step_of_writing(step, tmp_path, monkeypatch, small, whole):
    """The process ends at the n-th time that something is to reach the disk."""
    import os

    left = [step]

    def stopping(function):
        def run(*arguments, **options):
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return function(*arguments, **options)

        return run

    index = VideoIndex.create(tmp_path / "index")
    with monkeypatch.context() as patch:
        patch.setattr(writing, "FLUSH_SECONDS", -1.0)
        patch.setattr(writing, "MANY", 1)
        patch.setattr(os, "replace", stopping(os.replace))
        patch.setattr(os, "rename", stopping(os.rename))
        with contextlib.suppress(Killed):
            index.update(small, "fingerprint")
    complete_and_compare(small, tmp_path / "index", whole)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_library(tmp_path_factory.mktemp("clips"), 4, frames=16, size=32)


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    return uninterrupted_index(small, tmp_path_factory.mktemp("whole") / "index")


class Deadly(FingerprintEncoder):
    """Takes its process down at one file, as a broken decoder may."""

    def embed(self, source, windows):
        if source.endswith("clip1.mkv"):
            import os

            os.kill(os.getpid(), signal.SIGKILL)
        return super().embed(source, windows)


@pytest.mark.slow
def test_a_worker_that_dies_takes_only_its_file(small, tmp_path):
    index = VideoIndex.create(tmp_path / "index")
    report = index.update(small, Deadly(), workers=2)
    assert report.embedded == 3
    assert [(s.name.rsplit("/", 1)[1], s.reason) for s in report.skipped] == [
        ("clip1.mkv", "the process that read it died")
    ]
    assert index.update(small, "fingerprint").embedded == 1  # it is tried again


@pytest.mark.slow
def test_a_lock_ends_with_its_process(small, tmp_path):
    code = textwrap.dedent(f"""
        import time
        from hf_video.retrieval.store import IndexStore
        with IndexStore({str(tmp_path / "index")!r}).writing():
            print("locked", flush=True)
            time.sleep(600)
    """)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().strip() == "locked"
    with pytest.raises(VideoIndexError, match="being written"):
        VideoIndex.build(tmp_path / "index", small, "fingerprint")
    process.kill()
    process.wait()
    assert VideoIndex.build(tmp_path / "index", small, "fingerprint").embedded == 4


EMBED = textwrap.dedent("""
    from hf_video.data.sources.load import load_videos
    from hf_video.features import embed
    rows = next(iter(load_videos({clips!r}, need_labels=False, inspect=None).values()))
    print("ready", flush=True)
    embed.embed_videos(embed.ModelLoader({model!r}, device="cpu"), rows, {output!r}, shard_size=2,
                       on_shard=lambda n, of: print(n, flush=True))
""")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_embedding_killed_at_random_goes_on_to_equal_files(tmp_path, seed):
    clips = write_library(tmp_path / "clips", 30, frames=16, size=32)
    model = tiny.save_tiny(tmp_path / "model")
    code = EMBED.format(clips=str(clips), model=str(model), output=str(tmp_path / "out"))
    chance = random.Random(seed)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    kill_after(process, chance.uniform(0, 0.3))
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    code = EMBED.format(clips=str(clips), model=str(model), output=str(tmp_path / "whole"))
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    # Not their bytes: safetensors writes several facts of its header in any order.
    resumed, whole = load_features(tmp_path / "out"), load_features(tmp_path / "whole")
    np.testing.assert_array_equal(resumed.embeddings, whole.embeddings)
    np.testing.assert_array_equal(resumed.seconds, whole.seconds)
    assert resumed.names == whole.names
    assert not list((tmp_path / "out").glob(".writing-*"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_indexing_killed_at_random_gives_the_same_index(tmp_path, seed):
    clips = write_library(tmp_path / "clips", 60, frames=16, size=32)
    process = building(clips, tmp_path / "index", flush=0.02)
    kill_after(process, random.Random(seed).uniform(0, 0.6))
    complete_and_compare(clips, tmp_path / "index", uninterrupted_index(clips, tmp_path / "whole"))
