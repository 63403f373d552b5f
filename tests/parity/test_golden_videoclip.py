"""CLIP4Clip's four heads and its 3-D patches against the authors' own code, through `from_official`."""

from __future__ import annotations

import pytest
import torch
from golden_cases import CASES, Golden

import hf_video

NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] if case["full_config"] else [])
    for name, case in CASES.items()
    if name.startswith("clip4clip")
]


def load(name: str):
    golden = Golden(name)
    return golden, hf_video.from_official("videoclip", golden.checkpoint, **golden.config)


@torch.no_grad()
def answers(golden, model) -> dict[str, torch.Tensor]:
    inputs = golden.inputs
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    output = model(ids, mask, inputs["video"], video_mask=inputs["video_mask"], return_loss=True)
    raw = model.get_text_features(ids, mask).projected
    return {
        "logits_per_text": output.logits_per_text,
        "loss": output.loss,
        "text_embeds_raw": raw,
        "frame_embeds_raw": output.frame_embeds,
    }


@pytest.mark.parametrize("name", NAMES)
def test_official_numbers(name):
    golden, model = load(name)
    golden.compare(answers(golden, model))


@pytest.mark.parametrize("name", ["clip4clip_meanP", "clip4clip_seqTransf", "clip4clip_tightTransf"])
def test_a_golden_case_can_fail(name):
    """The masked frames count as real ones: past the tolerance."""
    golden, model = load(name)
    golden.inputs["video_mask"] = torch.ones_like(golden.inputs["video_mask"])
    with pytest.raises(AssertionError, match="logits_per_text"):
        golden.compare(answers(golden, model))
