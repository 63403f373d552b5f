"""VideoPrism's clip model, and its attention by every way."""

from __future__ import annotations

import itertools

import pytest
import torch
from contract import assert_close, randomise
from contract_layers import LayerContract
from test_videoprism import TINY
from torch import nn

import hf_video
from hf_video.errors import ConfigError, ModelInputError
from hf_video.models.videoprism import attention, layers
from hf_video.models.videoprism.embeddings import resize_positions

TEXT = {"vocab_size": 60, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 8}
TEXT |= {"hidden_size": 24, "intermediate_size": 40}


def tiny(layers: int = 2, **changes):
    config = {"vision_config": {**TINY, "num_spatial_layers": layers, **changes}}
    config |= {"text_config": {**TEXT, "num_hidden_layers": layers}}
    return randomise(hf_video.VideoPrismClipModel(hf_video.VideoPrismConfig(**config)))


def inputs(pairs: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 60, (pairs, 8), generator=generator)
    mask = (torch.arange(8) < torch.tensor([8, 5, 2])[:pairs, None]).long()
    video = torch.rand(pairs, 4, 3, 36, 54, generator=generator)
    return {"pixel_values_videos": video, "input_ids": ids * mask, "attention_mask": mask}


class TestClip(LayerContract):
    def pytest_generate_tests(self, metafunc):
        for name in {"layered", "shaped"} & set(metafunc.fixturenames):
            metafunc.parametrize(name, ["clip"])

    def model(self, which: str):
        return tiny(layers=1)

    def inputs(self, which: str):
        return inputs()

    def loss(self, model, inputs):
        return model(**inputs, return_loss=True, temperature=0.1).loss


@torch.no_grad()
def test_output():
    model, given = tiny(), inputs()
    output = model(**given)
    assert_close(output.video_embeds.norm(dim=1), torch.ones(3), atol=1e-4)
    assert_close(output.logits_per_video.sum(0), torch.ones(3))
    assert_close(output.logits_per_text.sum(0), torch.ones(3))
    features = model.get_video_features(given["pixel_values_videos"])
    assert features.pooler_output.shape == (3, 1, 24)  # as in transformers
    assert_close(features["embedding"], output.video_embeds, atol=0)
    assert features.feature_map.shape == (3, 4, 2, 3, 24)
    text = model.get_text_features(given["input_ids"], given["attention_mask"])
    assert_close(text.embedding, output.text_embeds, atol=0)
    assert isinstance(model(**given, return_dict=False), tuple)
    with pytest.raises(ModelInputError, match="2 texts and 3 videos"):
        model(given["pixel_values_videos"], given["input_ids"][:2], given["attention_mask"][:2], return_loss=True)


@torch.no_grad()
def test_texts_see_no_padding_and_no_later_word():
    model, given = tiny().text_model, inputs()
    ids, mask = given["input_ids"], given["attention_mask"]
    states = model(ids, mask).last_hidden_state
    changed = torch.where(mask.bool(), ids, 7)
    assert_close(model(changed, mask).pooler_output, model(ids, mask).pooler_output, atol=0)
    changed = ids.clone()
    changed[:, 4] = 9
    assert_close(model(changed, mask).last_hidden_state[:, :4], states[:, :4], atol=0)
    assert (model(changed, mask).last_hidden_state[0, 5:] - states[0, 5:]).abs().max() > 1e-3


def test_texts_that_are_refused():
    model, given = tiny().text_model, inputs()
    for wrong, words in (
        ({}, "input_ids"),
        ({"input_ids": torch.ones(2, 9, dtype=torch.long)}, r"\(2, 9\)"),
        ({"input_ids": given["input_ids"], "attention_mask": given["attention_mask"][:, :5]}, r"\(3, 5\)"),
    ):
        with pytest.raises(ModelInputError, match=words):
            model(**wrong)
    with pytest.raises(ConfigError, match=r"vision_config=\{'num_frames': 8\}"):
        hf_video.VideoPrismConfig(num_frames=8)
    with pytest.raises(ConfigError, match=r"length 24, texts of 32"):
        hf_video.VideoPrismConfig(vision_config=TINY, text_config={**TEXT, "hidden_size": 32})


def test_layer_groups_and_gradients():
    model = tiny()
    groups = model.layer_groups()
    assert sorted(itertools.chain(*groups)) == sorted(n for n, _ in model.named_parameters())
    assert len(groups) == 2 + 2 + 2 + 2
    assert {
        "text_model.layers.0.attention.q_proj.weight",
        "video_model.vision_model.spatial_layers.0.mlp.fc1.bias",
    } <= {*groups[1]}
    loss = model.train()(**inputs(), return_loss=True, temperature=0.1).loss
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


# -- attention


