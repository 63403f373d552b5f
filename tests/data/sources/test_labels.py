"""Labels: several a video, one spelling, numbers and names; and rows that are parts of videos."""

from __future__ import annotations

import json
import tarfile
import unicodedata

import numpy as np
import pytest

from hf_video.data import VideoDataset, load_captions, load_videos
from hf_video.errors import DataError, VideoOptionError, VideoSourceError
from hf_video.video import VideoPart, VideoReader

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


@pytest.fixture
def videos(tmp_path):
    """Empty files: nothing opens them here."""
    for name in "abcdef":
        (tmp_path / f"{name}.mp4").touch()
    return tmp_path


def read(path, **options):
    rows = load_videos(path, split="train", inspect=None, **options)["train"]
    return rows.labels, {row.name: row.label for row in rows}


class TestSeveralLabels:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("l.txt", "a.mp4 1 3 5\nb.mp4 0\nc.mp4 2 4\n"),
            ("l.csv", "video,label\na.mp4,1 3 5\nb.mp4,0\nc.mp4,2|4\n"),
            ("l.csv", 'video,labels\na.mp4,"1,3,5"\nb.mp4,0\nc.mp4,"[2, 4]"\n'),
            ("l.csv", "a.mp4;1|3|5\nb.mp4;0\nc.mp4;2|4\n"),
            ("l.json", json.dumps({"a.mp4": [1, 3, 5], "b.mp4": [0], "c.mp4": [2, 4]})),
            ("l.jsonl", '{"video": "a.mp4", "label": [1, 3, 5]}\n{"video": "b.mp4", "label": 0}\n'
                        '{"video": "c.mp4", "labels": null, "label": "2|4"}\n'),
        ],
    )  # fmt: skip
    def test_numbers(self, videos, name, text):
        (videos / name).write_text(text)
        labels, found = read(videos / name)
        assert labels == ["0", "1", "2", "3", "4", "5"]
        assert found == {"a.mp4": (1, 3, 5), "b.mp4": (0,), "c.mp4": (2, 4)}

    def test_names_and_none(self, videos):
        (videos / "l.json").write_text(json.dumps({"a.mp4": ["run", "jump"], "b.mp4": [], "c.mp4": "run"}))
        labels, found = read(videos / "l.json")
        assert labels == ["jump", "run"]
        assert found == {"a.mp4": (0, 1), "b.mp4": (), "c.mp4": (1,)}
        rows = load_videos(videos / "l.json", split="train", inspect=None)["train"]
        assert rows.multi_label
        assert rows.labelled
        assert rows.counts() == {"jump": 1, "run": 2}

    def test_a_count_of_frames_is_not_guessed(self, videos):
        path = videos / "l.txt"
        path.write_text("a.mp4 163 1 3 5\nb.mp4 100 2\n")
        with pytest.raises(DataError, match=r"line 1: several numbers follow a video.*path-frames-labels"):
            read(path)
        assert read(path, data_format="path-frames-labels")[1] == {"a.mp4": (1, 3, 5), "b.mp4": (2,)}
        assert read(path, data_format="path-labels")[1] == {"a.mp4": (1, 3, 5, 163), "b.mp4": (2, 100)}
        (videos / "folder").mkdir()
        path.write_text("folder 163 1 3 5\n")  # a folder of frames: the official lists have their count
        assert read(path)[1] == {"folder": (1, 3, 5)}

    def test_one_label_stays_one(self, videos):
        for text in ("a.mp4 163 1\nb.mp4 10 3\n", "a.mp4 1\nb.mp4 3\n"):
            (videos / "l.txt").write_text(text)
            assert read(videos / "l.txt")[1] == {"a.mp4": 1, "b.mp4": 3}
        (videos / "l.txt").write_text("a.mp4 9 pins bowling\nb.mp4 golf\n")
        assert read(videos / "l.txt")[0] == ["9 pins bowling", "golf"]
        (videos / "l.csv").write_text("video,label\na.mp4,1.0\nb.mp4,3.0\n")  # as pandas writes a column with gaps
        assert read(videos / "l.csv")[1] == {"a.mp4": 1, "b.mp4": 3}

    def test_automatic_split_has_every_class_on_both_sides(self, videos):
        for i in range(40):
            (videos / f"{i}.mp4").touch()
        rows = [{"video": f"{i}.mp4", "labels": [i % 3, 3 + i % 2]} for i in range(40)]
        (videos / "l.jsonl").write_text("\n".join(map(json.dumps, rows)))
        splits = load_videos(videos / "l.jsonl", inspect=None)
        assert 6 <= len(splits["test"]) <= 10
        assert all(min(rows.counts().values()) >= 1 for rows in splits.values())

    def test_datasets_with_lists_of_classes(self, videos):
        datasets = pytest.importorskip("datasets")
        names = datasets.ClassLabel(names=["jump", "run"])
        kind = datasets.List(names) if hasattr(datasets, "List") else datasets.Sequence(names)
        features = datasets.Features({"video": datasets.Value("string"), "label": kind})
        table = datasets.Dataset.from_dict(
            {"video": [str(videos / "a.mp4"), str(videos / "b.mp4")], "label": [[1, 0], [1]]}, features=features
        )
        rows = load_videos(table, split="train", inspect=None)["train"]
        assert rows.labels == ["jump", "run"]
        assert [row.label for row in rows] == [(0, 1), (1,)]

    def test_shards(self, videos, clips):
        video = next(clips.rglob("*.mp4"))
        with tarfile.open(videos / "a.tar", "w") as tar:
            for key, text in (("x", "1 3"), ("y", "0")):
                (videos / f"{key}.cls").write_text(text)
                tar.add(video, f"{key}.mp4")
                tar.add(videos / f"{key}.cls", f"{key}.cls")
        rows = load_videos(videos / "a.tar", split="train", inspect=None)["train"]
        assert [row.label for row in rows] == [(1, 3), (0,)]
        assert rows.labels == ["0", "1", "2", "3"]

    def test_what_is_no_label(self, videos):
        (videos / "l.jsonl").write_text('{"video": "a.mp4", "label": {"id": 3}}\n')
        with pytest.raises(DataError, match=r"line 1.*is no label"):
            read(videos / "l.jsonl")


