"""Augmentation of clips: crops, flips, colours, erasing; the same for all frames, and drawn as the papers do."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
import torch

from hf_video.errors import VideoArrayError, VideoOptionError
from hf_video.video.augment.augmentation import Augmentation, SampledParams
from hf_video.video.augment.checks import from_options
from hf_video.video.augment.crops import Box, fixed_places, multi_scale_box, random_resized_box
from hf_video.video.augment.mixing import Mixing
from hf_video.video.augment.rand_augment import Operation

PLAIN = {"rand_augment": None, "flip": 0, "erase_prob": 0}


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(frames=4, height=40, width=56, seed=0):
    return torch.randint(0, 256, (frames, height, width, 3), dtype=torch.uint8, generator=gen(seed))


EVERY = {
    "recipe": {},
    "multi-scale": {"crop": "multi_scale", "rand_augment": None, "flip": 0},
    "short side": {"crop": "random", "short_side": (32, 44), "rand_augment": None},
    "inverse": {"crop": "random", "short_side": (32, 44), "short_side_sampling": "inverse", "rand_augment": None},
    "vivit": {
        "crop": "random", "short_side": 36, "stretch": (0.9, 1.33), "color_jitter": (0.1, 0.4, 0.4, 0.2),
        "color_prob": 0.8, "gray_prob": 0.2, "rand_augment": None,
    },
    "center": {"crop": "center", "short_side": 36, "color_jitter": 0.4, "rand_augment": None},
    "bicubic": {"interpolation": "bicubic"},
}  # fmt: skip


# -- the same for all frames ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize("size", [32, (24, 32)])
def test_a_clip_of_one_picture_stays_one_picture(options, size):
    clip = noise(1).expand(6, -1, -1, -1)
    augmentation = Augmentation(size, **{"flip": 0.5, **options})
    for seed in range(15):
        result = augmentation(clip, generator=gen(seed))
        assert result.shape == (6, *((32, 32) if size == 32 else size), 3)
        assert result.dtype == torch.uint8
        assert result.is_contiguous()
        assert torch.equal(result, result[:1].expand_as(result))


@pytest.mark.parametrize("options", EVERY.values(), ids=EVERY)
def test_each_frame_is_what_it_would_be_by_itself(options):
    clip = noise(5)
    augmentation = Augmentation(32, **options)
    for seed in range(15):
        params = augmentation.draw(40, 56, generator=gen(seed))
        alone = torch.cat([augmentation.apply(frame[None], params) for frame in clip])
        assert torch.equal(augmentation.apply(clip, params), alone)


@pytest.mark.parametrize("mode", ["pixel", "rand", "const"])
def test_erasing_is_the_same_in_all_frames(mode):
    clip = torch.full((5, 3, 24, 24), 9.0)
    for seed in range(10):
        erased = Augmentation(24, erase_prob=1, erase_mode=mode, erase_count=2).erase(clip, generator=gen(seed))
        assert torch.equal(erased, erased[:1].expand_as(erased))
        assert not torch.equal(erased, clip)


def test_noise_of_each_frame_has_one_place():
    erased = Augmentation(24, erase_prob=1, erase_mode="pixel_per_frame").erase(torch.full((5, 3, 24, 24), 9.0))
    where = erased != 9
    assert torch.equal(where, where[:1].expand_as(where))
    assert not torch.equal(erased[0], erased[1])


@pytest.mark.parametrize("options", EVERY.values(), ids=EVERY)
def test_the_same_seed_gives_the_same_and_the_input_stays(options):
    clip = noise()
    before = clip.clone()
    augmentation = Augmentation(32, **options)
    results = [augmentation(clip, generator=gen(s)) for s in (3, 3, 4, 5, 6)]
    assert torch.equal(results[0], results[1])
    if options.get("crop") != "center":
        assert any(not torch.equal(results[0], other) for other in results[2:])
    assert torch.equal(clip, before)
    torch.manual_seed(3)
    first = augmentation(clip)
    torch.manual_seed(3)
    assert torch.equal(first, augmentation(clip))


# -- worked by hand ---------------------------------------------------------------------------------------------------


def test_crop_and_flip_by_hand():
    clip = noise(2, 6, 8)
    augmentation = Augmentation((3, 4), **PLAIN)
    params = SampledParams((), None, Box(2, 1, 3, 4), True, ())
    assert torch.equal(augmentation.apply(clip, params), clip[:, 2:5, 1:5].flip(2))


def test_operations_come_first_and_colours_last():
    clip = noise(1, 4, 4)
    augmentation = Augmentation(4, **PLAIN)
    params = SampledParams((Operation("posterize", 1),), None, Box(0, 0, 4, 4), False, (Operation("invert"),))
    assert torch.equal(augmentation.apply(clip, params), 255 - (clip & 128))


def test_center_crop_by_hand():
    clip = noise(2, 8, 12)
    result = Augmentation(4, crop="center", **PLAIN)(clip)
    assert torch.equal(result, clip[:, 2:6, 4:8])


def test_erasing_by_hand():
    augmentation = Augmentation(8, erase_prob=1, erase_mode="const", erase_area=(0.25, 0.25), erase_ratio=(1, 1))
    erased = augmentation.erase(torch.ones(2, 3, 8, 8), generator=gen(1))
    (box,) = augmentation.draw_erasing(8, 8, generator=gen(1))
    assert box[2:] == (4, 4)
    expected = torch.ones(8, 8)
    expected[box.top : box.top + 4, box.left : box.left + 4] = 0
    assert torch.equal(erased, expected.expand(2, 3, 8, 8))


# -- crops ------------------------------------------------------------------------------------------------------------


def test_random_resized_crops_are_inceptions():
    """Of a square frame every draw with ratio near 1 fits: area uniform, logarithm of the ratio uniform."""
    rng = np.random.default_rng(0)
    boxes = np.array([random_resized_box(400, 400, (0.1, 0.5), (0.75, 4 / 3), rng) for _ in range(4000)])
    area = boxes[:, 2] * boxes[:, 3] / 400**2
    np.testing.assert_allclose(np.quantile(area, [0.0, 0.25, 0.5, 0.75, 1]), [0.1, 0.2, 0.3, 0.4, 0.5], atol=0.012)
    ratio = np.log(boxes[:, 3] / boxes[:, 2])
    edge = np.log(4 / 3)
    np.testing.assert_allclose(np.quantile(ratio, [0.25, 0.5, 0.75]), [-edge / 2, 0, edge / 2], atol=0.03)
    assert np.abs(ratio).max() < edge + 0.01
    # Places are uniform over the free way.
    free = boxes[:, 0] / (400 - boxes[:, 2])
    np.testing.assert_allclose(np.quantile(free, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.04)
    assert (boxes[:, :2] + boxes[:, 2:] <= 400).all()


@pytest.mark.parametrize(
    ("frame", "expected"),
    [((100, 400), (0, 134, 100, 133)), ((400, 100), (134, 0, 133, 100)), ((100, 110), (0, 0, 100, 110))],
)
def test_where_no_box_fits_the_largest_in_the_middle(frame, expected):
    """Twice the area never fits; 100 high allows 133 wide at a ratio of 4/3."""
    box = random_resized_box(*frame, (2.0, 2.0), (0.75, 4 / 3), np.random.default_rng(0))
    assert box[2:] == expected[2:]
    assert abs(box.top - expected[0]) <= 1
    assert abs(box.left - expected[1]) <= 1


def test_multi_scale_crops_are_tsns():
    rng = np.random.default_rng(0)
    boxes = [multi_scale_box(256, 340, (224, 224), (1, 0.875, 0.75, 0.66), rng) for _ in range(6000)]
    # int(256·.66) = 168; .875 gives exactly 224
    sides = {256, 224, 192, 168}
    pairs = {(box.height, box.width) for box in boxes}
    order = sorted(sides)
    assert pairs == {(a, b) for a in sides for b in sides if abs(order.index(a) - order.index(b)) <= 1}
    # 256 - 168 = 4 · 22 rows are free, and columns that depend on the width.
    places = {(box.top // 22, box.left // ((340 - box.width) // 4)) for box in boxes if box.height == 168}
    assert places == set(fixed_places())
    assert len(fixed_places()) == 13
    counts = np.unique([box.height for box in boxes], return_counts=True)[1] / 6000
    np.testing.assert_allclose(counts, [0.2, 0.3, 0.3, 0.2], atol=0.03)  # 2, 3, 3 and 2 of 10 pairs


def test_sides_close_to_the_size_become_it():
    boxes = [multi_scale_box(226, 300, (224, 224), (1.0,), np.random.default_rng(i)) for i in range(20)]
    assert {(box.height, box.width) for box in boxes} == {(224, 224)}
    small = multi_scale_box(222, 300, (224, 224), (1.0,), np.random.default_rng(0))
    assert (small.height, small.width) == (222, 224)  # never more than the frame has


def short_sides(**options):
    augmentation = Augmentation(224, crop="random", short_side=(256, 320), **PLAIN, **options)
    params = [augmentation.draw(240, 320, generator=gen(s)).resized for s in range(600)]
    assert all(abs(width / height - 4 / 3) < 0.01 for height, width in params)
    return np.array([min(one) for one in params])


def test_short_sides_are_uniform_or_inverse():
    uniform, inverse = short_sides(), short_sides(short_side_sampling="inverse")
    assert 256 <= uniform.min() <= 260
    assert 316 <= uniform.max() <= 320
    assert abs(uniform.mean() - 288) < 3
    # E[1 / U] with U uniform on (1/320, 1/256)
    assert abs(inverse.mean() - np.log(320 / 256) / (1 / 256 - 1 / 320)) < 3
    assert inverse.mean() < uniform.mean() - 1


def test_stretch_has_a_factor_for_each_side():
    augmentation = Augmentation(224, crop="random", short_side=256, stretch=(0.9, 1.33), **PLAIN)
    params = np.array([augmentation.draw(256, 340, generator=gen(s)).resized for s in range(600)]) / (256, 340)
    np.testing.assert_allclose(params.mean(0), (0.9 + 1.33) / 2, atol=0.02)
    assert abs(np.corrcoef(params.T)[0, 1]) < 0.12
    assert params.min() >= 0.895
    assert params.max() <= 1.33


def test_frames_that_are_too_small():
    with pytest.raises(VideoArrayError, match="short_side"):
        Augmentation(64, crop="random", **PLAIN)(noise(2, 40, 56))
    assert Augmentation(64, **PLAIN)(noise(2, 3, 5)).shape == (2, 64, 64, 3)
    assert Augmentation(64, crop="multi_scale", **PLAIN)(noise(2, 3, 5)).shape == (2, 64, 64, 3)


# -- flips and labels -------------------------------------------------------------------------------------------------


def test_how_often_it_flips():
    for probability in (0, 0.3, 1):
        augmentation = Augmentation(32, flip=probability, rand_augment=None)
        flipped = np.mean([augmentation.draw(40, 56, generator=gen(s)).flipped for s in range(500)])
        assert abs(flipped - probability) < (0.07 if probability == 0.3 else 1e-9)


def test_swap_exchanges_labels_with_the_picture():
    names = ["turn_left", "clap", "turn_right"]
    augmentation = Augmentation(32, crop="center", flip="swap", rand_augment=None, erase_prob=0).for_labels(names)
    clip = noise(2, 32, 32)
    seen = set()
    for seed in range(30):
        for label, other in ((0, 2), (1, 1), (2, 0)):
            result, number = augmentation.with_label(clip, label, generator=gen(seed))
            flipped = torch.equal(result, clip.flip(2))
            assert flipped or torch.equal(result, clip)
            assert number == (other if flipped else label)
            seen.add(flipped)
    assert seen == {True, False}
    assert augmentation.with_label(clip, None, generator=gen())[1] is None


def test_swap_can_not_lose_a_label():
    swap = Augmentation(32, flip="swap")
    with pytest.raises(VideoOptionError, match="for_labels"):
        swap.with_label(noise(), 0)
    with pytest.raises(VideoOptionError, match="with_label"):
        swap.for_labels(["left", "right"])(noise())
    swap.for_labels(["clap", "jump"])(noise())  # nothing to exchange


def test_flow_of_a_mirrored_clip_is_mirrored_flow():
    """Flow is made of augmented frames, so a flip turns its x; `flip_flow` does the same to flow made before."""
    cv2 = pytest.importorskip("cv2")
    from hf_video.video.flow.estimation import flip_flow, optical_flow

    assert cv2
    y, x = np.mgrid[:48, :64]
    pictures = [127 + 60 * np.sin((x - 2 * t) / 5) + 60 * np.cos(y / 4) for t in range(2)]
    clip = torch.from_numpy(np.stack(pictures).astype(np.uint8)[..., None].repeat(3, -1))
    augmentation = Augmentation((48, 64), crop="center", flip=1, rand_augment=None)
    after = optical_flow(augmentation(clip).numpy(), method="farneback")
    before = flip_flow(optical_flow(clip.numpy(), method="farneback"))
    assert np.median(before[..., 0]) == pytest.approx(-2, abs=0.3)
    np.testing.assert_allclose(after[:, 8:-8, 8:-8], before[:, 8:-8, 8:-8], atol=0.2)


# -- colours ----------------------------------------------------------------------------------------------------------


def test_colour_factors_and_order():
    augmentation = Augmentation(32, color_jitter=(0.1, 0.2, 1.5, 0.05), rand_augment=None)
    params = [augmentation.draw(40, 56, generator=gen(s)).colors for s in range(500)]
    ranges = {"brightness": (0.9, 1.1), "contrast": (0.8, 1.2), "color": (0, 2.5), "hue": (-0.05, 0.05)}
    for name, (low, high) in ranges.items():
        values = [o.argument for one in params for o in one if o.name == name]
        assert len(values) == 500
        assert low <= min(values) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < max(values) <= high
    assert {one[0].name for one in params} == set(ranges)


def test_one_number_leaves_the_hue_alone():
    augmentation = Augmentation(32, color_jitter=0.4, rand_augment=None)
    assert {o.name for o in augmentation.draw(40, 56).colors} == {"brightness", "contrast", "color"}


def test_how_often_colours_change():
    augmentation = Augmentation(32, color_jitter=0.4, color_prob=0.8, gray_prob=0.1, rand_augment=None)
    params = [[o.name for o in augmentation.draw(40, 56, generator=gen(s)).colors] for s in range(1000)]
    assert abs(np.mean(["brightness" in one for one in params]) - 0.8) < 0.05
    assert abs(np.mean(["gray" in one for one in params]) - 0.1) < 0.04
    assert Augmentation(32, rand_augment=None).draw(40, 56).colors == ()


# -- erasing ----------------------------------------------------------------------------------------------------------


def test_erased_area_ratio_and_frequency():
    augmentation = Augmentation(224)
    params = [augmentation.draw_erasing(224, 224, generator=gen(s)) for s in range(3000)]
    assert abs(np.mean([len(boxes) == 1 for boxes in params]) - 0.25) < 0.03
    boxes = np.array([box for boxes in params for box in boxes])
    area = boxes[:, 2] * boxes[:, 3] / 224**2
    np.testing.assert_allclose(np.quantile(area, [0.0, 0.5, 1]), [0.02, 0.177, 1 / 3], atol=0.025)
    ratio = np.log(boxes[:, 2] / boxes[:, 3])
    assert abs(ratio.mean()) < 0.08
    assert np.abs(ratio).max() < np.log(1 / 0.3) + 0.05
    assert (boxes[:, :2] + boxes[:, 2:] <= 224).all()


def test_several_boxes_share_the_area():
    augmentation = Augmentation(224, erase_prob=1, erase_count=3, erase_area=(0.3, 0.3))
    params = [augmentation.draw_erasing(224, 224, generator=gen(s)) for s in range(300)]
    assert {len(boxes) for boxes in params} == {1, 2, 3}
    for boxes in params:
        for box in boxes:
            assert box.height * box.width / 224**2 == pytest.approx(0.3 / len(boxes), rel=0.03)


def test_erased_noise_is_standard_normal():
    noisy = Augmentation(224, erase_prob=1).erase(torch.full((2, 3, 224, 224), 9.0), generator=gen(2))
    values = noisy[0][noisy[0] != 9]
    assert abs(values.mean()) < 0.05
    assert abs(values.std() - 1) < 0.05
    color = Augmentation(24, erase_prob=1, erase_mode="rand").erase(torch.full((2, 3, 24, 24), 9.0), generator=gen(2))
    assert len(color[0, 0].unique()) == 2


def test_what_is_not_erased_stays_the_tensor_itself():
    clip = torch.zeros(2, 3, 24, 24)
    assert Augmentation(24, erase_prob=0).erase(clip) is clip
    copied = Augmentation(24, erase_prob=1).erase(clip, generator=gen(0))
    assert (clip == 0).all()
    assert Augmentation(24, erase_prob=1).erase(clip, generator=gen(0), in_place=True) is clip
    assert torch.equal(clip, copied)
    assert (clip != 0).any()


@pytest.mark.parametrize(
    "clip", [torch.zeros(2, 3, 24), torch.zeros(2, 3, 24, 24, dtype=torch.uint8), np.zeros((2, 3, 8, 8))]
)
def test_erasing_takes_normalised_clips(clip):
    with pytest.raises(VideoArrayError, match="normalised"):
        Augmentation(24).erase(clip)


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"size": 0}, "size"),
        ({"size": (32, 32, 32)}, "size"),
        ({"size": 32.5}, "size"),
        ({"crop": "middle"}, "crop"),
        ({"scale": (0, 1)}, "scale"),
        ({"scale": (0.5, 1.5)}, "scale"),
        ({"ratio": (2, 1)}, "ratio"),
        ({"scales": ()}, "scales"),
        ({"scales": (1.2,)}, "scales"),
        ({"short_side": 256}, "short_side is for"),
        ({"stretch": (0.9, 1.3)}, "stretch is for"),
        ({"crop": "random", "short_side": (320, 256)}, "low first"),
        ({"crop": "random", "short_side": 20}, "too small for size=32"),
        ({"crop": "random", "short_side": 33, "stretch": (0.9, 1.3)}, "29 pixels"),
        ({"crop": "random", "short_side_sampling": "log"}, "short_side_sampling"),
        ({"flip": 2}, "flip"),
        ({"flip": "yes"}, 'Or "swap"'),
        ({"mirror_words": ["left"]}, "pairs"),
        ({"color_jitter": (0.4, 0.4)}, "color_jitter"),
        ({"color_jitter": (0.4, 0.4, 0.4, 0.7)}, "hue"),
        ({"color_jitter": -1}, "color_jitter"),
        ({"color_prob": 1.5}, "color_prob"),
        ({"gray_prob": None}, "gray_prob"),
        ({"rand_augment": "m7x"}, "rand_augment"),
        ({"erase_prob": -0.1}, "erase_prob"),
        ({"erase_mode": "noise"}, "erase_mode"),
        ({"erase_count": 0}, "erase_count"),
        ({"erase_area": (0.1, 2)}, "erase_area"),
        ({"erase_ratio": (1, float("nan"))}, "erase_ratio"),
        ({"interpolation": "nearest"}, "interpolation"),
    ],
)
def test_options_are_checked_early(options, match):
    with pytest.raises(VideoOptionError, match=match):
        Augmentation(**{"size": 32, **options})


def test_lists_and_numbers_become_one_form():
    yaml = {
        "crop": "random",
        "short_side": [36, 40],
        "stretch": [0.9, 1.3],
        "color_jitter": 0.4,
        "mirror_words": [["a", "b"]],
    }
    augmentation = Augmentation(32, **yaml)
    assert (augmentation.size, augmentation.short_side) == ((32, 32), (36, 40))
    assert augmentation.color_jitter == (0.4, 0.4, 0.4, 0.0)
    assert augmentation.mirror_words == (("a", "b"),)
    assert Augmentation(**dataclasses.asdict(augmentation)) == augmentation
    assert pickle.loads(pickle.dumps(augmentation)) == augmentation


def test_sections_of_a_recipe():
    assert from_options(Augmentation, {"flip": 0}, size=32) == Augmentation(32, flip=0)
    assert from_options(Mixing, None) == Mixing()
    with pytest.raises(VideoOptionError, match="erase_prob"):
        from_options(Augmentation, {"erase": 0.5}, size=32)
    with pytest.raises(VideoOptionError, match="'size'"):
        from_options(Augmentation, {"size": 64}, size=32)


@pytest.mark.parametrize("clip", [noise().float(), noise()[0], noise().numpy(), noise()[..., :2], noise()[:0]])
def test_only_uint8_clips(clip):
    with pytest.raises(VideoArrayError):
        Augmentation(32)(clip)
