"""Training on questions, from a list to pipelines: answers, choices, resuming, what is refused; and that it learns."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_video_text import save_videoclip, save_violet
from tiny_violet import TOKENIZER, questions, tiny_config
from transformers import AutoProcessor, pipeline

import hf_video
from hf_video.data.moving_glyphs import DIRECTIONS, OPPOSITE, moving_glyph
from hf_video.errors import CheckpointError, ConfigError, DataError, VideoOptionError
from hf_video.evaluation.questions import evaluate_questions
from hf_video.training.recipes import load_recipe
from hf_video.training.runs.questions import find_answers, train_video_qa
from hf_video.video import VideoReader, write_video

QUICK = (
    *("training.use_cpu=true", "training.dataloader_num_workers=0", "training.report_to=none"),
    *("training.per_device_train_batch_size=8", "training.num_train_epochs=2", "training.min_train_steps=0"),
    *("training.save_steps=1", "data.num_frames=4"),
)
VIDEOS = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of each clip one question where it moves and one what it is; the last clip alone has answers of its own."""
    folder = tmp_path_factory.mktemp("clips")
    rng, rows = np.random.default_rng(0), []
    for i in range(VIDEOS):
        last = i == VIDEOS - 1
        clip = moving_glyph(tuple(DIRECTIONS)[i % 4], rng, num_frames=6, size=32, shape="disc" if last else "ring")
        write_video(folder / f"{i}.mp4", clip.frames, 8.0)
        split = "test" if i >= VIDEOS - 2 else "train"
        rows += [(f"{i}.mp4", "where to?", clip.direction, split), (f"{i}.mp4", "What is it?", clip.shape, split)]
    (folder / "questions.csv").write_text("\n".join(",".join(row) for row in [HEADER, *rows]))
    choices = [{**dict(zip(HEADER, row, strict=True)), "choices": [row[2], "square", "cross"][:: 1 - 2 * (i % 2)]}
               for i, row in enumerate(rows)]  # fmt: skip
    (folder / "choices.json").write_text(json.dumps(choices))
    return folder


HEADER = ("video", "question", "answer", "split")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_violet(tmp_path_factory.mktemp("model"), "VioletForPreTraining")


def run(data, model, output, *settings, **options):
    return train_video_qa(data, model, output=output, settings=[*QUICK, *settings], **options)


def weights(folder):
    return hf_video.VioletForQuestionAnswering.from_pretrained(folder).state_dict()


@pytest.fixture(scope="module")
def whole(folder, model, tmp_path_factory):
    """A run's folder, its summary and what it printed."""
    output, printed = tmp_path_factory.mktemp("whole"), io.StringIO()
    with contextlib.redirect_stdout(printed):
        summary = run(folder / "questions.csv", model, output)
    return output, summary, printed.getvalue()


def test_from_questions_to_the_pipeline(folder, model, whole):
    output, summary, told = whole
    assert "12 train (of 6 videos), 4 test (of 2 videos)" in told
    assert re.search(r"answers +5\n", told)
    assert "1 of 4 test questions have an answer that training never saw" in told
    assert summary["steps"] == 4
    measured = summary["evaluation"]["test"]
    assert (measured["test_questions"], measured["test_videos_found"], measured["test_videos"]) == (4, 2, 2)
    assert measured["test_accuracy"] == (measured["test_accuracy_what"] + measured["test_accuracy_where"]) / 2
    assert measured["test_top5"] == 0.75  # all five answers; the last question's is none of them
    assert json.loads((output / "training_summary.json").read_text())["evaluation"] == summary["evaluation"]
    assert train_answers(output) == ["ring", "left", "right", "down", "up"]
    assert any((value != weights(model)[name]).any() for name, value in weights(output).items() if "violet" in name)
    assert AutoProcessor.from_pretrained(output).image_processor.num_frames == 4
    ask = pipeline("video-question-answering", model=str(output), device="cpu")
    found = ask(str(folder / "0.mp4"), question=["where to?", "what is it?"], top_k=None)
    assert [sorted(one["answer"] for one in best) for best in found] == [["down", "left", "right", "ring", "up"]] * 2


