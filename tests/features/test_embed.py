"""Shards: both formats, one process or two, killed at any moment, never of two models."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import tiny

from hf_video.data.rows import VideoRow, VideoRows
from hf_video.errors import DataError, HFVideoError, VideoOptionError
from hf_video.features.embed import EmbedReport, ModelLoader, embed_videos, load_features
from hf_video.features.extraction import extract_features


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


@pytest.mark.parametrize("data_format", ["safetensors", "parquet"])
def test_one_flipped_bit_is_refused_by_name_and_made_again(folder, rows, whole, tmp_path, data_format):
    loader = ModelLoader(str(folder))
    embed_videos(loader, rows, tmp_path, shard_size=3, data_format=data_format)
    random = np.random.default_rng(0)
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 3
    for path in paths:
        sound = path.read_bytes()
        for place in [0, len(sound) - 1, *random.integers(0, len(sound), 30)]:
            path.write_bytes(sound[:place] + bytes([sound[place] ^ (1 << random.integers(8))]) + sound[place + 1 :])
            with pytest.raises(DataError, match=re.escape(str(path))):
                load_features(tmp_path)
        report = embed_videos(loader, rows, tmp_path, shard_size=3, data_format=data_format)
        assert str(path) in report.damaged[0]
        assert report.made == (path.name != "manifest.json")  # the shards prove themselves
        same(load_features(tmp_path), whole)
        path.write_bytes(path.read_bytes()[:-7])  # cut off
        assert embed_videos(loader, rows, tmp_path, shard_size=3, data_format=data_format).damaged


@pytest.mark.parametrize("data_format", ["safetensors", "parquet"])
def test_with_a_damaged_manifest_only_what_is_unproven_is_made_again(folder, rows, whole, tmp_path, data_format):
    loader = ModelLoader(str(folder))

    def damaged(**options) -> EmbedReport:
        manifest = (tmp_path / "manifest.json").read_bytes()
        (tmp_path / "manifest.json").write_bytes(manifest.replace(b'"videos": 6', b'"videos": 7'))
        report = embed_videos(loader, rows, tmp_path, shard_size=2, data_format=data_format, **options)
        assert load_features(tmp_path).names == whole.names
        return report

    embed_videos(loader, rows, tmp_path, shard_size=2, data_format=data_format)
    first, second, third = sorted(tmp_path.glob("features-*"))
    assert (damaged().made, damaged().kept) == (0, 3)
    sound = second.read_bytes()  # of safetensors the last byte is of a tensor; Parquet has bytes that say nothing
    second.write_bytes(sound[:-7] if data_format == "parquet" else sound[:-1] + bytes([sound[-1] ^ 1]))
    report = damaged()
    assert report.made == 1
    assert [str(second) in fault for fault in report.damaged] == [False, True]
    swapped = first.read_bytes()  # each is sound, and not in its place
    first.write_bytes(third.read_bytes())
    third.write_bytes(swapped)
    assert damaged().made == 2
    assert damaged(sampler="random").made == 3  # other settings
    assert damaged().made == 3


@pytest.mark.parametrize("step", ["replace", "fsync"])
@pytest.mark.parametrize("data_format", ["safetensors", "parquet"])
def test_a_full_disk_is_told_and_the_rest_goes_on_later(folder, rows, whole, tmp_path, monkeypatch, step, data_format):
    import errno

    plain, left = getattr(os, step), [2]

    def full(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain(*arguments)

    loader = ModelLoader(str(folder))
    with monkeypatch.context() as patch:
        patch.setattr(os, step, full)
        with pytest.raises(DataError, match="No space left"):
            embed_videos(loader, rows, tmp_path, shard_size=2, data_format=data_format)
    embed_videos(loader, rows, tmp_path, shard_size=2, data_format=data_format)
    same(load_features(tmp_path), whole)


def test_an_output_in_the_way_is_told(folder, rows, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(HFVideoError, match=re.escape(str(tmp_path / "file"))):
            embed_videos(ModelLoader(str(folder)), rows, output)


@pytest.mark.parametrize("step", range(0, 14, 2))
def test_stopped_at_every_step_of_writing(folder, rows, whole, tmp_path, monkeypatch, step):
    """The process ends at the n-th time that something is to reach the disk; then it goes on to equal vectors."""

    class Killed(BaseException):
        """Not an Exception: nothing may catch it, as nothing catches SIGKILL."""

    left = [step]

    def stopping(function):
        def run(*arguments):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return function(*arguments)

        return run

    loader = ModelLoader(str(folder))
    with monkeypatch.context() as patch:
        for name in ("replace", "fsync"):
            patch.setattr(os, name, stopping(getattr(os, name)))
        with contextlib.suppress(Killed):
            embed_videos(loader, rows, tmp_path, shard_size=2)
    report = embed_videos(loader, rows, tmp_path, shard_size=2)
    assert report.damaged == []
    np.testing.assert_array_equal(load_features(tmp_path).embeddings, whole_of(loader, rows, 2))


def whole_of(loader, rows, size):
    """As shards are made: clips of other videos in a batch change the last bits."""
    parts = [extract_features(*loader(0), rows[n : n + size]) for n in range(0, len(rows), size)]
    return np.concatenate([part.embeddings for part in parts if len(part)])


@pytest.mark.slow
def test_killed_and_run_again_with_several_processes(folder, rows, whole, tmp_path):
    """kill -9 after the first shard; two processes then make the rest."""
    script = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(tiny.__file__.rsplit("/", 1)[0])!r})
        from hf_video.data.rows import VideoRow, VideoRows
        from hf_video.features.embed import ModelLoader, embed_videos
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


def test_every_video_below_a_folder_is_embedded_and_what_is_left_out_is_named(folder, tmp_path, capsys):
    """Loose ones beside folders, in any depth, through links; each file once; hidden ones are passed over."""
    from hf_video.cli import main
    from hf_video.training.runs.pretraining import read_unlabelled_splits

    root = tmp_path / "clips"
    names = ["a.mp4", "b.mp4", "train/c.mp4", "deep/er/d.mp4", ".hidden.mp4", ".folder/e.mp4"]
    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        tiny.write_clip(root / name, 8, height=32, width=32, seed=seed)
    (tmp_path / "elsewhere").mkdir()
    tiny.write_clip(tmp_path / "elsewhere" / "f.mp4", 8, height=32, width=32, seed=9)
    (root / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (root / "loop").symlink_to(root, target_is_directory=True)
    (root / "twin.mp4").symlink_to("a.mp4")
    (root / "notes.txt").write_text("no video")
    assert main(["embed", str(root), "--model", str(folder), "--output", str(tmp_path / "out")]) == 0
    told = capsys.readouterr()
    assert "from 5 of 5 videos" in told.out
    assert "notes.txt" in told.err
    assert "twin.mp4 (is the same file as a.mp4)" in told.err
    wanted = {"a.mp4", "b.mp4", "train/c.mp4", "deep/er/d.mp4", "linked/f.mp4"}
    assert set(load_features(tmp_path / "out").names) == wanted
    splits = read_unlabelled_splits(root, held_out=0)
    assert {row.name for rows in splits.values() for row in rows} == wanted


class Dying:
    """Loads a model whose processes are killed when they load it, but for the first one's."""

    def __init__(self, folder):
        self.load = ModelLoader(folder, device="cpu")

    def __call__(self, number):
        if multiprocessing.parent_process() is not None:
            os._exit(9)
        return self.load(number)


@pytest.mark.slow
def test_a_process_that_dies_is_told(folder, rows, tmp_path):
    with pytest.raises(DataError, match="process that made features died"):
        embed_videos(Dying(str(folder)), rows, tmp_path / "out", shard_size=2, processes=2)
    assert not list((tmp_path / "out").glob("features-*"))
