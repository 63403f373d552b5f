"""Pipelines of video and text: each against model and processor by hand, and what goes wrong."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import tiny
import torch
from tiny_text import tiny_tokenizer
from tiny_video_text import ANSWERS, save_videoclip, save_violet
from transformers import pipeline

import hf_video
from hf_video.clips import read as reading
from hf_video.errors import CheckpointError, VideoOptionError
from hf_video.video import VideoReader

LABELS = ["ring", "square", "disc"]
MIDDLES = [3, 9, 15, 21]  # of 4 equal parts of 24 frames
BY_ID = {"id2label": dict(enumerate(ANSWERS)), "label2id": {answer: i for i, answer in enumerate(ANSWERS)}}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}

    def folder(name, save, **changes):
        if name not in made:
            made[name] = save(tmp_path_factory.mktemp(name), **changes)
        return str(made[name])

    return {
        "clip": lambda: folder("clip", save_videoclip),
        "siglip": lambda: folder("siglip", save_videoclip, loss="sigmoid", logit_bias_init_value=-1.0),
        "tight": lambda: folder("tight", save_videoclip, temporal="tight"),
        "violet": lambda: folder("violet", save_violet),
        "open": lambda: folder("open", save_violet, kind="VioletForQuestionAnswering", **BY_ID),
        "choice": lambda: folder("choice", save_violet, kind="VioletForMultipleChoice"),
    }


@pytest.fixture(scope="module")
def make(folders):
    made = {}

    def made_once(task, name):
        if (task, name) not in made:
            made[task, name] = pipeline(task, model=folders[name](), device="cpu")
        return made[task, name]

    return made_once


def pixels(pipe, clip, indices=MIDDLES):
    with VideoReader(clip) as reader:
        frames = reader.get_frames(indices).data
    return pipe.image_processor(frames, do_sample_frames=False, return_tensors="pt")["pixel_values"]


@torch.no_grad()
def logits(pipe, clip, texts):
    """(texts,) of the model's own forward."""
    tokens = pipe.tokenizer(texts, padding=True, return_tensors="pt")
    given = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    return pipe.model(**given, pixel_values=pixels(pipe, clip)).logits_per_video[0]