def test_multiple_choice(folder, model, tmp_path, capsys):
    summary = run(folder / "choices.json", model, tmp_path, "training.num_train_epochs=1", recipe="violet_qa:choice")
    assert "one of 3 choices" in capsys.readouterr().out
    measured = summary["evaluation"]["test"]
    assert "test_top5" not in measured
    assert measured["test_questions"] == 4
    ask = pipeline("video-question-answering", model=str(tmp_path), device="cpu")
    assert type(ask.model).__name__ == "VioletForMultipleChoice"
    clip = str(folder / "0.mp4")
    several = ask(clip, question=["where to?", "what is it?"], choices=[["left", "up"], ["ring", "disc"]])
    assert [{one["answer"] for one in best} for best in several] == [{"left", "up"}, {"ring", "disc"}]
    alone = ask(clip, question="what is it?", choices=["ring", "disc"])
    assert alone[0]["answer"] == several[1][0]["answer"]
    assert alone[0]["score"] == pytest.approx(several[1][0]["score"], abs=1e-5)
    with pytest.raises(VideoOptionError, match="2 questions and 1 lists"):
        ask(clip, question=["where?", "what?"], choices=[["left", "up"]])
    with pytest.raises(VideoOptionError, match="all of one length"):
        ask(clip, question=["where?", "what?"], choices=[["left", "up"], ["ring", "disc", "cross"]])


def test_rarer_answers_are_left_out(folder, model, tmp_path, capsys):
    summary = run(folder / "questions.csv", model, tmp_path, "answers.min_count=2", "training.num_train_epochs=1")
    told = capsys.readouterr().out
    assert "the 3 most frequent; 2 of 12 training questions have rarer ones" in told
    assert summary["plan"]["left_out_questions"] == 2
    assert summary["plan"]["unseen_answers"] == {"test": 3}
    assert set(summary["evaluation"]["test"]) >= {"test_accuracy", "test_top5"}
    assert train_answers(tmp_path) == ["ring", "left", "right"]


def train_answers(folder):
    return list(json.loads((folder / "config.json").read_text())["id2label"].values())


def test_the_head_is_kept_for_the_same_answers(folder, tmp_path):
    own = {0: "up", 1: "Right", 2: "left", 3: "down", 4: "ring"}
    model = save_violet(tmp_path / "own", "VioletForQuestionAnswering", id2label=own)
    still = ("training.learning_rate=0", "training.weight_decay=0", "training.num_train_epochs=1")
    run(folder / "questions.csv", model, tmp_path / "same", *still)
    assert train_answers(tmp_path / "same") == list(own.values())
    for name, value in weights(model).items():
        assert torch.equal(weights(tmp_path / "same")[name], value), name
    other = save_violet(tmp_path / "other", "VioletForQuestionAnswering", id2label={**own, 4: "cube"})
    run(folder / "questions.csv", other, tmp_path / "new", *still)
    assert train_answers(tmp_path / "new")[0] == "ring"
    assert not torch.equal(weights(tmp_path / "new")["classifier.out.weight"], weights(other)["classifier.out.weight"])


def test_resuming_is_as_if_nothing_had_happened(folder, model, whole, tmp_path):
    cut = shutil.copytree(whole[0], tmp_path / "cut")
    for path in [cut / "model.safetensors", *(cut / "checkpoint-4").iterdir()]:
        path.unlink()  # as if it had been killed in the last step
    with pytest.raises(ConfigError, match="--resume"):
        run(folder / "questions.csv", model, cut)
    changed = (folder / "questions.csv").read_text().replace("where to", "where")
    (tmp_path / "changed.csv").write_text(changed)
    with pytest.raises(ConfigError, match="texts_sha256"):
        run(tmp_path / "changed.csv", model, cut, resume=True, videos=folder)
    assert run(folder / "questions.csv", model, cut, resume=True)["steps"] == 4
    for name, value in weights(whole[0]).items():
        assert torch.equal(weights(cut)[name], value), name


