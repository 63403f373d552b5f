"""`hf-video check`: what is printed, and the exit code."""

from __future__ import annotations

import json
import shutil

import pytest

from hf_video import cli
from hf_video.data.moving_glyphs import write_moving_glyphs


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_moving_glyphs(tmp_path / "v" / "train", 8, seed=0, size=32)
    write_moving_glyphs(tmp_path / "v" / "test", 4, seed=5, size=32)
    return tmp_path / "v"


def run(capsys, *arguments):
    code = cli.main(["check", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_good_folder(folder, capsys):
    (folder / "README.md").write_text("about these videos")
    code, out, err = run(capsys, folder)
    assert (code, err) == (0, "")
    assert "12 videos that can be read" in out
    assert "train       8 videos of 4 classes" in out
    assert out.splitlines()[-1] == "nothing wrong was found"


def test_a_bad_folder_as_text_and_as_json(folder, capsys):
    clip = folder / "train" / "up" / "00002.mp4"
    (folder / "train" / "left" / "empty.mp4").write_bytes(b"")
    (folder / "train" / "left" / "page.mp4").write_text("<html>not found</html>" * 20)
    (folder / "train" / "left" / "half.mp4").write_bytes(clip.read_bytes()[: clip.stat().st_size * 4 // 5])
    shutil.copy(clip, folder / "test" / "up" / "leaked.mp4")
    code, out, _ = run(capsys, folder, "--quick")
    assert code == 1
    lines = out.splitlines()
    for start in (
        "empty: train/left/empty.mp4: ",
        "not a video: train/left/page.mp4: ",
        "damaged (used): train/left/half.mp4: cut off",
        "leak between splits (equal bytes): test/up/leaked.mp4 = train/up/00002.mp4",
    ):
        assert sum(line.startswith(start) for line in lines) == 1, start
    code, out, _ = run(capsys, folder, "--json")
    report = json.loads(out)
    assert code == 1
    assert {fault["kind"] for fault in report["faults"]} == {"empty", "not a video", "damaged"}
    assert report["leaks"] == [{"names": ["test/up/leaked.mp4", "train/up/00002.mp4"], "exact": True}]
    assert report["clean"] is False


def test_reencoding_resumes(folder, tmp_path, capsys):
    out = run(capsys, folder, "--quick", "--no-content", "--reencode", tmp_path / "small", "--short-side", 16)[1]
    assert "re-encoded: 12 written, 0 there already, 0 failed" in out
    (tmp_path / "small" / "train" / "up" / "00002.mp4").unlink()
    code, out, _ = run(capsys, folder, "--quick", "--reencode", tmp_path / "small", "--short-side", 16)
    assert code == 0
    assert "re-encoded: 1 written, 11 there already, 0 failed" in out
    code, out, _ = run(capsys, tmp_path / "small", "--json")
    assert json.loads(out)["sizes"] == {"16x16": 12}
    assert code == 0


def test_no_videos_is_wrong_usage(tmp_path, capsys):
    code, _, err = run(capsys, tmp_path)
    assert code == 2
    assert "holds no video" in err
