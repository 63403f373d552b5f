"""The same video found again: after other encoders, sizes and rates, and nothing else taken for it."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest

from hf_video.cli import main
from hf_video.data.check.fingerprint import Prints, fingerprint, inspect_and_fingerprint, same_content
from hf_video.data.check.transcoding import transcode_videos
from hf_video.data.check.videos import check_videos
from hf_video.data.moving_glyphs import moving_glyphs
from hf_video.data.sources.inspection import inspect_video
from hf_video.errors import VideoOptionError
from hf_video.video import VideoReader
from hf_video.video.frames.pixels import resize_frames
from hf_video.video.writer import write_video


def glyph(seed, frames=16, size=96):
    return moving_glyphs(1, seed, num_frames=frames, size=size, speed=size // 16, noise=3)[0].frames


def found(*paths):
    return same_content([fingerprint(path) for path in paths])


class TestContent:
    def test_other_encodings_sizes_and_rates_are_the_same_video(self, tmp_path):
        frames = glyph(1)
        paths = [
            write_video(tmp_path / "a.mp4", frames, 16, crf=18),
            write_video(tmp_path / "b.mp4", resize_frames(frames, (48, 48)), 16, crf=36),
            write_video(tmp_path / "c.webm", resize_frames(frames, (144, 160)), 16),
            write_video(tmp_path / "d.mkv", frames.repeat(2, axis=0), 32),
            write_video(tmp_path / "e.mp4", glyph(2), 16),
        ]
        assert found(*paths) == [(i, j) for i in range(4) for j in range(i + 1, 4)]

    def test_what_only_looks_alike_is_not(self, tmp_path):
        """One scene: the same picture behind, and the same thing in front that moves another way; or other colours."""
        frames = glyph(1)
        scene = np.random.default_rng(0).integers(0, 256, (6, 6, 3)).repeat(16, 0).repeat(16, 1).astype(np.uint8)
        left, right = ((0.8 * scene + 0.2 * f).astype(np.uint8) for f in (frames, frames[::-1]))
        paths = [
            write_video(tmp_path / f"{n}.mp4", f, 16) for n, f in (("l", left), ("r", right), ("c", left[..., ::-1]))
        ]
        assert found(*paths) == []

    def test_still_videos_go_by_the_picture(self, tmp_path):
        first, second = (np.repeat(glyph(seed)[:1], 8, axis=0) for seed in (1, 2))
        paths = [
            write_video(tmp_path / f"{n}.mp4", f, 8, crf=q)
            for n, f, q in (("a", first, 18), ("b", first, 32), ("c", second, 18))
        ]
        assert found(*paths) == [(0, 1)]

    def test_black_and_broken_ones_match_nothing(self, tmp_path):
        black = write_video(tmp_path / "a.mp4", np.zeros((8, 32, 32, 3), np.uint8), 8)
        (tmp_path / "t.mp4").write_text("x")
        assert fingerprint(tmp_path / "t.mp4") is None
        assert found(black, black, tmp_path / "t.mp4", tmp_path / "t.mp4") == []

    def test_many_are_compared_at_once(self):
        rng = np.random.default_rng(0)
        prints = list(rng.integers(0, 256, (1500, 8, 16, 16, 3), dtype=np.uint8))
        noisy = prints[7].astype(int) + rng.integers(-4, 5, prints[7].shape)
        prints.append(noisy.clip(0, 255).astype(np.uint8))
        prints[1200] = None
        assert same_content(prints) == [(7, 1500)]

    def test_generated_clips_that_look_alike_are_not_taken_for_one(self):
        clips = moving_glyphs(120, seed=3, num_frames=8, size=64)
        assert same_content([resize_frames(clip.frames, (16, 16)) for clip in clips]) == []


class TestCheck:
    def test_duplicates_leaks_and_conflicts(self, clips, tmp_path):
        root = tmp_path / "v"
        shutil.copytree(clips / "left", root / "train" / "left")
        shutil.copytree(clips / "up", root / "train" / "up")
        shutil.copytree(clips / "right", root / "test" / "left")
        assert check_videos(root)[0].clean
        one, two = sorted((root / "train" / "left").iterdir())[:2]
        shutil.copy(one, root / "train" / "left" / "copy.mp4")
        shutil.copy(one, root / "test" / "left" / "copy.mp4")
        with VideoReader(two, size=(48, 48)) as reader:
            write_video(root / "train" / "up" / "again.webm", reader.get_frames(range(8)).data, 8)
        report, videos = check_videos(root)
        assert not report.clean
        same = ("test/left/copy.mp4", f"train/left/{one.name}", "train/left/copy.mp4")
        other = (f"train/left/{two.name}", "train/up/again.webm")
        assert {(tuple(sorted(d.names)), d.exact) for d in report.duplicates} == {(same, True), (other, False)}
        assert [tuple(sorted(d.names)) for d in report.leaks] == [same]
        assert [tuple(sorted(d.names)) for d in report.conflicts] == [other]
        assert report.videos == len(videos) == 15
        assert report.classes["train"] == {"left": 5, "up": 5}
        assert report.imbalance == {"train": 1.0}
        assert report.sizes == {"32x32": 14, "48x48": 1}
        assert report.codecs == {"h264": 14, "vp9": 1}
        assert report.seconds == (1.0, 1.0, 1.0)
        quick = check_videos(root, level="open", content=False)[0]
        assert [d.exact for d in quick.duplicates] == [True]

    @pytest.mark.parametrize("suffix", [".mp4", ".avi", ".webm", ".mkv"])
    def test_cut_off_files_are_noticed_by_opening_them(self, tmp_path, suffix):
        path = write_video(tmp_path / f"a{suffix}", glyph(0, frames=40), 8)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) * 4 // 5])
        about = inspect_video(str(path))
        assert about.kind == "damaged"
        assert about.usable
        assert "cut off" in about.reason
        assert 0 < about.frames < 40


class TestReencode:
    def test_small_files_at_the_same_rate_and_only_once(self, tmp_path):
        (tmp_path / "in" / "x").mkdir(parents=True)
        write_video(tmp_path / "in" / "x" / "a.mkv", glyph(0, frames=12, size=96)[:, :64], 12.5)
        write_video(tmp_path / "in" / "x" / "a.avi", glyph(1, frames=12, size=32), 8)
        _, videos = check_videos(tmp_path / "in", content=False)
        assert transcode_videos(videos, tmp_path / "out", short_side=32) == (2, 0, [])
        with VideoReader(tmp_path / "out" / "x" / "a.mkv.mp4") as reader:
            about = reader.metadata
        assert (about.height, about.width, about.num_frames, about.codec) == (32, 48, 12, "h264")
        assert about.fps == pytest.approx(12.5)
        with VideoReader(tmp_path / "out" / "x" / "a.avi.mp4") as reader:
            assert (reader.metadata.height, reader.metadata.num_frames) == (32, 12)  # never larger
        made = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.mp4")}
        (tmp_path / "out" / "x" / "a.avi.mp4").unlink()
        assert transcode_videos(videos, tmp_path / "out", short_side=32) == (1, 1, [])
        kept = tmp_path / "out" / "x" / "a.mkv.mp4"
        assert kept.stat().st_mtime_ns == made[kept]
        with pytest.raises(VideoOptionError):
            transcode_videos(videos, tmp_path, short_side=2)


class TestOnePass:
    def test_same_as_inspecting_and_looking(self, folder):
        """Sound files come out as they do apart; of all others nothing is said."""
        paths = sorted(map(str, folder.rglob("*.mp4")))
        for ending in ("mkv", "avi", "ts", "webm", "gif"):
            paths.append(str(write_video(folder / f"x.{ending}", glyph(3), 8)))
        found = [inspect_and_fingerprint(path) for path in paths]
        assert sum(one is not None for one in found) >= len(paths) - 1
        for path, both in zip(paths, found, strict=True):
            if both is not None:
                assert both[0] == inspect_video(path, level="full")
                assert np.abs(both[1].astype(int) - fingerprint(path)).max() <= 1
        data = Path(paths[0]).read_bytes()
        for name, part in (("cut.mp4", data[: len(data) // 2]), ("empty.mp4", b""), ("text.mp4", b"no video")):
            (folder / name).write_bytes(part)
            assert inspect_and_fingerprint(str(folder / name)) is None
        assert inspect_and_fingerprint(str(folder)) is None
        assert inspect_and_fingerprint(data) is None

    def test_each_file_is_opened_once(self, folder, monkeypatch):
        opened = []
        real = av.open
        monkeypatch.setattr(av, "open", lambda *args, **kwargs: opened.append(args[0]) or real(*args, **kwargs))
        report, _ = check_videos(folder)
        assert report.videos == 16
        assert len(opened) == 16

    def test_grouping_needs_little_memory(self):
        rng = np.random.default_rng(0)
        scene = rng.integers(60, 200, (16, 16, 3))
        prints = Prints(1200)
        for number in range(1200):  # all of them near by 4x4 pixels
            prints.put(number, (scene + rng.integers(-6, 7, (8, 16, 16, 3))).clip(0, 255).astype(np.uint8))
        tracemalloc.start()
        try:
            assert prints.same_content(range(1200)) == []
            assert tracemalloc.get_traced_memory()[1] < 120 << 20
        finally:
            tracemalloc.stop()


def test_several_labels_are_counted_one_by_one(folder, capsys):
    left, up = (str(next((folder / name).iterdir())) for name in ("left", "up"))
    (folder / "l.csv").write_text(f"video,labels\n{left},run|jump\n{up},run\n")
    assert main(["check", str(folder / "l.csv"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == {"all": {"run": 2, "jump": 1}}
    assert main(["check", str(folder / "l.csv")]) == 0
    assert "2 videos of 2 classes" in capsys.readouterr().out


class TestParts:
    def test_parts_are_two_videos_and_decoded_alone(self, folder, monkeypatch):
        """Neither the same file nor the same content; and of one file many parts are opened once."""
        left, up = (str(next((folder / name).iterdir())) for name in ("left", "up"))
        lines = [f"{left},a,0,4", f"{left},b,4,8", f"{up},a,0,8", f"{up},a,50,60"]
        (folder / "l.csv").write_text("video,label,start_frame,end_frame\n" + "\n".join(lines) + "\n")
        report, videos = check_videos(folder / "l.csv", content=False)
        assert report.videos == 3
        assert report.duplicates == []
        assert [fault.kind for fault in report.faults if not fault.used] == ["missing"]
        assert [video.inspection.frames for video in videos] == [4, 4, 8]
        opened = []
        real = av.open
        monkeypatch.setattr(av, "open", lambda *args, **kwargs: opened.append(args[0]) or real(*args, **kwargs))
        quick, videos = check_videos(folder / "l.csv", level="open", content=False, cache_dir=folder / "cache")
        assert [video.inspection.frames for video in videos] == [4, 4, 8]
        assert quick.faults == report.faults
        assert sum(left in one for one in opened) <= 2