def test_each_video_is_decoded_once(folder, tmp_path, monkeypatch):
    """All questions of it, open or with choices of their own; a file that can't be read is named."""
    opened = []
    plain = VideoReader.__init__

    def counted(self, source, *args, **options):
        opened.append(str(source))
        return plain(self, source, *args, **options)

    monkeypatch.setattr(VideoReader, "__init__", counted)
    (tmp_path / "bad.mp4").write_text("no video")
    for name, kind in (("questions.csv", "VioletForQuestionAnswering"), ("choices.json", "VioletForMultipleChoice")):
        rows = hf_video.data.load_questions(folder / name, inspect=None)["train"].rows
        saved = save_violet(tmp_path / kind, kind, id2label=dict(enumerate(["left", "ring"])))
        model, processor = getattr(hf_video, kind).from_pretrained(saved), AutoProcessor.from_pretrained(saved)
        opened.clear()
        bad = hf_video.data.QuestionRow(str(tmp_path / "bad.mp4"), None, "bad", None, "why?", "x", rows[0].choices)
        found, unread = evaluate_questions(model, processor, [*rows, bad])
        assert len(opened) == len(set(opened)) == len({row.source for row in rows}) + 1
        assert [one["name"] for one in unread] == ["bad"]
        assert found.questions == len(rows)
        assert {kind: count for kind, (count, _) in found.by_kind.items()} == {"what": 6, "where": 6}
        with pytest.raises(DataError, match="None of the 1 videos"):
            evaluate_questions(model, processor, [bad])


def test_the_papers_recipes():
    for name, batch in (("violet_qa", 10), ("violet_qa:choice", 8), ("violet_retrieval", 6)):
        recipe = load_recipe(name)
        training = recipe["training"]
        assert (training["learning_rate"], training["weight_decay"], training["decay_all"]) == (1.2e-5, 1e-3, True)
        assert (training["adam_beta1"], training["adam_beta2"], training["max_grad_norm"]) == (0.9, 0.98, 0)
        assert (training["per_device_train_batch_size"], training["num_train_epochs"]) == (batch, 20)
        assert training["lr_scheduler_type"] == "constant"
        assert (recipe["data"], recipe["augmentation"], recipe["mixing"]) == ({"num_frames": 5}, {}, None)
    assert load_recipe("violet_qa")["answers"] == {"most": 1000, "min_count": 1}
    many = [SimpleNamespace(answer=str(i), choices=()) for i in (*range(1200), 1111)]
    answers = find_answers(many, load_recipe("violet_qa"))
    assert (answers[0], len(answers)) == ("1111", 1000)


@pytest.mark.parametrize(
    ("settings", "options", "error", "message"),
    [
        (("training.per_device_train_batch_size=64",), {}, ConfigError, "64 videos"),
        (("augmentation.flip=0.5",), {}, ConfigError, "mirrors"),
        (("data.frames=3",), {}, ConfigError, "'frames'"),
        (("answers.min_count=0",), {}, ConfigError, "min_count=0"),
        (("answers.rarest=3",), {}, ConfigError, "'most', 'min_count'"),
        (("answers.min_count=9",), {}, DataError, "needs two"),
        (("model.dropout=1",), {}, ConfigError, "dropout"),
        ((), {"recipe": "clip4clip"}, ConfigError, "is for video-text, and this is video-qa"),
        ((), {"split": "test"}, DataError, "no training split"),
    ],
)
def test_what_is_refused(folder, model, tmp_path, settings, options, error, message):
    with pytest.raises(error, match=message):
        run(folder / "questions.csv", model, tmp_path, *settings, **options)
    assert not list(tmp_path.glob("checkpoint-*"))


