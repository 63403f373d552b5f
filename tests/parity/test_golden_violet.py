"""VIOLET's trunk and heads against the authors' own code, through `from_official`."""

from __future__ import annotations

import pytest
import torch
from golden_cases import CASES, Golden

import hf_video
from hf_video.models.published_inputs import IMAGENET_MEAN, IMAGENET_STD

CLASSES = {
    "violet_pretrain": "VioletForPreTraining",
    "violet_pretrain_full": "VioletForPreTraining",
    "violet_qa_choice": "VioletForMultipleChoice",
    "violet_qa_open": "VioletForQuestionAnswering",
    "violet_retrieval": "VioletForVideoTextRetrieval",
}
NAMES = [pytest.param(n, marks=[pytest.mark.slow] if CASES[n]["full_config"] else []) for n in CLASSES]


def load(name: str, **overrides):
    golden = Golden(name)
    model = hf_video.from_official("violet", golden.checkpoint, **golden.config, **overrides)
    assert type(model).__name__ == CLASSES[name]
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    golden.inputs["video"] = (golden.inputs["video"] - mean) / std  # officially inside the model
    return golden, model


@torch.no_grad()
def answers(golden, model) -> dict[str, torch.Tensor]:
    ids, mask, video = (golden.inputs[name] for name in ("input_ids", "attention_mask", "video"))
    output = model(ids, mask, video)
    corner = (slice(None), slice(8), slice(16))
    found = {"video_tokens_8x16": model.violet.embed_video(video)[corner]}
    if "logits_per_video" in output:
        return found | {"scores_over_0.05": output.logits_per_video}
    if "logits" in output:
        return found | {"logits": output.logits}
    states = model.violet(ids, mask, video)
    return found | {
        "mtm_logits_8x16": output.mtm_logits[corner],
        "mvm_logits_8x16": output.mvm_logits[corner],
        "mvm_logits_mean": output.mvm_logits.mean(-1),
        "vtm_matched_logit": output.vtm_logits[:, 0],
        "cross_hidden_8x16": states.last_hidden_state[corner],
        "cross_text_cls": states.text_cls,
    }


@pytest.mark.parametrize("name", NAMES)
def test_official_numbers(name):
    golden, model = load(name)
    golden.compare(answers(golden, model))


@pytest.mark.parametrize("name", ["violet_pretrain", "violet_qa_open", "violet_retrieval", "violet_qa_choice"])
def test_a_golden_case_can_fail(name):
    """Padding counts as words: past the tolerance."""
    golden, model = load(name)
    assert not golden.inputs["attention_mask"].all()
    golden.inputs["attention_mask"] = torch.ones_like(golden.inputs["attention_mask"])
    with pytest.raises(AssertionError, match=r"logit|scores|cross"):
        golden.compare(answers(golden, model))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_implementations(implementation):
    golden, model = load("violet_retrieval")
    model.set_attn_implementation(implementation)
    assert model.violet.bert.config._attn_implementation == implementation
    golden.compare(answers(golden, model))
