"""Models learn what needs the order of frames, from scratch; and convolutional ones answer for a file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mvit.test_mvit import TINY, VERSION2
from transformers import pipeline

import hf_video
from hf_video.data.moving_glyphs import DIRECTIONS, OPPOSITE, moving_glyphs
from hf_video.video import write_video

LABELS = list(DIRECTIONS)
RESNET = {"architecture": "resnet", "depths": [1, 1, 1], "temporal_kernels": [[3], [3], [3]]}
X3D = {"stem_channels": 8, "depth_factor": 0.5, "head_size": 128, "num_frames": 8, "image_size": 32}
SMALL = {
    "inception": ("I3D", {"stem_channels": 8, "num_frames": 8, "image_size": 32}),
    "resnet": ("I3D", {**RESNET, "stem_channels": 8, "num_frames": 8, "image_size": 32}),
    "slowfast": (
        "SlowFast",
        {
            "stem_channels": 16,
            "depths": [1, 1, 1],
            "slow_kernels": [1, 3, 3],
            "alpha": 2,
            "fast_kernels": [3, 3, 3],
            "num_frames": 8,
            "image_size": 32,
        },
    ),
    "x3d": ("X3D", X3D),
    "x3d-causal": ("X3D", {**X3D, "causal": True}),
    "c3d": ("C3D", {"stem_channels": 8, "fc_size": 64, "num_frames": 16, "image_size": 32}),
}


MVIT = {"image_size": 32, "num_frames": 8, "embed_dim": 32, "pool_kv_stride_adaptive": [1, 2, 2]}
SWIN = {"embed_dim": 32, "depths": (2, 2), "num_heads": (2, 4), "window_size": (4, 4, 4), "num_frames": 8}
LEARNING = {
    **SMALL,
    "mvit-v1": ("MViT", {**TINY, **MVIT}),
    "mvit-v2": ("MViT", {**VERSION2, **MVIT}),
    "video_swin": ("VideoSwin", SWIN),
}
# Clips, steps, peak learning rate and share of warm-up, where they are not those of convolutional models.
RUNS = {"mvit": (2000, 120, 2e-3, 0.2), "video_swin": (2400, 300, 2e-3, 0.1)}


def small_model(name: str):
    family, fields = LEARNING[name]
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    fields = {**fields, **names, **({"classifier_dropout": 0.0} if name in SMALL else {})}
    fields.pop("num_labels", None)
    return getattr(hf_video, f"{family}ForVideoClassification")(getattr(hf_video, f"{family}Config")(**fields))


def clips(count: int, seed: int, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Glyphs that move over a torus: (count, frames, 3, 32, 32) about 0, and the number of their direction."""
    made = moving_glyphs(count, seed, num_frames=frames, size=32, speed=4)
    pixels = torch.from_numpy(np.stack([clip.frames for clip in made])).movedim(-1, 2).float()
    return pixels / 127.5 - 1, torch.tensor([LABELS.index(clip.direction) for clip in made])


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNING)
def test_moving_glyphs(name, cpu_seconds):
    """X3D: 100 % held out and backwards, 26 % still, 42 CPU seconds on a busy machine. (With last norms that start at
    zero it is undecided between the two ways of a motion for 400 steps.) Video Swin: 100 %, 25 % still. (Half of the
    steps are enough with `initializer_range=0.1`: the authors' .02 is made for three times the width.)"""
    torch.manual_seed(0)
    model = small_model(name).train()
    frames = model.config.num_frames
    count, steps, rate, warmup = RUNS.get(model.config.model_type, (2000, 250, 3e-3, 0.2))
    videos, labels = clips(count, 0, frames)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=warmup)
    for _ in range(steps):
        rows = torch.randint(len(videos), (32,))
        model(videos[rows], labels=labels[rows]).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(), schedule.step(), optimizer.zero_grad()

    model.eval()
    videos, labels = clips(400, 1, frames)
    opposite = torch.tensor([LABELS.index(OPPOSITE[name]) for name in LABELS])[labels]
    with torch.no_grad():
        right = (model(videos).logits.argmax(-1) == labels).float().mean()
        backwards = (model(videos.flip(1)).logits.argmax(-1) == opposite).float().mean()
        still = (model(videos[:, :1].expand(-1, frames, -1, -1, -1)).logits.argmax(-1) == labels).float().mean()
    print(f"as it is {right:.4f}, backwards {backwards:.4f}, still {still:.4f}, {cpu_seconds():.0f} CPU seconds")
    assert right >= 0.95
    assert backwards >= 0.95
    assert still <= 0.4
    assert cpu_seconds() <= 300


@pytest.mark.parametrize("name", SMALL)
def test_pipeline_answers_for_a_file(name, tmp_path):
    model, family = small_model(name), SMALL[name][0]
    model.save_pretrained(tmp_path / "model")
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    getattr(hf_video, f"{family}ImageProcessor")(**size).save_pretrained(tmp_path / "model")
    classify = pipeline("video-classification", model=str(tmp_path / "model"))
    frames = np.random.default_rng(0).integers(0, 256, (24, 48, 80, 3), dtype=np.uint8)
    answers = classify(str(write_video(tmp_path / "clip.mp4", frames, 8)), top_k=4)
    assert {answer["label"] for answer in answers} == set(LABELS)
    assert abs(sum(answer["score"] for answer in answers) - 1) < 1e-5
    assert classify.image_processor.num_frames == model.config.num_frames
