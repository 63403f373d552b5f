"""I3D and I3D-R50 against the code that their weights were published with, through `from_official`."""

from __future__ import annotations

import pytest
import torch
from golden_cases import CASES, Golden
from torch.nn import functional as F

import hf_video
from hf_video.layers.convolution import ConvNormAct

NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] if case["full_config"] else [])
    for name, case in CASES.items()
    if name.startswith("i3d")
]


def answers(model, golden: Golden) -> dict[str, torch.Tensor]:
    """What the case asks for, by the case's names."""
    video = golden.inputs["video"]
    output = model(video, output_hidden_states=True)
    state = output.hidden_states[-1]
    every = {
        "logits": output.logits,
        "mixed_5c_8x16": state[:, :8, :16],
        "mixed_5c_mean": state.mean(1),
        "mixed_5c_grid": torch.tensor(model.i3d.token_grid(video)).float(),
        "mixed_3b_8x16": output.hidden_states[1][:, :8, :16],
        "last_feature_8x16": state[:, :8, :16],
    }
    if "logits_per_step" in golden.expected:
        every["logits_per_step"] = model.logits_per_step(video).transpose(1, 2)
    return {name: every[name] for name in golden.expected}


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_official_numbers(name):
    golden = Golden(name)
    model = hf_video.from_official("i3d", golden.checkpoint, **golden.config)
    golden.compare(answers(model, golden))


@torch.no_grad()
def test_a_golden_case_can_fail(monkeypatch):
    """Symmetric padding in place of TensorFlow's, or PyTorch's default epsilon in the norms, go past the tolerance."""
    golden = Golden("i3d_rgb_small_features")
    model = hf_video.from_official("i3d", golden.checkpoint, **golden.config, batch_norm_eps=1e-5)
    with pytest.raises(AssertionError, match=r"logits|mixed"):
        golden.compare(answers(model, golden))
    model = hf_video.from_official("i3d", golden.checkpoint, **golden.config)
    monkeypatch.setattr(ConvNormAct, "pad", lambda unit, x: F.pad(x, (3, 3, 3, 3, 3, 3)))
    with pytest.raises(AssertionError, match=r"logits|mixed"):
        golden.compare(answers(model, golden))
