"""Pairs of videos and captions: every source, what is left out, samples and batches."""

from __future__ import annotations

import json

import pytest
import tiny
import torch
from tiny_text import tiny_tokenizer

import hf_video
from hf_video.data.datasets.captions import CaptionCollator, CaptionDataset, load_captions
from hf_video.errors import DataError

NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("captions")
    for i, name in enumerate(NAMES):
        tiny.write_clip(folder / f"{name}.mp4", 8, seed=i)
    return folder


def pairs(rows):
    return [(row.name, row.caption) for row in rows]


def test_a_table(folder, tmp_path):
    """Several entries of a video, a missing file, an empty caption, commas in a caption."""
    table = tmp_path / "pairs.csv"
    table.write_text('video,caption\na.mp4,"a ring, moving"\nb.mp4,  a   disc \nlost.mp4,x\na.mp4,again\nc.mp4,\n')
    splits = load_captions(table, videos=folder)
    assert list(splits) == ["train"]
    assert pairs(splits["train"]) == [("a.mp4", "a ring, moving"), ("a.mp4", "again"), ("b.mp4", "a disc")]
    assert [(one.name.split()[0], one.kind) for one in splits["train"].skipped] == [
        ("lost.mp4", "missing"),
        ("c.mp4", "unlabelled"),
    ]


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_json_with_lists_and_splits(folder, tmp_path, ending):
    records = [
        {"path": "a.mp4", "captions": ["one", "two"], "split": "train"},
        {"path": "b.mp4", "captions": ["three"], "split": "val"},
    ]
    file = tmp_path / f"pairs.{ending}"
    file.write_text(json.dumps(records) if ending == "json" else "\n".join(map(json.dumps, records)))
    splits = load_captions(file, videos=folder)
    assert {name: pairs(rows) for name, rows in splits.items()} == {
        "train": [("a.mp4", "one"), ("a.mp4", "two")],
        "validation": [("b.mp4", "three")],
    }
    assert pairs(load_captions(file, videos=folder, split="validation")["validation"]) == [("b.mp4", "three")]
    with pytest.raises(DataError, match="no split 'test'"):
        load_captions(file, videos=folder, split="test")


def test_msrvtt(folder, tmp_path):
    """Names without an ending, captions apart from videos, "validate"."""
    given = {
        "videos": [{"video_id": "a", "split": "train"}, {"video_id": "b", "split": "validate"}],
        "sentences": [
            {"video_id": "a", "caption": "one", "sen_id": 0},
            {"video_id": "b", "caption": "two", "sen_id": 1},
            {"video_id": "a", "caption": "three", "sen_id": 2},
            {"video_id": "gone", "caption": "four", "sen_id": 3},
        ],
    }
    (tmp_path / "train_val_videodatainfo.json").write_text(json.dumps(given))
    splits = load_captions(tmp_path / "train_val_videodatainfo.json", videos=folder)
    assert {name: pairs(rows) for name, rows in splits.items()} == {
        "train": [("a", "one"), ("a", "three")],
        "validation": [("b", "two")],
    }
    assert splits["train"][0].source == str(folder / "a.mp4")
    # Its test list has a header of its own.
    (tmp_path / "test.csv").write_text("key,vid_key,video_id,sentence\nret0,msr1,c,a disc\n")
    assert pairs(load_captions(tmp_path / "test.csv", videos=folder)["train"]) == [("c", "a disc")]


