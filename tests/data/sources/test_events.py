"""Annotations of events: both forms say the same, every fault is named with its place, subsets become splits."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hf_video import cli
from hf_video.data.sources.event_files import read_detections, read_events, video_key
from hf_video.data.sources.events import count_events, load_events
from hf_video.errors import DataError
from hf_video.video.writer import write_video


def database(**videos):
    return {"version": "1", "database": videos}


def video(*events, subset="training", **more):
    return {"subset": subset, "annotations": [{"label": e[0], "segment": list(e[1:3])} for e in events], **more}


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Three videos of 10 seconds."""
    folder = tmp_path_factory.mktemp("videos")
    for name in ("a", "b", "c"):
        frames = np.random.default_rng(0).integers(0, 255, (20, 16, 16, 3), dtype=np.uint8)
        write_video(folder / f"{name}.mp4", frames, 2)
    return folder


def test_json_and_table_say_the_same(tmp_path):
    one = write(
        tmp_path / "a.json",
        database(a=video(("jump", 1, 2.5), ("run", 64.5, 70), duration=90.5), b=video(subset="testing")),
    )
    rows = "video,start,end,label,subset,duration\na,1,2.5,jump,training,90.5\na,0:01:04.5,70,run,training,90.5\n"
    other = write(tmp_path / "a.csv", rows + "b,,,,testing,\n")
    for path in (one, other):
        found = read_events(path)
        assert found.labels == ["jump", "run"]
        assert [(e.label, e.start, e.end) for e in found.videos["a"].events] == [("jump", 1, 2.5), ("run", 64.5, 70)]
        assert found.videos["a"].duration == 90.5
        assert found.videos["b"].events == []
        assert found.subsets() == {"training": ["a"], "testing": ["b"]}
        assert found.split_names() == {"training": "train", "testing": "test"}
        assert found.faults == []


def test_class_numbers_of_the_file_hold(tmp_path):
    given = database(a=video(("zebra", 0, 1), ("ant", 2, 3)))
    for number, one in enumerate(given["database"]["a"]["annotations"]):
        one["label_id"] = number
    assert read_events(write(tmp_path / "a.json", given)).labels == ["zebra", "ant"]


def test_thumos_validation_trains(tmp_path):
    path = write(tmp_path / "t.json", database(a=video(subset="Validation"), b=video(subset="Test")))
    assert read_events(path).split_names() == {"Validation": "train", "Test": "test"}
    assert read_events(path).choose_subset("test") == ["b"]
    with pytest.raises(DataError, match=r"no subset 'tset'. Did you mean 'Test'"):
        read_events(path).choose_subset("tset")


FAULTS = {
    "order": ("jump", 5, 4),
    "negative": ("jump", -1, 4),
    "zero length": ("jump", 4, 4),
    "beyond": ("jump", 4, 10.5),
    "value": ("jump", "soon", 4),
    "label": ("jmup", 4, 5),
}


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("form", ["json", "csv"])
def test_each_fault_is_named_with_its_place(kind, form, tmp_path):
    bad = FAULTS[kind]
    if form == "json":
        path = write(tmp_path / "a.json", database(a=video(("jump", 1, 2), bad, duration=10)))
        place = "a, annotation 2"
    else:
        lines = ["video,start,end,label,duration", "a,1,2,jump,10", ",".join(map(str, ("a", *bad[1:], bad[0], 10)))]
        path, place = write(tmp_path / "a.csv", "\n".join(lines)), "line 3 (a)"
    faults = read_events(path, labels=["jump", "run"]).faults
    assert [(one.kind, one.name) for one in faults] == [(kind, place)]


def test_copies_missing_values_and_subsets_are_faults(tmp_path):
    given = database(
        a=video(("jump", 1, 2), ("jump", 1.0005, 2), ("run", 1, 2)), b=video(subset="trianing", duration=-1)
    )
    given["database"]["a"]["annotations"].append({"segment": [1, 2]})
    faults = read_events(write(tmp_path / "a.json", given)).faults
    assert [(one.kind, one.name) for one in faults] == [
        ("value", "a, annotation 4"),
        ("value", "b"),
        ("duplicate", "a, annotation 2"),
        ("subset", "b"),
    ]
    assert "Did you mean 'training'" in faults[-1].reason


@pytest.mark.parametrize(
    "content",
    ["[1, 2", "{}", '{"database": {"a": {"annotations": 3}}}', '{"database": {}}', '{"versions": 1}'],
)
def test_what_holds_no_annotations_is_refused(content, tmp_path):
    with pytest.raises(DataError):
        read_events(write(tmp_path / "a.json", content))