class TestSpelling:
    def test_unicode_forms_are_one_class_and_named(self, videos):
        (videos / "l.csv").write_text(f"video,label\na.mp4,{NFC}\nb.mp4,{NFD}\nc.mp4,x\n", encoding="utf-8")
        rows = load_videos(videos / "l.csv", split="train", inspect=None)["train"]
        assert rows.labels == [NFC, "x"]
        assert [row.label for row in rows] == [0, 0, 1]
        assert [(one.kind, one.name, one.used) for one in rows.skipped] == [("label", NFC, True)]
        again = load_videos(videos / "l.csv", split="train", inspect=None, labels=["x", NFD])["train"]
        assert [row.label for row in again] == [1, 1, 0]

    def test_folders(self, tmp_path):
        for name in (f"{NFC}/a.mp4", f"{NFD}/b.mp4", "x/c.mp4"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        rows = load_videos(tmp_path, split="train", inspect=None)["train"]
        assert rows.counts() == {NFC: 2, "x": 1}
        for row in rows:
            open(row.source).close()  # paths are as they lie there

    def test_names_of_files_are_found_in_either_form(self, tmp_path):
        (tmp_path / f"{NFD}.mp4").touch()
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "x.mp4").touch()
        (tmp_path / "l.csv").write_text(f"video,caption\n{NFC}.mp4,one\n{NFD}.mp4,two\nsub\\x.mp4,three\n", "utf-8")
        rows = load_captions(tmp_path / "l.csv", inspect=None)["train"]
        assert len({row.source for row in rows}) == 2
        assert [row.caption for row in rows] == ["one", "two", "three"]
        open(rows[0].source).close()

    def test_near_duplicates_are_named(self, videos):
        (videos / "l.csv").write_text('video,label\na.mp4,Run fast\nb.mp4,run_fast\nc.mp4,"run fast "\n')
        rows = load_videos(videos / "l.csv", split="train", inspect=None)["train"]
        assert len(rows.labels) == 3
        assert [(one.kind, one.used) for one in rows.skipped] == [("label", True)] * 2
        assert "differs from 'Run fast' only by case" in rows.skipped[0].reason