def heads(batch=3, tokens=20, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return (8 * torch.randn(3, batch, 4, tokens, 8, generator=generator)).to(dtype).unbind(0)


@pytest.mark.parametrize("scores", [1, 30, 450, 1700, 10**6])
def test_blocks_are_the_formula(monkeypatch, scores):
    """Of whole samples, of heads, of queries; and the cap counts."""
    monkeypatch.setattr(attention, "SCORES", scores)
    query, key, value = heads()
    logits = query.double() @ key.double().transpose(-2, -1) * 0.35
    expected = ((50 * (logits / 50).tanh()).softmax(-1) @ value.double()).transpose(1, 2)
    found = attention.attention_in_blocks(query, key, value, 0.35, 50.0)
    assert_close(found.double(), expected, atol=1e-4)  # values are large
    assert_close(attention.plain_attention(query, key, value, 0.35, 50.0)[0], found, atol=1e-4)
    uncapped = (logits.softmax(-1) @ value.double()).transpose(1, 2)
    assert (uncapped - expected).abs().max() > 0.1


def test_half_precision_is_not_lost_at_the_cap():
    query, key, value = heads(dtype=torch.bfloat16)
    exact = attention.plain_attention(*(x.double() for x in (query, key, value)), 0.35, 50.0)[1]
    found = attention.plain_attention(query, key, value, 0.35, 50.0)[1].double()
    logits = ((query @ key.transpose(-2, -1)) * 0.35 / 50).tanh() * 50  # in bfloat16 all the way, as in transformers
    assert (found - exact).abs().mean() < 0.5 * (logits.float().softmax(-1).double() - exact).abs().mean()


def test_memory_does_not_grow_with_the_scores():
    """Peak of a layer over 1024 tokens: below a fifth of its scores."""
    query, key, value = (torch.randn(1, 8, 1024, 8) for _ in range(3))
    with torch.no_grad(), torch.profiler.profile(profile_memory=True) as profile:
        attention.lean_attention(nn.Module(), query, key, value, 0.35, 50.0)
    sizes = [event.cpu_memory_usage for event in profile.events()]
    assert max(sizes) <= 4 * attention.SCORES
    assert 5 * max(sizes) < 3 * 8 * 1024 * 1024 * 4


@torch.no_grad()
def test_pooling_by_folded_weights():
    for bias in (True, False):
        config = hf_video.VideoPrismVisionConfig(**TINY, qkv_bias=bias)
        head = randomise(layers.VideoPrismMultiheadAttentionPoolingHead(config))
        tokens = torch.randn(2, 30, 24)
        folded = head(tokens)
        with torch.enable_grad():
            assert_close(head(tokens), folded, atol=1e-6)


# -- positions


def test_other_sizes_only_when_asked_for():
    model = tiny().video_model.vision_model
    for clip in ((1, 36, 54), (8, 36, 54), (4, 54, 36), (4, 72, 90)):
        video = torch.rand(1, clip[0], 3, *clip[1:])
        with pytest.raises(ModelInputError, match="interpolate_pos_encoding=True"):
            model(video)
        assert torch.isfinite(model(video, interpolate_pos_encoding=True).last_hidden_state).all()
    with pytest.raises(ModelInputError, match="36x54"):
        model(torch.rand(1, 4, 3, 40, 50), interpolate_pos_encoding=True)
    own = torch.rand(1, 4, 3, 36, 54)
    assert_close(model(own, interpolate_pos_encoding=True)[0], model(own)[0], atol=0)


def test_positions_are_averaged_where_they_shrink():
    """Antialiased: all old positions count, where plain bilinear sampling of every fourth would pass some by."""
    table = torch.zeros(1, 16, 2)
    table[0, 5] = 1
    assert (resize_positions(table, (16, 1), (4, 1)) > 0.05).any()
    assert_close(resize_positions(table + 1, (16, 1), (4, 1)).mean(), (table + 1).mean(), atol=0.05)


def test_a_file_is_loaded_for_other_sizes(tmp_path, caplog):
    config = hf_video.VideoPrismVisionConfig(**TINY, num_labels=3)
    model = randomise(hf_video.VideoPrismForVideoClassification(config))
    model.save_pretrained(tmp_path)
    other = hf_video.VideoPrismForVideoClassification.from_pretrained(tmp_path, num_frames=2, image_size=[54, 72])
    video = torch.rand(1, 2, 3, 54, 72)
    with torch.no_grad():
        assert_close(other(video).logits, model(video, interpolate_pos_encoding=True).logits)
    assert "interpolated" in caplog.text
    other.save_pretrained(tmp_path / "other")
    again = hf_video.VideoPrismForVideoClassification.from_pretrained(tmp_path / "other")
    assert_close(again.state_dict(), other.state_dict(), atol=0)
