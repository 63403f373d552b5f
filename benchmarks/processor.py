"""Image processors: 16 uint8 frames to `pixel_values`, ours against transformers' PIL one (no torchvision)."""

from __future__ import annotations

import numpy as np

from benchmarks import clips
from benchmarks.measure import Row, compare, race, require_close
from benchmarks.setting import Setting

AREA = "processor"
TARGET = 0.25
ONE_LEVEL = 1.001 / 255 / 0.224  # one of 256 levels, after dividing by the smallest standard deviation


def processors():
    """(ours, stock), both with VideoMAE's official settings."""
    from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil

    import hf_video

    stock = VideoMAEImageProcessorPil(image_mean=IMAGENET_DEFAULT_MEAN, image_std=IMAGENET_DEFAULT_STD)
    return hf_video.VideoMAEImageProcessor(), stock


def run(setting: Setting) -> list[Row]:
    ours, stock = processors()
    sizes = [(120, 160)] if setting.quick else [(240, 320), (480, 640)]
    rows = []
    for height, width in sizes:
        frames = list(clips.content(16, height, width))
        got, expected = (p(frames, return_tensors="pt")["pixel_values"].float().numpy() for p in (ours, stock))
        difference = np.abs(got - expected).max()
        require_close(f"pixel_values of {height}x{width}", difference, ONE_LEVEL)
        candidates = {
            "hf_video": lambda: ours(frames, return_tensors="pt"),  # noqa: B023 - raced within this turn
            "stock PIL processor": lambda: stock(frames, return_tensors="pt"),  # noqa: B023
        }
        times = race(candidates, setting.rounds)
        note = f"largest difference {difference / ONE_LEVEL:.2f} of a level of 255"
        job = f"16x{height}x{width} uint8 frames to pixel_values"
        rows.append(
            compare(times, *candidates, area=AREA, job=job, kind="cpu", target=setting.target(TARGET), note=note)
        )
    return rows