def test_folders(tmp_path):
    for name in ("train/a", "train/b", "test/a", "loose"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        tiny.write_clip(tmp_path / f"{name}.mp4", 8)
    for name, text in (("train/a", "one\ntwo\n"), ("test/a", "three"), ("loose", "four")):
        (tmp_path / f"{name}.txt").write_text(text)
    splits = load_captions(tmp_path)
    assert {name: pairs(rows) for name, rows in splits.items()} == {
        "train": [("train/a.mp4", "one"), ("train/a.mp4", "two")],
        "test": [("test/a.mp4", "three")],
    }
    skipped = {one.name: one.kind for one in splits["train"].skipped}
    assert skipped == {"train/b.mp4": "unlabelled", "loose.mp4": "format"}
    (tmp_path / "metadata.csv").write_text("file_name,text\ntrain/b.mp4,five\n")
    assert pairs(load_captions(tmp_path)["train"]) == [("train/b.mp4", "five")]


def test_datasets(folder):
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict(
        {"video": [str(folder / f"{name}.mp4") for name in NAMES], "label": [0, -1, 1], "caption": ["x", "", "z"]}
    )
    rows = load_captions(table)["train"]
    assert [row.caption for row in rows] == ["x", "z"]
    assert [one.kind for one in rows.skipped] == ["unlabelled"]
    several = datasets.DatasetDict({"train": table, "test": table})
    assert {name: len(rows) for name, rows in load_captions(several).items()} == {"train": 2, "test": 2}


def test_splitting_keeps_the_captions_of_a_video_together(folder, tmp_path):
    lines = [f"{name}.mp4,{word}" for name in NAMES for word in ("one", "two")]
    (tmp_path / "pairs.csv").write_text("\n".join(["video,caption", *lines]))
    splits = load_captions(tmp_path / "pairs.csv", videos=folder, test_size=0.34)
    names = {split: {row.name for row in rows} for split, rows in splits.items()}
    assert len(names["test"]) == 1
    assert not names["train"] & names["test"]
    assert [len(rows) for rows in splits.values()] == [4, 2]


def test_unreadable_videos_are_left_out(folder, tmp_path):
    (tmp_path / "bad.mp4").write_text("no video")
    tiny.write_clip(tmp_path / "good.mp4", 8)
    (tmp_path / "pairs.csv").write_text("video,caption\nbad.mp4,one\nbad.mp4,two\ngood.mp4,three\n")
    rows = load_captions(tmp_path / "pairs.csv")["train"]
    assert pairs(rows) == [("good.mp4", "three")]
    assert [(one.name, one.kind) for one in rows.skipped] == [("bad.mp4", "not a video")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,label\na.mp4,3\n", "caption_column"),
        ("caption,number\nx,3\n", "video_column|column"),
        ("video,caption\nlost.mp4,x\n", "missing"),
        ("", "names no video"),
    ],
)
def test_sources_without_pairs(tmp_path, text, message):
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        load_captions(tmp_path / "pairs.csv")


def test_samples_and_batches(folder, tmp_path):
    (tmp_path / "pairs.csv").write_text("video,caption\na.mp4,a ring moving left\nb.mp4,a disc\n")
    rows = load_captions(tmp_path / "pairs.csv", videos=folder)["train"]
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    processor = hf_video.VideoCLIPImageProcessor(**size, num_frames=4)
    data = CaptionDataset(rows, processor, repeats=1)
    assert data[1]["caption"] == "a disc"
    tokenizer = tiny_tokenizer()
    batch = CaptionCollator(tokenizer)([data[0], data[1]])
    assert batch.keys() == {"pixel_values", "input_ids", "attention_mask", "return_loss"}
    assert batch["pixel_values"].shape == (2, 4, 3, 32, 32)
    expected = tokenizer(["a ring moving left", "a disc"], padding=True, return_tensors="pt")
    assert torch.equal(batch["input_ids"], expected["input_ids"])
    assert torch.equal(batch["attention_mask"], expected["attention_mask"])
    assert CaptionCollator(tokenizer, max_length=4)([data[0]])["input_ids"].shape == (1, 4)
    with pytest.raises(DataError, match="CaptionDataset"):
        CaptionCollator(tokenizer)([{"pixel_values": batch["pixel_values"][0]}])
    plain = hf_video.data.VideoRows([hf_video.data.VideoRow("a.mp4", None, "a.mp4")])
    with pytest.raises(DataError, match="load_captions"):
        CaptionDataset(plain, processor)


def test_a_bad_file_is_replaced_with_its_own_caption(folder, tmp_path):
    """The caption is that of the video which is shown."""
    tiny.write_clip(tmp_path / "good.mp4", 8)
    (tmp_path / "bad.mp4").write_text("no video")
    (tmp_path / "pairs.csv").write_text("video,caption\nbad.mp4,bad\ngood.mp4,good\n")
    rows = load_captions(tmp_path / "pairs.csv", inspect=None)["train"]
    processor = hf_video.VideoCLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, num_frames=4
    )
    data = CaptionDataset(rows, processor, max_errors=0.5)
    assert data[0]["caption"] == "good"
    assert [one.name for one in data.skipped()] == ["bad.mp4"]
