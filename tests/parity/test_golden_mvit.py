"""MViT against the authors' own code and torchvision's, through `from_official`: with the official configuration, and
with what the shapes alone tell."""

from __future__ import annotations

import pytest
import torch
from golden_cases import CASES, Golden

import hf_video

NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] if case["full_config"] else [])
    for name, case in CASES.items()
    if name.startswith("mvit")
]


@torch.no_grad()
def answers(model, video) -> dict[str, torch.Tensor]:
    state = model.mvit(video).last_hidden_state
    return {"logits": model(video).logits, "last_hidden_state_8x16": state[:, :8, :16]}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_official_numbers(name, attention):
    golden = Golden(name)
    model = hf_video.from_official("mvit", golden.checkpoint, **golden.config)
    model.set_attn_implementation(attention)
    golden.compare(answers(model, golden.inputs["video"]))
    told = {"image_size": golden.config["spatial_size"]} if "spatial_size" in golden.config else {}
    config = hf_video.from_official("mvit", golden.checkpoint, **told).config
    assert config.block_shapes() == model.config.block_shapes()
    assert (config.num_frames, config.residual_pooling) == (model.config.num_frames, model.config.residual_pooling)


def breaks(model) -> dict:
    """Mistakes that other implementations make, one at a time."""
    block = model.mvit.encoder.layer[1]
    return {
        "scale": lambda: setattr(block.attention, "scaling", block.attention.scaling * 1.01),
        "norm": lambda: setattr(block.attention.pool_k.norm, "eps", 1e-3),
        "residual": lambda: setattr(block.attention, "residual_pooling", not block.attention.residual_pooling),
    }


@pytest.mark.parametrize("name", ["mvit_v1_slowfast", "mvit_v2_torchvision_nonsquare"])
@pytest.mark.parametrize("mistake", ["scale", "norm", "residual"])
def test_a_golden_case_can_fail(name, mistake):
    golden = Golden(name)
    model = hf_video.from_official("mvit", golden.checkpoint, **golden.config)
    breaks(model)[mistake]()
    with pytest.raises(AssertionError, match=r"logits|last_hidden"):
        golden.compare(answers(model, golden.inputs["video"]))
