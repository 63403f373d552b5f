"""ActionFormer, TriDet, AdaTAD and ROIAlign against the authors' own code, through `from_official` with the official
configuration: logits, offsets and masks of every level, detections in seconds and their order, targets, losses and
gradients."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from detection_cases import CASES, FOLDER, DetectionCase
from torch.nn import functional as F

import hf_video
from hf_video.layers.bag_losses import bag_cross_entropy, magnitude_loss, pool_segments, smoothness
from hf_video.layers.roi_align import roi_align
from hf_video.layers.temporal import AffineDropPath
from hf_video.layers.temporal_nms import merge_segments

NAMES = [
    name for name, case in CASES.items() if name.startswith(("actionformer", "tridet")) and not case["full_config"]
]


def load(name):
    case = DetectionCase(name)
    checkpoint = {"state_dict_ema": {f"module.{key}": value for key, value in case.checkpoint.items()}}
    return case, hf_video.from_official(name.partition("_")[0], checkpoint, **case.config)


def by_level(name, values, output):
    levels = torch.unique_consecutive(output.points[:, 3], return_counts=True)[1].tolist()
    return {f"{name}_{level}": part for level, part in enumerate(values[0].split(levels))}


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in NAMES if "train" not in name])
def test_detections(name):
    case, model = load(name)
    output = model(case.inputs["features"].T[None])
    offsets = output.offsets if output.get("center_offsets") is None else output.center_offsets
    got = by_level("logits", output.logits, output) | by_level("offsets", offsets, output)
    got |= by_level("mask", output.mask.float(), output)
    if output.get("start_logits") is not None:
        got |= by_level("start", output.start_logits, output) | by_level("end", output.end_logits, output)
    (found,), meta = model.find_segments(output), case.config["meta"]
    seconds = (found.segments * meta["feat_stride"] + 0.5 * meta["feat_num_frames"]) / meta["fps"]
    got["detections.segments"] = seconds.clamp(0, meta["duration"])
    case.compare(got | {"detections.scores": found.scores, "detections.labels": found.labels})


GRADIENTS = {
    "cls_head.cls_head.conv.bias": "class_head.output.bias",
    "reg_head.offset_head.conv.bias": "offset_head.output.bias",
    "start_head.cls_head.conv.bias": "start_head.output.bias",
    "end_head.cls_head.conv.bias": "end_head.output.bias",
    "backbone.stem.0.drop_path_attn.scale": "actionformer.blocks.0.attention_path.scale",
    "backbone.branch.0.drop_path_out.scale": "tridet.blocks.2.path.scale",
    **{f"reg_head.scale.{level}.scale": f"offset_scales.{level}.scale" for level in range(6)},
}


@pytest.mark.parametrize("name", [name for name in NAMES if "train" in name])
def test_targets_losses_and_gradients(name):
    case, model = load(name)
    for module in model.train().modules():
        if isinstance(module, AffineDropPath):
            module.p = 0.0
    sequences = [case.inputs[f"features_{i}"].T for i in range(2)]
    features = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(x), dtype=torch.bool) for x in sequences], batch_first=True)
    segments, labels = ([case.inputs[f"{what}_{i}"] for i in range(2)] for what in ("segments", "labels"))
    output = model(features, mask, segments, labels)
    output.loss.backward()
    classes, offsets = model.detection_loss.targets(output.points, segments, labels)
    gradients = {key: value.grad for key, value in model.named_parameters() if value.grad is not None}
    got = {
        "targets.classes": classes,
        "targets.offsets": offsets * classes.any(-1, keepdim=True),
        "valid": output.mask.float(),
        "cls_loss": output.classification_loss,
        "reg_loss": output.regression_loss,
        "final_loss": output.loss,
        "loss_normalizer": model.detection_loss.normalizer,
        "grad_norm": torch.stack([gradient.norm() for gradient in gradients.values()]).norm(),
    }
    for theirs, ours in GRADIENTS.items():
        if f"grad.{theirs}" in case.expected:
            got[f"grad.{theirs}"] = gradients[ours].reshape(case.expected[f"grad.{theirs}"].shape)
    case.compare(got)


@pytest.mark.parametrize("case", json.loads((FOLDER / "nms.json").read_text())["cases"], ids=lambda case: case["name"])
def test_merging_of_segments(case):
    given, expected = case["arguments"], case["expected"]
    segments, scores, labels = merge_segments(
        torch.tensor(case["segments"]).reshape(-1, 2),
        torch.tensor(case["scores"]),
        torch.tensor(case["labels"], dtype=torch.long),
        method="soft" if given["use_soft_nms"] else "hard",
        sigma=given["sigma"],
        iou_threshold=given["iou_threshold"],
        min_score=given["min_score"],
        class_agnostic=not given["multiclass"],
        voting_threshold=given["voting_thresh"],
        max_segments=given["max_seg_num"],
        voting="score" if case["source"] == "tridet" else "score_iou",
    )
    assert labels.tolist() == expected["labels"]
    torch.testing.assert_close(segments, torch.tensor(expected["segments"]).reshape(-1, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(scores, torch.tensor(expected["scores"]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("roi_align")])
def test_roi_align(name, memory_format):
    case = DetectionCase(name)
    maps = case.inputs["map"].to(memory_format=memory_format)
    case.compare({"pooled": roi_align(maps, case.inputs["rois"], **case.config)})


@pytest.mark.parametrize("name", [n for n in CASES if n.startswith("moment_detr") and not CASES[n]["full_config"]])
def test_moments(name):
    case = DetectionCase(name)
    given = case.inputs
    model = hf_video.from_official("moment_detr", {"model": case.checkpoint}, **case.config)
    output = model(
        given["video"],
        given["text"],
        given["video_mask"],
        given["text_mask"],
        moments=[given[f"target_spans_{video}"] for video in range(len(given["video"]))],
        saliency_pairs=(given["saliency_pos"], given["saliency_neg"]),
    )
    got = {f"loss_{loss}": value for loss, value in output.losses.items()}
    got |= {"logits": output.logits, "spans": output.spans, "saliency": output.saliency, "total": output.loss}
    case.compare(got)


def test_losses_from_labels_of_videos():
    case = DetectionCase("weak_anomaly_losses")
    config, inputs = case.config, case.inputs
    batch = config["batch"]
    rtfm = hf_video.RTFMConfig(
        input_size=16,
        margin=config["margin"],
        magnitude_weight=config["alpha"],
        sparsity_weight=config["sparsity"],
        smoothness_weight=config["smooth"],
        smooth_across_videos=True,
    )
    scores = inputs["scores"].sigmoid()
    everywhere = torch.ones(batch, scores.shape[1], dtype=torch.bool)
    labels = torch.arange(2 * batch) >= batch
    magnitude = magnitude_loss(inputs["features_normal"] * 3, inputs["features_abnormal"] * 20, rtfm.margin)
    got = {
        "rtfm": F.binary_cross_entropy(scores[:, 0], labels.float()) + rtfm.magnitude_weight * magnitude,
        "rtfm_sparsity": rtfm.sparsity_weight * scores[batch:].norm(),
        "rtfm_smooth": rtfm.smoothness_weight * smoothness(scores[batch:], everywhere, across_videos=True),
        "segments_32": torch.stack([pool_segments(inputs[name][0]) for name in ("long", "short")]),
    }
    for name, logits, truth in (
        ("binary", inputs["logits1"], 1 - inputs["labels"][:, 0]),
        ("classes", inputs["logits2"], inputs["labels"]),
    ):
        logits.requires_grad_()
        got[f"vadclip_{name}"] = bag_cross_entropy(logits, truth, inputs["lengths"])
        (got[f"vadclip_{name}.grad"],) = torch.autograd.grad(got[f"vadclip_{name}"], logits)
    case.compare(got)


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("adatad")])
def test_adapters_over_chunks(name):
    case = DetectionCase(name)
    model = hf_video.from_official("adatad", case.checkpoint, **case.config)
    chunks = case.config["total_frames"] // case.config["num_frames"]
    video = case.inputs["video"].unflatten(0, (-1, chunks)).transpose(2, 3).flatten(1, 2)
    tokens = model.token_map(video)
    case.compare(
        {
            "map_8ch": tokens.unflatten(1, (chunks, -1)).flatten(0, 1).movedim(4, 1)[:, :8],
            "sequence": tokens.mean((2, 3)).transpose(1, 2),
            "interpolated_8ch": model(video).last_hidden_state.transpose(1, 2)[:, :8],
        }
    )


@pytest.mark.parametrize("size", ["small", "base"])
def test_published_adapted_encoders_convert_to_the_last_key(size):
    shared = Path(__file__).parents[3] / "shared"
    file = shared / "specs" / "keys_detection" / f"adatad_videomae_{size}_768f.json"
    if not file.exists():
        pytest.skip("needs the list of published keys")
    keys = {key: shape for key, (shape, _) in json.loads(file.read_text()).items() if key != "pos_embed"}
    with torch.device("meta"):
        model = hf_video.from_official("adatad", {key: torch.empty(shape) for key, shape in keys.items()})
    assert model.config.encoder_config.hidden_size == {"small": 384, "base": 768}[size]
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert trained == sum(math.prod(shape) for key, shape in keys.items() if ".adapter." in key)
