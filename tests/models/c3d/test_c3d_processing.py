"""C3D's processors cut what the official code cuts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import hf_video


def clip(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (16, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["C3DImageProcessor", "C3DVideoProcessor"])
def test_the_crop_is_the_official_one(kind):
    """jfzhang95/pytorch-video-recognition, inference.py: `frame[8:120, 30:142]` of BGR frames of 128x171."""
    frames = clip(128, 171)
    ours = getattr(hf_video, kind)()(frames, return_tensors="pt").pixel_values[0]
    official = frames[:, 8:120, 30:142, ::-1].astype(np.float32) - [90.0, 98.0, 102.0]
    torch.testing.assert_close(ours.movedim(1, -1), torch.from_numpy(official).float(), atol=0, rtol=0)


def test_frames_that_keep_their_proportions_are_cut_as_everywhere():
    """mmaction2's CenterCrop rounds down, and three crops lie where they always do."""
    frames = clip(128, 171)
    options = {"size": {"shortest_edge": 128}, "do_flip_channel_order": False, "image_mean": [104, 117, 128]}
    ours = hf_video.C3DImageProcessor(**options)(frames, return_tensors="pt").pixel_values[0]
    official = frames[:, 8:120, 29:141].astype(np.float32) - [104, 117, 128]
    torch.testing.assert_close(ours.movedim(1, -1), torch.from_numpy(official).float(), atol=0, rtol=0)
    three = hf_video.C3DImageProcessor(num_crops=3, do_normalize=False, do_flip_channel_order=False)
    views = three(frames, return_tensors="pt").pixel_values.movedim(2, -1)
    for view, left in zip(views, (0, 29, 59), strict=True):
        assert torch.equal(view, torch.from_numpy(frames[:, 8:120, left : left + 112]))


def test_other_sizes_are_resized_first():
    frames = clip(96, 130)
    processor = hf_video.C3DImageProcessor()
    whole = hf_video.C3DImageProcessor(do_center_crop=False)(frames, return_tensors="pt").pixel_values
    assert whole.shape[-2:] == (128, 171)
    assert torch.equal(processor(frames, return_tensors="pt").pixel_values, whole[..., 8:120, 30:142])
    small = processor(clip(64, 64), size={"height": 64, "width": 65}, return_tensors="pt").pixel_values
    assert small.shape[-2:] == (112, 112)  # set on black, as transformers does
