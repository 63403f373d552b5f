"""MViT learns what needs the order of frames, from scratch, in both versions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_mvit import TINY, VERSION2

from hf_video.data.moving_glyphs import DIRECTIONS, OPPOSITE, moving_glyphs
from hf_video.models.mvit.configuration_mvit import MViTConfig
from hf_video.models.mvit.modeling_mvit import MViTForVideoClassification

LABELS = list(DIRECTIONS)
SMALL = {"image_size": 32, "num_frames": 8, "embed_dim": 32, "num_labels": 4, "pool_kv_stride_adaptive": [1, 2, 2]}


def clips(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Glyphs that move over a torus: (count, 8, 3, 32, 32) about 0, and the number of their direction."""
    made = moving_glyphs(count, seed, num_frames=8, size=32, speed=4)
    pixels = torch.from_numpy(np.stack([clip.frames for clip in made])).movedim(-1, 2).float()
    return (pixels / 255 - 0.45) / 0.225, torch.tensor([LABELS.index(clip.direction) for clip in made])


@pytest.mark.slow
@pytest.mark.parametrize("tiny", [TINY, VERSION2], ids=["v1", "v2"])
def test_moving_glyphs(tiny):
    torch.manual_seed(0)
    model = MViTForVideoClassification(MViTConfig(**{**tiny, **SMALL})).train()
    steps, (videos, labels) = 120, clips(2000, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.2)
    for _ in range(steps):
        rows = torch.randint(len(videos), (32,))
        model(videos[rows], labels=labels[rows]).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(), schedule.step(), optimizer.zero_grad()

    model.eval()
    videos, labels = clips(400, seed=1)
    opposite = torch.tensor([LABELS.index(OPPOSITE[name]) for name in LABELS])[labels]
    with torch.no_grad():
        right = (model(videos).logits.argmax(-1) == labels).float().mean()
        backwards = (model(videos.flip(1)).logits.argmax(-1) == opposite).float().mean()
        still = (model(videos[:, :1].expand(-1, 8, -1, -1, -1)).logits.argmax(-1) == labels).float().mean()
    print(f"as it is {right:.4f}, backwards {backwards:.4f}, still {still:.4f}")
    assert right >= 0.95
    assert backwards >= 0.95
    assert still <= 0.4
