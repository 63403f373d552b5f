"""Classifiers of boxes against PySlowFast, VideoMAE-Action-Detection and mmaction2: the maps, grown boxes, what the
classifier sees, logits and scores; and the keys of the published sizes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from detection_cases import DetectionCase
from torch import nn

import hf_video
from hf_video.base.detection.box_convert import mmaction_head
from hf_video.base.detection.box_modeling import BoxHead, grown_boxes, pool_time
from hf_video.errors import CheckpointError
from hf_video.layers.convolution import BatchNorm
from hf_video.layers.non_local import NonLocalBlock

PARTS = ("shared", "specs", "keys_detection")
KEYS = next((one.joinpath(*PARTS) for one in Path(__file__).parents if one.joinpath(*PARTS).is_dir()), None)


def by_clip(rois: torch.Tensor, clips: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (batch, x1, y1, x2, y2) as padded boxes (clips, boxes, 4), and which of them are there."""
    groups = [rois[rois[:, 0] == clip, 1:] for clip in range(clips)]
    there = [torch.ones(len(group), dtype=torch.bool) for group in groups]
    pad = nn.utils.rnn.pad_sequence
    return pad(groups, batch_first=True), pad(there, batch_first=True)


def answers(model, video, rois):
    boxes, there = by_clip(rois, len(video))
    seen = []
    model.box_head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    logits = model(video, boxes).logits
    return logits[there], seen[0][there], boxes, there


@torch.no_grad()
@pytest.mark.parametrize("name", ["slow_r50_ava", "slowfast_r50_ava"])
def test_slowfast(name):
    case = DetectionCase(name)
    model = hf_video.from_official("slowfast", {"model_state": case.checkpoint}, **case.config)
    assert model.config.fast_pathway == ("slowfast" in name)
    video = case.inputs.get("video", case.inputs.get("fast")).transpose(1, 2)
    if "slow" in case.inputs:  # the case draws both pathways' frames apart
        model.slowfast.embeddings.slow_frames = lambda _: case.inputs["slow"]
    logits, pooled, _, _ = answers(model, video, case.inputs["rois"])
    case.compare({"logits": logits, "scores": logits.sigmoid(), "pooled_16ch": pooled[:, :16]})


@torch.no_grad()
@pytest.mark.parametrize("name", ["videomae_ava", "videomae_ava_square"])
def test_videomae(name):
    case = DetectionCase(name)
    model = hf_video.from_official("videomae", {"module": case.checkpoint}, **case.config)
    video = case.inputs["video"].transpose(1, 2)
    logits, pooled, boxes, there = answers(model, video, case.inputs["rois"])
    grown = grown_boxes(boxes, model.config.box_growth, video.shape[-2:])[there]
    maps = model.encode_maps(video)[0][:, :8]
    case.compare({"logits": logits, "pooled": pooled, "map_8ch": maps, "extended_boxes": grown})


def test_clips_that_patches_do_not_divide_are_padded():
    case = DetectionCase("videomae_ava")
    model = hf_video.from_official("videomae", {"module": case.checkpoint}, **case.config).train()
    video, boxes = torch.randn(1, 8, 3, 60, 90), torch.tensor([[[2.0, 3, 50, 55]]])
    padded = nn.functional.pad(video, (0, 6, 0, 4))
    torch.testing.assert_close(model(video, boxes).logits, model(padded, boxes).logits)


@torch.no_grad()
@pytest.mark.parametrize("name", ["mmaction_ava_slowfast", "mmaction_ava_context", "mmaction_ava_temporal_max"])
def test_mmaction(name):
    case = DetectionCase(name)
    values, tensors = mmaction_head(case.checkpoint, case.config["extractor"], case.config["head"])
    maps = [case.inputs[pathway] for pathway in ("slow", "fast") if pathway in case.inputs]
    config = hf_video.SlowFastConfig(**values)
    pooled = torch.cat([pool_time(one, config.box_time_pool) for one in maps], dim=1)
    head = BoxHead(config, pooled.shape[1]).eval()
    head.load_state_dict(tensors)
    boxes, there = by_clip(case.inputs["rois"], len(pooled))
    logits = head(head.vectors(pooled, boxes / 16))[there]
    expected, tolerance = case.expected["cls_score"][:, 1:], case.case["outputs"]["cls_score"]["tolerance"]
    torch.testing.assert_close(logits, expected, atol=tolerance, rtol=0)