def test_other_models_are_refused(folder, model, tmp_path):
    with pytest.raises(CheckpointError, match="no model"):
        run(folder / "questions.csv", tmp_path / "none", tmp_path / "out")
    with pytest.raises(CheckpointError, match="videoclip"):
        run(folder / "questions.csv", save_videoclip(tmp_path / "clip"), tmp_path / "out")
    chooser = hf_video.VioletForMultipleChoice.from_pretrained(model)
    with pytest.raises(ConfigError, match="need a VioletForQuestionAnswering"):
        run(folder / "questions.csv", chooser, tmp_path / "out", processor=AutoProcessor.from_pretrained(model))
    with pytest.raises(ConfigError, match="processor="):
        run(folder / "choices.json", chooser, tmp_path / "out")


SHAPES = ("ring", "square", "cross")


def write_clips(folder, count: int, split: str, rows: list[dict[str, str]]) -> list:
    """Files, and in `rows` three questions of each."""
    rng, made = np.random.default_rng(split == "test"), []
    for i in range(count):
        clip = moving_glyph(
            tuple(DIRECTIONS)[i % 4], rng, num_frames=4, size=32, speed=4, shape=str(rng.choice(SHAPES))
        )
        name = f"{split}-{i}.mp4"
        write_video(folder / name, clip.frames, 8.0)
        made.append((folder / name, clip))
        rows += [dict(zip(HEADER, (name, *pair, split), strict=True)) for pair in questions(clip)]
    return made


@pytest.mark.slow
def test_a_small_violet_learns_to_answer(tmp_path):
    """Where does it move, what is it, what colour has it; of files, held-out clips, and clips played backwards."""
    torch.set_num_threads(1)  # it is tiny: a second thread costs more than it brings
    rows, begin = [], time.process_time()
    write_clips(tmp_path, 800, "train", rows)
    held_out = write_clips(tmp_path, 120, "test", rows)
    lines = [",".join(row.values()) for row in rows]
    (tmp_path / "questions.csv").write_text("\n".join([",".join(HEADER), *lines]))
    torch.manual_seed(0)
    config = tiny_config(24)
    config.video_config.depths, config.text_config.num_hidden_layers = (1, 1), 1
    images = hf_video.VioletImageProcessor(size={"height": 32, "width": 32}, num_frames=4)
    hf_video.VioletForQuestionAnswering(config).save_pretrained(tmp_path / "start")
    hf_video.VioletProcessor(images, TOKENIZER).save_pretrained(tmp_path / "start")
    settings = ("training.use_cpu=true", "training.dataloader_num_workers=0", "training.report_to=none")
    output = tmp_path / "trained"
    summary = train_video_qa(
        tmp_path / "questions.csv", tmp_path / "start", recipe="violet_qa:small", output=output, settings=settings
    )
    measured = summary["evaluation"]["test"]
    ask = pipeline("video-question-answering", model=str(output), device="cpu")
    for path, clip in held_out[:40]:
        write_video(path, clip.frames[::-1], 8.0)
    back = ask([str(path) for path, _ in held_out[:40]], question="where does the ring move", top_k=1)
    opposite = [OPPOSITE[clip.direction] for _, clip in held_out[:40] if clip.shape == "ring"]
    found = [one[0]["answer"] for one, (_, clip) in zip(back, held_out[:40], strict=True) if clip.shape == "ring"]
    backwards = float(np.mean([one == other for one, other in zip(found, opposite, strict=True)]))
    print(f"{measured}, backwards {backwards:.3f} of {len(found)}, {time.process_time() - begin:.0f} CPU seconds")
    assert measured["test_accuracy"] >= 0.9
    assert min(measured["test_accuracy_where"], measured["test_accuracy_what"]) >= 0.9
    assert backwards >= 0.9
