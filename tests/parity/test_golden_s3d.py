"""S3D-G against the HowTo100M model's own code, through `from_official`."""

from __future__ import annotations

import pytest
import torch
from golden_cases import CASES, Golden

import hf_video

NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] if case["full_config"] else [])
    for name, case in CASES.items()
    if name.startswith("s3dg")
]
# What the authors' modules are called in ours.
INNER = {
    "conv1_8x16": "embeddings.conv_1",
    "gating_8x16": "embeddings.gate",
    "mixed_3c_8x16": "encoder.layer.1",
    "mixed_4c_8x16": "encoder.layer.3",
    "mixed_4f_8x16": "encoder.layer.6",
    "mixed_5c_8x16": "encoder.layer.8",
}


@torch.no_grad()
def answers(model, video) -> dict[str, torch.Tensor]:
    seen = {}
    for name, place in INNER.items():
        model.get_submodule(place).register_forward_hook(lambda _, __, out, name=name: seen.__setitem__(name, out))
    features = model.get_video_features(video)
    inner = {name: out.flatten(2).transpose(1, 2)[:, :8, :16] for name, out in seen.items()}
    return {"video_embedding": features.embedding, "mixed_5c_mean": features.feature_map.mean((1, 2, 3)), **inner}


@pytest.mark.parametrize("name", NAMES)
def test_official_numbers(name):
    golden = Golden(name)
    model = hf_video.from_official("s3d", golden.checkpoint, **golden.config)
    golden.compare(answers(model, golden.inputs["video"]))


def test_a_golden_case_can_fail():
    """Without its gates, the network goes past the tolerance."""
    golden = Golden("s3dg_howto100m_gain")
    model = hf_video.from_official("s3d", golden.checkpoint, **golden.config)
    torch.nn.init.zeros_(model.encoder.layer[8].b0[1].fc.weight)
    with pytest.raises(AssertionError, match=r"video_embedding|mixed_5c"):
        golden.compare(answers(model, golden.inputs["video"]))