def test_heads_of_mmaction_that_pool_otherwise_are_refused():
    state = {"bbox_head.fc_cls.weight": torch.zeros(6, 4), "bbox_head.fc_cls.bias": torch.zeros(6)}
    with pytest.raises(CheckpointError, match="'avg'"):
        mmaction_head(state, {"with_temporal_pool": True}, {"spatial_pool_type": "avg"})
    with pytest.raises(CheckpointError, match="bbox_head"):
        mmaction_head({"head.weight": torch.zeros(1)}, {}, {})


FILES = {
    "slowfast_ava_slow_8x8_r50_short": 31_80,
    "slowfast_ava_slowfast_32x2_r50_short": 33_83,
    "slowfast_ava_slowfast_32x2_r101_50_50": 59_34,
    "slowfast_ava_slowfast_64x2_r101_50_50": 59_34,
    "videomae_ava_small": 21_91,
    "videomae_ava_base": 86_29,
    "videomae_ava_large": 303_94,
}


@pytest.mark.skipif(KEYS is None, reason="needs the published lists of keys")
@pytest.mark.parametrize("name", FILES)
def test_published_keys(name):
    listed = json.loads((KEYS / f"{name}.json").read_text())
    with torch.device("meta"):
        state = {key: torch.empty(shape, dtype=getattr(torch, dtype)) for key, (shape, dtype) in listed.items()}
        model = hf_video.from_official(name.partition("_")[0], state)
    assert type(model).__name__.endswith("ForSpatioTemporalActionDetection")
    assert round(sum(p.numel() for p in model.parameters()) / 1e4) == FILES[name]
    assert model.config.num_labels == 80


def to_pytorchvideo(key: str) -> str:
    """A key of our Slow under the name that PyTorchVideo's detection network has for it."""
    layers = [(stage + 1, block) for stage, depth in enumerate((1, 2)) for block in range(depth)]
    key = key.replace("slowfast.embeddings.slow.", "model.blocks.0.").replace(
        "box_head.classifier", "detection_head.proj"
    )
    for number, (stage, block) in enumerate(layers):
        key = key.replace(f"slowfast.encoder.layer.{number}.slow.", f"model.blocks.{stage}.res_blocks.{block}.")
    for unit in "abc":
        key = key.replace(f"conv_{unit}.conv.", f"branch2.conv_{unit}.").replace(
            f"conv_{unit}.norm.", f"branch2.norm_{unit}."
        )
    return key.replace("shortcut.conv.", "branch1_conv.").replace("shortcut.norm.", "branch1_norm.")


def test_pytorchvideo():
    config = hf_video.SlowFastConfig(
        stem_channels=8, depths=[1, 2], slow_kernels=[1, 3], fast_kernels=[3, 3], fast_pathway=False, num_labels=80,
        spatial_strides=[1, 1], spatial_dilations=[1, 2], box_aligned=False,
    )  # fmt: skip
    model = hf_video.SlowFastForSpatioTemporalActionDetection(config).eval()
    state = {to_pytorchvideo(key): value for key, value in model.state_dict().items()}
    converted = hf_video.from_official("slowfast", {"model_state": state})
    video, boxes = torch.randn(1, 4, 3, 32, 48), torch.tensor([[[0.0, 4, 30, 28]]])
    torch.testing.assert_close(converted(video, boxes).logits, model(video, boxes).logits)
    assert not converted.config.box_aligned


@pytest.mark.parametrize("normalization", ["dot_product", "softmax"])
def test_non_local_block(normalization):
    """Against its definition, place by place."""
    block = NonLocalBlock(6, 3, pool=(1, 2, 2), normalization=normalization).double().eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    assert isinstance(block.norm, BatchNorm)
    x = torch.randn(1, 6, 2, 4, 5).double()
    pooled = nn.functional.max_pool3d(x, (1, 2, 2))
    places = [pooled[0, :, t, i, j] for t in range(2) for i in range(2) for j in range(2)]
    linear = {name: (getattr(block, name).weight[:, :, 0, 0, 0], getattr(block, name).bias) for name in
              ("query", "key", "value", "output")}  # fmt: skip
    apply = lambda name, v: linear[name][0] @ v + linear[name][1]  # noqa: E731
    query = apply("query", x[0, :, 1, 2, 3])
    products = torch.stack([query @ apply("key", place) for place in places])
    weights = (products / 3**0.5).softmax(0) if normalization == "softmax" else products / len(places)
    seen = sum(w * apply("value", place) for w, place in zip(weights, places, strict=True))
    norm = block.norm
    answer = norm.weight * apply("output", seen) / (1 + norm.eps) ** 0.5 + norm.bias
    torch.testing.assert_close(block(x)[0, :, 1, 2, 3], x[0, :, 1, 2, 3] + answer)
