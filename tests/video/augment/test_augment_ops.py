"""Operations on whole clips against Pillow, frame by frame; and that no loop runs over frames."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch.utils._python_dispatch import TorchDispatchMode

from hf_video.video import transforms
from hf_video.video.augment import affine, crops
from hf_video.video.augment.augmentation import Augmentation
from hf_video.video.augment.crops import crop_box, random_resized_box
from hf_video.video.augment.mixing import Mixing
from hf_video.video.augment.rand_augment import NAMES, Operation, RandAugment, apply_operations
from hf_video.video.transforms import normalize

GREY = (128, 128, 128)


def moved(matrix):
    return lambda image: image.transform(
        image.size, Image.Transform.AFFINE, matrix(*image.size), Image.Resampling.BICUBIC, fillcolor=GREY
    )


def solarize_add(image, added):
    return image.point([min(255, i + added) if i < 128 else i for i in range(256)] * 3)


EXACT = [
    ("invert", None, ImageOps.invert),
    ("autocontrast", None, ImageOps.autocontrast),
    ("equalize", None, ImageOps.equalize),
    ("gray", None, lambda image: image.convert("L").convert("RGB")),
    *[("posterize", bits, lambda image, bits=bits: ImageOps.posterize(image, bits)) for bits in (1, 2, 4, 8)],
    *[("solarize", value, lambda image, v=value: ImageOps.solarize(image, v)) for value in (0, 77, 256)],
    *[("solarize_add", value, lambda image, v=value: solarize_add(image, v)) for value in (0, 77, 110)],
    *[
        (name, factor, lambda image, c=enhancer, f=factor: c(image).enhance(f))
        for name, enhancer in {
            "color": ImageEnhance.Color,
            "contrast": ImageEnhance.Contrast,
            "brightness": ImageEnhance.Brightness,
            "sharpness": ImageEnhance.Sharpness,
        }.items()
        for factor in (0.0, 0.1, 0.37, 1.0, 1.63, 1.9)
    ],
]
MOVED = [
    ("shear_x", 0.21, moved(lambda w, h: (1, 0.21, 0, 0, 1, 0))),
    ("shear_x", -0.3, moved(lambda w, h: (1, -0.3, 0, 0, 1, 0))),
    ("shear_y", -0.21, moved(lambda w, h: (1, 0, 0, -0.21, 1, 0))),
    ("translate_x", 0.315, moved(lambda w, h: (1, 0, 0.315 * w, 0, 1, 0))),
    ("translate_x", 0.0, moved(lambda w, h: (1, 0, 0, 0, 1, 0))),
    ("translate_y", -0.45, moved(lambda w, h: (1, 0, 0, 0, 1, -0.45 * h))),
    *[
        ("rotate", degrees, lambda image, d=degrees: image.rotate(d, Image.Resampling.BICUBIC, fillcolor=GREY))
        for degrees in (0.0, 21.0, -30.0, 7.3)
    ],
]


def clips():
    rng = np.random.default_rng(0)
    y, x, t, c = np.ogrid[:37, :52, :3, :3]
    smooth = (127 + 100 * np.sin(x / 7 + t + c) * np.cos(y / 9 + c)).astype(np.uint8).transpose(2, 0, 1, 3)
    return {
        "noise": rng.integers(0, 256, (3, 31, 45, 3), dtype=np.uint8),
        "smooth": smooth,
        "dark": rng.integers(60, 66, (2, 64, 48, 3), dtype=np.uint8),
        "one colour": np.broadcast_to(np.array([77, 0, 255], np.uint8), (2, 20, 30, 3)).copy(),
        "two pixels": rng.integers(0, 256, (2, 2, 1, 3), dtype=np.uint8),
    }


def ours(name, argument, clip):
    return apply_operations(torch.from_numpy(clip), [Operation(name, argument)]).numpy()


def pillows(function, clip):
    return np.stack([np.asarray(function(Image.fromarray(frame))) for frame in clip])


@pytest.mark.parametrize("kind", clips())
@pytest.mark.parametrize(("name", "argument", "pillow"), EXACT, ids=lambda v: str(v)[:12])
def test_tables_and_blends_are_pillows(kind, name, argument, pillow):
    clip = clips()[kind]
    result = ours(name, argument, clip)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, pillows(pillow, clip))


@pytest.mark.parametrize("kind", clips())
@pytest.mark.parametrize(("name", "argument", "pillow"), MOVED, ids=lambda v: str(v)[:12])
def test_index_maps_are_pillows_within_a_level(kind, name, argument, pillow):
    """Of a value whose exact sum is a whole number Pillow may cut off one level; nothing else differs."""
    clip = clips()[kind]
    away = np.abs(ours(name, argument, clip).astype(int) - pillows(pillow, clip))
    assert away.max() <= 1
    assert (away > 0).mean() < 0.005


def test_the_list_is_covered():
    assert {name for name, *_ in EXACT + MOVED} >= set(NAMES)


def test_a_picture_moved_by_whole_pixels_is_itself():
    clip = torch.arange(2 * 4 * 5 * 3, dtype=torch.uint8).view(2, 4, 5, 3)
    left = apply_operations(clip, [Operation("translate_x", 2 / 5)])
    assert torch.equal(left[:, :, :3], clip[:, :, 2:])
    assert (left[:, :, 3:] == 128).all()
    up = apply_operations(clip, [Operation("translate_y", -1 / 4)])
    assert torch.equal(up[:, 1:], clip[:, :-1])
    assert (up[:, 0] == 128).all()


@pytest.mark.parametrize("turn", [-0.5, -0.1, 0.0, 0.07, 0.3, 0.5])
def test_hue_is_colorsys(turn):
    clip = np.random.default_rng(1).integers(0, 256, (1, 12, 12, 3), dtype=np.uint8)
    clip[0, 0] = np.arange(12)[:, None] * 20  # greys have no hue
    result = ours("hue", turn, clip)
    for pixel, turned in zip(clip.reshape(-1, 3) / 255, result.reshape(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        expected = np.array(colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)) * 255
        np.testing.assert_allclose(turned, expected, atol=0.51)


def test_a_box_of_the_result_is_cut_from_the_whole():
    """Whatever is drawn, and in whichever order: only less is computed."""
    clip, rng = torch.from_numpy(clips()["noise"]), np.random.default_rng(3)
    policy, chains = RandAugment("m9-n6-mstd0.5-inc1"), [[Operation(*one[:2])] for one in EXACT + MOVED]
    for operations in chains + [policy.draw(rng) for _ in range(150)]:
        whole = apply_operations(clip, operations)
        box = random_resized_box(31, 45, (0.01, 0.6), (0.3, 3), rng)
        assert torch.equal(apply_operations(clip, operations, box), crop_box(whole, box)), list(map(str, operations))


@pytest.mark.parametrize(("values", "side"), [(1, 7), (200, 5), (1500, 16)])
def test_pieces_make_up_the_whole(monkeypatch, values, side):
    """Frames, rows and squares that are made one after the other, of whatever size, give the same pixels."""
    clip = torch.from_numpy(clips()["noise"])
    chains = [[Operation(name, argument)] for name, argument, _ in EXACT + MOVED if argument not in (0.0, 1.0, 8)]
    expected = [apply_operations(clip, chain) for chain in chains]
    normal = normalize(clip, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    for module in (crops, transforms):
        monkeypatch.setattr(module, "PIECE", values)
    monkeypatch.setattr(affine, "TILE", side)
    for chain, result in zip(chains, expected, strict=True):
        assert torch.equal(apply_operations(clip, chain), result), str(chain[0])
    assert torch.equal(normalize(clip, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)), normal)
    assert torch.equal(normalize(clip[None], (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))[0], normal)


def test_shears_and_shifts_are_alike_without_numpy(monkeypatch):
    """On another device torch makes the copies that NumPy makes on the CPU."""
    clip = torch.from_numpy(clips()["noise"])
    chains = [[Operation(name, argument)] for name, argument, _ in MOVED if name != "rotate"]
    expected = [apply_operations(clip, chain) for chain in chains]
    monkeypatch.setattr(affine, "_lines", lambda clip, axis: clip if axis == 2 else clip.transpose(1, 2))
    for chain, result in zip(chains, expected, strict=True):
        assert torch.equal(apply_operations(clip, chain), result), str(chain[0])


class Counter(TorchDispatchMode):
    """Counts the calls into torch."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls += 1
        return function(*args, **(kwargs or {}))


