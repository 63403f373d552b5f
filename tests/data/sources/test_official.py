"""Lists of well-known data sets, in the forms in which they are published."""

from __future__ import annotations

import json
import shutil

import pytest

from hf_video.data import load_videos
from hf_video.errors import DataError
from hf_video.video import VideoPart, VideoReader


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """One clip of 48 frames, 2 seconds."""
    import tiny

    return tiny.write_clip(tmp_path_factory.mktemp("clip") / "c.mp4", 48, fps=24)


@pytest.fixture
def put(tmp_path, clip):
    """Puts the clip below `videos/` under each name."""

    def write(*names):
        for name in names:
            path = tmp_path / "videos" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(clip, path)
        return tmp_path / "videos"

    return write


def found(splits):
    """By split: the name below the videos and the label."""
    named = {}
    for split, rows in splits.items():
        for row in rows:
            several = isinstance(row.label, tuple)
            label = tuple(rows.labels[i] for i in row.label) if several else rows.labels[row.label]
            named.setdefault(split, []).append((row.name, label))
    return named


class TestKinetics:
    HEADER = "label,youtube_id,time_start,time_end,split\n"

    def test_cut_clips(self, put, tmp_path):
        videos = put("train/abcdefghijk_000010_000020.mp4", "val/-bcdefghijk_000003_000013.mkv")
        (tmp_path / "k400.csv").write_text(
            f'{self.HEADER}"petting animal (not cat)",abcdefghijk,10,20,train\nabseiling,-bcdefghijk,3,13,validate\n'
            "abseiling,zzzzzzzzzzz,0,10,train\n"
        )
        splits = load_videos(tmp_path / "k400.csv", videos=videos)
        assert found(splits) == {
            "train": [("train/abcdefghijk_000010_000020.mp4", "petting animal (not cat)")],
            "validation": [("val/-bcdefghijk_000003_000013.mkv", "abseiling")],
        }
        assert [(one.name, one.kind) for one in splits["train"].skipped if not one.used] == [
            ("zzzzzzzzzzz_000000_000010", "missing")
        ]

    def test_whole_videos_are_cut_and_clips_called_by_the_id_are_not(self, put, tmp_path):
        videos = put("a.mp4", "b.mp4", "c.mp4")
        (tmp_path / "train.csv").write_text(
            f"{self.HEADER}x,a,0,1,train\nx,a,1,2,train\ny,b,10,20,train\ny,c,10,20,train\nx,c,20,30,train\n"
        )
        rows = load_videos(tmp_path / "train.csv", videos=videos)["train"]
        # Of c's two clips nothing says which one the file is.
        assert [row.source for row in rows] == [
            VideoPart(str(videos / "a.mp4"), 0.0, 1.0),
            VideoPart(str(videos / "a.mp4"), 1.0, 2.0),
            str(videos / "b.mp4"),
        ]
        assert {row.group for row in rows} == {"a", "b"}

    def test_wrong_lists(self, put, tmp_path):
        put("a.mp4")
        for line, message in (("x,a,ten,20,train", "line 2: time_start"), (",a,0,1,train", "line 2: a label")):
            (tmp_path / "k.csv").write_text(f"{self.HEADER}{line}\n")
            with pytest.raises(DataError, match=message):
                load_videos(tmp_path / "k.csv", videos=tmp_path / "videos")
        (tmp_path / "k.csv").write_text(f"{self.HEADER}x,q,0,1,train\n")
        with pytest.raises(DataError, match=r"--videos.*q_000000_000001"):
            load_videos(tmp_path / "k.csv")


def test_something_something(put, tmp_path):
    videos = put("20bn-something-something-v2/7.webm", "20bn-something-something-v2/8.webm", "9.webm")
    lists = tmp_path / "labels"
    lists.mkdir()
    for name, entries in (
        (
            "train",
            [{"id": "7", "label": "holding a pen", "template": "Holding [something]", "placeholders": ["a pen"]}],
        ),
        ("validation", [{"id": "8", "label": "x", "template": "Closing [something]", "placeholders": []}]),
        ("test", [{"id": "9"}]),
    ):
        (lists / f"{name}.json").write_text(json.dumps(entries))
    (lists / "labels.json").write_text(json.dumps({"Holding something": "0", "Closing something": "1", "Other": "2"}))
    (lists / "test-answers.csv").write_text("9;Closing [something]\n")
    splits = load_videos(lists, videos=videos, inspect=None)
    assert splits["train"].labels == ["Holding something", "Closing something", "Other"]
    assert found(splits) == {
        "train": [("20bn-something-something-v2/7.webm", "Holding something")],
        "validation": [("20bn-something-something-v2/8.webm", "Closing something")],
        "test": [("9.webm", "Closing something")],
    }
    (lists / "labels.json").unlink()
    (rows,) = load_videos(lists / "train.json", videos=videos, inspect=None).values()
    assert rows.labels == ["Holding something"]


