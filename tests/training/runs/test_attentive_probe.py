"""The attentive probe: what it saves, what it learns from a frozen random encoder, and what a step of it costs."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
import transformers
from evaluation_models import make
from torch.utils.flop_counter import FlopCounterMode

import hf_video
from hf_video.cli import main
from hf_video.data import load_videos
from hf_video.data.moving_glyphs import write_moving_glyphs
from hf_video.errors import CheckpointError, ConfigError, VideoOptionError
from hf_video.training.runs.attentive_head import AttentiveHead, HeadTraining, TokenMaps, extract_tokens
from hf_video.training.runs.attentive_probe import attentive_probe_model

TINY = {
    "crop_size": 32,
    "patch_size": 8,
    "frames_per_clip": 8,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pred_hidden_size": 24,
    "pred_num_attention_heads": 2,
    "pred_num_hidden_layers": 1,
}
SIZE = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    hf_video.VJEPA2Model(hf_video.VJEPA2Config(**TINY)).save_pretrained(folder)
    hf_video.VJEPA2VideoProcessor(**SIZE).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("glyphs")
    write_moving_glyphs(folder, 24)
    return folder


QUICK = ["training.num_train_epochs=1", "model.num_pooler_layers=1"]


def test_what_is_saved_answers_in_the_pipeline_and_in_stock(encoder, clips, tmp_path):
    report = attentive_probe_model(clips, str(encoder), settings=QUICK, output=tmp_path / "probe")
    assert json.loads((tmp_path / "probe" / "probe.json").read_text()) == report
    assert report["train_found"] + report["test_found"] == 24
    model = hf_video.VJEPA2ForVideoClassification.from_pretrained(tmp_path / "probe")
    before = hf_video.VJEPA2Model.from_pretrained(encoder).state_dict()
    for name, value in model.vjepa2.state_dict().items():
        assert torch.equal(value, before[name]), name
    classify = transformers.pipeline("video-classification", model=str(tmp_path / "probe"))
    answers = classify(str(next(clips.rglob("*.mp4"))))
    assert {one["label"] for one in answers} <= set(report["labels"])
    from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2ForVideoClassification

    stock = VJEPA2ForVideoClassification.from_pretrained(tmp_path / "probe").eval()
    video = torch.randn(2, 8, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(video).logits, stock(video).logits, atol=1e-5, rtol=0)


def test_the_command(encoder, clips, tmp_path, capsys):
    data = ["probe", str(clips), "--model", str(encoder)]
    settings = [part for one in QUICK for part in ("--set", one)]
    grid = ["--set", "probe.learning_rates=[1e-3, 1e-4]", "--set", "probe.weight_decays=[0.1]"]
    assert main([*data, "--recipe", "vjepa2_attentive_probe:grid", *settings, *grid]) == 0
    assert "attentive probe  top-1" in capsys.readouterr().out
    assert main([*data, "--recipe", "vjepa2_attentive_probe", "--random"]) == 2
    assert main([*data, *settings]) == 2
    assert "a linear probe has none" in capsys.readouterr().err


def test_train_makes_a_model_that_is_tested_as_published(encoder, clips, tmp_path, capsys):
    """One that `hf-video evaluate` tests on the same videos, by the authors' protocol too."""
    folder = tmp_path / "model"
    settings = [part for one in QUICK for part in ("--set", one)]
    model = ["--model", str(encoder), "--recipe", "vjepa2_attentive_probe"]
    train = ["train", str(clips), *model, "--output", str(folder)]
    assert main([*train, *settings, "--test-size", "0.25", "--protocol", "paper:ssv2"]) == 0
    assert "Accuracy on test" in capsys.readouterr().out
    summary = json.loads((folder / "training_summary.json").read_text())
    assert summary["evaluation"]["test"]["total"] == 8
    report = json.loads((folder / "evaluation" / "test" / "report.json").read_text())
    assert report["protocol"]["joined"]
    assert (report["protocol"]["clips"], report["protocol"]["num_frames"]) == (2, 8)
    assert "attentive" in (folder / "README.md").read_text()
    assert main(["evaluate", str(clips), "--model", str(folder), "--protocol", "paper:ssv2", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["top1"], again["found"]) == (summary["evaluation"]["test"]["top1"], 8)
    before = (folder / "model.safetensors").read_bytes()
    for more, words in (
        ([], "holds another run"),
        (["--resume"], "has no use for --resume"),
        (["--overwrite", "--set", "training.warmup_steps=5"], "no setting training 'warmup_steps'"),
        (["--overwrite", "--set", "augmentation.flip=0.5"], "no setting augmentation 'flip'"),
        (["--overwrite", "--set", "model.num_pooler_layer=1"], "num_pooler_layers"),
    ):
        assert main([*train, *more]) == 2
        assert words in capsys.readouterr().err
    assert main([*train, *settings, "--overwrite", "--set", "training.learning_rate=1e-2"]) == 0
    assert (folder / "model.safetensors").read_bytes() != before
    assert not (folder / "run-in-progress").exists()
    assert "run-in-progress" not in (folder / "README.md").read_text()


def test_clips_of_a_video_are_classified_together(encoder, clips, tmp_path):
    settings = [*QUICK, "data.views=2x1", "data.num_frames=4"]
    attentive_probe_model(clips, str(encoder), settings=settings, output=tmp_path / "probe")
    model = hf_video.VJEPA2ForVideoClassification.from_pretrained(tmp_path / "probe")
    assert model.config.num_frames == 4
    rows = load_videos(clips)["test"]
    processor = hf_video.VJEPA2VideoProcessor.from_pretrained(tmp_path / "probe")
    found = extract_tokens(model, processor, rows, tmp_path / "tokens.npy", views="2x1")
    assert found.tokens.shape[1:] == (2 * 2 * 16, 64)
    views = processor(rows[0].source, sampler="uniform_views", sampler_options={"num_clips": 2}, num_frames=4)
    with torch.no_grad():
        tokens = model.encode_tokens(torch.from_numpy(np.stack(views["pixel_values_videos"])))
    np.testing.assert_allclose(found.tokens[0], tokens.flatten(0, 1), atol=5e-3)
    with pytest.raises(VideoOptionError, match="joins clips, not crops"):
        attentive_probe_model(clips, str(encoder), views="1x3")


def test_others_are_refused(clips, encoder, tmp_path):
    make("videomae")[0].save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="is a videomae; an attentive probe reads the tokens of a vjepa2"):
        attentive_probe_model(clips, str(tmp_path))
    with pytest.raises(ConfigError, match="for another task"):
        attentive_probe_model(clips, str(encoder), recipe="videomae_finetune_ucf101")


