"""Lists, `datasets` and tar shards as sources."""

from __future__ import annotations

import io
import json
import tarfile

import datasets
import pytest

from hf_video.data import load_videos
from hf_video.errors import DataError
from hf_video.video import VideoReader


@pytest.fixture(scope="session")
def paths(clips):
    return sorted(clips.rglob("*.mp4"))


def names(rows):
    return [row.name for row in rows]


class TestLists:
    @pytest.mark.parametrize(
        ("suffix", "header", "line"),
        [
            (".csv", "video,label", "{path},{label}"),
            (".csv", "Label;Path", "{label};{path}"),
            (".tsv", "path\tcategory\tgroup", "{path}\t{label}\tg{number}"),
            (".txt", None, "{path} {label}"),
            (".csv", None, "{path},{label}"),
        ],
    )
    def test_tables(self, clips, paths, suffix, header, line):
        lines = [
            line.format(path=p.relative_to(clips).as_posix(), label=p.parent.name, number=i)
            for i, p in enumerate(paths)
        ]
        file = clips / f"list{suffix}"
        file.write_text("\n".join(([header] if header else []) + lines) + "\n")
        try:
            splits = load_videos(file)
        finally:
            file.unlink()
        assert splits["train"].labels == ["down", "left", "right", "up"]
        assert splits["test"].counts() == dict.fromkeys(splits["test"].labels, 1)
        row = splits["train"][0]
        assert row.name == f"down/{row.name.split('/')[1]}"
        assert row.label == 0
        assert row.source == str(clips / row.name)

    def test_official_lists_count_classes_by_number(self, clips, paths, tmp_path):
        """`path frames label`, and a class 2 that has no video here."""
        number = {"down": 0, "left": 1, "right": 3, "up": 4}
        (tmp_path / "train.txt").write_text("".join(f"{p} 8 {number[p.parent.name]}\n" for p in paths))
        (tmp_path / "test.txt").write_text(f"{paths[0]} 8 1\n")
        splits = load_videos({"train": tmp_path / "train.txt", "val": tmp_path / "test.txt"})
        assert splits["train"].labels == splits["validation"].labels == ["0", "1", "2", "3", "4"]
        assert splits["train"].counts() == {"0": 4, "1": 4, "2": 0, "3": 4, "4": 4}
        assert [row.label for row in splits["validation"]] == [1]
        named = load_videos(tmp_path / "train.txt", split="train", labels=list("abcde"))["train"]
        assert named.counts() == {"a": 4, "b": 4, "c": 0, "d": 4, "e": 4}

    def test_numbers_from_one(self, paths, tmp_path):
        (tmp_path / "l.txt").write_text("".join(f"{p} {i % 4 + 1}\n" for i, p in enumerate(paths)))
        rows = load_videos(tmp_path / "l.txt", split="train")["train"]
        assert rows.labels == ["1", "2", "3", "4"]
        assert {row.label for row in rows} == {0, 1, 2, 3}

    def test_json_with_splits_and_what_is_missing(self, paths, tmp_path):
        rows = [
            {"path": str(p), "class": p.parent.name, "split": "val" if i % 4 else "train"} for i, p in enumerate(paths)
        ]
        rows += [{"path": "gone.mp4", "class": "up", "split": "train"}, {"path": "", "class": "up"}]
        rows += [{"path": str(paths[0]), "class": None, "split": "train"}]
        (tmp_path / "l.jsonl").write_text("\n".join(map(json.dumps, rows)))
        splits = load_videos(tmp_path / "l.jsonl")
        assert {name: len(found) for name, found in splits.items()} == {"train": 4, "validation": 12}
        assert [entry.kind for entry in splits["train"].skipped] == ["missing", "format", "unlabelled"]
        (tmp_path / "l.json").write_text(json.dumps({str(p): p.parent.name for p in paths}))
        assert len(load_videos(tmp_path / "l.json", split="test")["test"]) == 16

    def test_wrong_lists(self, tmp_path):
        for name, text, match in (
            ("a.csv", "", "names no video"),
            ("b.json", "{", "not valid JSON"),
            ("c.json", '[{"text": "x"}]', "has the columns text, and none of videos"),
            ("d.csv", "video,label\nx.mp4,a", "none of them can be used"),
        ):
            (tmp_path / name).write_text(text)
            with pytest.raises(DataError, match=match):
                load_videos(tmp_path / name)


