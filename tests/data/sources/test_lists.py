"""Labels, captions and questions are read from every kind of list alike."""

from __future__ import annotations

import json

import pytest

from hf_video.data import load_captions, load_questions, load_videos
from hf_video.errors import DataError
from hf_video.video import VideoPart

# (video, start, end, split, group, what is said of it); the third has no video, the fourth says nothing.
RECORDS = [
    ("a.mp4", 0.5, 2.0, "train", "g1", "walk"),
    ("b.mp4", None, None, "val", "g2", "run"),
    ("gone.mp4", None, None, "train", None, "run"),
    ("c.mp4", None, None, "train", None, None),
    ("a.mp4", 0.5, 2.0, "train", "g1", "jump"),
]
LOADERS = {"label": load_videos, "caption": load_captions, "answer": load_questions}
FORMS = ("csv", "tsv", "json", "jsonl", "parquet", "datasets")


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.mp4").touch()
    return folder


def source_of(form, records, folder):
    columns = list(records[0])
    path = folder / f"list.{form}"
    if form == "datasets":
        return pytest.importorskip("datasets").Dataset.from_list(records)
    if form == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(records), path)
    elif form == "json":
        path.write_text(json.dumps(records))
    elif form == "jsonl":
        path.write_text("\n".join(map(json.dumps, records)))
    else:
        separator = "," if form == "csv" else "\t"
        lines = [["" if record[name] is None else str(record[name]) for name in columns] for record in records]
        path.write_text("\n".join(map(separator.join, [columns, *lines])) + "\n")
    return path


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", LOADERS)
def test_every_form_gives_the_same_rows(videos, tmp_path, kind, form):
    """Parts, splits, groups, a missing file, an empty annotation, and two records of one part."""
    names = ("video", "start", "end", "split", "group", kind)
    more = {"question": "what?"} if kind == "answer" else {}
    records = [{**dict(zip(names, record, strict=True)), **more} for record in RECORDS]
    splits = LOADERS[kind](source_of(form, records, tmp_path), videos=videos, inspect=None)
    part, whole = VideoPart(str(videos / "a.mp4"), 0.5, 2.0), str(videos / "b.mp4")
    said = {
        split: [(row.source, row.group, rows.labels[row.label] if rows.labels else getattr(row, kind)) for row in rows]
        for split, rows in splits.items()
    }
    assert said == {"train": [(part, "g1", "walk"), (part, "g1", "jump")], "validation": [(whole, "g2", "run")]}
    assert sorted(one.kind for one in splits["train"].skipped) == ["missing", "unlabelled"]
    missing = next(one for one in splits["train"].skipped if one.kind == "missing")
    assert "gone.mp4" in missing.name
    assert missing.reason.endswith("gone.mp4 does not exist")


@pytest.mark.parametrize("kind", LOADERS)
def test_a_mapping_of_splits_takes_every_form(videos, tmp_path, kind):
    def record(name):
        return [{"video": f"{name}.mp4", kind: "walk", "question": "what?"}]

    forms = {"train": "csv", "val": "parquet", "test": "datasets"}
    sources = {
        split: source_of(form, record(name), tmp_path) for name, (split, form) in zip("abc", forms.items(), strict=True)
    }
    splits = LOADERS[kind](sources, videos=videos, inspect=None)
    found = {split: [row.source for row in rows] for split, rows in splits.items()}
    assert found == {
        split: [str(videos / f"{name}.mp4")] for name, split in zip("abc", ("train", "validation", "test"), strict=True)
    }


@pytest.mark.parametrize("kind", LOADERS)
def test_a_column_that_was_asked_for_is_never_replaced(videos, tmp_path, kind):
    (tmp_path / "list.csv").write_text(f"video,question,{kind}\na.mp4,what?,walk\n")
    for column in ("video", kind):
        with pytest.raises(DataError, match=rf"no column '{column}_1'. Did you mean '{column}'"):
            LOADERS[kind](tmp_path / "list.csv", videos=videos, **{f"{column}_column": f"{column}_1"})


@pytest.mark.parametrize("kind", LOADERS)
def test_a_share_for_the_test_is_checked_before_anything_is_read(tmp_path, kind):
    with pytest.raises(DataError, match="test_size"):
        LOADERS[kind](tmp_path / "nothing.csv", test_size=1.0)


def test_a_file_that_a_list_names_twice_is_on_one_side(tmp_path):
    for number in range(10):
        (tmp_path / f"{number}.mp4").touch()
    lines = [f"{number}.mp4,{label}" for label in "xy" for number in range(10)]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    for seed in range(5):
        splits = load_videos(tmp_path / "list.csv", test_size=0.3, seed=seed, inspect=None)
        sides = [{row.source for row in rows} for rows in splits.values()]
        assert len(sides) == 2
        assert not set.intersection(*sides)


def test_spellings_of_one_path_are_one_video(videos, tmp_path):
    (tmp_path / "list.csv").write_text("video,caption\na.mp4,one\n../videos/a.mp4,two\nb.mp4,three\n")
    splits = load_captions(tmp_path / "list.csv", videos=videos, test_size=0.5, inspect=None)
    assert sorted(sorted(row.caption for row in rows) for rows in splits.values()) == [["one", "two"], ["three"]]


@pytest.mark.parametrize("label", ["clip", "key", "url"])
def test_a_label_that_is_called_like_a_column_makes_no_header(videos, label):
    (videos / "list.csv").write_text(f"a.mp4,{label}\nb.mp4,other\n")
    rows = load_videos(videos / "list.csv", split="train", inspect=None)["train"]
    assert [(row.name, rows.labels[row.label]) for row in rows] == [("a.mp4", label), ("b.mp4", "other")]


@pytest.mark.parametrize("kind", ["caption", "answer"])
def test_shards_hold_labels_alone(tmp_path, kind):
    (tmp_path / "a.tar").touch()
    with pytest.raises(DataError, match="has labels and no"):
        LOADERS[kind](tmp_path / "a.tar")


def test_class_names_of_datasets_are_no_lists(videos):
    datasets = pytest.importorskip("datasets")
    names = ["1 2", "run|jump"]
    features = datasets.Features({"video": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
    table = datasets.Dataset.from_dict({"video": ["a.mp4", "b.mp4"], "label": [0, 1]}, features=features)
    rows = load_videos(table, videos=videos, split="train", inspect=None)["train"]
    assert rows.labels == names
    assert [row.label for row in rows] == [0, 1]


def test_names_of_classes_are_answers(videos):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {name: datasets.Value("string") for name in ("video", "question")}
        | {"answer": datasets.ClassLabel(names=["no", "yes"])}
    )
    table = datasets.Dataset.from_dict({"video": ["a.mp4"], "question": ["is it?"], "answer": [1]}, features=features)
    (row,) = load_questions(table, videos=videos, inspect=None)["train"]
    assert row.answer == "yes"