def calls(function):
    with Counter() as counter:
        function()
    return counter.calls


@pytest.mark.parametrize(
    ("name", "argument"), [(n, a) for n, a, _ in EXACT + MOVED if a not in (0.0, 8)] + [("hue", 0.1)]
)
def test_no_operation_loops_over_frames(name, argument):
    few, many = (np.random.default_rng(0).integers(0, 256, (t, 16, 20, 3), dtype=np.uint8) for t in (2, 24))
    assert calls(lambda: ours(name, argument, few)) == calls(lambda: ours(name, argument, many))


@pytest.mark.parametrize(
    "options",
    [{}, {"crop": "multi_scale", "color_jitter": (0.4, 0.4, 0.4, 0.1)}, {"crop": "random", "short_side": (20, 24)}],
)
def test_no_augmentation_loops_over_frames(options):
    augmentation = Augmentation(16, **options, erase_mode="pixel_per_frame")
    few, many = (torch.zeros(t, 30, 40, 3, dtype=torch.uint8) for t in (2, 24))
    for seed in range(5):
        counts = []
        for clip in (few, many):
            drawn = augmentation.draw(30, 40, generator=torch.Generator().manual_seed(seed))
            counts.append(calls(lambda clip=clip, drawn=drawn: augmentation.apply(clip, drawn)))
        assert counts[0] == counts[1]
    values = [torch.zeros(t, 3, 16, 16) for t in (2, 24)]
    erasing = Augmentation(16, erase_prob=1.0)
    counts = [calls(lambda v=v: erasing.erase(v, generator=torch.Generator().manual_seed(0))) for v in values]
    assert counts[0] == counts[1]


def test_mixing_loops_over_nothing():
    counts = []
    for batch, frames in ((2, 2), (16, 24)):
        clips, labels = torch.zeros(batch, frames, 3, 8, 8), torch.zeros(batch, dtype=torch.long)
        mixing = Mixing(mode="elem", mixup=0)
        counts.append(calls(lambda c=clips, y=labels, m=mixing: m(c, y, num_labels=3, generator=torch.Generator())))
    assert counts[0] == counts[1]