class TestZeroShot:
    TASK = "zero-shot-video-classification"

    @pytest.mark.parametrize("name", ["clip", "siglip", "tight", "violet"])
    def test_it_is_the_models_own_forward(self, make, clips, name):
        classify = make(self.TASK, name)
        result = classify(str(clips[0]), candidate_labels=LABELS)
        own = logits(classify, clips[0], [f"a video of {label}" for label in LABELS])
        expected = own.sigmoid() if name == "siglip" else own.softmax(-1)
        found = {row["label"]: row["score"] for row in result}
        np.testing.assert_allclose([found[label] for label in LABELS], expected, atol=1e-5)
        assert [row["score"] for row in result] == sorted(found.values(), reverse=True)
        assert json.loads(json.dumps(result)) == result
        assert result.indices.tolist() == [MIDDLES]

    def test_templates_are_averaged_as_vectors(self, make, clips):
        classify = make(self.TASK, "clip")
        templates = ["a {} moving", "the {}"]
        result = classify(clips[0], candidate_labels="ring, disc", hypothesis_template=templates)
        vectors = []
        with torch.no_grad():
            for label in ("ring", "disc"):
                tokens = classify.tokenizer([t.format(label) for t in templates], padding=True, return_tensors="pt")
                text = classify.model.get_text_features(tokens["input_ids"], tokens["attention_mask"]).embedding
                vectors.append(torch.nn.functional.normalize(text.mean(0), dim=0))
            video = classify.model.get_video_features(pixels(classify, clips[0])).embedding[0]
            own = (torch.stack(vectors) @ video * classify.model.logit_scale.exp()).softmax(0)
        found = {row["label"]: row["score"] for row in result}
        np.testing.assert_allclose([found["ring"], found["disc"]], own, atol=1e-5)

    def test_templates_of_a_pair_scorer_are_averaged_as_scores(self, make, clips):
        classify = make(self.TASK, "violet")
        result = classify(clips[0], candidate_labels=LABELS, hypothesis_template=["a {}", "the {}"])
        own = sum(logits(classify, clips[0], [f"{word} {label}" for label in LABELS]) for word in ("a", "the")) / 2
        found = {row["label"]: row["score"] for row in result}
        np.testing.assert_allclose([found[label] for label in LABELS], own.softmax(0), atol=1e-5)

    def test_views_are_decoded_once_and_averaged(self, make, clips, monkeypatch):
        classify = make(self.TASK, "clip")
        opened = []
        real = reading.open_video
        monkeypatch.setattr(reading, "open_video", lambda *a, **k: opened.append(a) or real(*a, **k))
        result = classify(clips[0], candidate_labels=LABELS, views="3x3")
        assert len(opened) == 1
        views = classify.preprocess(clips[0], views=hf_video.clips.request.parse_views("3x3"))["pixel_values"]
        assert len(views) == 9
        tokens = classify.tokenizer([f"a video of {x}" for x in LABELS], padding=True, return_tensors="pt")
        with torch.no_grad():
            own = classify.model(tokens["input_ids"], tokens["attention_mask"], views).logits_per_video.softmax(-1)
        found = {row["label"]: row["score"] for row in result}
        np.testing.assert_allclose([found[label] for label in LABELS], own.mean(0), atol=1e-5)

    def test_batches_windows_streams_and_bad_files(self, make, clips, tmp_path):
        classify = make(self.TASK, "clip")
        paths = [str(clip) for clip in clips]
        alone = [classify(path, candidate_labels=LABELS) for path in paths]
        joint = classify(paths, candidate_labels=LABELS, batch_size=2)
        streamed = classify((path for path in paths), candidate_labels=LABELS)
        for one, other, third in zip(alone, joint, streamed, strict=True):
            assert [row["label"] for row in one] == [row["label"] for row in other] == [row["label"] for row in third]
            assert [row["score"] for row in one] == pytest.approx([row["score"] for row in other], abs=1e-5)
        windows = classify(paths[0], candidate_labels=LABELS, windows="1s", top_k=1)
        assert [w["seconds"] for w in windows] == [(0, 1), (1, 2), (2, 3)]
        assert all(len(w["predictions"]) == 1 for w in windows)
        (tmp_path / "bad.mp4").write_text("no video")
        mixed = classify([paths[0], tmp_path / "bad.mp4"], candidate_labels=LABELS, bad_files="report")
        assert mixed[0] == alone[0]
        assert mixed[1]["error"] == "NotAVideoError"

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({}, "candidate_labels is missing"),
            ({"candidate_labels": []}, "candidate_labels"),
            ({"candidate_labels": ["a", ""]}, "empty"),
            ({"candidate_labels": ["a", "a"]}, "more than once"),
            ({"candidate_labels": LABELS, "hypothesis_template": "a video"}, "{}"),
            ({"candidate_labels": LABELS, "function_to_apply": "relu"}, "softmax"),
            ({"candidate_labels": LABELS, "labels": LABELS}, "no option 'labels'"),
        ],
    )
    def test_wrong_options(self, make, clips, options, message):
        with pytest.raises(VideoOptionError, match=message):
            make(self.TASK, "clip")(clips[0], **options)

    def test_models_without_text(self, videomae):
        with pytest.raises(CheckpointError, match="does not score texts"):
            pipeline(self.TASK, model=str(videomae))

    def test_a_model_of_memory_needs_its_processor(self, folders, clips):
        model = hf_video.VideoCLIPModel.from_pretrained(folders["clip"]())
        model.name_or_path = model.config._name_or_path = ""
        images = hf_video.VideoCLIPImageProcessor.from_pretrained(folders["clip"]())
        with pytest.raises(CheckpointError, match="tokenizer="):
            pipeline(self.TASK, model=model, image_processor=images)
        classify = pipeline(self.TASK, model=model, processor=hf_video.VideoCLIPProcessor(images, tiny_tokenizer()))
        assert len(classify(clips[0], candidate_labels=LABELS)) == 3


