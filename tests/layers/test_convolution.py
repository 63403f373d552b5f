"""TensorFlow's padding, folded norms, frozen norms, blocks that run twice."""

from __future__ import annotations

import pytest
import torch
from contract import assert_close, randomise
from torch import nn
from torch.nn import functional as F

from hf_video.layers.convolution import (
    Bottleneck,
    ConvNormAct,
    same_max_pool,
    same_padding,
    set_batch_norm,
    tokens,
    window_means,
)


def with_zeros(x: torch.Tensor, kernel, stride) -> torch.Tensor:
    """x with the zeros that SAME adds, worked out from its definition: ceil(n / s) windows must fit."""
    for axis, k, s in zip((2, 3, 4), kernel, stride, strict=True):
        n = x.shape[axis]
        missing = max((-(-n // s) - 1) * s + k - n, 0)
        for count, behind in ((missing // 2, False), (missing - missing // 2, True)):
            zeros = x.new_zeros([count if i == axis else m for i, m in enumerate(x.shape)])
            x = torch.cat([x, zeros] if behind else [zeros, x], axis)
    return x


@pytest.mark.parametrize(("kernel", "stride"), [(7, 2), (3, 2), (2, 2), (3, 1), (1, 1), (5, 3), (1, 2)])
def test_same_padding_is_what_makes_the_windows_fit(kernel, stride):
    for length in range(1, 30):
        before, behind = same_padding(length, kernel, stride)
        assert before + behind == max((-(-length // stride) - 1) * stride + kernel - length, 0)
        assert behind - before in (0, 1)


SIZES = [(6, 8, 10), (5, 7, 9), (4, 5, 6), (1, 1, 1), (1, 2, 3), (2, 6, 1)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("kernel", "stride"),
    [((3, 3, 3), (2, 2, 2)), ((1, 3, 3), (1, 2, 2)), ((2, 2, 2), (2, 2, 2)), ((3, 3, 3), (1, 1, 1))],
)
def test_same_max_pool(size, kernel, stride):
    x = torch.randn(2, 3, *size).relu()
    assert_close(same_max_pool(x, kernel, stride), F.max_pool3d(with_zeros(x, kernel, stride), kernel, stride), atol=0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("padding", ["same", "half"])
def test_unit_is_convolution_norm_and_relu_one_after_the_other(size, padding):
    unit = randomise(ConvNormAct(3, 5, (7, 5, 3), (2, 2, 1), padding=padding))
    x = torch.randn(2, 3, *size)
    if padding == "same":
        expected = F.conv3d(with_zeros(x, (7, 5, 3), (2, 2, 1)), unit.conv.weight, stride=(2, 2, 1))
    else:
        expected = F.conv3d(x, unit.conv.weight, stride=(2, 2, 1), padding=(3, 2, 1))
    norm = unit.norm
    expected = F.batch_norm(expected, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps).relu()
    assert_close(unit(x), expected, atol=5e-6)


def test_a_hooked_convolution_is_called():
    """Adapters and hooks stand on the layers: where there are some, weights are not folded past them."""
    unit = randomise(ConvNormAct(3, 5))
    x, seen = torch.randn(1, 3, 2, 4, 4), []
    expected = unit(x)
    unit.conv.register_forward_hook(lambda *_: seen.append(1))
    assert_close(unit(x), expected, atol=2e-6)
    assert seen


def test_training_uses_the_batch_and_frozen_norms_do_not():
    unit, x = randomise(ConvNormAct(3, 5)), torch.randn(4, 3, 2, 4, 4)
    stored, mean = unit(x), unit.norm.running_mean.clone()
    set_batch_norm(unit, eps=1e-5, momentum=0.1, frozen=True)
    assert_close(unit.train()(x), stored, atol=2e-6)
    assert_close(unit.norm.running_mean, mean, atol=0)
    set_batch_norm(unit, eps=1e-5, momentum=0.1, frozen=False)
    assert (unit.train()(x) - stored).abs().max() > 0.1
    assert not torch.equal(unit.norm.running_mean, mean)


def test_a_block_is_the_sum_of_its_branches():
    block = randomise(Bottleneck(6, 4, 8, time=3, stride=2, pool=2))
    x = torch.randn(2, 6, 5, 7, 8)
    pooled = F.max_pool3d(x, (2, 1, 1))
    expected = block.conv_c(block.conv_b(block.conv_a(pooled))) + block.shortcut(pooled)
    assert_close(block(x), expected.relu(), atol=0)
    assert block(x).shape == (2, 8, 2, 4, 4)
    assert randomise(Bottleneck(8, 4, 8, time=1)).shortcut is None


def test_tokens_are_in_order_frame_row_column():
    x = torch.arange(24.0).view(1, 2, 2, 2, 3)
    assert tokens(x)[0, :, 0].tolist() == list(range(12))
    assert tokens(x).shape == (1, 12, 2)


def test_parameters_have_the_names_that_recipes_look_for():
    names = [name for name, _ in ConvNormAct(1, 1).named_parameters()]
    assert names == ["conv.weight", "norm.weight", "norm.bias"]
    assert isinstance(ConvNormAct(1, 1).norm, nn.BatchNorm3d)


@pytest.mark.parametrize("window", [(2, 3, 4), (0, 2, 0), (9, 1, 9)])
def test_window_means(window):
    x = torch.randn(2, 4, 5, 6, 3)
    kernel = [min(k, n) if k else n for k, n in zip(window, x.shape[1:4], strict=True)]
    assert_close(window_means(x, window), F.avg_pool3d(x.movedim(4, 1), kernel, stride=1).movedim(1, 4), atol=1e-6)
    assert window_means(x.bfloat16(), window).dtype == torch.bfloat16
