"""`hf-video index`: new, again, and what is wrong."""

from __future__ import annotations

import pytest
import tiny

from hf_video import cli

pytest.importorskip("pyarrow")


@pytest.fixture
def folder(tmp_path):
    clips = tmp_path / "clips"
    clips.mkdir()
    for seed in range(3):
        tiny.write_clip(clips / f"clip{seed}.mkv", 24, height=32, width=32, seed=seed)
    return clips


def run(capsys, *arguments):
    code = cli.main(["index", *(str(a) for a in arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_new_and_again(capsys, folder, tmp_path):
    code, out, err = run(capsys, folder, "-m", "fingerprint", "-o", tmp_path / "index", "--window", "1s")
    assert (code, err) == (cli.DONE, "")
    assert out.startswith("9 moments of 3 videos")
    assert "3 embedded" in out
    (folder / "clip0.mkv").unlink()
    (folder / "bad.mp4").write_text("no video")
    code, out, err = run(capsys, folder, "-o", tmp_path / "index")
    assert code == cli.SOME_FAILED
    assert "6 moments of 3 videos" in out
    assert "2 unchanged, 1 removed" in out
    assert "bad.mp4: not a video" in err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["{folder}"], "needs a model"),
        (["{folder}", "-m", "/no/such/folder"], "no folder"),
        (["{folder}", "-m", "{folder}"], "config.json"),
        (["{index}x", "-m", "fingerprint"], "no folder"),
        (["{folder}", "-m", "fingerprint", "--window", "2s/3s"], "must not exceed"),
        (["{folder}", "-m", "fingerprint", "--processes", "0"], "--processes"),
        (["{folder}", "-m", "fingerprint", "--engine", "dask"], "none of local, ray"),
    ],
)
def test_wrong_usage_is_2_and_makes_nothing(capsys, folder, tmp_path, arguments, hint):
    index = tmp_path / "index"
    arguments = [a.format(folder=folder, index=index) for a in arguments]
    code, out, err = run(capsys, *arguments, "-o", index)
    assert code == cli.WRONG
    assert hint in err
    assert out == ""
    assert "Traceback" not in err
    assert not index.exists()


def test_a_folder_of_other_things_is_refused(capsys, folder):
    code, _, err = run(capsys, folder, "-m", "fingerprint", "-o", folder)
    assert code == cli.WRONG
    assert "other things" in err
    assert len(list(folder.iterdir())) == 3