def test_ucf101(put, tmp_path):
    videos = put("B/v_B_g01_c01.avi", "B/v_B_g02_c01.avi", "A/v_A_g01_c01.avi", "A/v_A_g02_c01.avi")
    (tmp_path / "classInd.txt").write_text("1 B\r\n2 A\r\n")
    (tmp_path / "trainlist01.txt").write_text("B/v_B_g02_c01.avi 1\r\nA/v_A_g02_c01.avi 2\r\n")
    (tmp_path / "testlist01.txt").write_text("B/v_B_g01_c01.avi\r\nA/v_A_g01_c01.avi\r\n")
    (tmp_path / "trainlist02.txt").write_text("B/v_B_g01_c01.avi 1\n")
    (tmp_path / "testlist02.txt").write_text("B/v_B_g02_c01.avi\n")
    splits = load_videos(tmp_path, data_format="ucf101", videos=videos, inspect=None)
    assert splits["train"].labels == ["B", "A"]
    assert found(splits) == {
        "train": [("B/v_B_g02_c01.avi", "B"), ("A/v_A_g02_c01.avi", "A")],
        "test": [("B/v_B_g01_c01.avi", "B"), ("A/v_A_g01_c01.avi", "A")],
    }
    second = load_videos(tmp_path, data_format="ucf101:2", videos=videos, inspect=None)
    assert found(second) == {"train": [("B/v_B_g01_c01.avi", "B")], "test": [("B/v_B_g02_c01.avi", "B")]}
    one = load_videos(tmp_path / "testlist01.txt", videos=videos, inspect=None)
    assert found(one) == {"test": [("B/v_B_g01_c01.avi", "B"), ("A/v_A_g01_c01.avi", "A")]}


def test_hmdb51(put, tmp_path):
    videos = put("brush_hair/#1_x.avi", "brush_hair/y.avi", "brush_hair/z.avi", "cart wheel/w.avi")
    lists = tmp_path / "splits"
    lists.mkdir()
    (lists / "brush_hair_test_split1.txt").write_text("#1_x.avi 1 \ny.avi 2 \nz.avi 0 \n")
    (lists / "cart wheel_test_split1.txt").write_text("w.avi 1 \n")
    (lists / "brush_hair_test_split2.txt").write_text("#1_x.avi 2 \ny.avi 1 \nz.avi 1 \n")
    splits = load_videos(lists, videos=videos, inspect=None)
    assert found(splits) == {
        "train": [("brush_hair/#1_x.avi", "brush_hair"), ("cart wheel/w.avi", "cart wheel")],
        "test": [("brush_hair/y.avi", "brush_hair")],
    }
    assert [(one.name, one.kind) for one in splits["train"].skipped] == [("brush_hair/z.avi", "unused")]
    second = load_videos(lists, data_format="hmdb51:2", videos=videos, inspect=None)
    assert {name: len(rows) for name, rows in second.items()} == {"train": 2, "test": 1}
    (lists / "brush_hair_test_split1.txt").write_text("#1_x.avi 3\n")
    with pytest.raises(DataError, match=r"line 1: '#1_x.avi 3' came"):
        load_videos(lists, videos=videos)


