"""ViViT against recorded numbers, through `from_official`. The oracle is plain transformers: the original is JAX."""

from __future__ import annotations

import pytest
import torch
from golden_cases import CASES, Golden

import hf_video

SLOW = {True: [pytest.mark.slow], False: []}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=SLOW[c["full_config"]]) for n, c in CASES.items() if n.startswith("vivit")],
)
@torch.no_grad()
def test_vivit(name):
    golden = Golden(name)
    model = hf_video.from_official("vivit", golden.checkpoint, **golden.config)
    assert not model.training
    video = golden.inputs["video"]
    state = model.vivit(video).last_hidden_state
    golden.compare({"logits": model(video).logits, "last_hidden_state_8x16": state[:, :8, :16]})
