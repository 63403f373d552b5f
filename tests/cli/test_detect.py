"""`hf-video detect`: every output, what is there already, going on, and what is wrong."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import tiny
from PIL import Image
from transformers import pipeline

from hf_video import cli
from hf_video.base.detection.types import Detection, read_detections


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A tiny classifier, two videos and an empty file."""
    folder = tmp_path_factory.mktemp("library")
    tiny.save_tiny(folder / "model")
    (folder / "clips" / "more").mkdir(parents=True)
    frames = [np.concatenate([tiny.moving_frames(8, seed=n + seed) for n in range(6)]) for seed in (0, 6)]
    for name, one in zip(("a", "more/b"), frames, strict=True):
        tiny.write_video(folder / "clips" / f"{name}.mkv", one, 8, codec="ffv1")
    (folder / "empty.mp4").touch()
    return folder


@pytest.fixture
def detect(library, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        model = () if "--model" in arguments else ("--model", library / "model", "--grid", "8/4", "--threshold", "0.25")
        code = cli.main(["detect", *map(str, (*model, *arguments))])
        return code, *capsys.readouterr()

    return run


def test_every_output(library, detect, tmp_path):
    code, out, err = detect(library / "clips", library / "empty.mp4", "--output", "e.json", "--sheet", "sheet.png")
    assert code == cli.SOME_FAILED
    assert err.count("empty.mp4 is empty") == 1
    assert "1 of 3 files could not be read" in err
    found, made_with = read_detections(tmp_path / "e.json")
    own = pipeline("temporal-action-detection", model=str(library / "model"), device="cpu", grid="8/4", threshold=0.25)
    assert found == {"a": own(library / "clips/a.mkv"), "b": own(library / "clips/more/b.mkv")}
    assert len(found["a"]) > 1
    assert made_with == {"grid": "8/4", "threshold": 0.25, "model": str(library / "model")}
    assert f"a.mkv  {len(found['a'])} events" in out
    first = min(found["a"], key=lambda one: (one.start, one.end))
    assert f"{first.start:.2f} -" in out.splitlines()[1]
    assert f"{first.score:.1%}  {first.label}" in out.splitlines()[1]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 1280

    assert detect(library / "clips/a.mkv", "--output", "e.csv", "--json")[0] == cli.DONE
    rows = list(csv.DictReader((tmp_path / "e.csv").open()))
    assert [(r["video"], r["label"], float(r["start"])) for r in rows] == [("a", e.label, e.start) for e in found["a"]]
    code, out, _ = detect(library / "clips/a.mkv", "--output", "e.vtt", "--json", "--top-k", "1")
    assert [Detection(**one) for one in json.loads(out)["a"]] == found["a"][:1]
    assert (tmp_path / "e.vtt").read_text().startswith("WEBVTT")


def test_nothing_is_written_over_and_json_is_gone_on_with(library, detect, tmp_path):
    a, b = library / "clips/a.mkv", library / "clips/more/b.mkv"
    assert detect(a, "--output", "e.json")[0] == cli.DONE
    before = (tmp_path / "e.json").read_text()
    for more in ((), ("--threshold", "0.4", "--resume")):
        code, _, err = detect(a, b, "--output", "e.json", *more, "--model", library / "model")
        assert code == cli.WRONG
        assert ("made with other options" if more else "e.json is there already: --resume") in err
        assert (tmp_path / "e.json").read_text() == before
    code, out, err = detect(a, b, "--output", "e.json", "--resume")
    assert code == cli.DONE
    assert "e.json has 1 video already, 1 to do" in err
    assert "b.mkv" in out
    assert "a.mkv" not in out
    whole = (tmp_path / "e.json").read_text()
    assert detect(a, b, "--output", "e.json", "--overwrite")[0] == cli.DONE
    assert (tmp_path / "e.json").read_text() == whole
    (tmp_path / "e.json").write_text(whole[:100])
    code, _, err = detect(a, b, "--output", "e.json", "--resume")
    assert code == cli.WRONG
    assert "is damaged" in err


def test_names_of_videos_that_would_be_alike(library, tmp_path):
    from hf_video.cli.verbs.detect import video_names

    assert video_names(["x/a.mp4", "y/a.mp4", "y/b.tar.mp4"]) == {
        "x/a.mp4": "x/a.mp4",
        "y/a.mp4": "y/a.mp4",
        "y/b.tar.mp4": "b.tar",
    }


def test_answers_to_a_query(library, detect, tmp_path):
    """Of what is found, and of what a file holds already; a query that can't be read is refused before all work."""
    file, other = library / "clips/a.mkv", library / "clips/more/b.mkv"
    code, out, _ = detect(file, "--query", "any", "--output", "e.json")
    assert code == cli.DONE
    found = sorted(read_detections(tmp_path / "e.json")[0]["a"], key=lambda one: (one.start, one.end))
    lines = out.splitlines()
    assert lines[0] == f"a  {len(found)} answers"
    assert len(lines) == 1 + len(found) > 2
    assert lines[1].endswith(f"{found[0].score:.1%}  {found[0].label} {found[0].start:.2f} - {found[0].end:.2f}")
    query = f'"{found[0].label}" within 1000 seconds of any'
    code, out, err = detect(file, other, "--query", query, "--output", "e.json", "--resume", "--json")
    assert code == cli.DONE
    assert "has 1 video already" in err
    answers = json.loads(out)
    assert set(answers) == {"a", "b"}
    pairs = [(one, two) for one in found if one.label == found[0].label for two in found if two is not one]
    assert len(answers["a"]) == len(pairs) > 0
    for answer in answers["a"]:
        first, second = answer["events"]
        assert first["label"] == found[0].label
        assert answer["start"] == min(first["start"], second["start"])
        assert answer["score"] == min(first["score"], second["score"])
    code, out, err = detect(library / "no such file.mp4", "--query", "any before")
    assert code == cli.WRONG
    assert "The query can't be read" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--output", "e.txt"), "must end in"),
        (("--output", "e.vtt"), "events of one video, and 2 came"),
        (("--resume",), "name it with --output"),
        (("--labels", "jump"), "6 labels of its own"),
        (("--grid", "0s"), "above 0"),
        (("--treshold", "0.5"), "Did you mean '--threshold'"),
        (("--model", "nowhere/at/all"), "There is no folder"),
    ],
)
def test_what_is_wrong(library, detect, tmp_path, options, message):
    code, _, err = detect(library / "clips", *options)
    assert code == cli.WRONG
    assert message in err
    assert not list(tmp_path.iterdir())
