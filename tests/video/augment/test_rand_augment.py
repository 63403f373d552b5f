"""RandAugment: which operations are drawn, how strong, and what they do to a clip."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from hf_video.errors import VideoArrayError, VideoOptionError
from hf_video.video.augment.rand_augment import NAMES, Operation, RandAugment, apply_operations, level_argument


def draws(config, count, seed=0):
    policy, rng = RandAugment(config), np.random.default_rng(seed)
    return [policy.draw(rng) for _ in range(count)]


def test_operations_are_drawn_alike_and_half_of_them_are_applied():
    drawn = draws("m7-n4-mstd0.5-inc1", 6000)
    counts = Counter(operation.name for operations in drawn for operation in operations)
    expected = 6000 * 4 * 0.5 / len(NAMES)
    assert set(counts) == set(NAMES)
    deviation = np.sqrt(expected)
    assert all(abs(count - expected) < 5 * deviation for count in counts.values()), counts
    # Binomial(4, 1/2) operations for each clip
    lengths = np.bincount([len(operations) for operations in drawn], minlength=5) / 6000
    np.testing.assert_allclose(lengths, [1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16], atol=0.025)


def test_an_operation_may_come_twice():
    assert any(len({o.name for o in operations}) < len(operations) for operations in draws("m7-n4", 200))


def test_magnitudes_are_normal_about_m_with_both_signs():
    angles = np.array([o.argument for one in draws("m7-n4-mstd0.5-inc1", 6000) for o in one if o.name == "rotate"])
    levels = np.abs(angles) / 3
    assert abs(levels.mean() - 7) < 0.08
    assert abs(levels.std() - 0.5) < 0.05
    assert 0.45 < (angles > 0).mean() < 0.55


def test_without_deviation_every_magnitude_is_m():
    found = {o.name: abs(o.argument) for one in draws("m5-n4", 300) for o in one if o.name in ("rotate", "shear_x")}
    assert found == {"rotate": 15.0, "shear_x": 0.15}


def test_magnitudes_stay_within_0_and_10():
    angles = [abs(o.argument) for one in draws("m10-n4-mstd3-inc1", 2000) for o in one if o.name == "rotate"]
    assert max(angles) == 30
    low = [o.argument for one in draws("m0-n4-mstd3-inc1", 2000) for o in one if o.name == "solarize_add"]
    assert min(low) == 0


@pytest.mark.parametrize(
    ("name", "increasing", "plain"),
    [
        ("rotate", 21.0, 21.0),
        ("posterize", 2, 2),  # 4 - int(2.8), int(2.8)
        ("solarize", 77, 179),  # 256 - int(179.2)
        ("solarize_add", 77, 77),
        ("color", 1.63, 1.36),  # 1 + .63, .1 + 1.26
        ("sharpness", 1.63, 1.36),
        ("shear_y", 0.21, 0.21),
        ("translate_x", 0.315, 0.315),
        ("equalize", None, None),
    ],
)
def test_arguments_at_magnitude_7(name, increasing, plain):
    for expected, grows in ((increasing, True), (plain, False)):
        assert level_argument(name, 7.0, 1, increasing=grows) == (None if expected is None else pytest.approx(expected))


def test_negative_arguments_at_magnitude_7():
    assert level_argument("contrast", 7.0, -1, increasing=True) == pytest.approx(0.37)
    assert level_argument("translate_y", 7.0, -1, increasing=True) == pytest.approx(-0.315)
    assert level_argument("solarize", 7.0, -1, increasing=True) == 77  # has no sign


def test_the_config_is_timms():
    policy = RandAugment("rand-n3-m9-inc1-mstd0.5")
    assert (policy.magnitude, policy.count, policy.deviation, policy.increasing) == (9, 3, 0.5, True)
    policy = RandAugment("m20-n2")  # TensorFlow's scale, as in ViViT's configuration
    assert (policy.magnitude, policy.count, policy.deviation, policy.increasing) == (20, 2, 0, False)
    for operations in draws("m20-n2", 300):
        apply_operations(torch.zeros(1, 8, 8, 3, dtype=torch.uint8), operations)


@pytest.mark.parametrize(
    "config", ["", "m7-n0", "m11-inc1", "m31", "m7-n4-w0", "m7 n4", "m7-m8", "inc2", "n1.5", "m-3", 7, None]
)
def test_other_configs_are_refused(config):
    with pytest.raises(VideoOptionError, match="rand_augment="):
        RandAugment(config)


def test_a_clip_of_one_picture_stays_one_picture():
    picture = torch.randint(0, 256, (1, 24, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    clip = picture.expand(6, -1, -1, -1)
    for seed in range(30):
        result = RandAugment("m9-n6-mstd0.5-inc1")(clip, generator=torch.Generator().manual_seed(seed))
        assert result.shape == clip.shape
        assert torch.equal(result, result[:1].expand_as(result))


def test_each_frame_is_what_it_would_be_by_itself():
    clip = torch.randint(0, 256, (5, 24, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    policy = RandAugment("m9-n6-mstd0.5-inc1")
    for seed in range(20):
        operations = policy.draw(np.random.default_rng(seed))
        alone = torch.cat([apply_operations(frame[None], operations) for frame in clip])
        assert torch.equal(apply_operations(clip, operations), alone)


def test_the_same_seed_gives_the_same_and_the_input_stays():
    clip = torch.randint(0, 256, (4, 16, 16, 3), dtype=torch.uint8)
    before = clip.clone()
    results = [RandAugment()(clip, generator=torch.Generator().manual_seed(s)) for s in (3, 3, 4, 5, 6)]
    assert torch.equal(results[0], results[1])
    assert any(not torch.equal(results[0], other) for other in results[2:])
    assert torch.equal(clip, before)


def test_operations_say_what_they_do():
    assert str(Operation("rotate", -21.44)) == "rotate -21.4"
    assert str(Operation("invert")) == "invert"


@pytest.mark.parametrize(
    "clip", [torch.zeros(4, 8, 8, 3), torch.zeros(8, 8, 3, dtype=torch.uint8), np.zeros((2, 8, 8, 3), np.uint8)]
)
def test_only_uint8_clips(clip):
    with pytest.raises(VideoArrayError, match="uint8"):
        RandAugment()(clip)
