"""Shards: both formats, one process or two, killed at any moment, never of two models."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import tiny

from hf_video.data.rows import VideoRow, VideoRows
from hf_video.errors import DataError, VideoOptionError
from hf_video.inference.embed import ModelLoader, embed_videos, load_features
from hf_video.inference.features import extract_features


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips")
    paths = [tiny.write_clip(root / f"{i}.mkv", 16, height=32, width=32, seed=i) for i in range(5)]
    (root / "bad.mp4").write_text("no video")
    paths.insert(2, root / "bad.mp4")
    return VideoRows([VideoRow(str(p), i % 2, p.name) for i, p in enumerate(paths)], ["a", "b"])


@pytest.fixture(scope="module")
def whole(folder, rows):
    return extract_features(*ModelLoader(str(folder), device="cpu")(0), rows)


def same(a, b):
    np.testing.assert_allclose(a.embeddings, b.embeddings, atol=1e-5)
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.seconds, b.seconds)
    assert a.names == b.names
    assert a.skipped == b.skipped


@pytest.mark.parametrize("data_format", ["safetensors", "parquet"])
def test_shards_hold_what_was_extracted(folder, rows, whole, tmp_path, data_format):
    progress, videos = [], []
    report = embed_videos(
        ModelLoader(str(folder)),
        rows,
        tmp_path / "out",
        data_format=data_format,
        shard_size=2,
        on_shard=lambda done, of: progress.append((done, of)),
        on_videos=videos.append,
    )
    assert (sum(videos), max(videos)) == (6, 1)
    assert (report.videos, report.found, report.vectors, report.dim, report.made) == (6, 5, 5, 32, 3)
    assert [one.name for one in report.skipped] == ["bad.mp4"]
    assert progress == [(1, 3), (2, 3), (3, 3)]
    same(load_features(tmp_path / "out"), whole)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["complete"]
    assert manifest["vectors"] == 5
    assert manifest["labels"] == ["a", "b"]
    assert sorted(os.listdir(tmp_path / "out"))[0] == f"features-00000.{data_format}"


def test_windows_keep_their_seconds(folder, rows, tmp_path):
    embed_videos(ModelLoader(str(folder)), rows[:2], tmp_path, windows="1s")
    features = load_features(tmp_path)
    assert features.names == ["0.mkv", "0.mkv", "1.mkv", "1.mkv"]
    assert features.seconds.tolist() == [[0, 1], [1, 2]] * 2


def test_what_is_there_is_kept(folder, rows, whole, tmp_path):
    loader = ModelLoader(str(folder))
    embed_videos(loader, rows, tmp_path, shard_size=2)
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("features-*")}
    (tmp_path / "features-00001.safetensors").unlink()
    (tmp_path / ".writing-abc.safetensors").write_bytes(b"half")
    report = embed_videos(loader, rows, tmp_path, shard_size=2)
    assert (report.made, report.kept) == (1, 2)
    now = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("features-*")}
    assert {name for name in now if now[name] != kept[name]} == {"features-00001.safetensors"}
    assert not list(tmp_path.glob(".writing-*"))
    same(load_features(tmp_path), whole)


def test_other_settings_are_refused(folder, rows, tmp_path, tmp_path_factory):
    loader = ModelLoader(str(folder))
    embed_videos(loader, rows[:2], tmp_path / "out")
    for change, said in (
        ({"windows": "1s"}, "options"),
        ({"shard_size": 7}, "shard_size was 512 and is 7"),
        ({"rows": rows[:3]}, "videos was 2 and is 3"),
    ):
        with pytest.raises(DataError, match=said):
            embed_videos(loader, change.pop("rows", rows[:2]), tmp_path / "out", **change)
    other = tiny.save_tiny(tmp_path_factory.mktemp("other"))
    from safetensors.torch import load_file, save_file

    weights = load_file(other / "model.safetensors")
    weights["classifier.bias"] = weights["classifier.bias"] + 1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="model_digest"):
        embed_videos(ModelLoader(str(other)), rows[:2], tmp_path / "out")


def test_bad_options(folder, rows, tmp_path):
    loader = ModelLoader(str(folder))
    for options in ({"data_format": "csv"}, {"shard_size": 0}, {"processes": 0}):
        with pytest.raises(VideoOptionError):
            embed_videos(loader, rows, tmp_path / "out", **options)
    with pytest.raises(DataError, match="no videos"):
        embed_videos(loader, rows[:0], tmp_path / "out")
    with pytest.raises(DataError, match="holds no features"):
        load_features(tmp_path)
    (tmp_path / "features-00000.safetensors").write_bytes(b"")
    with pytest.raises(DataError, match=r"without a manifest\.json"):
        embed_videos(loader, rows, tmp_path)


def test_a_shard_without_any_readable_video(folder, rows, whole, tmp_path):
    embed_videos(ModelLoader(str(folder)), rows, tmp_path, shard_size=1, data_format="parquet")
    same(load_features(tmp_path), whole)


@pytest.mark.slow
def test_killed_and_run_again_with_several_processes(folder, rows, whole, tmp_path):
    """kill -9 after the first shard; two processes then make the rest."""
    script = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(tiny.__file__.rsplit("/", 1)[0])!r})
        from hf_video.data.rows import VideoRow, VideoRows
        from hf_video.inference.embed import ModelLoader, embed_videos
        rows = VideoRows([VideoRow(*row) for row in {[(r.source, r.label, r.name) for r in rows]!r}], ["a", "b"])
        if __name__ == "__main__":
            embed_videos(ModelLoader({str(folder)!r}), rows, {str(tmp_path / "out")!r}, shard_size=1,
                         processes=int(sys.argv[1]))
    """)
    (tmp_path / "job.py").write_text(script)
    first = subprocess.Popen([sys.executable, str(tmp_path / "job.py"), "1"])
    while not list((tmp_path / "out").glob("features-*")):
        assert first.poll() is None
        time.sleep(0.002)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert not json.loads((tmp_path / "out" / "manifest.json").read_text())["complete"]
    subprocess.run([sys.executable, str(tmp_path / "job.py"), "2"], check=True)
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["complete"]
    same(load_features(tmp_path / "out"), whole)
