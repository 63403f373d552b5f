"""ROIAlign against its definition: every sample read by itself. The kernel's own numbers are in tests/parity."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hf_video.layers.roi_align import roi_align

BOXES = torch.tensor(
    [
        [0, 8.0, 8.0, 120.0, 72.0],
        [1, 0.0, 0.0, 160.0, 112.0],
        [1, -30.0, 20.0, 40.0, 200.0],  # past three borders
        [0, 50.0, 50.0, 52.0, 51.0],
        [0, 16.0, 16.0, 48.0, 80.0],  # whole positions: samples lie on them
    ]
)


def sample(line, y, x):
    """The bilinear value at (y, x) of a map (C, H, W); 0 farther than a position outside."""
    height, width = line.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return torch.zeros(len(line), dtype=line.dtype)
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    below, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = line[:, top, left] * (1 - x + left) + line[:, top, right] * (x - left)
    lower = line[:, below, left] * (1 - x + left) + line[:, below, right] * (x - left)
    return upper * (1 - y + top) + lower * (y - top)


def by_definition(features, boxes, rows, columns, scale, ratio, aligned):
    pooled = torch.zeros(len(boxes), features.shape[1], rows, columns, dtype=features.dtype)
    for number, (image, *corners) in enumerate(boxes.tolist()):
        left, top, right, bottom = (corner * scale - 0.5 * aligned for corner in corners)
        height, width = bottom - top, right - left
        if not aligned:
            height, width = max(height, 1), max(width, 1)
        across, along = ratio or math.ceil(height / rows), ratio or math.ceil(width / columns)
        for row, column, i, j in product(range(rows), range(columns), range(across), range(along)):
            y = top + (row + (i + 0.5) / across) * height / rows
            x = left + (column + (j + 0.5) / along) * width / columns
            pooled[number, :, row, column] += sample(features[int(image)], y, x) / (across * along)
    return pooled


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 1, 2])
def test_every_sample(ratio, aligned):
    features = torch.randn(2, 3, 7, 10)
    got = roi_align(features, BOXES, (3, 2), spatial_scale=1 / 16, sampling_ratio=ratio, aligned=aligned)
    torch.testing.assert_close(got, by_definition(features, BOXES, 3, 2, 1 / 16, ratio, aligned), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("ratio", [0, 2])
def test_gradients(ratio):
    features = torch.randn(2, 2, 4, 5, dtype=torch.double, requires_grad=True)
    boxes = BOXES * torch.tensor([1, 0.5, 0.5, 0.5, 0.5])
    torch.autograd.gradcheck(lambda x: roi_align(x, boxes, 2, spatial_scale=1 / 16, sampling_ratio=ratio), (features,))


def test_no_boxes_reversed_boxes_and_half_precision():
    features = torch.randn(2, 3, 7, 10, dtype=torch.bfloat16)
    assert roi_align(features, BOXES[:0], 7).shape == (0, 3, 7, 7)
    assert not roi_align(features, torch.tensor([[0, 90.0, 50.0, 30.0, 10.0]]), 7, spatial_scale=1 / 16).any()
    pooled = roi_align(features, BOXES, 7, spatial_scale=1 / 16)
    assert pooled.dtype == torch.bfloat16
    expected = roi_align(features.float(), BOXES, 7, spatial_scale=1 / 16)
    torch.testing.assert_close(pooled.float(), expected, atol=0.05, rtol=0.05)


class LargestTensor(TorchDispatchMode):
    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if torch.is_tensor(output):
            self.size = max(self.size, output.untyped_storage().nbytes() // output.element_size())
        return output


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_no_box_has_a_map_of_its_own(memory_format):
    features = torch.randn(2, 64, 40, 40).to(memory_format=memory_format)
    with LargestTensor() as largest:
        roi_align(features, BOXES.repeat(20, 1), 7, spatial_scale=1 / 16)
    assert largest.size <= max(features.numel(), 100 * 7 * 7 * 64)


class Pooled(torch.nn.Module):
    def forward(self, features, boxes):
        return roi_align(features, boxes, 7, spatial_scale=1 / 16)


def test_an_exported_program_takes_other_boxes():
    features = torch.randn(2, 3, 7, 10)
    shapes = {"features": None, "boxes": {0: torch.export.Dim("boxes")}}
    program = torch.export.export(Pooled(), (features, BOXES[3:]), dynamic_shapes=shapes).module()
    for boxes in (BOXES, BOXES[:1]):
        torch.testing.assert_close(program(features, boxes), Pooled()(features, boxes))
