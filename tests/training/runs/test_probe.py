"""The probe against scikit-free truths: a convex optimum, a fold that changes nothing, a saved model that works."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny
import torch
import transformers
from evaluation_models import make
from stock_models import save_classifier, save_encoder, save_video_text

import hf_video
from hf_video.data.moving_glyphs import DIRECTIONS, write_moving_glyphs
from hf_video.data.rows import VideoRow, VideoRows
from hf_video.errors import CheckpointError, DataError
from hf_video.features.extraction import Features, extract_features
from hf_video.models.videomae.modeling_videomae import VideoMAEForPreTraining
from hf_video.training.runs import probe
from hf_video.training.runs.probe import (
    PENALTIES,
    fit_head,
    linear_probe,
    load_encoder,
    probe_features,
    save_probe,
    set_head,
    solve,
)


def blobs(count, classes=3, width=5, seed=0, spread=0.5):
    """Clouds around corners, on axes of very different scales and offsets."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    points = np.eye(classes, width)[labels] + rng.normal(0, spread, (count, width))
    return (points * 10.0 ** np.arange(-2, width - 2) + 100).astype(np.float32), labels


class TestSolver:
    def test_the_gradient_is_zero_at_the_optimum(self):
        x, y = (torch.as_tensor(v) for v in blobs(60))
        x = ((x - x.mean(0)) / x.std(0)).double()
        found = solve(x, y, 3, 0.1).requires_grad_(True)
        logits = x @ found[:, :-1].T + found[:, -1]
        loss = torch.nn.functional.cross_entropy(logits, y) + 0.05 * found[:, :-1].square().sum()
        (gradient,) = torch.autograd.grad(loss, found)
        assert gradient.abs().max() < 1e-6

    def test_where_it_starts_does_not_matter(self):
        x, y = (torch.as_tensor(v) for v in blobs(60))
        x = ((x - x.mean(0)) / x.std(0)).double()
        start = torch.randn(3, 6, dtype=torch.float64)
        ends = [solve(x, y, 3, 0.01, begin) for begin in (start, None)]
        for end in ends:
            end[:, -1] -= end[:, -1].mean()  # one number on all classes changes no probability
        torch.testing.assert_close(*ends, atol=1e-4, rtol=1e-3)


class TestHead:
    def test_it_learns_and_scales_do_not_matter(self):
        x, y = blobs(300, spread=0.2)
        test, truth = blobs(200, seed=1, spread=0.2)
        held_out = np.arange(300) % 5 == 0
        head = fit_head(x, y, held_out, 3)
        assert head.accuracy(test, truth) > 0.95
        again = fit_head(x * 7 - 3, y, held_out, 3)
        torch.testing.assert_close(head.logits(test), again.logits(test * 7 - 3), atol=2e-2, rtol=2e-2)

    def test_the_penalty_is_chosen_on_the_split(self):
        """Random labels: nothing to learn, so the strongest penalty is as good as any and wins."""
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(40, 60)).astype(np.float32), rng.integers(0, 2, 40)
        x[:, 0] = 5 * (2 * y - 1) + rng.normal(size=40)
        head = fit_head(x, y, np.arange(40) % 4 == 0, 2)
        best = max(head.curve.values())
        assert head.penalty == max(p for p in PENALTIES if head.curve[p] == best)
        assert set(head.curve) == set(PENALTIES)

    def test_a_constant_feature_has_no_say(self):
        x, y = blobs(90)
        x[:, 2] = 3.0
        head = fit_head(x, y, np.arange(90) % 3 == 0, 3)
        assert (head.weight[:, 2] == 0).all()
        assert torch.isfinite(head.logits(x)).all()

    def test_broken_features_and_splits_are_refused(self):
        x, y = blobs(30)
        with pytest.raises(DataError, match="held out"):
            fit_head(x, y, np.zeros(30, bool), 3)
        x[3, 1] = np.nan
        with pytest.raises(DataError, match="not finite"):
            fit_head(x, y, np.arange(30) % 3 == 0, 3)


