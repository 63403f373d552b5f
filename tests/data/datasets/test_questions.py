"""Questions about videos: every form of list, choices, what is left out, samples and batches."""

from __future__ import annotations

import json

import pytest
import tiny
import torch
from tiny_text import tiny_tokenizer

import hf_video
from hf_video.data.datasets.questions import (
    QuestionCollator,
    QuestionDataset,
    answered_by,
    load_questions,
    most_frequent_answers,
)
from hf_video.errors import DataError

NAMES = ("a", "b", "video12", "vid7")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("questions")
    for i, name in enumerate(NAMES):
        tiny.write_clip(folder / f"{name}.mp4", 8, seed=i)
    return folder


@pytest.fixture
def images():
    return hf_video.VioletImageProcessor(size={"height": 32, "width": 32}, num_frames=4)


def told(rows):
    return [(row.name, row.question, row.answer, *row.choices) for row in rows]


def test_a_table(folder, tmp_path):
    """Several questions of a video, a missing file, empty cells, numbers, a split column."""
    table = tmp_path / "questions.csv"
    table.write_text(
        'video,question,answer,split\na.mp4,"what  moves, and where?", ring ,train\nb.mp4,how many?,3,val\n'
        "lost.mp4,what?,x,train\na.mp4,what?,,train\na.mp4,,y,train\na.mp4,where?,left,train\n"
    )
    for splits in (load_questions(table, videos=folder), load_questions(tmp_path, videos=folder)):
        assert {name: told(rows) for name, rows in splits.items()} == {
            "train": [("a.mp4", "what moves, and where?", "ring"), ("a.mp4", "where?", "left")],
            "validation": [("b.mp4", "how many?", "3")],
        }
        skipped = [(one.name.split()[0], one.kind) for one in splits["train"].skipped]
        assert skipped == [("lost.mp4", "missing"), ("a.mp4", "unlabelled"), ("a.mp4", "unlabelled")]


def test_the_files_of_msrvtt_qa_and_msvd_qa(folder, tmp_path):
    """A file for each split; videos are numbers, of video12.mp4 or vid7.avi."""
    for split, number in (("train", 12), ("test", 7)):
        entry = {"answer": "couch", "category_id": 14, "id": 5, "question": "what are three people on?"}
        (tmp_path / f"{split}_qa.json").write_text(json.dumps([{**entry, "video_id": number}]))
    splits = load_questions(tmp_path, videos=folder)
    expected = {"train": "12", "test": "7"}
    assert {split: told(rows) for split, rows in splits.items()} == {
        split: [(name, "what are three people on?", "couch")] for split, name in expected.items()
    }
    assert splits["test"][0].source == str(folder / "vid7.mp4")
    by_name = load_questions({name: tmp_path / f"{name}_qa.json" for name in expected}, videos=folder)
    assert {name: told(rows) for name, rows in by_name.items()} == {name: told(rows) for name, rows in splits.items()}


def test_choices_of_tgif_qa(folder, tmp_path):
    """A column for each choice, the answer a number, names without an ending, tabs."""
    header = "gif_name\tquestion\ta1\ta2\ta3\tanswer\tvid_id\tkey"
    lines = ["a\twhat does it do?\trun\tjump\tsit\t2\tID1\t3", "b\twhat does it do?\tfly\tswim\twave\t0\tID2\t4"]
    (tmp_path / "Test_action.csv").write_text("\n".join([header, *lines]))
    rows = load_questions(tmp_path / "Test_action.csv", videos=folder)["train"]
    assert told(rows) == [
        ("a", "what does it do?", "sit", "run", "jump", "sit"),
        ("b", "what does it do?", "fly", "fly", "swim", "wave"),
    ]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["up", "LEFT"], ["up", "left"]),
        ([1, 0], ["up", "left"]),
        (["1", "0"], ["up", "left"]),
    ],
)
def test_choices_in_json(folder, tmp_path, answers, expected):
    records = [
        {"video": "a.mp4", "question": "where?", "answer": answer, "choices": ["left", "up"]} for answer in answers
    ]
    (tmp_path / "some.json").write_text(json.dumps(records))
    assert [row.answer for row in load_questions(tmp_path / "some.json", videos=folder)["train"]] == expected


def test_choices_of_one_cell_and_numbers_as_texts(folder, tmp_path):
    (tmp_path / "some.csv").write_text(
        'video,question,answer,choices\na.mp4,how many?,2,1|2|3\na.mp4,how many?,3,"[""3"", ""4""]"\n'
    )
    rows = load_questions(tmp_path / "some.csv", videos=folder)["train"]
    assert told(rows) == [("a.mp4", "how many?", "2", "1", "2", "3"), ("a.mp4", "how many?", "3", "3", "4")]
    (tmp_path / "some.csv").write_text(
        "video,question,answer,choices\na.mp4,which?,ring,disc|ring\na.mp4,which?,cube,disc|ring\n"
    )
    rows = load_questions(tmp_path / "some.csv", videos=folder)["train"]
    assert told(rows) == [("a.mp4", "which?", "ring", "disc", "ring")]
    assert "'cube' to 'which?' is none of its 2 choices" in rows.skipped[0].reason


def test_datasets(folder):
    """Rows of one file are one video."""
    datasets = pytest.importorskip("datasets")
    names = ("a", "b", "a", "b")
    table = datasets.Dataset.from_dict(
        {"video": [str(folder / f"{name}.mp4") for name in names], "question": ["q"] * 4, "answer": ["x", "", "z", "w"]}
    )
    rows = load_questions(table)["train"]
    assert [(row.source[-5:], row.answer) for row in rows] == [("a.mp4", "x"), ("a.mp4", "z"), ("b.mp4", "w")]
    assert len({row.name for row in rows}) == 2
    assert [one.kind for one in rows.skipped] == ["unlabelled"]


