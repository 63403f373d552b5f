"""Stochastic depth: how much is dropped, per what, and that the mean stays."""

from __future__ import annotations

import pytest
import torch

from hf_video.layers.vit import DropPath, drop_path_rates


@pytest.mark.parametrize(("dims", "units"), [(1, 4000), (2, 12000)])
def test_whole_rows_are_dropped_at_the_rate(dims, units):
    x = torch.ones(4000, 3, 5, 2)
    out = DropPath(0.3, dims).train()(x)
    rows = out.flatten(dims)
    assert ((rows == 0).all(-1) | ((rows - 1 / 0.7).abs() < 1e-6).all(-1)).all()
    dropped = (rows == 0).all(-1).float().mean().item()
    assert abs(dropped - 0.3) < 4 * (0.21 / units) ** 0.5
    assert abs(out.mean().item() - 1) < 0.05


def test_off_in_eval_and_at_zero():
    x = torch.randn(3, 4)
    assert DropPath(0.5).eval()(x) is x
    assert DropPath(0.0).train()(x) is x


def test_dropped_rows_get_no_gradient():
    x = torch.ones(100, 2, requires_grad=True)
    out = DropPath(0.5).train()(x)
    out.sum().backward()
    torch.testing.assert_close(x.grad, out.detach())


def test_half_precision_stays():
    assert DropPath(0.5).train()(torch.ones(3, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_rates_rise_linearly_from_zero():
    assert drop_path_rates(0.3, 4) == pytest.approx([0, 0.1, 0.2, 0.3])
    assert drop_path_rates(0.3, 1) == [0.0]
