"""TimeSformer: initialisation and stochastic depth."""

from __future__ import annotations

import torch
from configs import TIMESFORMER, timesformer
from contract import assert_close

from hf_video.models.timesformer.configuration_timesformer import TimesformerConfig
from hf_video.models.timesformer.modeling_timesformer import TimesformerModel


def test_official_initialisation_is_an_image_model():
    """Zero temporal projections in every block: at step 0 the order of frames is invisible."""
    model = TimesformerModel(TimesformerConfig(**TIMESFORMER)).eval()
    for block in model.encoder.layer:
        assert not block.temporal_dense.weight.any()
        assert not block.temporal_dense.bias.any()
    assert not model.embeddings.time_embeddings.any()
    assert 0.01 < model.encoder.layer[1].intermediate.dense.weight.std() < 0.03
    assert model.embeddings.cls_token.any()
    assert model.embeddings.position_embeddings.any()
    video = torch.randn(1, 4, 3, 32, 48)
    cls = model(video).last_hidden_state[:, 0]
    assert_close(model(video.flip(1)).last_hidden_state[:, 0], cls, atol=1e-6)


def test_xavier_initialisation_breaks_the_saddle():
    config = TimesformerConfig(**TIMESFORMER, initializer="xavier", time_embedding_init_std=0.5)
    model = TimesformerModel(config)
    bound = (6 / (24 + 24)) ** 0.5
    for block in model.encoder.layer:
        weight = block.temporal_dense.weight
        assert 0.9 * bound < weight.abs().max() <= bound
    assert 0.3 < model.embeddings.time_embeddings.std() < 0.7


def test_a_file_without_time_embeddings_starts_them_anew(tmp_path):
    """Stock loads uninitialised memory there."""
    timesformer(attention_type="space_only").save_pretrained(tmp_path)
    model = TimesformerModel.from_pretrained(tmp_path, attention_type="joint_space_time")
    assert not model.embeddings.time_embeddings.any()


def test_drop_path_is_per_row_and_off_in_eval():
    model = timesformer(drop_path_rate=0.1)
    assert [b.row_drop_path.p for b in model.encoder.layer] == [0.0, 0.1]
    video = torch.randn(1, 4, 3, 32, 48)
    assert torch.equal(model(video).last_hidden_state, model(video).last_hidden_state)
    model.train()
    assert not torch.equal(model(video).last_hidden_state, model(video).last_hidden_state)
