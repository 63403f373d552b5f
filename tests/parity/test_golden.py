"""Against the authors' own code, through `from_official`: TimeSformer, VideoMAE and VideoMAE v2."""

from __future__ import annotations

import pytest
import torch
from golden_cases import CASES, Golden

import hf_video
from hf_video.models.videomae.masking import running_cell_mask


def names(prefix: str, *, pretraining: bool):
    marks = {True: [pytest.mark.slow], False: []}
    return [
        pytest.param(name, marks=marks[case["full_config"]])
        for name, case in CASES.items()
        if name.startswith(prefix) and ("pretrain" in name) == pretraining
    ]


def model_and_case(name: str):
    golden = Golden(name)
    model = hf_video.from_official(name.split("_")[0], golden.checkpoint, **golden.config)
    assert not model.training
    return model, golden


@pytest.mark.parametrize("name", names("timesformer", pretraining=False))
@torch.no_grad()
def test_timesformer(name):
    model, golden = model_and_case(name)
    video = golden.inputs["video"]
    state = model.timesformer(video).last_hidden_state
    outputs = {"logits": model(video).logits, "last_hidden_state_8x16": state[:, :8, :16]}
    if "cls" in golden.expected:
        outputs["cls"] = model.get_video_features(video).embedding
    golden.compare(outputs)


@pytest.mark.parametrize("name", names("videomae", pretraining=False))
@torch.no_grad()
def test_videomae_classification(name):
    model, golden = model_and_case(name)
    video = golden.inputs["video"]
    state = model.videomae(video).last_hidden_state
    golden.compare({"logits": model(video).logits, "last_hidden_state_8x16": state[:, :8, :16]})


@pytest.mark.parametrize("name", names("videomae", pretraining=True))
@torch.no_grad()
def test_videomae_pretraining(name):
    model, golden = model_and_case(name)
    video, mask = golden.inputs["video"], golden.inputs["mask"]
    masks = {"bool_masked_pos": mask, "decoder_masked_pos": golden.inputs.get("decode_mask")}
    answer = model(video, **masks)
    outputs = {
        "loss": answer.loss,
        "predictions_8x16": answer.logits[:, :8, :16],
        "predictions_mean": answer.logits.mean(-1),
        "encoder_8x16": model.videomae(video, bool_masked_pos=mask).last_hidden_state[:, :8, :16],
    }
    if "loss_raw_pixels" in golden.expected:
        model.config.norm_pix_loss = False
        outputs["loss_raw_pixels"] = model(video, **masks).loss
    golden.compare(outputs)


def test_running_cells_are_those_of_the_official_generator():
    mask = Golden("videomae_v2_pretrain_dual_mask").inputs["decode_mask"]
    ours = running_cell_mask(64, (8, 4, 6))
    assert all((row == ours).all(1).any() for row in mask)


def test_a_golden_case_can_fail():
    """One weight changed goes past the tolerance."""
    model, golden = model_and_case("timesformer_divided")
    with torch.no_grad():
        model.timesformer.encoder.layer[0].temporal_dense.bias[0] += 0.05
    video = golden.inputs["video"]
    state = model.timesformer(video).last_hidden_state
    outputs = {"logits": model(video).logits, "last_hidden_state_8x16": state[:, :8, :16], "cls": state[:, 0]}
    with pytest.raises(AssertionError, match="cls"):
        golden.compare(outputs)
