"""Products by oneDNN, float32 where MKL is slow and bfloat16: the same numbers, and only where nobody looks on."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformers.activations import ACT2FN

from hf_video.layers import attention, linear
from hf_video.layers.linear import on_rows, product, takes_onednn

pytestmark = pytest.mark.skipif(not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="torch without oneDNN")
X = torch.randn(2, 80, 24, generator=torch.Generator().manual_seed(0))
LAYER = nn.Linear(24, 16)


@pytest.fixture(autouse=True)
def slow_mkl(monkeypatch):
    """Of this machine, whatever it is."""
    monkeypatch.setattr(linear, "mkl_is_slow", lambda: True)
    monkeypatch.setattr(linear, "multiplies_bf16", lambda: True)


@pytest.mark.parametrize("x", [X, X.transpose(0, 1), X[..., ::2].repeat(1, 1, 2), X[None]], ids=lambda x: str(x.shape))
@torch.no_grad()
def test_products_are_the_same(x):
    assert takes_onednn(x, LAYER.weight, LAYER.bias)
    torch.testing.assert_close(product(x, LAYER.weight, LAYER.bias), F.linear(x, LAYER.weight, LAYER.bias))
    torch.testing.assert_close(product(x, LAYER.weight), F.linear(x, LAYER.weight))
    torch.testing.assert_close(on_rows(LAYER, x), LAYER(x))


@torch.no_grad()
def test_products_are_the_same_in_bfloat16():
    x, layer = X.bfloat16(), copy.deepcopy(LAYER).bfloat16()
    assert takes_onednn(x, layer.weight, layer.bias)
    exact = F.linear(x.double(), layer.weight.double(), layer.bias.double())
    found = product(x, layer.weight, layer.bias)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), exact, atol=0.01, rtol=0.01)


ACTIVATIONS = ["gelu", "gelu_pytorch_tanh", "gelu_new", "gelu_python", "relu", "silu"]


@pytest.mark.parametrize("act", [*(ACT2FN[name] for name in ACTIVATIONS), nn.GELU(), nn.GELU("tanh")])
@torch.no_grad()
def test_activations_are_the_same(act):
    torch.testing.assert_close(on_rows(LAYER, X, act), act(LAYER(X)), atol=2e-6, rtol=0)


@torch.no_grad()
def test_an_activation_that_does_more_is_called(monkeypatch):
    """A hook, a class of one's own and a forward put on the module."""
    hooked, replaced, seen = ACT2FN["gelu"], nn.GELU(), []
    hooked.register_forward_hook(lambda *_: seen.append("hook"))
    monkeypatch.setattr(replaced, "forward", lambda x: x)

    class Doubled(nn.GELU):
        def forward(self, x):
            return 2 * super().forward(x)

    on_rows(LAYER, X, hooked)
    assert seen == ["hook"]
    torch.testing.assert_close(on_rows(LAYER, X, replaced), LAYER(X))
    torch.testing.assert_close(on_rows(LAYER, X, Doubled()), 2 * F.gelu(LAYER(X)))


@torch.no_grad()
def test_rows_of_a_weight_that_lie_apart(monkeypatch):
    """Only contiguous weights go to oneDNN."""
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", None)
    weight = torch.randn(16, 48)[:, :24]
    torch.testing.assert_close(product(X, weight), F.linear(X, weight))


def test_those_who_look_on_see_torchs_own_operation():
    assert not takes_onednn(X, LAYER.weight)  # autograd
    product(X, LAYER.weight).sum().backward()
    assert LAYER.weight.grad.abs().sum() > 0
    with torch.no_grad():
        assert not takes_onednn(X[:, :2], LAYER.weight)
        assert not takes_onednn(X.double(), LAYER.weight)
        assert not takes_onednn(X, LAYER.weight.to("meta"))
        with torch.autocast("cpu", torch.bfloat16):
            assert product(X, LAYER.weight).dtype == torch.bfloat16
        with FlopCounterMode(display=False) as counter:
            product(X, LAYER.weight)
        assert counter.get_total_flops() == 2 * 160 * 24 * 16
        assert torch.vmap(lambda x: product(x, LAYER.weight))(X).shape == (2, 80, 16)
        with torch.backends.mkldnn.flags(enabled=False):
            assert not takes_onednn(X, LAYER.weight)
    _, tangent = torch.func.jvp(lambda x: product(x, LAYER.weight.detach()), (X,), (X,))
    torch.testing.assert_close(tangent, F.linear(X, LAYER.weight).detach())


@torch.no_grad()
def test_hooks_fire():
    layer, seen = nn.Linear(24, 16), []
    layer.register_forward_hook(lambda *_: seen.append(1))
    on_rows(layer, X)
    assert seen


@torch.no_grad()
def test_attention_by_blocks():
    q, k, v = torch.randn(3, 2, 1100, 3, 8, generator=torch.Generator().manual_seed(0)).transpose(2, 3)
    context, _ = attention.sdpa_attention(LAYER, q, k, v[..., :8])
    expected = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    torch.testing.assert_close(context, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(attention.attention_by_blocks(q, k, v), expected, atol=1e-6, rtol=0)