def test_splitting_keeps_the_questions_of_a_video_together(folder, tmp_path):
    lines = [f"{name}.mp4,{word},yes" for word in ("one", "two", "three") for name in NAMES]
    (tmp_path / "some.csv").write_text("\n".join(["video,question,answer", *lines]))
    splits = load_questions(tmp_path / "some.csv", videos=folder, test_size=0.25)
    names = {split: {row.name for row in rows} for split, rows in splits.items()}
    assert not names["train"] & names["test"]
    assert [len(rows) for rows in splits.values()] == [9, 3]


def test_unreadable_videos_are_left_out(tmp_path):
    (tmp_path / "bad.mp4").write_text("no video")
    tiny.write_clip(tmp_path / "good.mp4", 8)
    (tmp_path / "some.csv").write_text("video,question,answer\nbad.mp4,q,x\nbad.mp4,r,y\ngood.mp4,q,z\n")
    rows = load_questions(tmp_path / "some.csv")["train"]
    assert told(rows) == [("good.mp4", "q", "z")]
    assert [(one.name, one.kind) for one in rows.skipped] == [("bad.mp4", "not a video")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,answer\na.mp4,3\n", "question_column"),
        ("video,question\na.mp4,why\n", "answer_column"),
        ("caption,question,answer\nx,why,3\n", "video_column"),
        ("video,question,answer\nlost.mp4,why,x\n", "missing"),
        ("video,question,answer,choices\na.mp4,why,x,x|y\na.mp4,how,x,\n", "some questions have choices|has none"),
        ("", "names no video"),
    ],
)
def test_sources_without_questions(folder, tmp_path, text, message):
    (tmp_path / "some.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        load_questions(tmp_path / "some.csv", videos=folder)


def test_an_empty_folder(tmp_path):
    with pytest.raises(DataError, match=r"questions\.csv"):
        load_questions(tmp_path)


def test_the_most_frequent_answers(folder, tmp_path):
    answers = ["up", "left", "Left", "ring", "up", "LEFT"]
    lines = [f"a.mp4,q,{answer}" for answer in answers]
    (tmp_path / "some.csv").write_text("\n".join(["video,question,answer", *lines]))
    rows = load_questions(tmp_path / "some.csv", videos=folder)["train"]
    assert most_frequent_answers(rows) == ["left", "up", "ring"]
    assert most_frequent_answers(rows, most=1) == ["left"]
    assert most_frequent_answers(rows, min_count=2) == ["left", "up"]
    assert [row.answer for row in answered_by(rows, ["up", "ring"])] == ["up", "ring", "up"]


def test_samples_and_batches(folder, tmp_path, images):
    (tmp_path / "some.csv").write_text("video,question,answer\na.mp4,the ring moving,left\nb.mp4,a disc,Up\n")
    rows = load_questions(tmp_path / "some.csv", videos=folder)["train"]
    tokenizer = tiny_tokenizer()
    data = QuestionDataset(rows, images, answers=["up", "down"])
    batch = QuestionCollator(tokenizer)([data[0], data[1]])
    assert batch.keys() == {"pixel_values", "input_ids", "attention_mask", "labels"}
    assert batch["pixel_values"].shape == (2, 4, 3, 32, 32)
    assert batch["labels"].tolist() == [-100, 0]  # an answer that is not known, and one in another case
    expected = tokenizer(["the ring moving", "a disc"], padding=True, return_tensors="pt")
    assert torch.equal(batch["input_ids"], expected["input_ids"])
    assert torch.equal(batch["attention_mask"], expected["attention_mask"])
    assert QuestionCollator(tokenizer, max_length=4)([data[0]])["input_ids"].shape == (1, 4)
    with pytest.raises(DataError, match="QuestionDataset"):
        QuestionCollator(tokenizer)([{"pixel_values": batch["pixel_values"][0]}])
    plain = hf_video.data.VideoRows([hf_video.data.VideoRow("a.mp4", None, "a.mp4")])
    with pytest.raises(DataError, match="load_questions"):
        QuestionDataset(plain, images)


def test_batches_of_choices(folder, tmp_path, images):
    records = [
        {"video": "a.mp4", "question": "a ring", "answer": 1, "choices": ["left", "right"]},
        {"video": "b.mp4", "question": "the disc", "answer": 0, "choices": ["moving up", "down"]},
    ]
    (tmp_path / "some.json").write_text(json.dumps(records))
    data = QuestionDataset(load_questions(tmp_path / "some.json", videos=folder)["train"], images)
    tokenizer = tiny_tokenizer()
    batch = QuestionCollator(tokenizer)([data[0], data[1]])
    assert batch["labels"].tolist() == [1, 0]
    texts = ["a ring left", "a ring right", "the disc moving up", "the disc down"]
    expected = tokenizer(texts, padding=True, return_tensors="pt")["input_ids"]
    assert torch.equal(batch["input_ids"], expected.unflatten(0, (2, 2)))
    records[1]["choices"] = ["up", "down", "left"]
    (tmp_path / "some.json").write_text(json.dumps(records))
    with pytest.raises(DataError, match="2 to 3 choices"):
        QuestionDataset(load_questions(tmp_path / "some.json", videos=folder)["train"], images)
