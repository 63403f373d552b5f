"""VideoMAE: initialisation, dropout, stochastic depth."""

from __future__ import annotations

import logging

import pytest
import torch
from configs import CLIP, VIDEOMAE, videomae
from contract import assert_close

from hf_video.models.videomae.configuration_videomae import VideoMAEConfig
from hf_video.models.videomae.modeling_videomae import (
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEModel,
)


def test_classifier_initialisation_is_truncated_normal():
    model = VideoMAEForVideoClassification(VideoMAEConfig(**{**VIDEOMAE, "hidden_size": 96}))
    weight = model.videomae.encoder.layer[0].attention.attention.query.weight
    assert 0.018 < weight.std() < 0.022
    assert weight.abs().max() <= 2
    assert not model.classifier.bias.any()


@pytest.mark.parametrize("part", ["videomae.encoder.layer.0", "decoder.decoder_layers.0"])
def test_pretraining_initialisation_is_xavier(part):
    model = VideoMAEForPreTraining(VideoMAEConfig(**VIDEOMAE))
    block = model.get_submodule(part)
    for linear in (block.intermediate.dense, block.attention.attention.query, block.output.dense):
        bound = (6 / sum(linear.weight.shape)) ** 0.5
        assert 0.95 * bound < linear.weight.abs().max() <= bound
    assert not block.intermediate.dense.bias.any()
    assert not block.attention.attention.q_bias.any()
    assert 0.01 < model.mask_token.std() < 0.03


def test_cosine_temperature_starts_at_ten():
    model = VideoMAEModel(VideoMAEConfig(**VIDEOMAE, cosine_attention=True))
    scale = model.encoder.layer[0].attention.attention.scale
    assert scale.shape == (4, 1, 1)
    assert_close(scale.exp(), torch.full((4, 1, 1), 10.0))


def test_head_dropout_works_in_training_only():
    model = videomae(VideoMAEForVideoClassification, classifier_dropout=0.5, use_mean_pooling=True)
    assert torch.equal(model(CLIP).logits, model(CLIP).logits)
    model.train()
    assert not torch.equal(model(CLIP).logits, model(CLIP).logits)


def test_drop_path_rises_along_the_blocks():
    model = videomae(VideoMAEModel, drop_path_rate=0.2, num_hidden_layers=3)
    assert [round(b.drop_path.p, 6) for b in model.encoder.layer] == [0.0, 0.1, 0.2]


def test_sixteen_heads_for_small_are_warned_about(caplog):
    logging.getLogger("transformers").propagate = True
    with caplog.at_level(logging.WARNING):
        VideoMAEConfig(hidden_size=384, num_attention_heads=16)
    assert "num_attention_heads=6" in caplog.text
