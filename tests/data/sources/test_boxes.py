"""AVA's files of boxes: what they hold, and the number of every line that is wrong."""

from __future__ import annotations

import pytest

from hf_video.data.sources.box_files import BoxLine, read_actions, read_boxes, read_excluded, write_boxes
from hf_video.data.sources.boxes import load_boxes
from hf_video.errors import DataError, OutputError
from hf_video.video.writer import write_video

GOOD = """clip_a,0,0.1,0.2,0.5,0.9,3,0
clip_a,0,0.1,0.2,0.5,0.9,7,0
clip_a,1,0.5,0.1,1,1,3,1
clip_b,1,0,0,0.5,0.5,7,0
"""


def written(folder, text, name="ava.csv"):
    path = folder / name
    path.write_text(text)
    return path


def test_lines_of_every_kind(tmp_path):
    file = read_boxes(written(tmp_path, "v,902,0,0,1,1,12,.5\nv,903,0,0,1,1,,.9\n\nv,904\nv,904.5,0,0,.5,1,12\n"))
    assert file.lines[:2] == [
        BoxLine("v", 902.0, (0.0, 0.0, 1.0, 1.0), 12, 0.5, "line 1"),
        BoxLine("v", 903.0, (0.0, 0.0, 1.0, 1.0), None, 0.9, "line 2"),
    ]
    assert file.rows() == [
        ("v", 902.0, 0.0, 0.0, 1.0, 1.0, 12, 0.5),
        ("v", 903.0),
        ("v", 904.0),
        ("v", 904.5, 0.0, 0.0, 0.5, 1.0, 12),
    ]
    write_boxes(tmp_path / "again.csv", file.rows())
    assert read_boxes(tmp_path / "again.csv").rows() == file.rows()
    with pytest.raises(OutputError):
        write_boxes(tmp_path / "nowhere" / "again.csv", [])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("v,1,0,0,1,1", "line 2 has 6 columns"),
        ("v,one,0,0,1,1,3", "line 2: second='one' is no number"),
        ("v,1,0,0,nan,1,3", "line 2: x2='nan' is no number"),
        ("v,1,0,0,1,1,3.5", "line 2: the action '3.5' must be a whole number"),
        ("v,1,0.6,0,0.5,1,3", "line 2: the box .* ends before it begins"),
        ("v,1,0,0,1.2,1,3", "line 2: the box .* reaches out of the frame"),
        ("v,1,10,20,110,220,3", "line 2: .* Are these pixels"),
        ("v,1,0,0,1,1,99", "line 2: the action 99 is not among the 2"),
        ("v,1,0,0,1,1,-1", "line 2: the action -1"),
    ],
)
def test_the_line_that_is_wrong(tmp_path, line, words):
    path = written(tmp_path, f"v,0,0,0,1,1,3\n{line}\n")
    with pytest.raises(DataError, match=words):
        read_boxes(path, actions={3: "sit", 7: "stand"})
    if "box" in words or "action 99" in words:
        file = read_boxes(path, actions={3: "sit", 7: "stand"}, invalid="drop")
        assert (len(file.lines), [one.name for one in file.faults]) == (1, ["line 2"])


def test_lists_of_actions_and_frames(tmp_path):
    text = 'item {\n  name: "bend/bow (at the waist)"\n  id: 1\n}\nlabel {\n name: "stand"\n label_id: 12\n type: X\n}'
    assert read_actions(written(tmp_path, text, "a.pbtxt")) == {1: "bend/bow (at the waist)", 12: "stand"}
    for wrong, words in (("nothing", "no actions"), ("item { id: 1 }", "no name"), (text + text, "two actions")):
        with pytest.raises(DataError, match=words):
            read_actions(written(tmp_path, wrong, "b.pbtxt"))
    assert read_excluded(written(tmp_path, "v,902\nw,1003\n", "x.csv")) == [("v", 902.0), ("w", 1003.0)]
    with pytest.raises(DataError, match="line 2 has 3 columns"):
        read_excluded(written(tmp_path, "v,902\nw,1003,1\n", "x.csv"))


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    import numpy as np

    folder = tmp_path_factory.mktemp("boxes")
    for name in ("clip_a", "clip_b"):
        write_video(folder / f"{name}.mp4", np.zeros((16, 32, 48, 3), np.uint8), fps=8)
    return folder


def test_key_frames_by_split(videos, tmp_path):
    splits = load_boxes(videos, written(tmp_path, GOOD), test_size=0.5, excluded=[("clip_a", 1.0)])
    rows = [row for part in splits.values() for row in part]
    assert sorted(row.name for row in rows) == ["clip_a@0", "clip_b@1"]
    assert set(splits) == {"train", "test"}
    (row,) = (row for row in rows if row.video == "clip_a")
    assert (row.second, row.boxes, row.actions) == (0.0, ((0.1, 0.2, 0.5, 0.9),), ((0, 1),))
    part = splits["train"] if row in list(splits["train"]) else splits["test"]
    assert part.labels == ["3", "7"]
    assert part.ground_truth() == [("clip_a", 0.0, 0.1, 0.2, 0.5, 0.9, 3), ("clip_a", 0.0, 0.1, 0.2, 0.5, 0.9, 7)]


def test_files_for_each_split_and_another_clock(videos, tmp_path):
    text = GOOD.replace(",0,0.1", ",900,0.1").replace(",1,", ",901,", 1).replace("clip_b,1", "clip_b,901")
    text = "".join(f"{line}\n" for line in text.splitlines() if ",90" in line)
    written(tmp_path, "".join(x for x in text.splitlines(True) if "clip_a" in x), "ava_train_v2.2.csv")
    written(tmp_path, "".join(x for x in text.splitlines(True) if "clip_b" in x), "ava_val_v2.2.csv")
    written(tmp_path, "clip_a,900\n", "ava_train_excluded_timestamps_v2.2.csv")
    splits = load_boxes(videos, tmp_path, first_second=900, actions={3: "sit", 7: "stand"})
    assert {name: sorted({row.video for row in rows}) for name, rows in splits.items()} == {
        "train": ["clip_a"],
        "validation": ["clip_b"],
    }
    assert splits["validation"][0].second == 1.0
    assert splits["validation"].labels == ["sit", "stand"]
    with pytest.raises(DataError, match=r"line 1: second 900 is second 900 of clip_a.*first_second"):
        load_boxes(videos, tmp_path)


def test_videos_and_files_that_are_not_there(videos, tmp_path):
    with pytest.raises(DataError, match="no folder"):
        load_boxes(tmp_path / "none", written(tmp_path, GOOD))
    with pytest.raises(DataError, match="There is no"):
        load_boxes(videos, tmp_path / "none.csv")
    with pytest.raises(DataError, match="None of the videos"):
        load_boxes(videos, written(tmp_path, GOOD.replace("clip", "film")))
    with pytest.raises(DataError, match="no box with an action"):
        load_boxes(videos, written(tmp_path, "clip_a,0,0,0,1,1,,0.9\n"))
    splits = load_boxes(videos, written(tmp_path, GOOD + "film,0,0,0,1,1,3\n"))
    assert [(one.name, one.kind) for one in splits["train"].skipped] == [("film", "missing")]
