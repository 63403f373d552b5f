"""Attention against its formula, under every way of asking for it."""

from __future__ import annotations

import pytest
import torch
from contract import assert_close, randomise
from torch import nn
from torch.nn import functional as F
from transformers import AttentionInterface

from hf_video.layers import attention
from hf_video.layers.linear import chain
from hf_video.layers.vit import CosineSelfAttention, Dense, FusedSelfAttention, SplitSelfAttention, ViTBlock, run_blocks
from hf_video.models.videomae.configuration_videomae import VideoMAEConfig

X = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))


def make(cls, implementation="sdpa", **options):
    config = VideoMAEConfig(hidden_size=12, num_attention_heads=3, attn_implementation=implementation)
    return randomise(cls(config, 12, 3, **options))


def by_hand(layer, x):
    """softmax(q kᵀ / √d) v, head by head."""
    if isinstance(layer, FusedSelfAttention):
        q, k, v = layer.qkv(x).chunk(3, dim=-1)
    else:
        q, k, v = layer.query(x), layer.key(x), layer.value(x)
        if layer.q_bias is not None:
            q, v = q + layer.q_bias, v + layer.v_bias
    heads = []
    for h in range(3):
        qh, kh, vh = (t[..., 4 * h : 4 * h + 4] for t in (q, k, v))
        if isinstance(layer, CosineSelfAttention):
            scores = F.cosine_similarity(qh[:, :, None], kh[:, None], dim=-1) * layer.scale[h].clamp(max=4.6052).exp()
        else:
            scores = qh @ kh.transpose(1, 2) / 2.0
        heads.append((scores.softmax(-1), vh))
    return torch.cat([p @ v for p, v in heads], dim=-1), torch.stack([p for p, _ in heads], dim=1)


@pytest.mark.parametrize("cls", [FusedSelfAttention, SplitSelfAttention, CosineSelfAttention])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_formula(cls, bias, implementation):
    layer = make(cls, implementation, bias=bias)
    context, probs = by_hand(layer, X)
    assert_close(layer(X)[0], context, atol=3e-6)
    assert layer(X)[1] is None
    with_probs = layer(X, True)
    assert_close(with_probs, (context, probs), atol=3e-6)
    assert_close(layer(X, first_only=True)[0], context[:, :1], atol=3e-6)


def test_cosine_temperature_is_capped():
    layer = make(CosineSelfAttention)
    with torch.no_grad():
        layer.scale.fill_(4.6052)
        capped = layer(X)[0]
        layer.scale.fill_(50.0)
    assert_close(layer(X)[0], capped, atol=1e-6)


def test_attention_dropout_in_training_only():
    config = VideoMAEConfig(
        hidden_size=12, num_attention_heads=3, attention_probs_dropout_prob=0.5, attn_implementation="sdpa"
    )
    layer = randomise(SplitSelfAttention(config, 12, 3))
    assert_close(layer(X)[0], layer(X)[0], atol=1e-6)
    layer.train()
    assert not torch.equal(layer(X)[0], layer(X)[0])
    config._attn_implementation = "eager"
    assert not torch.equal(layer(X)[0], layer(X)[0])


def test_a_users_own_attention_function_is_called():
    seen = []

    def mine(module, query, key, value, attention_mask, **options):
        seen.append(query.shape)
        return torch.zeros(2, 5, 3, 4), None

    AttentionInterface.register("mine", mine)
    layer = make(SplitSelfAttention)
    layer.config._attn_implementation = "mine"
    assert not layer(X)[0].any()
    assert seen == [(2, 3, 5, 4)]


def block(**options):
    config = VideoMAEConfig(hidden_size=12, num_attention_heads=3, attn_implementation="sdpa")
    return randomise(ViTBlock(SplitSelfAttention(config, 12, 3), 12, 20, **options))


def test_block_is_pre_norm():
    b = block()
    attended, _ = b.attention.attention(b.layernorm_before(X))
    x = X + b.attention.output.dense(attended)
    expected = x + b.output.dense(F.gelu(b.intermediate.dense(b.layernorm_after(x))))
    assert_close(b(X)[0], expected, atol=3e-6)
    assert_close(b(X, False, True)[0], expected[:, :1], atol=3e-6)


def test_run_blocks_collects_what_is_asked_for():
    blocks = nn.ModuleList([block(), block()])
    last, hidden, probs = run_blocks(blocks, X, output_hidden_states=True, output_attentions=True)
    assert_close(hidden, (X, blocks[0](X)[0], last), atol=3e-6)
    assert [p.shape for p in probs] == [(2, 3, 5, 5)] * 2
    assert run_blocks(blocks, X)[1:] == (None, None)
    assert_close(run_blocks(blocks, X, first_only=True)[0], last[:, :1], atol=3e-6)


def test_dense_order_is_linear_activation_dropout():
    dense = Dense(12, 6, act="relu", dropout=0.5)
    assert_close(dense.eval()(X), dense.dense(X).relu(), atol=1e-6)
    out = dense.train()(X)
    assert (out == 0).float().mean() > 0.6


@pytest.mark.parametrize("rows", [3, 40])
def test_chained_maps_are_the_two_maps(rows):
    first, second = randomise(nn.Linear(12, 12)), randomise(nn.Linear(12, 12), seed=1)
    x = torch.randn(2, rows, 12)
    assert_close(chain(x, first, second), second(first(x)), atol=2e-6)