def test_a_table_without_a_needed_column_is_refused(tmp_path):
    with pytest.raises(DataError, match="no column 'end'"):
        read_events(write(tmp_path / "a.csv", "video,start,label\na,1,jump\n"))


def test_rows_have_their_events_and_splits(tmp_path, videos):
    given = database(
        a=video(("run", 4, 5), ("jump", 1, 2), ("jump", 1, 2), ("run", 3, 3)),
        b=video(("run", 0, 9.99), subset="validation"),
        gone=video(("run", 0, 1)),
    )
    splits = load_events(videos, write(tmp_path / "a.json", given))
    assert list(splits) == ["train", "validation"]
    row = splits["train"][0]
    assert [(e.label, e.start, e.end) for e in row.events] == [("jump", 1, 2), ("run", 4, 5)]
    assert (row.label, row.duration, row.fps) == ((0, 1), 10.0, 2.0)
    assert count_events(splits["train"]) == {"jump": 1, "run": 1}
    assert [(one.kind, one.name) for one in splits["train"].skipped] == [
        ("duplicate", "a, annotation 3"),
        ("zero length", "a, annotation 4"),
        ("missing", "gone"),
    ]


def test_events_beyond_the_real_end_raise_or_are_dropped(tmp_path, videos):
    path = write(tmp_path / "a.json", database(a=video(("run", 1, 2), ("run", 9, 10.5)), b=video(("run", 1, 2))))
    with pytest.raises(DataError, match=r"a, annotation 2: .*beyond.*from 9 to 10.5 s, and the video ends at 10 s"):
        load_events(videos, path)
    splits = load_events(videos, path, invalid="drop", test_size=0)
    assert [(e.start, e.end) for e in splits["train"][0].events] == [(1, 2)]


def test_without_subsets_each_class_is_divided(tmp_path, videos):
    given = {name: {"annotations": [{"label": "run", "segment": [1, 2]}]} for name in "abc"}
    splits = load_events(videos, write(tmp_path / "a.json", {"database": given}))
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 2, "test": 1}
    assert [row.name for row in splits["test"]] == [
        row.name for row in load_events(videos, tmp_path / "a.json")["test"]
    ]


def test_a_folder_of_features_takes_the_videos_place(tmp_path):
    (tmp_path / "f").mkdir()
    np.save(tmp_path / "f" / "v_a.npy", np.zeros((4, 3), np.float32))
    path = write(tmp_path / "a.json", database(a=video(("run", 1, 2), duration=5, fps=30)))
    row = load_events(tmp_path / "f", path)["train"][0]
    assert (row.name, row.duration, row.fps) == ("a", 5, 30)
    assert row.source.endswith("v_a.npy")


def test_names_are_matched_without_endings_and_folders():
    known = {"a": 1, "x.y": 2, "b.mp4": 3}
    assert [video_key(name, known) for name in ("a.mp4", "sub/a.MP4", "v_a", "x.y", "x.y.mkv", "b.mp4", "c.mp4")] == [
        *("a", "a", "a", "x.y", "x.y", "b.mp4", "c.mp4")
    ]


def test_detections_come_back_as_they_were_written(tmp_path):
    from hf_video.base.detection.types import Detection, write_detections

    events = {"a": [Detection("run, fast", 0.5, 1.25, 2.5), Detection("jump", 0.25, 0, 9)], "b": []}
    for name in ("d.json", "d.csv"):
        write_detections(tmp_path / name, events)
        found = read_detections(tmp_path / name)
        assert found == ({key: value for key, value in events.items() if value or name == "d.json"})
    with pytest.raises(DataError, match=r"a, entry 1: a detection needs"):
        read_detections(write(tmp_path / "e.json", {"results": {"a": [{"label": "run", "segment": [1, 2]}]}}))
    with pytest.raises(DataError, match=r"line 2: .*must not lie before"):
        read_detections(write(tmp_path / "e.csv", "video,start,end,label,score\na,3,2,run,.5\n"))


def test_the_command_says_all_of_it(tmp_path, videos, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = write(
        tmp_path / "a.json",
        database(a=video(("run", 1, 2), ("run", 9, 10.5), ("run", 3, 2)), b=video(subset="trainin"), d=video()),
    )
    assert cli.main(["check", str(videos), "--annotations", str(path), "--no-content"]) == 1
    lines = capsys.readouterr().out.splitlines()
    for begin in (
        f"{path}: 3 events in 3 videos, 2 of them found",
        "order: a, annotation 3: ",
        "beyond: a, annotation 2: ",
        "subset: b: ",
        "missing: d: ",
        "without annotations: 1 file, such as c.mp4",
        "something was found",
    ):
        assert sum(line.startswith(begin) for line in lines) == 1, begin
