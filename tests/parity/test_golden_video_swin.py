"""Video Swin against the authors' own code and torchvision's, through `from_official`."""

from __future__ import annotations

import pytest
import torch
from golden_cases import CASES, Golden

import hf_video
from hf_video.models.video_swin import modeling_video_swin

NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] if case["full_config"] else [])
    for name, case in CASES.items()
    if name.startswith("video_swin")
]


@torch.no_grad()
def answers(model, video) -> dict[str, torch.Tensor]:
    state = model.video_swin(video).last_hidden_state
    return {"logits": model(video).logits, "last_hidden_state_8x16": state[:, :8, :16]}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_official_numbers(name, attention):
    golden = Golden(name)
    model = hf_video.from_official("video_swin", golden.checkpoint, **golden.config)
    model.set_attn_implementation(attention)
    golden.compare(answers(model, golden.inputs["video"]))


def test_a_golden_case_can_fail(monkeypatch):
    """Windows shifted by one token less, or a mask left out, go past the tolerance."""
    monkeypatch.setattr(modeling_video_swin, "may_use_onednn", lambda *tensors: False)  # boxes have no masks
    golden = Golden("video_swin_official")
    for break_it in (
        lambda attention: setattr(attention, "shift", (0, 2, 3)),
        lambda attention: setattr(attention, "attend_windows", unmasked(attention)),
    ):
        model = hf_video.from_official("video_swin", golden.checkpoint, **golden.config)
        break_it(model.video_swin.encoder.layer[1].attention.attention)
        with pytest.raises(AssertionError, match=r"logits|last_hidden"):
            golden.compare(answers(model, golden.inputs["video"]))


def unmasked(attention):
    attend = type(attention).attend_windows
    return lambda qkv, bias, cut, axes, output_attentions: attend(attention, qkv, bias, cut, [], output_attentions)
