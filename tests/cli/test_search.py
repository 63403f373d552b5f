"""`hf-video search`: by example, for people, for programs, as a picture."""

from __future__ import annotations

import json

import pytest
import tiny
from PIL import Image

from hf_video import cli
from hf_video.retrieval import VideoIndex

pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("library")
    (folder / "clips").mkdir()
    for seed in range(3):
        tiny.write_clip(folder / "clips" / f"clip{seed}.mkv", 24, height=32, width=48, seed=seed)
    VideoIndex.build(folder / "index", folder / "clips", "fingerprint")
    return folder / "index"


def run(capsys, *arguments):
    code = cli.main(["search", *(str(a) for a in arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_by_example(capsys, index, tmp_path):
    example = index.parent / "clips" / "clip1.mkv"
    code, out, err = run(capsys, index, "--video", example, "--top-k", 4, "--no-merge")
    assert (code, err) == (cli.DONE, "")
    lines = out.splitlines()
    assert len(lines) == 4
    assert lines[0].split() == ["1.000", "0.00-2.00", "s", str(example)]
    code, out, _ = run(capsys, index, "--video", example, "--json", "--merge", "--sheet", tmp_path / "found.png")
    best = json.loads(out)[0]
    assert (best["path"], best["start"], best["end"]) == (str(example), 0.0, 3.0)
    assert best["score"] == pytest.approx(1, abs=0.01)
    with Image.open(tmp_path / "found.png") as picture:
        assert picture.width > 600


def test_a_sheet_of_files_that_are_gone(capsys, index, tmp_path):
    gone = index.parent / "clips" / "clip2.mkv"
    data = gone.read_bytes()
    example = tmp_path / "example.mkv"
    example.write_bytes(data)
    gone.unlink()
    try:
        code, _, _ = run(capsys, index, "--video", example, "--sheet", tmp_path / "found.png")
    finally:
        gone.write_bytes(data)
    assert code == cli.DONE
    assert (tmp_path / "found.png").exists()


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["{index}", "a sentence"], "can't read text"),
        (["{index}"], "one query"),
        (["{index}", "words", "--video", "{clip}"], "one query"),
        (["{index}", "--video", "/no/file.mp4"], "/no/file.mp4"),
        (["{clip}", "words"], "not a search index"),
        (["{index}", "--video", "{clip}", "--top-k", "0"], "--top-k"),
        (["{index}", "--video", "{clip}", "--sheet", "/no/folder/x.png"], "no folder"),
        (["{index}", "--video", "{clip}", "--sheet", "{index}/x.nothing"], "must end in"),
        (["{index}", "--video", "{clip}", "-m", "/no/model"], "no folder"),
    ],
)
def test_wrong_usage_is_2(capsys, index, arguments, hint):
    clip = index.parent / "clips" / "clip0.mkv"
    code, _, err = run(capsys, *[a.format(index=index, clip=clip) for a in arguments])
    assert code == cli.WRONG
    assert hint in err
    assert "Traceback" not in err


def test_an_index_that_holds_nothing_yet_says_so(capsys, tmp_path):
    VideoIndex.create(tmp_path / "empty")  # as one is left whose making was killed before its first segment
    code, out, err = run(capsys, tmp_path / "empty", "a dog")
    assert (code, out) == (cli.WRONG, "")
    assert "holds no moments yet" in err