def model_of(**changes):
    torch.manual_seed(0)
    return hf_video.VJEPA2ForVideoClassification(hf_video.VJEPA2Config(**{**TINY, "num_labels": 4, **changes}))


def test_heads_side_by_side_are_heads_alone():
    start = AttentiveHead(model_of(num_pooler_layers=1))
    tokens = np.random.default_rng(0).normal(size=(20, 6, 64)).astype(np.float16)
    maps = TokenMaps(tokens, torch.arange(20) % 4, [str(i) for i in range(20)])
    training = HeadTraining(((1e-2, 0.1), (1e-3, 0.4)), epochs=2, batch_size=8)
    both = training.train(start, maps, torch.arange(20))
    alone = HeadTraining(((1e-3, 0.4),), epochs=2, batch_size=8).train(start, maps, torch.arange(20))
    for p, q in zip(both[1].parameters(), alone[0].parameters(), strict=True):
        torch.testing.assert_close(p, q)
    assert len(training.times) == 6


def test_a_step_costs_a_third_of_fine_tuning_at_most():
    """In operations, of an encoder of 12 blocks as the smallest ViT has; time is in the model card."""
    model = model_of(num_hidden_layers=12, num_pooler_layers=3, attn_implementation="eager")
    video, labels = torch.randn(4, 8, 3, 32, 32), torch.arange(4)
    head = AttentiveHead(copy.deepcopy(model))
    tokens = torch.randn(4, 64, 64)
    costs = []
    for step in (lambda: model(video, labels=labels).loss, lambda: head(tokens).logsumexp(-1).mean()):
        with FlopCounterMode(display=False) as counter:
            step().backward()
        costs.append(counter.get_total_flops())
    assert costs[0] > 3 * costs[1]


@pytest.mark.slow
def test_directions_are_learnt_from_a_frozen_random_encoder(encoder, tmp_path):
    """And no single frame tells them: chance is 25 %."""
    write_moving_glyphs(tmp_path, 500)
    report = attentive_probe_model(tmp_path, str(encoder))
    assert report["steps"] == 1000
    assert report["test_found"] == 100
    assert report["test_top1"] >= 0.95
