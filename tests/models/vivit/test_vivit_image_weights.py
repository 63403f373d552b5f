"""ViViT: starting from an image model, and from nothing."""

from __future__ import annotations

import pytest
import torch
from contract import assert_close, randomise
from test_vivit import TINY
from test_vivit_references import FACTORIZED
from transformers import ViTConfig, ViTForImageClassification, ViTModel

import hf_video
from hf_video.errors import CheckpointError
from hf_video.models.vivit.image_weights import from_image_model

IMAGE = {name: TINY[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")}


def image_model(cls=ViTModel, **changes):
    return randomise(cls(ViTConfig(**{**IMAGE, "image_size": 32, "patch_size": 16, **changes})))


@torch.no_grad()
def test_one_tubelet_in_time_is_the_image_model_on_its_central_frame():
    vit = image_model(ViTForImageClassification, num_labels=3)
    model = from_image_model(vit, num_frames=3, tubelet_frames=3, num_labels=5)
    video = torch.randn(2, 3, 3, 32, 32)
    assert_close(model.vivit(video).last_hidden_state, vit.vit(video[:, 1]).last_hidden_state)
    assert model(video).logits.shape == (2, 5)


@torch.no_grad()
def test_the_first_transformer_of_model_2_is_the_image_model_at_each_time():
    vit = image_model()
    model = from_image_model(vit, attention_type="factorized_encoder", num_frames=6)
    video = torch.randn(2, 6, 3, 32, 32)
    tokens, _, _ = model.vivit.encode_places(video, (3, 2, 2))
    expected = vit(video[:, 1::2].flatten(0, 1)).last_hidden_state
    assert_close(tokens, expected)


@torch.no_grad()
def test_temporal_attention_of_model_3_adds_nothing_at_first_and_learns():
    model = from_image_model(image_model(), attention_type=FACTORIZED[1], num_frames=6)
    video = torch.randn(1, 6, 3, 32, 32)
    still = video[:, :2].repeat(1, 3, 1, 1, 1)
    first = model.vivit(video).last_hidden_state.view(1, 3, 4, -1)[:, 0]
    assert_close(model.vivit(still).last_hidden_state.view(1, 3, 4, -1)[:, 0], first)  # other times are not seen
    with torch.enable_grad():
        model.vivit(video).last_hidden_state.square().sum().backward()
    for block in model.vivit.encoder.layer:
        assert not block.temporal_attention.output.dense.weight.any()
        assert block.temporal_attention.output.dense.weight.grad.abs().max() > 1e-4
        assert_close(block.temporal_attention.attention.query.weight, block.attention.attention.query.weight, atol=0)


@pytest.mark.parametrize("attention_type", ["spacetime", FACTORIZED[2]])
@torch.no_grad()
def test_positions_are_the_images_at_every_time(attention_type):
    vit = image_model()
    model = from_image_model(vit, attention_type=attention_type, num_frames=6, image_size=[32, 64])
    extra = int(attention_type == "spacetime")
    table = model.vivit.embeddings.position_embeddings
    assert table.shape == (1, extra + 3 * 2 * 4, 24)
    times = table[0, extra:].view(3, 8, 24)
    assert_close(times, times[:1].expand_as(times), atol=0)
    image = vit.embeddings.position_embeddings[0, 1:].T.view(1, 24, 2, 2)
    wide = torch.nn.functional.interpolate(image, size=(2, 4), mode="bilinear")
    assert_close(times[0].T, wide[0].flatten(1), atol=1e-6)
    assert_close(table[:, :extra], vit.embeddings.position_embeddings[:, :extra], atol=0)


def test_what_does_not_fit_is_refused():
    with pytest.raises(CheckpointError, match="other shapes"):
        from_image_model(image_model(), hidden_size=32)
    with pytest.raises(CheckpointError, match=r"encoder\.layer\.1"):
        from_image_model(image_model(), num_hidden_layers=1)
    with pytest.raises(CheckpointError, match="videomae"):
        from_image_model(hf_video.VideoMAEModel(hf_video.VideoMAEConfig(**IMAGE, image_size=32)))


@pytest.mark.parametrize("start", ["all_frames", "central_frame"])
def test_initialisation_is_the_official_one(start):
    config = hf_video.VivitConfig(**{**TINY, "hidden_size": 96, "tubelet_size": [4, 16, 16]}, tubelet_initializer=start)
    model = hf_video.VivitForVideoClassification(config)
    filters = model.vivit.embeddings.patch_embeddings.projection.weight
    frames = filters.flatten(0, 1).flatten(2).pow(2).sum((0, 2)).sqrt()
    assert (frames > 0).tolist() == ([True] * 4 if start == "all_frames" else [False, False, True, False])
    tokens = model.vivit.embeddings.patch_embeddings(torch.randn(1, 12, 3, 64, 64))
    assert 0.8 < tokens.std() < 1.2  # as large, whatever it sees
    assert not model.classifier.weight.any()
    assert not model.vivit.embeddings.cls_token.any()
    assert 0.017 < model.vivit.embeddings.position_embeddings.std() < 0.023
    bound = (6 / (96 + 96)) ** 0.5
    weight = model.vivit.encoder.layer[1].attention.attention.key.weight
    assert 0.9 * bound < weight.abs().max() <= bound


def test_drop_path_rises_in_each_transformer():
    config = hf_video.VivitConfig(
        **TINY, attention_type="factorized_encoder", num_temporal_layers=3, drop_path_rate=0.3
    )
    model = hf_video.VivitModel(config)
    assert [block.drop_path.p for block in model.encoder.layer] == [0.0, 0.3]
    assert [block.drop_path.p for block in model.temporal_encoder.layer] == pytest.approx([0.0, 0.15, 0.3])
