"""Convolutions over time against torch's own, whichever way they are worked out; heads over joined levels."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from hf_video.layers import temporal_convolution
from hf_video.layers.temporal import (
    AffineDropPath,
    SharedHead,
    add_update,
    halved,
    join_levels,
    masked,
    relu_of_norm,
    split_levels,
)
from hf_video.layers.temporal_convolution import TemporalConv


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize(
    ("channels", "outputs", "size", "stride", "groups"),
    [
        (128, 128, 3, 1, 1),  # by minimal filtering without gradients
        (160, 130, 3, 1, 1),
        (128, 128, 5, 1, 1),
        (128, 128, 3, 2, 1),
        (64, 7, 3, 1, 1),  # few outputs: products first
        (24, 24, 3, 1, 24),
        (24, 24, 7, 2, 24),
        (24, 24, 1, 1, 24),
    ],
)
@pytest.mark.parametrize("length", [2, 64, 65, 66, 67, 131])
def test_it_is_torchs_convolution(channels, outputs, size, stride, groups, length, grad):
    layer = TemporalConv(channels, outputs, size, stride, groups).double()
    x = torch.randn(2, length, channels, dtype=torch.double)
    reference = F.conv1d(x.transpose(1, 2), layer.weight, layer.bias, stride, size // 2, groups=groups).transpose(1, 2)
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(layer(x), reference.detach() if not grad else reference)
    if grad:
        given = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()))
        wanted = torch.autograd.grad(reference.square().sum(), list(layer.parameters()))
        torch.testing.assert_close(given, wanted)


@torch.no_grad()
def test_half_of_the_products_are_as_good(monkeypatch):
    """In float32, wide enough that they are taken: rounding stays near that of plain products."""
    layer, x = TemporalConv(512, 256, 3), torch.randn(1, 300, 512)
    calls, inner = [], temporal_convolution.minimal_filtering
    monkeypatch.setattr(temporal_convolution, "minimal_filtering", lambda *args: calls.append(1) or inner(*args))
    exact = F.conv1d(x.double().transpose(1, 2), layer.weight.double(), layer.bias.double(), padding=1).transpose(1, 2)
    torch.testing.assert_close(layer(x).double(), exact, atol=2e-5, rtol=0)
    assert calls == [1]
    with torch.enable_grad():
        layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer(x)
    layer.bfloat16()(x.bfloat16())
    assert calls == [1]


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_a_head_over_joined_levels_is_the_head_of_each_level(kernel, grad):
    head = SharedHead(16, 16, 4, 3, kernel, norm=True)
    for norm in head.norms:
        torch.nn.init.normal_(norm.bias)
    lengths, gap = [32, 16, 8], kernel // 2
    levels = [
        (torch.randn(2, n, 16), (torch.arange(n) < 0.7 * n).float()[None, :, None].repeat(2, 1, 1)) for n in lengths
    ]
    with torch.set_grad_enabled(grad):
        together = split_levels(head(*join_levels(levels, gap)), lengths, gap)
        for level, found in zip(levels, together, strict=True):
            alone = head(*level, torch.tensor([], dtype=torch.long))
            torch.testing.assert_close(found, alone, atol=1e-6, rtol=1e-5)


def test_a_mask_of_ones_costs_nothing():
    x = torch.randn(2, 5, 3)
    assert masked(x, torch.ones(2, 5, 1)) is x
    mask = (torch.arange(5) < 3).float()[None, :, None]
    assert torch.equal(masked(x, mask), x * mask)


@torch.no_grad()
@pytest.mark.parametrize("length", [2, 3, 8, 9])
def test_the_maximum_of_three_neighbours(length):
    x = torch.randn(2, length, 5)
    wanted = F.max_pool1d(x.transpose(1, 2), 3, 2, padding=1).transpose(1, 2)
    assert torch.equal(halved(x), wanted)
    with torch.enable_grad():
        assert torch.equal(halved(x), wanted)


@torch.no_grad()
def test_an_update_is_scaled_as_its_path_would():
    path, x, update = AffineDropPath(5, 0.5, init=0.3), torch.randn(2, 4, 5), torch.randn(2, 4, 5)
    torch.testing.assert_close(add_update(x, update, path.eval()), x + path(update))
    path.register_forward_hook(lambda module, given, result: result * 2)
    torch.testing.assert_close(add_update(x, update, path), x + 0.6 * update)
    torch.manual_seed(0)
    found = add_update(x, update, path.train())
    torch.manual_seed(0)
    torch.testing.assert_close(found, x + path(update))


@torch.no_grad()
def test_a_hook_keeps_what_a_norm_gave():
    norm, kept = torch.nn.LayerNorm(8), []
    norm.register_forward_hook(lambda module, given, result: kept.append(result))
    assert (relu_of_norm(norm, torch.randn(1, 4, 8)) >= 0).all()
    assert (kept[0] < 0).any()