class TestDatasets:
    def test_paths_and_bytes_in_a_video_column_read_alike(self, paths):
        labels = [p.parent.name for p in paths]
        by_path = datasets.Dataset.from_dict({"video": [str(p) for p in paths], "label": labels})
        cells = [{"bytes": p.read_bytes(), "path": None} for p in paths]
        features = datasets.Features({"clip": datasets.Video(), "label": datasets.Value("string")})
        by_bytes = datasets.Dataset.from_dict({"clip": cells, "label": labels}, features=features)
        for given in (by_path.cast_column("video", datasets.Video()), by_bytes, by_path):
            rows = load_videos(given, split="train")["train"]
            assert rows.labels == ["down", "left", "right", "up"]
            assert [rows.labels[row.label] for row in rows] == labels
            with VideoReader(rows[5].source) as reader, VideoReader(paths[5]) as truth:
                assert (reader.get_frames([3]).data == truth.get_frames([3]).data).all()

    def test_class_labels_splits_shuffling_and_disk(self, paths, tmp_path):
        names_of = ["up", "down", "left", "right"]  # not in order of the alphabet
        features = datasets.Features({"video": datasets.Video(), "label": datasets.ClassLabel(names=names_of)})
        given = datasets.Dataset.from_dict(
            {"video": [str(p) for p in paths], "label": [p.parent.name for p in paths]}, features=features
        )
        given = given.shuffle(seed=0).train_test_split(4, seed=0)
        given.save_to_disk(tmp_path / "saved")
        for source in (given, tmp_path / "saved"):
            splits = load_videos(source)
            assert {name: len(rows) for name, rows in splits.items()} == {"train": 12, "test": 4}
            assert splits["train"].labels == names_of
            for row in splits["train"]:
                folder = row.name.rpartition("(")[2]
                assert folder.rstrip(")").endswith(".mp4")
                with VideoReader(row.source) as reader:
                    assert len(reader) == 8

    def test_what_is_none(self, paths):
        with pytest.raises(DataError, match="has the columns text, and none of videos"):
            load_videos(datasets.Dataset.from_dict({"text": ["a"]}))
        stream = datasets.Dataset.from_dict({"video": ["a"]}).to_iterable_dataset()
        with pytest.raises(DataError, match="VideoStream"):
            load_videos(stream)


class TestShards:
    @pytest.mark.parametrize("label", ["cls", "json", "folder"])
    def test_members_are_read_in_place(self, paths, tmp_path, label):
        for shard in range(2):
            write_shard(tmp_path / f"{shard:03d}.tar", paths[shard::2], label)
        rows = load_videos(str(tmp_path / "{000..001}.tar"), split="train")["train"]
        assert len(rows) == 16
        assert rows.labels == ["down", "left", "right", "up"]
        assert rows.counts() == dict.fromkeys(rows.labels, 4)
        assert names(rows) == names(load_videos(tmp_path, split="train")["train"])
        assert rows[0].source.read() == paths[0].read_bytes()
        with VideoReader(rows[9].source) as reader:
            assert len(reader) == 8

    def test_splits_by_name_and_what_is_skipped(self, paths, tmp_path):
        write_shard(tmp_path / "train-0.tar", paths[:12], "cls")
        write_shard(tmp_path / "val-0.tar", paths[12:], "cls", extra=("zz.txt", b"no video"))
        splits = load_videos(tmp_path)
        assert {name: len(rows) for name, rows in splits.items()} == {"train": 12, "validation": 4}
        assert [entry.kind for entry in splits["train"].skipped] == ["format"]

    def test_wrong_shards(self, tmp_path):
        (tmp_path / "a.tar").write_bytes(b"x" * 2000)
        with pytest.raises(DataError, match="can't be read as a tar"):
            load_videos(tmp_path / "a.tar")
        with pytest.raises(DataError, match="does not exist"):
            load_videos(str(tmp_path / "b.tar"))
        with pytest.raises(DataError, match="VideoStream"):
            load_videos("https://example.org/a.tar")


def write_shard(path, videos, label, extra=None):
    with tarfile.open(path, "w") as tar:
        for video in videos:
            name = video.parent.name
            key = f"{name}/{video.stem}" if label == "folder" else video.stem
            add(tar, f"{key}.mp4", video.read_bytes())
            if label == "cls":
                add(tar, f"{key}.cls", name.encode())
            elif label == "json":
                add(tar, f"{key}.json", json.dumps({"label": name, "fps": 8}).encode())
        if extra:
            add(tar, *extra)


def add(tar, name, data):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
