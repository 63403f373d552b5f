"""VideoMAE: which tokens are hidden."""

from __future__ import annotations

import pytest
import torch

from hf_video.errors import ModelInputError
from hf_video.models.videomae.masking import random_mask, running_cell_mask, tube_mask


def test_tubes_are_constant_over_time_and_equal_in_number():
    mask = tube_mask(50, (8, 14, 14), 0.9)
    assert mask.shape == (50, 1568)
    assert set(mask.sum(1).tolist()) == {1408}
    per_time = mask.view(50, 8, 196)
    assert (per_time == per_time[:, :1]).all()
    assert len({tuple(m.tolist()) for m in per_time[:, 0]}) == 50


def test_random_masks_hide_as_many_and_differ_over_time():
    mask = random_mask(50, (8, 14, 14), 0.9)
    assert set(mask.sum(1).tolist()) == {1408}
    per_time = mask.view(50, 8, 196)
    assert not (per_time == per_time[:, :1]).all(-1).all(-1).any()
    assert abs(mask.float().mean(0).mean() - 1408 / 1568) < 1e-6
    assert mask.float().mean(0).min() > 0.6


@pytest.mark.parametrize(("ratio", "dropped"), [(0.25, 1), (0.5, 2), (0.75, 3)])
def test_running_cells(ratio, dropped):
    mask = running_cell_mask(20, (8, 4, 6), ratio).view(20, 8, 2, 2, 3, 2)
    cells = mask.permute(0, 1, 2, 4, 3, 5).flatten(4)  # sample, time, cell row, cell column, place
    assert (cells.sum(-1) == dropped).all()
    assert (cells == cells[:, :, :1, :1]).all()  # the same in every cell
    assert (cells[:, 1:] == cells[:, :-1].roll(-1, dims=-1)).all()  # one place on with each step
    assert (cells[:, :4].sum(1) == dropped).all()  # four steps decode every place equally often
    assert len({tuple(m.tolist()) for m in mask.flatten(1)}) == 4  # samples start anywhere


@pytest.mark.parametrize("make", [tube_mask, random_mask, running_cell_mask])
def test_masks_repeat_with_a_generator(make):
    first, again = (make(4, (4, 4, 4), 0.5, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert first.dtype == torch.bool


def test_impossible_masks():
    for ratio in (0.0, 1.0, -0.5, 0.01):
        with pytest.raises(ModelInputError, match=r"at least one|0\.25"):
            tube_mask(1, (2, 4, 4), ratio)
    with pytest.raises(ModelInputError, match=r"0\.25"):
        running_cell_mask(1, (2, 4, 4), 0.1)
    with pytest.raises(ModelInputError, match="2x2"):
        running_cell_mask(1, (2, 3, 4))