class TestParts:
    def test_frames_and_times_are_those_of_the_part(self, clips):
        path = str(next(clips.rglob("*.mp4")))  # 8 frames
        with VideoReader(path) as whole:
            times, data = whole.timestamps, whole.get_frames(range(8)).data
        step = float(times[1] - times[0])
        for part, first, last in (
            (VideoPart(path, 2 * step, 5 * step), 2, 5),
            (VideoPart(path, 2.5 * step, 5.5 * step), 2, 6),
            (VideoPart(path, 3, 7, "frames"), 3, 7),
            (VideoPart(path, 6 * step), 6, 8),
            (VideoPart(path, 0, 100), 0, 8),
        ):
            with VideoReader(part) as reader:
                assert len(reader) == last - first
                assert (reader.get_frames(range(last - first)).data == data[first:last]).all()
                assert (reader.timestamps == times[first:last]).all()
                assert np.concatenate([frame.data for frame in reader]).shape == (last - first, *data.shape[1:])
                assert (reader.get_frames_at([times[first]]).data[0] == data[first]).all()
                meta = reader.metadata
                assert (meta.num_frames, meta.begin) == (last - first, times[first])
                assert meta.duration == pytest.approx((last - first) * step)
            with VideoReader(part, snap="keyframe") as reader:
                assert len(reader.get_frames([0]).data) == 1

    def test_parts_that_are_none(self, clips):
        path = str(next(clips.rglob("*.mp4")))
        with pytest.raises(VideoOptionError, match="from 3 to 2"):
            VideoPart(path, 3, 2)
        with pytest.raises(VideoSourceError, match="begins at 50 seconds"):
            len(VideoReader(VideoPart(path, 50, 60)))

    def test_rows_of_a_list(self, clips, processor, tmp_path):
        path = next(clips.rglob("*.mp4"))
        with VideoReader(path) as whole:
            step, data = float(whole.timestamps[1]), whole.get_frames(range(8)).data
        lines = [f"{path},a,0:00:00,{4 * step}", f"{path},b,{4 * step},{8 * step}", f"{path},a,,", f"{path},b,900,901"]
        (tmp_path / "l.csv").write_text("video,label,start_time,end_time\n" + "\n".join(lines) + "\n")
        rows = load_videos(tmp_path / "l.csv", split="train")["train"]
        assert [rows.labels[row.label] for row in rows] == ["a", "b", "a"]
        assert [one.kind for one in rows.skipped if not one.used] == ["missing"]
        assert "begins at 900" in rows.skipped[-1].reason
        assert rows[1].name == f"{path}#t={4 * step:.10g},{8 * step:.10g}"
        sample = VideoDataset(rows, processor, resize=None)[1]["pixel_values"]
        expected = processor(data[4:], do_sample_frames=False, return_tensors="pt")["pixel_values"][0]
        assert (sample - expected).abs().max() < 1e-6
        assert len(load_videos(tmp_path / "l.csv", test_size=0.5)) == 1, "parts of one video never stand on both sides"

    @pytest.mark.parametrize("cell", ["x", "5:", "nan"])
    def test_what_is_no_time(self, clips, tmp_path, cell):
        (tmp_path / "l.csv").write_text(f"video,label,start,end\n{next(clips.rglob('*.mp4'))},a,{cell},9\n")
        with pytest.raises(DataError, match=r"line 2: start=.* is no time"):
            load_videos(tmp_path / "l.csv", inspect=None)