class TestRetrieval:
    TASK = "video-text-retrieval"
    TEXTS = ("a ring moving left", "a disc", "the square moving up", "a cross")

    @pytest.mark.parametrize("name", ["clip", "tight", "violet"])
    def test_both_lists_are_ordered_by_the_models_scores(self, make, clips, name):
        match = make(self.TASK, name)
        found = match([str(clip) for clip in clips], texts=list(self.TEXTS), batch_size=4)
        own = torch.stack([logits(match, clip, list(self.TEXTS)) for clip in clips], dim=1)
        if name == "clip":
            own = own / match.model.logit_scale.exp().detach()
        np.testing.assert_allclose(found.scores, own, atol=1e-4)
        for i, one in enumerate(found["text_to_video"]):
            assert one["text"] == self.TEXTS[i]
            assert [v["index"] for v in one["videos"]] == own[i].argsort(descending=True).tolist()
        for j, one in enumerate(found["video_to_text"]):
            assert one["video"] == str(clips[j])
            assert [t["text"] for t in one["texts"]] == [self.TEXTS[i] for i in own[:, j].argsort(descending=True)]
        assert json.loads(json.dumps(found))["errors"] == []

    def test_overlapping_windows_leave_room_for_others(self, make, clips):
        match = make(self.TASK, "clip")
        options = {"texts": "a disc", "windows": "1s/0.25s"}
        every = match(clips[:2], **options)["text_to_video"][0]["videos"]
        assert len(every) > 12
        found = match(clips[:2], **options, top_k=4)["text_to_video"][0]["videos"]
        assert found[0]["score"] == every[0]["score"]
        for one, other in itertools.combinations(found, 2):
            (start, end), (first, last) = one["seconds"], other["seconds"]
            assert one["index"] != other["index"] or end <= first or last <= start
        single = match(clips[:2], **options, top_k=4, per_video=1)["text_to_video"][0]["videos"]
        assert sorted(one["index"] for one in single) == [0, 1]
        least = every[3]["score"]
        good = match(clips[:2], **options, threshold=least)["text_to_video"][0]["videos"]
        assert good == [one for one in every if one["score"] >= least]

    def test_windows_streams_arrays_and_bad_files(self, make, clips, tmp_path):
        match = make(self.TASK, "clip")
        bad = tmp_path / "bad.mp4"
        bad.write_text("no video")
        inputs = (one for one in [str(clips[0]), bad, tiny.moving_frames()])
        found = match(inputs, texts="a disc", windows="2s", fps=8, bad_files="report", top_k=2)
        assert [(c["video"], c["seconds"]) for c in found.columns] == [
            (str(clips[0]), (0, 2)),
            (str(clips[0]), (2, 3)),
            (2, (0, 2)),
            (2, (2, 3)),
        ]
        assert found.scores.shape == (1, 4)
        assert len(found["text_to_video"][0]["videos"]) == 2
        assert [(e["index"], e["error"]) for e in found["errors"]] == [(1, "NotAVideoError")]
        whole = match(clips[0], texts=["a disc"])
        assert whole["video_to_text"][0]["seconds"] == pytest.approx((3 / 8, 22 / 8))
        with pytest.raises(VideoOptionError, match="texts is missing"):
            match(clips[0])