def test_chained_maps_respect_hooks_and_wrappers():
    first, second = nn.Linear(12, 12), nn.Linear(12, 12)
    seen = []
    first.register_forward_hook(lambda *_: seen.append(1))
    chain(torch.randn(2, 40, 12), first, second)
    assert seen == [1]

    class Adapter(nn.Linear):
        def forward(self, x):
            return super().forward(x) + 1

    adapter, x = Adapter(12, 12), torch.randn(2, 40, 12)
    assert_close(chain(x, adapter, second), second(adapter(x)), atol=1e-6)


@pytest.mark.parametrize("room", [1, 2 * 7 * 9 * 2, 10**9])  # one head at a time, two, all
def test_attention_by_heads_is_the_fused_one(room, monkeypatch):
    monkeypatch.setattr(attention, "SCORES_IN_CACHE", room)
    query, key, value = (torch.randn(2, 3, n, 4, requires_grad=True) for n in (7, 9, 9))
    expected = F.scaled_dot_product_attention(query, key, value, scale=0.3).transpose(1, 2)
    found = attention.attention_by_heads(query, key, value, 0.3)
    assert_close(found, expected, atol=1e-6)
    weights = torch.randn_like(expected)
    for wanted, got in zip(
        torch.autograd.grad((expected * weights).sum(), (query, key, value)),
        torch.autograd.grad((found * weights).sum(), (query, key, value)),
        strict=True,
    ):
        assert_close(got, wanted, atol=1e-6)


def test_plain_products_are_for_bfloat16_on_some_cpus_only(monkeypatch):
    monkeypatch.setattr(attention, "multiplies_bf16", lambda: True)
    monkeypatch.setattr(attention, "has_tiles", lambda: False)
    assert attention.plain_products_pay(torch.zeros(1, dtype=torch.bfloat16))
    assert not attention.plain_products_pay(torch.zeros(1))
    assert not attention.plain_products_pay(torch.zeros(1, dtype=torch.bfloat16, device="meta"))
    monkeypatch.setattr(attention, "has_tiles", lambda: True)
    assert not attention.plain_products_pay(torch.zeros(1, dtype=torch.bfloat16))


@pytest.mark.parametrize("room", [1, 3 * 7 * 9, 10**9])  # one head at a time, one sample, all
@pytest.mark.parametrize("layout", [torch.Tensor.contiguous, lambda x: x.transpose(1, 2).contiguous().transpose(1, 2)])
def test_gradients_from_probabilities_made_again(room, layout, monkeypatch):
    monkeypatch.setattr(attention, "SCORES_IN_CACHE", room)
    leaves = [torch.randn(2, 3, n, 4, requires_grad=True) for n in (7, 9, 9)]
    query, key, value = (layout(leaf) for leaf in leaves)
    expected = F.scaled_dot_product_attention(query, key, value, scale=0.3).transpose(1, 2)
    found = attention.FusedForward.apply(query, key, value, 0.3)
    assert_close(found, expected, atol=1e-6)
    weights = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * weights).sum(), leaves)
    for got, right in zip(torch.autograd.grad((found * weights).sum(), leaves), wanted, strict=True):
        assert_close(got, right, atol=1e-6)


def test_gradients_are_made_by_products_where_tiles_are_multiplied(monkeypatch):
    monkeypatch.setattr(attention, "has_tiles", lambda: True)
    half = [torch.randn(1, 2, 5, 4, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
    context, _ = attention.sdpa_attention(torch.nn.Identity(), *half)
    assert type(context.grad_fn).__name__ == "FusedForwardBackward"
    context.float().sum().backward()
    assert all(leaf.grad.isfinite().all() and leaf.grad.dtype == torch.bfloat16 for leaf in half)
    assert not attention.backward_by_products_pays(*(leaf.float() for leaf in half))
    assert not attention.backward_by_products_pays(*(leaf.detach() for leaf in half))
    with torch.no_grad():
        assert not attention.backward_by_products_pays(*half)
    twice = torch.func.vmap(lambda *qkv: attention.sdpa_attention(torch.nn.Identity(), *qkv)[0])(
        *(h[None] for h in half)
    )
    assert_close(twice[0], context, atol=1e-2)
    monkeypatch.setattr(attention, "has_tiles", lambda: False)
    assert not attention.backward_by_products_pays(*half)


@pytest.mark.parametrize("cls", [SplitSelfAttention, CosineSelfAttention])
def test_adapters_around_query_and_value_are_not_passed_by(cls):
    """PEFT replaces `query` and `value` by layers of its own that still have a `.weight`."""

    class Adapter(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer, self.weight, self.extra = layer, layer.weight, nn.Linear(12, 12, bias=False)

        def forward(self, x):
            return self.layer(x) + self.extra(x)

    layer = make(cls)
    plain, _ = layer(X)
    layer.query, layer.value = Adapter(layer.query), Adapter(layer.value)
    adapted, _ = layer(X)
    assert (adapted - plain).abs().max() > 1e-3
    for projection in (layer.query, layer.value):
        nn.init.zeros_(projection.extra.weight)
    assert_close(layer(X)[0], plain, atol=1e-6)
