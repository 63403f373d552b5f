"""Samples of boxes: boxes stay where the pixels go through every augmentation, labels follow mirrors, batches are
padded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from moving_people import ACTIONS, write_scenes

import hf_video
from hf_video.data.datasets.boxes import BoxAugmentation, BoxCollator, BoxDataset
from hf_video.data.sources.boxes import load_boxes
from hf_video.errors import DataError, VideoOptionError

PROCESSOR = hf_video.SlowFastImageProcessor(
    size={"shortest_edge": 32}, do_center_crop=False, num_frames=4, sampler="center", sampler_options={"stride": 2}
)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    return load_boxes(folder / "videos", write_scenes(folder / "videos", 4), actions=ACTIONS, test_size=0)["train"]


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize(
    "options", [{}, {"size": 30}, {"short_side": (40, 70)}, {"size": 40, "short_side": 50}, {"shift": 0.3}]
)
def test_boxes_stay_on_their_pixels(options, flip):
    """Two rectangles, a red and a green one: what is left of each is where its box says."""
    frames = torch.zeros(2, 48, 64, 3, dtype=torch.uint8)
    frames[:, 8:20, 6:18, 0], frames[:, 24:44, 40:52, 1] = 200, 200
    boxes = np.array([[6.0, 8, 18, 20], [40, 24, 52, 44]])
    for seed in range(8):
        draw = torch.Generator().manual_seed(seed)
        clip, found, kept, mirrored = BoxAugmentation(flip=flip, **options)(frames, boxes, draw)
        assert mirrored == bool(flip)
        assert len(found) == len(kept) >= 1
        for box, number in zip(found, kept, strict=True):
            at = clip[0, :, :, number].float().numpy() > 100
            rows, columns = np.flatnonzero(at.any(1)), np.flatnonzero(at.any(0))
            shown = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            np.testing.assert_allclose(shown, box, atol=1.6)


def test_jitter_stays_in_its_range_and_in_the_frame():
    frames, box = torch.zeros(1, 100, 100, 3, dtype=torch.uint8), np.array([[20.0, 30, 60, 90]])
    found = np.concatenate([
        BoxAugmentation(flip=0, jitter=(0.2, 0.1, 0.3, 0.05))(frames, box, torch.Generator().manual_seed(i))[1]
        for i in range(200)
    ])  # fmt: skip
    low, high = found.min(0), found.max(0)
    assert (low >= [12, 12, 56, 87]).all()
    assert (high <= [24, 33, 68, 100]).all()
    assert np.ptp(found, axis=0).min() > 5


def test_samples_and_batches(rows):
    data = BoxDataset(rows, PROCESSOR)
    assert len(data) == 8
    sample = data[0]
    assert sample["pixel_values"].shape == (4, 3, 32, 48)
    assert sample["labels"].shape == (len(rows[0].boxes), 4)
    torch.testing.assert_close(sample["boxes"], torch.tensor(rows[0].boxes) * torch.tensor([48, 32, 48, 32]))
    assert sample["labels"].argmax(1).tolist() == [one for (one,) in rows[0].actions]
    other = {**data[1], "pixel_values": data[1]["pixel_values"][:, :, :30, :20]}
    batch = BoxCollator()([sample, other])
    most = max(len(sample["boxes"]), len(other["boxes"]))
    assert batch["boxes"].shape == (2, most, 4)
    assert batch["pixel_values"].shape == (2, 4, 3, 32, 48)
    assert (batch["pixel_values"][1, :, :, 30:] == 0).all()
    counted = (batch["labels"] != -100).all(2).sum(1)
    assert counted.tolist() == [len(sample["boxes"]), len(other["boxes"])]


def test_epochs_draw_anew_and_again_alike(rows):
    data = BoxDataset(rows, PROCESSOR, augmentation=BoxAugmentation(size=30, jitter=(0.1,) * 4), repeats=2)
    first, again = data[0], data[0]
    assert not torch.equal(first[0]["pixel_values"], first[1]["pixel_values"])
    assert all(torch.equal(a["pixel_values"], b["pixel_values"]) for a, b in zip(first, again, strict=True))
    data.set_epoch(1)
    assert not torch.equal(data[0][0]["pixel_values"], first[0]["pixel_values"])


def test_mirrors_and_sides(rows):
    sided = type(rows)(rows.rows, ["turn left", "turn right", "sit", "stand"])
    with pytest.raises(VideoOptionError, match="left from right"):
        BoxDataset(sided, PROCESSOR, augmentation=BoxAugmentation())
    swapped = BoxDataset(sided, PROCESSOR, augmentation=BoxAugmentation(flip="swap"))
    assert swapped.mirrored == [1, 0, 2, 3]
    plain = BoxDataset(rows, PROCESSOR)
    seen = set()
    for seed in range(8):
        swapped.seed = seed
        labels = swapped[0]["labels"]
        mirrored = not torch.equal(labels, plain[0]["labels"])
        seen.add(mirrored)
        assert torch.equal(labels, plain[0]["labels"][:, [1, 0, 2, 3]] if mirrored else plain[0]["labels"])
    assert True in seen or not plain[0]["labels"][:, :2].any()


def test_what_is_refused(rows):
    with pytest.raises(DataError, match="load_boxes"):
        BoxDataset(hf_video.data.VideoRows([hf_video.data.VideoRow("a.mp4", 0, "a")], ["x"]), PROCESSOR)
    for options, words in (({"flip": 2}, "flip"), ({"jitter": (1, 1)}, "four shares"), ({"size": 0}, "size")):
        with pytest.raises(VideoOptionError, match=words):
            BoxAugmentation(**options)