class TestQuestions:
    TASK = "video-question-answering"

    @torch.no_grad()
    def by_hand(self, ask, clip, text):
        tokens = ask.tokenizer([text], return_tensors="pt")
        given = {name: tokens[name] for name in ("input_ids", "attention_mask")}
        return ask.model(**given, pixel_values=pixels(ask, clip)).logits[0].softmax(0)

    def test_open_questions(self, make, clips):
        ask = make(self.TASK, "open")
        result = ask(str(clips[0]), question="the ring moving to", top_k=None)
        own = self.by_hand(ask, clips[0], "the ring moving to")
        found = {row["answer"]: row["score"] for row in result}
        np.testing.assert_allclose([found[answer] for answer in ANSWERS], own, atol=1e-5)
        several = ask([str(clip) for clip in clips], question=["the ring", "the square moving"], top_k=1, batch_size=4)
        assert len(several) == 3
        for clip, answers in zip(clips, several, strict=True):
            for text, answer in zip(["the ring", "the square moving"], answers, strict=True):
                assert answer[0]["answer"] == ANSWERS[self.by_hand(ask, clip, text).argmax()]

    def test_rows_with_questions_of_their_own(self, make, clips):
        ask = make(self.TASK, "open")
        texts = ["the ring", "a disc moving to the left", "the"]
        rows = [{"video": str(clip), "question": text} for clip, text in zip(clips, texts, strict=True)]
        answers = ask(rows, batch_size=2, top_k=1)
        for clip, text, answer in zip(clips, texts, answers, strict=True):
            assert answer[0]["answer"] == ANSWERS[self.by_hand(ask, clip, text).argmax()]
        assert ask(rows[0], top_k=1) == answers[0]

    def test_multiple_choice(self, make, clips):
        ask = make(self.TASK, "choice")
        choices = ["left", "right", "down"]
        result = ask(clips[0], question="the ring moving", choices=choices, views="2x1")
        tokens = ask.tokenizer([f"the ring moving {choice}" for choice in choices], padding=True, return_tensors="pt")
        views = ask.preprocess(clips[0], views=hf_video.clips.request.parse_views("2x1"))["pixel_values"]
        ids, mask = (tokens[name].expand(2, -1, -1) for name in ("input_ids", "attention_mask"))
        with torch.no_grad():
            own = ask.model(ids, mask, views).logits.softmax(-1).mean(0)
        found = {row["answer"]: row["score"] for row in result}
        np.testing.assert_allclose([found[choice] for choice in choices], own, atol=1e-5)
        row = {"video": str(clips[0]), "question": "the ring moving", "choices": choices}
        assert [one["answer"] for one in ask([row], views="2x1")[0]] == [one["answer"] for one in result]

    @pytest.mark.parametrize(
        ("name", "options", "message"),
        [
            ("open", {}, "question is missing"),
            ("open", {"question": " "}, "empty"),
            ("open", {"question": "a", "choices": ["left", "up"]}, "multiple choice"),
            ("choice", {"question": "a"}, "two texts or more"),
            ("choice", {"question": "a", "choices": ["left"]}, "two texts or more"),
        ],
    )
    def test_wrong_options(self, make, clips, name, options, message):
        with pytest.raises(VideoOptionError, match=message):
            make(self.TASK, name)(clips[0], **options)

    def test_models_that_answer_nothing(self, folders):
        with pytest.raises(CheckpointError, match="answers no questions"):
            pipeline(self.TASK, model=folders["clip"]())


class TestFeatures:
    TASK = "video-feature-extraction"

    @pytest.mark.parametrize("model", ["videomae", "timesformer"])
    def test_a_vector_of_each_video(self, model, clips, request):
        embed = pipeline(self.TASK, model=str(request.getfixturevalue(model)), device="cpu")
        vectors = embed([str(clip) for clip in clips], batch_size=2)
        for clip, vector in zip(clips, vectors, strict=True):
            with torch.no_grad():
                own = embed.model.get_video_features(pixels(embed, clip)).embedding[0]
            assert vector.dtype == np.float32
            np.testing.assert_allclose(vector, own, atol=1e-5)
        windows = embed(clips[0], windows="1s", normalize=True)
        assert [w["seconds"] for w in windows] == [(0, 1), (1, 2), (2, 3)]
        assert all(np.linalg.norm(w["embedding"]) == pytest.approx(1, abs=1e-5) for w in windows)

    def test_dual_encoders_give_vectors_and_pair_scorers_say_that_they_have_none(self, make, clips, folders):
        assert make(self.TASK, "clip")(clips[0]).shape == (64,)
        with pytest.raises(CheckpointError, match="video and text together"):
            make(self.TASK, "tight")(clips[0])
        with pytest.raises(VideoOptionError, match="normalize"):
            make(self.TASK, "clip")(clips[0], normalize="yes")
