"""Convolutions of maps that lie channels last: the same numbers, and only where nobody looks on."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from hf_video import X3DConfig, X3DForVideoClassification
from hf_video.layers import linear
from hf_video.layers.convolution import ConvNormAct, channels_last, convolve

KERNELS = [(1, 1, 1), (5, 1, 1), (1, 3, 3), (3, 3, 3), (3, 1, 3)]
STRIDES = [(1, 1, 1), (1, 2, 2), (2, 1, 1), (2, 2, 2)]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("kernel", "stride"), itertools.product(KERNELS, STRIDES))
@torch.no_grad()
def test_convolutions_are_the_same(kernel, stride, batch):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 6, 5, 7, 8, generator=generator)
    lying = x.contiguous(memory_format=torch.channels_last_3d)
    for groups, padded, dilation in itertools.product((1, 6), (False, True), ((1, 1, 1), (1, 2, 2))):
        padding = tuple(d * (k // 2) for k, d in zip(kernel, dilation, strict=True)) if padded else (0, 0, 0)
        weight = torch.randn(12, 6 // groups, *kernel, generator=generator)
        if not padded and any(d * (k - 1) >= n for k, d, n in zip(kernel, dilation, x.shape[2:], strict=True)):
            continue
        for bias in (None, torch.randn(12, generator=generator)):
            sizes = stride, padding, dilation, groups
            expected = F.conv3d(x, weight, bias, *sizes)
            assert_close(convolve(lying, weight, bias, *sizes), expected, atol=1e-4, rtol=1e-4)
            assert_close(convolve(lying, weight, bias, *sizes, relu=True), expected.relu(), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_one_place_in_float64_and_under_vmap():
    """A map of one place lies channels last whichever way it was made."""
    x, weight = torch.randn(3, 1, 4, 1, 1, 1, dtype=torch.float64), torch.randn(5, 4, 1, 1, 1, dtype=torch.float64)
    sizes = (1, 1, 1), (0, 0, 0)
    expected = torch.stack([F.conv3d(one, weight) for one in x])
    assert_close(torch.stack([convolve(one, weight, None, *sizes) for one in x]), expected)
    assert_close(torch.vmap(lambda one: convolve(one, weight, None, *sizes))(x), expected)
    assert_close(torch.vmap(lambda one: convolve(one, weight.float(), None, *sizes))(x.float()), expected.float())


def test_maps_that_are_learnt_from_stay_as_they_are():
    conv, x = nn.Conv3d(3, 6, 1), torch.randn(2, 3, 4, 8, 8)
    assert channels_last(x, conv.weight) is x
    with torch.no_grad():
        assert channels_last(x, conv.weight).is_contiguous(memory_format=torch.channels_last_3d)
        assert channels_last(x.double(), conv.weight.double()).is_contiguous()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_x3d_is_channels_last_to_its_end(dtype):
    torch.manual_seed(0)
    config = X3DConfig(image_size=64, num_frames=4, num_labels=3)
    model = X3DForVideoClassification(config).eval().to(dtype)
    with torch.no_grad():
        for module in model.modules():  # statistics and weights as after training
            if isinstance(module, nn.BatchNorm3d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.5, 1.5)
    clip = torch.randn(2, 4, 3, 64, 64).to(dtype)
    learning = model(clip).logits  # autograd looks on
    seen = []
    for module in model.modules():
        if isinstance(module, ConvNormAct):
            module.register_forward_hook(
                lambda module, args, y: seen.append(y.is_contiguous(memory_format=torch.channels_last_3d))
            )
    with torch.no_grad():
        found = model(clip).logits
    assert seen
    assert all(seen)
    assert_close(found.float(), learning.float(), atol=1e-5 if dtype == torch.float32 else 5e-3, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_processors_and_builds_without_onednns_operations_convolve_all_the_same(dtype, monkeypatch):
    conv, x = ConvNormAct(3, 6).eval().to(dtype), torch.randn(2, 3, 4, 8, 8).to(dtype)
    lying = x.contiguous(memory_format=torch.channels_last_3d)
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if dtype == torch.bfloat16:
        monkeypatch.setattr(linear, "multiplies_bf16", lambda: False)
    else:
        monkeypatch.setattr(torch._C, "_has_mkldnn", False)
    with torch.no_grad():
        assert channels_last(x, conv.conv.weight) is x
        assert_close(conv(lying), conv(x))


def test_a_hook_on_the_stems_convolution_fires():
    config = X3DConfig(image_size=32, num_frames=4, depth_factor=1.0, num_labels=3)
    model, seen = X3DForVideoClassification(config).eval(), []
    model.x3d.embeddings.space.register_forward_hook(lambda *_: seen.append(1))
    with torch.no_grad():
        model(torch.randn(1, 4, 3, 32, 32))
    assert seen
