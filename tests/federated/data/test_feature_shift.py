"""Appearances of clients: drawn from their names, and put on frames before anything else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hf_video.data.datasets.dataset import VideoDataset
from hf_video.data.rows import VideoRow, VideoRows
from hf_video.errors import FederatedError
from hf_video.federated.data.feature_shift import Appearance, ShiftedDataset
from hf_video.models.videomae.image_processing_videomae import VideoMAEImageProcessor


@pytest.fixture
def clip():
    frames = np.random.default_rng(0).integers(60, 190, (4, 16, 16, 3), dtype=np.uint8)
    return torch.from_numpy(frames)


def test_an_appearance_is_drawn_from_the_name_alone():
    drawn = [Appearance.of_client(name, seed=3) for name in ("a", "b", "a")]
    assert drawn[0] == drawn[2] != drawn[1]
    assert Appearance.of_client("a", seed=4) != drawn[0]
    assert Appearance.of_client("a", shift=0) == Appearance() == Appearance.of_client("a", "greys:0")
    many = [Appearance.of_client(str(number)) for number in range(200)]
    for name, low, high in (
        ("brightness", 0.5, 2),
        ("contrast", 0.5, 2),
        ("hue", -0.5, 0.5),
        ("blur", 0, 1),
        ("noise", 0, 16),
    ):
        values = [getattr(one, name) for one in many]
        assert low <= min(values) < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < max(values) <= high


def test_ranges_of_greys_are_narrow_and_lie_anywhere():
    """Nothing is cut off: what differs is a factor, a constant and a sign."""
    many = [Appearance.of_client(str(number), "greys:2") for number in range(200)]
    assert {one.inverted for one in many} == {True, False}
    assert 0.25 <= min(one.brightness for one in many) < 0.3
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(1, 16, 16, 3)
    for one in many[:20]:
        found = one(ramp).float()
        assert float(found.max() - found.min()) == pytest.approx(255 * one.brightness, abs=2)
        assert bool(found[0, 0, 0, 0] > found[0, -1, -1, 0]) == one.inverted
    lowest = [float(one(ramp).min()) for one in many]
    assert min(lowest) < 10
    assert max(lowest) > 150


@pytest.mark.parametrize("shift", ["grey:2", "greys", "greys:much", "-1", "camera:-1"])
def test_shifts_that_mean_nothing(shift):
    with pytest.raises(FederatedError, match="shift"):
        Appearance.of_client("a", shift)


def test_what_each_change_does(clip):
    assert torch.equal(Appearance()(clip), clip)
    torch.testing.assert_close(Appearance(brightness=0.5)(clip).float(), clip / 2, atol=1, rtol=0)
    spread = Appearance(contrast=0.5)(clip)
    assert float(spread.float().std()) == pytest.approx(float(clip.float().std()) / 2, rel=0.02)
    turned = Appearance(hue=1 / 3)(clip)  # red, green, blue to green, blue, red
    torch.testing.assert_close(turned.float(), clip[..., [2, 0, 1]].float(), atol=2, rtol=0)
    noisy = Appearance(noise=8.0)(clip, seed=1).float() - clip
    assert float(noisy.std()) == pytest.approx(8, rel=0.1)
    assert torch.equal(Appearance(noise=8.0)(clip, seed=1), Appearance(noise=8.0)(clip, seed=1))
    assert not torch.equal(Appearance(noise=8.0)(clip, seed=1), Appearance(noise=8.0)(clip, seed=2))


def test_blur_is_a_gaussian():
    point = torch.zeros(1, 21, 21, 3, dtype=torch.uint8)
    point[0, 10, 10] = 255
    found = Appearance(blur=1.5)(point)[0, :, :, 0].double()
    places = torch.arange(21, dtype=torch.float64) - 10
    profile = torch.exp(-(places**2) / (2 * 1.5**2))
    expected = 255 * torch.outer(profile, profile) / profile.sum() ** 2
    torch.testing.assert_close(found, expected, atol=0.6, rtol=0)
    flat = torch.full((1, 8, 8, 3), 77, dtype=torch.uint8)
    assert torch.equal(Appearance(blur=2.0)(flat), flat)


def test_a_data_set_with_an_appearance(clip):
    rows = VideoRows([VideoRow(clip.numpy(), 0, "a.mp4")], ["x"])
    processor = VideoMAEImageProcessor(
        size={"shortest_edge": 16},
        crop_size={"height": 16, "width": 16},
        num_frames=4,
        do_rescale=False,
        do_normalize=False,
    )
    plain = VideoDataset(rows, processor)
    shifted = ShiftedDataset.of(plain, Appearance(brightness=0.5, noise=4.0))
    seed = plain[0]["seed"]
    expected = Appearance(brightness=0.5, noise=4.0)(clip, seed).permute(0, 3, 1, 2)
    assert torch.equal(shifted[0]["pixel_values"].round().to(torch.uint8), expected)
    assert torch.equal(plain[0]["pixel_values"].round().to(torch.uint8), clip.permute(0, 3, 1, 2))
    shifted.set_epoch(3)
    assert plain.epoch == 3


@pytest.mark.parametrize("wrong", [{"brightness": -1}, {"hue": 0.7}, {"noise": float("nan")}])
def test_appearances_that_mean_nothing(wrong):
    with pytest.raises(FederatedError, match=next(iter(wrong))):
        Appearance(**wrong)