def test_diving48(put, tmp_path):
    videos = put("rgb/aaa_00001.mp4", "rgb/bbb_00002.mp4")
    (tmp_path / "Diving48_V2_train.json").write_text(
        json.dumps([{"vid_name": "aaa_00001", "label": 1, "start_frame": 5, "end_frame": 20}])
    )
    (tmp_path / "Diving48_V2_test.json").write_text(
        json.dumps([{"vid_name": "bbb_00002", "label": 0, "start_frame": 0, "end_frame": 48}])
    )
    (tmp_path / "Diving48_vocab.json").write_text(
        json.dumps([["Back", "15som", "05Twis", "FREE"], ["Forward", "PIKE"]])
    )
    splits = load_videos(tmp_path, data_format="diving48", videos=videos)
    assert splits["train"].labels == ["Back 15som 05Twis FREE", "Forward PIKE"]
    assert [row.label for row in splits["train"]] == [1]
    with VideoReader(splits["train"][0].source) as reader, VideoReader(videos / "rgb" / "aaa_00001.mp4") as whole:
        assert (reader.get_frames(range(len(reader))).data == whole.get_frames(range(5, 20)).data).all()


def test_charades(put, tmp_path):
    videos = put("Charades_v1_480/46GP8.mp4", "Charades_v1_480/N11GT.mp4", "Charades_v1_480/0IH69.mp4")
    header = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\n"
    (tmp_path / "Charades_v1_train.csv").write_text(
        f'{header}46GP8,HR43,Kitchen,6,7,Yes,"A, b.",x;y,a;b,c092 11.90 21.20;c147 0.00 12.60,24.83\n'
        "N11GT,0KZ7,Stairs,6,7,No,Two\u2028lines,,,,18.33\n",
        encoding="utf-8",
    )
    (tmp_path / "Charades_v1_test.csv").write_text(f"{header}0IH69,X,Y,6,7,Yes,S,,,c001 0.00 5.00;c001 7.00 9.00,30\n")
    splits = load_videos(tmp_path, data_format="charades", videos=videos, inspect=None)
    assert splits["train"].labels == [f"c{number:03d}" for number in range(157)]
    assert [row.label for row in splits["train"]] == [(92, 147), ()]
    assert [row.label for row in splits["test"]] == [(1,)]
    names = "".join(f"c{number:03d} Doing {number}\n" for number in range(157))
    (tmp_path / "Charades_v1_classes.txt").write_text(names)
    rows = load_videos(tmp_path / "Charades_v1_test.csv", videos=videos, inspect=None)["test"]
    assert found({"test": rows}) == {"test": [("Charades_v1_480/0IH69.mp4", ("Doing 1",))]}


def test_epic_kitchens(put, tmp_path):
    videos = put("P01/videos/P01_01.MP4")
    (tmp_path / "EPIC_100_train.csv").write_text(
        "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame,"
        "narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes\n"
        "P01_01_0,P01,P01_01,00:00:00.560,00:00:00.14,00:00:00.87,8,52,open door,open,2,door,1,['door'],[1]\n"
        "P01_01_1,P01,P01_01,00:00:01.0,00:00:01.00,00:00:01.50,60,90,take it,take,0,it,0,\"['i', 'x']\",\"[0, 4]\"\n"
    )
    rows = load_videos(tmp_path / "EPIC_100_train.csv", videos=videos)["train"]
    assert [row.label for row in rows] == [2, 0]
    assert [row.source for row in rows] == [
        VideoPart(str(videos / "P01/videos/P01_01.MP4"), start, end) for start, end in ((0.14, 0.87), (1.0, 1.5))
    ]
    with VideoReader(rows[1].source) as reader:
        assert (reader.metadata.begin, len(reader)) == (1.0, 12)
    (tmp_path / "EPIC_100_verb_classes.csv").write_text(
        "id,key,instances,category\n0,take,\"['a']\",x\n1,put,b,x\n2,open,c,x\n"
    )
    (tmp_path / "EPIC_100_noun_classes.csv").write_text("noun_id,class_key,nouns\n0,tap,\"['a']\"\n1,door,b\n")
    for variant, labels in (("", ["open", "take"]), (":noun", ["door", "tap"]), (":action", ["open door", "take tap"])):
        rows = load_videos(tmp_path, data_format=f"epic-kitchens{variant}", videos=videos, inspect=None)["train"]
        assert [rows.labels[row.label] for row in rows] == labels
    assert {row.group for row in rows} == {"P01_01"}


def test_unknown_formats_and_variants(tmp_path):
    (tmp_path / "trainlist01.txt").write_text("A/a.avi 1\n")
    for name, message in (("ucf", "must be one of"), ("ucf101:4", "ucf101 has 1, 2, 3"), ("charades", "no list of")):
        with pytest.raises(DataError, match=message):
            load_videos(tmp_path, data_format=name)
