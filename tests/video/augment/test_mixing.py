"""Mixup and cutmix: worked cases, targets, and the statistics of what is drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hf_video.errors import VideoArrayError, VideoOptionError
from hf_video.video.augment.mixing import Mixing, Mixture


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(size=4, frames=3, side=8):
    """Clip i has the value i everywhere."""
    return torch.arange(size, dtype=torch.float32).view(-1, 1, 1, 1, 1).expand(size, frames, 3, side, side)


def mixture(shares, boxes=None, cut=None, smoothing=0.0):
    size = len(shares)
    boxes = np.zeros((size, 4), int) if boxes is None else np.array(boxes)
    return Mixture(np.array(shares), boxes, np.zeros(size, bool) if cut is None else np.array(cut), smoothing)


# -- worked by hand ---------------------------------------------------------------------------------------------------


def test_mixup_by_hand():
    mixed = mixture([0.75] * 4).clips(batch())
    # .75·0 + .25·3, .75·1 + .25·2, ...
    assert mixed[:, 0, 0, 0, 0].tolist() == [0.75, 1.25, 1.75, 2.25]
    assert (mixed == mixed[:, :1, :1, :1, :1]).all()


def test_cutmix_by_hand():
    """Rows 2 to 5 and columns 0 to 4 of an 8x8 frame: 12 of 64 pixels come from the partner."""
    mixed = mixture([1 - 12 / 64] * 2, [[2, 5, 0, 4]] * 2, [True] * 2).clips(batch(2))
    expected = torch.zeros(8, 8)
    expected[2:5, 0:4] = 1
    assert torch.equal(mixed[0], expected.expand(3, 3, 8, 8))
    assert torch.equal(mixed[1], 1 - expected.expand(3, 3, 8, 8))


def test_targets_by_hand():
    targets = mixture([0.75] * 2).targets(torch.tensor([0, 2]), 3)
    assert targets.tolist() == [[0.75, 0, 0.25], [0.25, 0, 0.75]]
    smooth = mixture([0.75] * 2, smoothing=0.3).targets(torch.tensor([0, 2]), 3)
    # on 1 - .3 + .1 = .8, off .1: .75·.8 + .25·.1 = .625
    torch.testing.assert_close(smooth, torch.tensor([[0.625, 0.1, 0.275], [0.275, 0.1, 0.625]]))


def test_mixup_and_cutmix_in_one_batch():
    """Each clip as its own draw says: mixup, nothing, nothing, cutmix."""
    drawn = mixture([0.5, 1, 1, 0.75], [[0] * 4, [0] * 4, [0] * 4, [0, 4, 0, 4]], [False, False, False, True])
    mixed = drawn.clips(batch())
    assert (mixed[0] == 1.5).all()
    assert (mixed[1] == 1).all()
    assert (mixed[2] == 2).all()
    assert (mixed[3, :, :, :4, :4] == 0).all()
    assert mixed[3].mean() == pytest.approx(2.25)


def test_the_loss_is_soft_cross_entropy():
    _, targets = Mixing()(batch(), torch.tensor([0, 1, 2, 1]), num_labels=5, generator=gen(3))
    logits = torch.randn(4, 5, generator=gen(0))
    by_hand = -(targets * logits.log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(torch.nn.functional.cross_entropy(logits, targets), by_hand)


# -- every frame ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_frames_are_mixed_alike_and_shares_are_true(mode):
    """Values 0 and 1: the mean of a mixed clip says what share of it is its own, and the target must say the same."""
    for seed in range(40):
        clips = torch.stack([torch.zeros(3, 3, 16, 16), torch.ones(3, 3, 16, 16)] * 2)[[0, 2, 1, 3]]
        labels = torch.tensor([0, 0, 1, 1])
        mixed, targets = Mixing(mode=mode, label_smoothing=0)(clips, labels, num_labels=2, generator=gen(seed))
        assert torch.equal(mixed, mixed[:, :1].expand_as(mixed))
        torch.testing.assert_close(mixed.mean(dim=(1, 2, 3, 4)), targets[:, 1], atol=1e-5, rtol=0)
        torch.testing.assert_close(targets.sum(1), torch.ones(4))


def test_the_input_stays_and_seeds_repeat():
    clips, labels = torch.randn(4, 2, 3, 8, 8), torch.arange(4)
    before = clips.clone()
    first, second = (Mixing()(clips, labels, num_labels=4, generator=gen(5)) for _ in range(2))
    assert torch.equal(clips, before)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_several_tensors_of_one_batch():
    drawn = Mixing(cutmix=0).draw(2, 8, 8, generator=gen())
    rgb, flow = batch(2), batch(2).expand(-1, -1, 3, -1, -1)[:, :, :2] * 10
    torch.testing.assert_close(drawn.clips(flow), drawn.clips(rgb)[:, :, :2] * 10)


def test_half_precision_stays():
    assert mixture([0.5] * 4).clips(batch().to(torch.bfloat16)).dtype == torch.bfloat16


# -- odd batches ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_a_clip_without_partner_stays(mode, size):
    for seed in range(10):
        labels = torch.arange(size)
        mixed, targets = Mixing(mode=mode, label_smoothing=0)(batch(size), labels, num_labels=size, generator=gen(seed))
        middle = size // 2
        assert (mixed[middle] == middle).all()
        assert targets[middle, middle] == 1


# -- statistics -------------------------------------------------------------------------------------------------------


def shares_of(mixing, count=4000, side=224):
    return mixing.draw(count, side, side, generator=gen(1))


def test_mixup_shares_are_beta():
    shares = shares_of(Mixing(mode="elem", cutmix=0, mixup=0.8)).shares
    assert abs(shares.mean() - 0.5) < 0.02
    assert abs(shares.var() - 0.25 / (2 * 0.8 + 1)) < 0.01  # of Beta(a, a)
    uniform = shares_of(Mixing(mode="elem", cutmix=0, mixup=1.0)).shares
    np.testing.assert_allclose(np.quantile(uniform, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.03)


def test_cutmix_boxes_have_the_frames_shape_and_the_share_counts_them():
    drawn = Mixing(mode="elem", mixup=0, cutmix=1.0).draw(4000, 96, 160, generator=gen(1))
    heights, widths = (drawn.boxes[:, 1] - drawn.boxes[:, 0], drawn.boxes[:, 3] - drawn.boxes[:, 2])
    np.testing.assert_allclose(drawn.shares, 1 - heights * widths / (96 * 160))
    assert drawn.boxes.min() == 0
    assert drawn.boxes[:, 1].max() == 96
    assert drawn.boxes[:, 3].max() == 160
    inside = (drawn.boxes[:, 0] > 0) & (drawn.boxes[:, 1] < 96) & (drawn.boxes[:, 2] > 0) & (drawn.boxes[:, 3] < 160)
    ratio = widths[inside & (heights > 30)] / heights[inside & (heights > 30)]
    np.testing.assert_allclose(ratio, 160 / 96, atol=0.12)
    # A box about a place anywhere loses, of a side r, r - r·r/4 - ... : E[kept part of a side r] = r - r²/4.
    r = np.sqrt(1 - np.random.default_rng(0).uniform(size=200_000))
    assert abs((1 - drawn.shares).mean() - ((r - r**2 / 4) ** 2).mean()) < 0.02


def test_how_often_what():
    half = shares_of(Mixing(mode="elem", prob=0.5))
    assert 0.46 < (half.shares == 1).mean() < 0.55
    assert 0.46 < half.cut[half.shares < 1].mean() < 0.54
    often = shares_of(Mixing(mode="elem", switch_prob=0.9))
    assert 0.87 < often.cut.mean() < 0.93
    assert not shares_of(Mixing(mode="elem", cutmix=0)).cut.any()
    assert shares_of(Mixing(mode="elem", mixup=0)).cut.all()
    assert (shares_of(Mixing(mixup=0, cutmix=0)).shares == 1).all()
    assert (shares_of(Mixing(prob=0)).shares == 1).all()


def test_modes_share_draws():
    one = Mixing().draw(6, 32, 32, generator=gen(2))
    assert len(set(one.shares)) == 1
    pairs = Mixing(mode="pair").draw(6, 32, 32, generator=gen(2))
    np.testing.assert_array_equal(pairs.shares, pairs.shares[::-1])
    np.testing.assert_array_equal(pairs.boxes, pairs.boxes[::-1])
    assert len(set(pairs.shares)) == 3
    assert len(set(Mixing(mode="elem").draw(6, 32, 32, generator=gen(2)).shares)) == 6


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{"mixup": -1}, {"cutmix": float("inf")}, {"prob": 1.1}, {"switch_prob": -0.1}, {"mode": "clip"},
     {"label_smoothing": 1}, {"label_smoothing": -0.1}, {"mixup": "0.8"}, {"prob": True}],
)  # fmt: skip
def test_options_are_checked(options):
    with pytest.raises(VideoOptionError):
        Mixing(**options)


def test_inputs_are_checked():
    labels = torch.arange(4)
    with pytest.raises(VideoArrayError, match="batch, frames"):
        Mixing()(batch()[0], labels, num_labels=4)
    with pytest.raises(VideoArrayError, match="floats"):
        Mixing()(batch().to(torch.uint8), labels, num_labels=4)
    for wrong in (torch.zeros(4), torch.zeros(4, 3), torch.zeros(4, 4, dtype=torch.int64)):
        with pytest.raises(VideoArrayError, match="4 class numbers"):
            Mixing()(batch(), wrong, num_labels=4)
    for wrong in (torch.tensor([0, 1, 2, 4]), torch.tensor([0, -1, 2, 3])):
        with pytest.raises(VideoOptionError, match="classes from 0 to 3"):
            Mixing()(batch(), wrong, num_labels=4)
    with pytest.raises(VideoOptionError, match="num_labels"):
        Mixing()(batch(), labels, num_labels=0)
    with pytest.raises(VideoArrayError, match="4 clips and 2 came"):
        Mixing().draw(4, 8, 8).clips(batch(2))
