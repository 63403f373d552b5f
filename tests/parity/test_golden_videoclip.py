"""CLIP4Clip's four heads and its 3-D patches, and Facebook's VideoCLIP, against the authors' own code, through
`from_official`."""

from __future__ import annotations

import pytest
import torch
from golden_cases import CASES, Golden

import hf_video
from hf_video.errors import CheckpointError

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


MMPT = [
    pytest.param(name, marks=[pytest.mark.slow] if case["full_config"] else [])
    for name, case in CASES.items()
    if name.startswith("videoclip_mmpt")
]


@torch.no_grad()
def mmpt_answers(golden, model) -> dict[str, torch.Tensor]:
    inputs, seen = golden.inputs, {}
    # [CLS] [SEP] words [SEP]: the first [SEP] is the video's
    ids, mask = (torch.cat([inputs[n][:, :1], inputs[n][:, 2:]], dim=1) for n in ("caps", "cmasks"))
    model.temporal_head.bert.register_forward_hook(lambda _, __, out: seen.__setitem__("video", out.last_hidden_state))
    model.text_model.register_forward_hook(lambda _, __, out: seen.__setitem__("text", out.last_hidden_state))
    features = {"segment_features": inputs["vfeats"], "video_mask": inputs["vmasks"]}
    output = model(ids, mask.long(), **features, return_loss=True)
    return {
        "pooled_video": output.video_embeds,
        "pooled_text": output.text_embeds,
        "scores": output.logits_per_video,
        "loss": output.loss,
        "video_hidden_8x16": seen["video"][:, :8, :16],
        "text_hidden_8x16": seen["text"][:, :8, :16],
    }


@pytest.mark.parametrize("name", MMPT)
def test_facebooks_videoclip(name):
    golden = Golden(name)
    model = hf_video.from_official("videoclip", golden.checkpoint, **golden.config, end_token_ids=ends(golden))
    golden.compare(mmpt_answers(golden, model))


def ends(golden) -> tuple[int, int]:
    """[CLS] and [SEP], which the authors' captions begin with."""
    return tuple(golden.inputs["caps"][0, :2].tolist())


def test_end_tokens_of_another_vocabulary_are_asked_for():
    golden = Golden("videoclip_mmpt")
    assert golden.checkpoint["model"]["mmmodel.text_encoder.embeddings.word_embeddings.weight"].shape[0] == 150
    with pytest.raises(CheckpointError, match=r"150 words.*end_token_ids=.*--set end_token_ids=\[101,102\]"):
        hf_video.from_official("videoclip", golden.checkpoint, **golden.config)
    wrong = hf_video.from_official("videoclip", golden.checkpoint, **golden.config, end_token_ids=[3, 4])
    with pytest.raises(AssertionError):
        golden.compare(mmpt_answers(golden, wrong))


def test_with_its_own_s3d():
    """Frames to S3D-G to BERT equals features that S3D-G made before."""
    mmpt, s3d = Golden("videoclip_mmpt"), Golden("s3dg_howto100m_gain")
    tower = hf_video.from_official("s3d", s3d.checkpoint, **s3d.config)
    whole = {**mmpt.checkpoint["model"], **{f"s3d.{key}": value for key, value in s3d.checkpoint.items()}}
    model = hf_video.from_official("videoclip", whole, **mmpt.config, end_token_ids=ends(mmpt))
    frames = torch.rand(1, 60, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = tower.get_video_features(frames.view(2, 30, 3, 32, 32)).embedding
        alone = model.get_video_features(segment_features=features[None]).embedding
        torch.testing.assert_close(model.get_video_features(frames).embedding, alone)
    with pytest.raises(hf_video.HFVideoError, match="segments of 30"):
        model.get_video_features(frames[:, :50])