@pytest.fixture(scope="module")
def glyphs(tmp_path_factory):
    root = tmp_path_factory.mktemp("glyphs")
    names = list(DIRECTIONS)
    splits = {}
    for split, (clips, seed) in {"train": (48, 0), "test": (16, 1)}.items():
        paths = write_moving_glyphs(root / split, clips, seed, size=32, num_frames=4)
        rows = [VideoRow(str(p), names.index(p.parent.name), f"{p.parent.name}/{p.name}") for p in paths]
        splits[split] = VideoRows(rows, names)
    return splits


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save_tiny(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("model_type", ["videomae", "timesformer", "vivit"])
def test_a_saved_probe_answers_in_the_pipeline(model_type, glyphs, tmp_path):
    folder = tiny.save_tiny(tmp_path / "model", model_type)
    labels = glyphs["train"].labels
    model, processor = load_encoder(str(folder), labels), transformers.AutoImageProcessor.from_pretrained(folder)
    report = linear_probe(model, processor, glyphs["train"], glyphs["test"])
    assert (report.train_found, report.test_found) == (48, 16)
    assert report.train_top1 > 0.3  # the weights are random; chance is 1 in 4
    sample = processor(glyphs["test"][0].source, return_tensors="pt")
    set_head(model, report.head, sample)
    save_probe(tmp_path / "probe", model, processor, report, {"random_top1": 0.25})
    classify = transformers.pipeline("video-classification", model=str(tmp_path / "probe"))
    answers = classify([row.source for row in glyphs["test"]], top_k=1)
    right = [a[0]["label"] == labels[row.label] for a, row in zip(answers, glyphs["test"], strict=True)]
    assert np.mean(right) == pytest.approx(report.test_top1)
    vectors = extract_features(load_encoder(str(folder), labels), processor, glyphs["test"]).embeddings
    scores = report.head.logits(vectors).softmax(-1).amax(1)
    assert [a[0]["score"] for a in answers] == pytest.approx(scores.tolist(), abs=1e-3)
    facts = json.loads((tmp_path / "probe" / "probe.json").read_text())
    assert facts["test_top1"] == report.test_top1
    assert facts["random_top1"] == 0.25


class TestEncoder:
    def test_a_pretrained_one_pools_over_all_tokens(self, tmp_path):
        config = hf_video.VideoMAEConfig(
            image_size=32, patch_size=8, num_frames=4, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=64, decoder_hidden_size=32, decoder_num_attention_heads=2, use_mean_pooling=False,
        )  # fmt: skip
        whole = VideoMAEForPreTraining(config)
        whole.save_pretrained(tmp_path)
        model = load_encoder(str(tmp_path), ["a", "b", "c"])
        assert model.config.use_mean_pooling
        assert model.config.num_labels == 3
        assert not model.training
        layer = "encoder.layer.0.output.dense.weight"
        assert torch.equal(model.get_parameter(f"videomae.{layer}"), whole.get_parameter(f"videomae.{layer}"))

    def test_a_random_one_shares_no_weights(self, folder):
        model, other = (load_encoder(str(folder), ["a", "b"], random=r) for r in (False, True))
        name = "videomae.encoder.layer.0.output.dense.weight"
        assert not torch.equal(model.get_parameter(name), other.get_parameter(name))
        assert other.config.id2label == {0: "a", 1: "b"}

    def test_no_random_pooler_stands_before_the_probe(self, tmp_path):
        """A V-JEPA 2 without its attentive pooler, and a VideoPrism without its own, are probed as they are."""
        for kind in ("vjepa2", "videoprism"):
            encoder = load_encoder(str(save_encoder(tmp_path / kind, kind)), ["a", "b"])
            assert type(encoder).__name__ in ("VJEPA2Model", "VideoPrismVisionModel")
            whole = load_encoder(str(save_classifier(tmp_path / f"{kind}_whole", kind)), ["a", "b"])
            assert type(whole).__name__.endswith("ForVideoClassification")
            assert whole.config.num_labels == 2
        scorer = load_encoder(str(save_video_text(tmp_path / "xclip", "xclip")), ["a", "b"])
        assert type(scorer).__name__ == "XCLIPModel"

    def test_a_type_without_a_classifier_is_refused(self, tmp_path):
        transformers.BertConfig().save_pretrained(tmp_path)
        with pytest.raises(CheckpointError, match="bert"):
            load_encoder(str(tmp_path), ["a"])


class TestRefusals:
    def test_videos_without_labels(self, folder, glyphs):
        bare = VideoRows([VideoRow(row.source, None, row.name) for row in glyphs["train"]], glyphs["train"].labels)
        model, processor = load_encoder(str(folder), ["a"]), transformers.AutoImageProcessor.from_pretrained(folder)
        with pytest.raises(DataError, match="no label"):
            linear_probe(model, processor, bare, glyphs["test"])
        with pytest.raises(DataError, match="no test videos"):
            linear_probe(model, processor, glyphs["train"], glyphs["test"][:0])

    def test_a_class_without_a_training_video(self, glyphs):
        part = Features(np.eye(4, dtype=np.float32), list("abcd"), np.array([0, 0, 1, 1]), np.zeros((4, 2)))
        with pytest.raises(DataError, match="2 of 4 classes have no training video: up, down"):
            probe_features(part, part, glyphs["train"])

    def test_a_head_that_does_not_fit(self, folder, glyphs):
        model = load_encoder(str(folder), ["a", "b"])
        head = fit_head(*blobs(30, classes=2), np.arange(30) % 3 == 0, 2)
        with pytest.raises(CheckpointError, match="no linear classifier of 5 features"):
            set_head(model, head, {})


def test_a_probe_that_cannot_be_saved_is_refused_before_the_work(tmp_path, monkeypatch):
    for seed, split in enumerate(("train", "test")):
        write_moving_glyphs(tmp_path / "videos" / split, 4, seed, size=32, num_frames=4)
    model, processor = make("two_stream-rgb")
    model.float().save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    monkeypatch.setattr(probe, "linear_probe", None)  # nothing is probed
    with pytest.raises(CheckpointError, match="no linear classifier"):
        probe.probe_model(str(tmp_path / "videos"), str(tmp_path / "model"), output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
