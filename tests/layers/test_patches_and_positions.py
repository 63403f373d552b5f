"""Patch embeddings against the convolutions they stand for; position tables against their formula."""

from __future__ import annotations

import math

import pytest
import torch
from contract import assert_close, randomise
from torch.nn import functional as F

from hf_video.layers.embeddings import (
    PatchEmbedding,
    SinusoidPositions,
    patch_view,
    resize_grid,
    sinusoid_table,
    take_patches,
)

VIDEO = torch.randn(2, 4, 3, 8, 12, generator=torch.Generator().manual_seed(0))


def test_tubelets_are_the_convolution():
    embedding = randomise(PatchEmbedding(3, 7, (2, 4, 3)))
    expected = embedding.projection(VIDEO.transpose(1, 2)).flatten(2).transpose(1, 2)
    assert embedding.projection.weight.shape == (7, 3, 2, 4, 3)
    assert_close(embedding(VIDEO), expected, atol=3e-6)
    index = torch.tensor([[0, 15, 3], [7, 8, 9]])
    chosen = expected.gather(1, index[..., None].expand(-1, -1, 7))
    assert_close(embedding(VIDEO, index), chosen, atol=3e-6)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_patches_that_overlap_in_time_are_the_strided_convolution(stride):
    embedding = randomise(PatchEmbedding(3, 7, (3, 4, 3), time_stride=stride))
    video = torch.randn(2, 6, 3, 8, 12)
    expected = embedding.projection(video.transpose(1, 2)).flatten(2).transpose(1, 2)
    assert embedding.projection.stride == (stride, 4, 3)
    assert_close(embedding(video), expected, atol=3e-6)


def test_frame_patches_are_the_convolution_frame_by_frame():
    embedding = randomise(PatchEmbedding(3, 7, (1, 4, 3), dims=2))
    expected = embedding.projection(VIDEO.flatten(0, 1)).flatten(2).transpose(1, 2)
    assert embedding.projection.weight.shape == (7, 3, 4, 3)
    assert_close(embedding(VIDEO), expected.reshape(2, 4 * 8, 7), atol=3e-6)


def test_patch_view_copies_nothing_and_orders_frame_row_column():
    view = patch_view(VIDEO, (2, 4, 3))
    assert view.shape == (2, 2, 2, 4, 3, 2, 4, 3)
    assert view.data_ptr() == VIDEO.data_ptr()
    assert_close(view[1, 1, 0, 2], VIDEO[1, 2:4, :, 0:4, 6:9].transpose(0, 1), atol=0)
    taken = take_patches(view, torch.tensor([[10], [10]]))  # 10 = time 1, row 0, column 2
    assert_close(taken[1, 0], view[1, 1, 0, 2], atol=0)


def test_views_of_a_video_that_is_not_contiguous():
    embedding = randomise(PatchEmbedding(3, 7, (2, 4, 3)))
    channels_first = VIDEO.transpose(1, 2).contiguous().transpose(1, 2)
    assert_close(embedding(channels_first), embedding(VIDEO), atol=1e-6)
    cropped = torch.randn(2, 4, 3, 9, 13)[..., :8, :12]
    assert_close(embedding(cropped), embedding(cropped.contiguous()), atol=1e-6)


def test_sinusoids_follow_the_formula():
    table = sinusoid_table(50, 10)
    for position in (0, 1, 17, 49):
        for column in range(10):
            angle = position / 10000 ** (2 * (column // 2) / 10)
            expected = math.cos(angle) if column % 2 else math.sin(angle)
            assert table[position, column].item() == pytest.approx(expected, abs=1e-7)


def test_the_table_is_neither_saved_nor_made_under_a_default_dtype():
    positions = SinusoidPositions((2, 3, 4), 8)
    assert not positions.state_dict()
    default = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.bfloat16)
        table = sinusoid_table(50, 10)
    finally:
        torch.set_default_dtype(default)
    assert_close(table, sinusoid_table(50, 10), atol=0)


def test_resizing_treats_each_axis_by_itself():
    t, h, w = torch.meshgrid(torch.arange(4.0), torch.arange(2.0), torch.arange(3.0), indexing="ij")
    table = torch.stack([t, h, w], dim=-1).reshape(1, 24, 3)
    wider = resize_grid(table, (4, 2, 3), (8, 2, 3)).view(8, 2, 3, 3)
    assert_close(wider[..., 1:], table.view(4, 2, 3, 3)[:1, ..., 1:].expand(8, -1, -1, -1))
    assert (wider[1:, ..., 0] >= wider[:-1, ..., 0]).all()
    assert resize_grid(table, (4, 2, 3), (4, 2, 3)) is table


def test_nearest_is_pytorchs_nearest():
    table = torch.randn(1, 6, 5)
    expected = F.interpolate(table.view(1, 2, 3, 5).permute(0, 3, 1, 2), size=(4, 5), mode="nearest")
    assert_close(resize_grid(table, (2, 3), (4, 5), "nearest"), expected.flatten(2).transpose(1, 2), atol=0)
    times = torch.randn(1, 3, 5)
    assert_close(
        resize_grid(times, (3,), (7,), "nearest"),
        F.interpolate(times.transpose(1, 2), size=7, mode="nearest").transpose(1, 2),
        atol=0,
    )


def test_half_precision_tables_are_resized_in_float32():
    table = sinusoid_table(24, 8)[None].bfloat16()
    out = resize_grid(table, (4, 2, 3), (8, 2, 3))
    assert out.dtype == torch.bfloat16
    assert_close(out, resize_grid(table.float(), (4, 2, 3), (8, 2, 3)).bfloat16(), atol=0)
