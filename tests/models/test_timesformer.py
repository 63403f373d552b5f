"""TimeSformer: the contract for its three attention types, and what is peculiar to it."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from contract import ModelContract, TrainerContract, assert_close, randomise

from hf_video.models.timesformer.configuration_timesformer import TimesformerConfig
from hf_video.models.timesformer.modeling_timesformer import TimesformerForVideoClassification, TimesformerModel

TINY = {
    "image_size": [32, 48],
    "patch_size": 16,
    "num_frames": 4,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
}


class TestDivided(TrainerContract, ModelContract):
    model_type = "timesformer"
    tiny = TINY
    clip = (4, 32, 48)
    tokens = 1 + 6 * 4
    other_clips = ((8, 32, 48), (1, 32, 48), (3, 64, 32), (4, 40, 50))
    refused_clips = ((4, 15, 48), (4, 32, 8))


class TestJoint(ModelContract):
    variant = True
    model_type = "timesformer"
    tiny: ClassVar = {**TINY, "attention_type": "joint_space_time", "patch_size": (16, 8)}
    clip = (4, 32, 48)
    tokens = 1 + 12 * 4
    other_clips = ((8, 32, 48), (5, 48, 16))


class TestSpaceOnly(ModelContract):
    variant = True
    model_type = "timesformer"
    tiny: ClassVar = {**TINY, "attention_type": "space_only"}
    clip = (4, 32, 48)
    tokens = 1 + 6
    hidden_rows = 4
    other_clips = ((8, 32, 48), (5, 48, 16))


def tiny_model(cls=TimesformerModel, **changes):
    return randomise(cls(TimesformerConfig(**{**TINY, **changes})))


@pytest.mark.parametrize("attention_type", ["divided_space_time", "joint_space_time"])
def test_frames_come_from_the_tensor(attention_type):
    """A 4-frame configuration fed 8 frames is the 8-frame model with every time embedding used twice (stock groups
    tokens by the configuration's number and is silently wrong)."""
    four, eight = (tiny_model(num_frames=n, attention_type=attention_type) for n in (4, 8))
    state = four.state_dict()
    state["embeddings.time_embeddings"] = state["embeddings.time_embeddings"].repeat_interleave(2, dim=1)
    eight.load_state_dict(state)
    video = torch.randn(2, 8, 3, 32, 48)
    assert_close(four(video).last_hidden_state, eight(video).last_hidden_state, atol=1e-6)


def test_space_only_answers_once_per_clip():
    model = tiny_model(TimesformerForVideoClassification, attention_type="space_only", num_labels=5)
    video = torch.randn(2, 4, 3, 32, 48)
    logits = model(video).logits
    assert logits.shape == (2, 5)
    assert_close(model(video.flip(1)).logits, logits, atol=1e-6)  # a mean over frames can't see their order


def test_order_of_frames_matters_where_time_is_seen():
    model = tiny_model(TimesformerForVideoClassification, num_labels=5)
    video = torch.randn(2, 4, 3, 32, 48)
    assert (model(video.flip(1)).logits - model(video).logits).abs().max() > 1e-2


def test_temporal_maps_are_over_frames_of_one_place():
    output = tiny_model()(torch.randn(2, 4, 3, 32, 48), output_attentions=True)
    assert output.temporal_attentions[0].shape == (2 * 6, 4, 4, 4)
    assert output.attentions[0].shape == (2 * 4, 4, 7, 7)


def test_official_initialisation_is_an_image_model():
    """Zero temporal projections in every block: at step 0 the order of frames is invisible."""
    model = TimesformerModel(TimesformerConfig(**TINY)).eval()
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
    config = TimesformerConfig(**TINY, initializer="xavier", time_embedding_init_std=0.5)
    model = TimesformerModel(config)
    bound = (6 / (24 + 24)) ** 0.5
    for block in model.encoder.layer:
        weight = block.temporal_dense.weight
        assert 0.9 * bound < weight.abs().max() <= bound
    assert 0.3 < model.embeddings.time_embeddings.std() < 0.7


def test_a_file_without_time_embeddings_starts_them_anew(tmp_path):
    """Stock loads uninitialised memory there."""
    tiny_model(attention_type="space_only").save_pretrained(tmp_path)
    model = TimesformerModel.from_pretrained(tmp_path, attention_type="joint_space_time")
    assert not model.embeddings.time_embeddings.any()


def test_drop_path_is_per_row_and_off_in_eval():
    model = tiny_model(drop_path_rate=0.1)
    assert [b.row_drop_path.p for b in model.encoder.layer] == [0.0, 0.1]
    video = torch.randn(1, 4, 3, 32, 48)
    assert torch.equal(model(video).last_hidden_state, model(video).last_hidden_state)
    model.train()
    assert not torch.equal(model(video).last_hidden_state, model(video).last_hidden_state)
