"""ViViT's four models learn what needs the order of frames, from scratch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import hf_video
from hf_video.data.moving_glyphs import DIRECTIONS, OPPOSITE, moving_glyphs
from hf_video.models.vivit.configuration_vivit import ATTENTION_TYPES

LABELS = list(DIRECTIONS)
STEPS, BATCH, RATE = 400, 32, 2e-3


def clips(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Glyphs that move over a torus: (count, 8, 3, 32, 32) in [-1, 1], and the number of their direction."""
    made = moving_glyphs(count, seed, num_frames=8, size=32, speed=4)
    pixels = torch.from_numpy(np.stack([clip.frames for clip in made])).movedim(-1, 2).float()
    return pixels / 127.5 - 1, torch.tensor([LABELS.index(clip.direction) for clip in made])


def small_model(attention_type: str):
    config = hf_video.VivitConfig(
        image_size=32,
        num_frames=8,
        tubelet_size=[2, 8, 8],
        hidden_size=64,
        num_hidden_layers=3 if attention_type == "factorized_encoder" else 4,
        num_temporal_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        num_labels=len(LABELS),
        attention_type=attention_type,
        initializer_range=0.2,  # of positions; the official 0.02 is for 768 channels
    )
    return hf_video.VivitForVideoClassification(config)


@pytest.mark.slow
@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
def test_moving_glyphs(attention_type):
    torch.manual_seed(0)
    model = small_model(attention_type).train()
    videos, labels = clips(2000, 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS, pct_start=0.2)
    for _ in range(STEPS):
        rows = torch.randint(len(videos), (BATCH,))
        model(videos[rows], labels=labels[rows]).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(), schedule.step(), optimizer.zero_grad()

    model.eval()
    videos, labels = clips(400, 1)
    opposite = torch.tensor([LABELS.index(OPPOSITE[name]) for name in LABELS])[labels]
    with torch.no_grad():
        right = (model(videos).logits.argmax(-1) == labels).float().mean()
        backwards = (model(videos.flip(1)).logits.argmax(-1) == opposite).float().mean()
        still = (model(videos[:, :1].expand(-1, 8, -1, -1, -1)).logits.argmax(-1) == labels).float().mean()
    assert right >= 0.95
    assert backwards >= 0.95
    assert still <= 0.4
