"""ActionFormer and TriDet beyond the official numbers: padding, batches, windows, files, training, hooks."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModel

import hf_video
from hf_video.errors import ConfigError, ModelInputError
from hf_video.layers.local_attention import local_attention

SMALL = {
    "input_size": 12, "hidden_size": 32, "neck_size": 32, "head_size": 32, "max_length": 64, "branch_layers": 2,
    "num_labels": 3,
}  # fmt: skip
KINDS = {
    "actionformer": lambda **more: hf_video.ActionFormerConfig(**SMALL, window_size=5, num_attention_heads=4, **more),
    "tridet": lambda **more: hf_video.TriDetConfig(**SMALL, num_bins=4, intermediate_size=48, kernel_std=0.3, **more),
}


def detector(kind, **more):
    name = {"actionformer": "ActionFormer", "tridet": "TriDet"}[kind]
    model = getattr(hf_video, f"{name}ForTemporalActionDetection")(KINDS[kind](**more))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(params=KINDS)
def model(request):
    return detector(request.param)


@torch.no_grad()
def test_a_batch_is_one_by_one(model):
    """However long its neighbours are: padding does not depend on them."""
    short, long = torch.randn(20, 12), torch.randn(50, 12)
    features = torch.nn.utils.rnn.pad_sequence([short, long], batch_first=True)
    mask = torch.arange(50) < torch.tensor([[20], [50]])
    together = model(features, mask)
    for number, alone in enumerate((model(short[None]), model(long[None]))):
        torch.testing.assert_close(together.logits[number], alone.logits[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(together.offsets[number], alone.offsets[0], atol=1e-5, rtol=1e-5)
        assert torch.equal(together.mask[number], alone.mask[0])


@torch.no_grad()
def test_events_move_with_the_video():
    model = detector("actionformer")
    event = torch.randn(24, 12)
    scores = []
    for shift in (16, 20):
        features = torch.zeros(1, 64, 12)
        features[0, shift : shift + 24] = event
        scores.append(model(features).logits[0, :64][shift : shift + 24])
    torch.testing.assert_close(*scores, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_longer_videos_than_in_training(model):
    output = model(torch.randn(1, 101, 12))
    assert output.logits.shape[1] == sum(model.config.padded_length(101) // stride for stride in (1, 2, 4))
    found = model.find_segments(output)[0]
    assert len(found.segments) == len(found.scores) == len(found.labels)


def test_files_and_auto_classes(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    features = torch.randn(1, 30, 12)
    assert torch.equal(loaded(features).logits, model(features).logits)
    assert type(AutoConfig.from_pretrained(tmp_path)) is type(model.config)
    assert isinstance(AutoModel.from_pretrained(tmp_path), hf_video.ActionFormerModel | hf_video.TriDetModel)


def test_it_learns_where_an_event_is(model):
    """One event of known start and end, after a few steps; the loss's running normaliser is kept in files."""
    features = torch.randn(2, 64, 12)
    features[:, 20:36] += 3
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    segments, labels = [torch.tensor([[20.0, 36.0]])] * 2, [torch.tensor([1])] * 2
    losses = []
    for _ in range(60):
        output = model(features, segments=segments, labels=labels)
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(output.loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert model.state_dict()["detection_loss.normalizer"] < model.config.loss_normalizer
    found = model.eval().find_segments(model(features))[0]
    assert found.labels[0] == 1
    torch.testing.assert_close(found.segments[0], torch.tensor([20.0, 36.0]), atol=1.5, rtol=0)


def test_tuples_are_the_outputs_in_order(model):
    inputs = {"segments": [torch.tensor([[5.0, 9.0]])], "labels": [torch.tensor([1])]}
    named = model(torch.randn(1, 20, 12), **inputs)
    assert list(named)[:5] == ["loss", "logits", "offsets", "mask", "points"]
    assert all(value is named[name] for name, value in zip(named, named.to_tuple(), strict=True))


def test_hooks_and_quantised_weights_are_not_passed_by(model):
    called = []
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Conv1d | torch.nn.Linear):
            layer.register_forward_hook(lambda *_, name=name: called.append(name))
    model(torch.randn(1, 20, 12))
    layers = {name for name, layer in model.named_modules() if isinstance(layer, torch.nn.Conv1d | torch.nn.Linear)}
    assert set(called) == layers


@pytest.mark.parametrize("length", [5, 64, 65, 150])
def test_local_attention_is_attention_with_a_band(length):
    query, key, value = torch.randn(3, 2, 4, length, 8).double()
    mask = torch.rand(2, length) > 0.2
    mask[:, 0] = True
    bias = torch.randn(4, 7).double()
    distance = torch.arange(length) - torch.arange(length)[:, None]
    scores = query @ key.transpose(2, 3) / 8**0.5 + bias[:, (distance + 3).clamp(0, 6)]
    scores = scores.masked_fill((distance.abs() > 3) | ~mask[:, None, None], float("-inf"))
    expected = scores.softmax(-1) @ value
    got = local_attention(query, key, value, mask, 7, bias=bias)
    valid = mask[:, None, :, None].expand_as(got)
    torch.testing.assert_close(got[valid], expected[valid])


def test_what_makes_no_detector(model):
    with pytest.raises(ModelInputError, match=r"\(batch, time, 12\)"):
        model(torch.randn(1, 20, 13))
    with pytest.raises(ModelInputError, match="mask has shape"):
        model(torch.randn(1, 20, 12), torch.ones(1, 19))
    with pytest.raises(ModelInputError, match="max_length=64"):
        model.train()(torch.randn(1, 65, 12))
    with pytest.raises(ConfigError, match="'soft'"):
        KINDS["actionformer"](nms="none at all")
    with pytest.raises(ConfigError, match="must be odd"):
        hf_video.ActionFormerConfig(**SMALL, window_size=4)
    with pytest.raises(ConfigError, match="multiple of"):
        hf_video.ActionFormerConfig(**{**SMALL, "max_length": 65}, window_size=5)
    with pytest.raises(ConfigError, match="stream_sizes"):
        hf_video.ActionFormerConfig(**{**SMALL, "input_size": [6, 6]}, window_size=5)


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_scores_begin_at_the_prior(kind, loaded):
    """Those of classes without examples near 0. Modules without parameters of their own are initialised too."""
    config = KINDS[kind](empty_classes=[2])
    cls = getattr(hf_video, f"{type(config).__name__.removesuffix('Config')}ForTemporalActionDetection")
    model = cls.from_pretrained(None, config=config, state_dict={}) if loaded else cls(config)
    torch.testing.assert_close(model.class_head.output.bias.sigmoid(), torch.tensor([0.01, 0.01, 1e-6]))
    assert model.offset_head.output.bias.eq(0).all()
    if kind == "tridet":
        assert 0.2 < model.tridet.blocks[0].wide_window.weight.std() < 0.4  # kernel_std=0.3
