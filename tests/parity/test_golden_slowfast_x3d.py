"""SlowFast and X3D against PyTorchVideo, through `from_official`."""

from __future__ import annotations

import pytest
import torch
from golden_cases import CASES, Golden

import hf_video

NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] if case["full_config"] else [])
    for name, case in CASES.items()
    if name.startswith(("slowfast", "x3d"))
]
COUNTS = {"slowfast_r50_8x8_full": 34_566_488} | dict.fromkeys(("x3d_xs_full", "x3d_s_full", "x3d_m_full"), 3_794_274)


@torch.no_grad()
def answers(model, golden: Golden) -> dict[str, torch.Tensor]:
    output = model(golden.inputs["video"], output_hidden_states=True)
    # SlowFast's slow pathway comes first among the channels.
    return {"logits": output.logits, "last_feature_8x16": output.hidden_states[-1][:, :8, :16]}


@pytest.mark.parametrize("name", NAMES)
def test_official_numbers(name):
    golden = Golden(name)
    model = hf_video.from_official(name.split("_")[0], golden.checkpoint, **golden.config)
    golden.compare(answers(model, golden))
    if name in COUNTS:
        assert sum(p.numel() for p in model.parameters()) == COUNTS[name]


def test_a_golden_case_can_fail():
    """Every fourth frame in place of frames equally far apart, or windows larger than a training frame's."""
    golden = Golden("slowfast_small")
    model = hf_video.from_official("slowfast", golden.checkpoint, **golden.config)
    model.slowfast.embeddings.slow_frames = lambda x: x[:, :, ::4]
    with pytest.raises(AssertionError, match=r"logits|last"):
        golden.compare(answers(model, golden))
    golden = Golden("x3d_small")
    model = hf_video.from_official("x3d", golden.checkpoint, **{**golden.config, "input_crop_size": 96})
    with pytest.raises(AssertionError, match="logits"):
        golden.compare(answers(model, golden))
