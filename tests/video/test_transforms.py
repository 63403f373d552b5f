"""Clip transforms against PIL and plain indexing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from hf_video.errors import VideoArrayError, VideoOptionError
from hf_video.video import transforms as t

CLIP = torch.randint(0, 256, (4, 60, 81, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pil_resize(clip, size, filter_):
    frames = [np.asarray(Image.fromarray(f.numpy()).resize(size[::-1], filter_)) for f in clip]
    return torch.from_numpy(np.stack(frames))


@pytest.mark.parametrize("size", [(30, 41), (90, 100), (60, 40), (224, 224)])
@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_resize_is_pils_within_a_level(size, name):
    filter_ = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[name]
    ours = t.resize(CLIP, size, interpolation=name)
    assert ours.dtype == torch.uint8
    allowed = 2 if name == "bicubic" and size[0] > 60 else 1  # two rounded passes over noise that is enlarged
    assert (ours.int() - pil_resize(CLIP, size, filter_).int()).abs().max() <= allowed


def test_resize_keeps_leading_dimensions_and_float():
    batch = CLIP.reshape(2, 2, 60, 81, 3)
    assert torch.equal(t.resize(batch, (30, 40)), t.resize(CLIP, (30, 40)).reshape(2, 2, 30, 40, 3))
    as_float = t.resize(CLIP.float(), (30, 40))
    assert (as_float - t.resize(CLIP, (30, 40)).float()).abs().max() <= 1
    assert t.resize(CLIP, (60, 81)) is CLIP


@pytest.mark.parametrize(("shape", "expected"), [((60, 81), (20, 27)), ((81, 60), (27, 20)), ((60, 60), (20, 20))])
def test_short_side(shape, expected):
    assert t.resize_short_side(torch.zeros(1, *shape, 3, dtype=torch.uint8), 20).shape[1:3] == expected


def test_center_crop_is_a_view():
    cropped = t.center_crop(CLIP, (31, 40))
    assert torch.equal(cropped, CLIP[:, 14:45, 20:60])
    assert cropped.data_ptr() != CLIP.data_ptr()
    assert cropped.untyped_storage().data_ptr() == CLIP.untyped_storage().data_ptr()


def test_center_crop_pads_only_when_told():
    with pytest.raises(VideoArrayError, match="60x81 are too small for a 65x70"):
        t.center_crop(CLIP, (65, 70))
    padded = t.center_crop(CLIP, (65, 70), pad=True)
    assert torch.equal(padded[:, 3:63], CLIP[:, :, 5:75])
    assert padded[:, :3].sum() == padded[:, 63:].sum() == 0


def test_three_crops():
    left, middle, right = t.three_crops(CLIP, 60)
    assert torch.equal(left, CLIP[:, :, :60])
    assert torch.equal(middle, CLIP[:, :, 10:70])  # int(21 / 2)
    assert torch.equal(right, CLIP[:, :, 21:])
    top, _, bottom = t.three_crops(CLIP.transpose(1, 2), (60, 58))
    assert torch.equal(top, CLIP.transpose(1, 2)[:, :60, 1:59])
    assert torch.equal(bottom, CLIP.transpose(1, 2)[:, 21:, 1:59])


def test_random_crop():
    one, two = (t.random_crop(CLIP, 50, generator=torch.Generator().manual_seed(s)) for s in (1, 1))
    assert torch.equal(one, two)
    assert one.shape == (4, 50, 50, 3)
    starts = {int(t.random_crop(torch.arange(6)[:, None, None], (4, 1)).flatten()[0]) for _ in range(100)}
    assert starts == {0, 1, 2}


def test_flips():
    assert torch.equal(t.horizontal_flip(CLIP), CLIP[:, :, torch.arange(80, -1, -1)])
    assert torch.equal(t.flip_channels(CLIP), CLIP[..., [2, 1, 0]])


@pytest.mark.parametrize("clip", [CLIP, CLIP.float(), CLIP[:, 3:40, 5:50], CLIP.reshape(2, 2, 60, 81, 3)])
def test_normalize(clip):
    exact = ((clip.double() / 255 - torch.tensor(MEAN).double()) / torch.tensor(STD).double()).movedim(-1, -3)
    ours = t.normalize(clip, MEAN, STD)
    assert ours.dtype == torch.float32
    assert ours.is_contiguous()
    assert (ours - exact).abs().max() < 1e-6


def test_normalize_options():
    assert torch.equal(t.normalize(CLIP, scale=1), CLIP.movedim(-1, -3).float())
    out = torch.zeros(2, 4, 3, 60, 81)
    assert t.normalize(CLIP, 0.5, 0.5, out=out[1]).data_ptr() == out[1].data_ptr()
    assert out[0].abs().sum() == 0
    assert out[1].min() == pytest.approx(-1, abs=1e-6)
    assert out[1].max() == pytest.approx(1, abs=1e-6)
    assert t.normalize(CLIP, dtype=torch.bfloat16).dtype == torch.bfloat16
    assert CLIP.dtype == torch.uint8  # the input is left alone


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: t.resize(CLIP.movedim(-1, 1), 20), VideoArrayError, "Channels come last"),
        (lambda: t.center_crop(CLIP.numpy(), 20), VideoArrayError, "torch"),
        (lambda: t.resize(CLIP, 0), VideoOptionError, "size"),
        (lambda: t.resize(CLIP, (1, 2, 3)), VideoOptionError, "size"),
        (lambda: t.resize(CLIP, 20, interpolation="area"), VideoOptionError, "interpolation"),
        (lambda: t.resize(CLIP.float(), 20, interpolation="area"), VideoOptionError, "interpolation"),
        (lambda: t.resize_short_side(CLIP, 2.5), VideoOptionError, "edge"),
        (lambda: t.three_crops(CLIP, 61), VideoArrayError, "too small"),
        (lambda: t.crop(CLIP, -1, 0, 10), VideoArrayError, "row -1"),
        (lambda: t.normalize(CLIP, (0.5, 0.5), STD), VideoOptionError, "mean has 2"),
        (lambda: t.normalize(CLIP, MEAN, 0.0), VideoOptionError, "std"),
        (lambda: t.normalize(CLIP, out=torch.zeros(1)), VideoArrayError, "out"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
