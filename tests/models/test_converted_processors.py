"""What `hf-video convert` writes beside each converted model: its authors' statistics, sizes and frames.

Checkpoints have their official names and shapes and no memory (meta device); numbers are those of the authors' code.
"""

from __future__ import annotations

import importlib
import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from golden_cases import FOLDER
from safetensors.torch import save_file
from transformers import AutoImageProcessor

from hf_video import MODELS
from hf_video.base.convert import convert_file, processor_values, unwrap
from hf_video.models.mvit.configuration_mvit import MViTConfig
from hf_video.models.mvit.modeling_mvit import MViTForVideoClassification

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
FAIR = ([0.45] * 3, [0.225] * 3)
HALF = ([0.5] * 3, [0.5] * 3)
BGR_MEAN, MMACTION_MEAN = ([90, 98, 102], [1] * 3), ([104, 117, 128], [1] * 3)
SSV2 = ("uniform", {"mode": "rounded_center"})


def converted(model_type: str, keys: str, **changes):
    """The processor for a checkpoint of these names and shapes, and the model's configuration."""
    shapes = json.loads((FOLDER / "keys" / f"{keys}.json").read_text())
    if classes := changes.pop("classes", None):
        heads = ("head.", "classifier.", "cls_head.fc_cls.", "output_projection/", "proj.", "logits.conv3d.", "head.1.")
        head = next(h for h in heads if any(h in k and 400 in v for k, v in shapes.items()))
        shapes = {k: [classes if n == 400 and head in k else n for n in shape] for k, shape in shapes.items()}
    row = MODELS[model_type]
    module = importlib.import_module(f"{row.package}.convert_{model_type}")
    with torch.device("meta"):
        found = module.convert(unwrap({k: torch.empty(shape) for k, shape in shapes.items()}), changes)
    config, kind = row.load(row.config)(**found.config), row.load(row.image_processor)
    return kind(**{**processor_values(kind, config), **found.processor}), config


SMALL = {"num_frames": 4, "image_size": 160}
SLOW = {"rate": 2, "start": "center"}
AT_25 = {"rate": 1, "target_fps": 25, "start": "center"}
ROWS = [
    # model, keys, changes: statistics, short side (or height and width), crop, sampler, its options
    ("timesformer", "timesformer_base_k400_full", {}, FAIR, 224, 224, "at_fps", {"rate": 32}),
    ("timesformer", "timesformer_base_k400_full", {"classes": 174}, FAIR, 224, 224, *SSV2),
    ("timesformer", "timesformer_base_k400_full", {"classes": 1059}, FAIR, 224, 224, "at_fps", {"rate": 32}),
    ("videomae", "videomae_base_k400_full", {}, IMAGENET, 224, 224, "dense", {"stride": 4}),
    ("videomae", "videomae_base_k400_full", {"classes": 710}, IMAGENET, 224, 224, "dense", {"stride": 4}),
    ("videomae", "videomae_base_k400_full", {"classes": 174}, IMAGENET, 224, 224, "uniform", None),
    ("videomae", "videomae_small_pretrain_full", {}, IMAGENET, 224, 224, "dense", {"stride": 4}),
    ("vivit", "vivit_b16x2_k400_full", {}, HALF, 256, 224, "dense", {"stride": 2}),
    ("mvit", "mvit_v1_b_16x4_full", {}, FAIR, 256, 224, "at_fps", {"rate": 4, "start": "spread"}),
    ("mvit", "mvit_v2_s_16x4_full", {}, FAIR, 256, 224, "at_fps", {"rate": 4, "start": "spread"}),
    ("mvit", "mvit_v2_s_16x4_full", {"num_frames": 32}, FAIR, 256, 224, "at_fps", {"rate": 3, "start": "spread"}),
    ("mvit", "mvit_v2_s_16x4_full", {"classes": 174}, FAIR, 256, 224, *SSV2),
    ("i3d", "i3d_rgb_64f_full", {}, HALF, 256, 224, "at_fps", AT_25),
    (
        "i3d",
        "i3d_tf_rgb_scratch_kin600",
        {},
        HALF,
        256,
        224,
        "at_fps",
        {"rate": 1, "target_fps": 25, "start": "center"},
    ),
    ("i3d", "i3d_r50_8x8_full", {}, FAIR, 256, 256, "at_fps", {"rate": 8, "start": "center"}),
    ("c3d", "c3d_sports1m_full", {}, BGR_MEAN, (128, 171), 112, "dense", None),
    ("c3d", "c3d_sports1m_jfzhang_pretrained", {}, BGR_MEAN, (128, 171), 112, "dense", None),
    ("c3d", "c3d_mmaction2_ucf101", {}, MMACTION_MEAN, 128, 112, "dense", None),
    ("slowfast", "slowfast_r50_8x8_full", {}, FAIR, 256, 256, "at_fps", SLOW),
    ("slowfast", "slowfast_r50_8x8_full", {"classes": 174}, FAIR, 256, 256, *SSV2),
    ("x3d", "x3d_m_full", {}, FAIR, 256, 224, "at_fps", {"rate": 5, "start": "center"}),
    ("x3d", "x3d_m_full", {"num_frames": 13, "image_size": 160}, FAIR, 182, 160, "at_fps", {**SLOW, "rate": 6}),
    ("x3d", "x3d_m_full", SMALL, FAIR, 182, 160, "at_fps", {**SLOW, "rate": 12}),
    ("x3d", "x3d_m_full", {"image_size": 312}, FAIR, 356, 312, "at_fps", {**SLOW, "rate": 5}),
    ("video_swin", "video_swin_tiny_k400_full", {}, IMAGENET, 224, 224, "dense", {"stride": 2}),
    ("video_swin", "video_swin_tiny_k400_full", {"classes": 174}, IMAGENET, 224, 224, *SSV2),
    ("two_stream", "twostream_rgb_vgg16_full", {}, IMAGENET, (256, 340), 224, "uniform", None),
]


@pytest.mark.parametrize(
    "row", ROWS, ids=lambda r: "-".join([r[1], *(f"{name}={value}" for name, value in r[2].items())])
)
def test_each_layout_gets_its_authors_inputs(row):
    model_type, keys, changes, statistics, size, crop, sampler, options = row
    processor, config = converted(model_type, keys, **changes)
    assert (processor.image_mean, processor.image_std) == statistics
    assert tuple(processor.size.values()) == (size if isinstance(size, tuple) else (size,))
    assert processor.crop_size == {"height": crop, "width": crop}
    assert (processor.sampler, processor.sampler_options) == (sampler, options)
    ssv2 = config.num_labels == 174
    bgr = (model_type == "timesformer" and ssv2) or (model_type == "c3d" and "mmaction2" not in keys)
    assert processor.do_flip_channel_order is bgr
    assert processor.do_rescale is (model_type != "c3d")
    assert not ssv2 or changes["classes"] == 174


def test_torchvisions_swin_resizes_to_more_than_it_crops():
    processor, config = converted("video_swin", "video_swin_torchvision", image_size=224)
    assert processor.size == {"shortest_edge": 256}
    assert processor.crop_size["height"] == config.image_size == 224


def values(model_type: str, **fields):
    row = MODELS[model_type]
    return processor_values(row.load(row.image_processor), row.load(row.config)(**fields))


def test_models_whose_weights_are_too_large_to_list_here():
    large = processor_values(MODELS["mvit"].load("MViTImageProcessor"), MViTConfig.preset("v2_l_40x3"))
    assert large["image_mean"] == (0.485, 0.456, 0.406)
    assert (large["size"], large["crop_size"]["width"]) == ({"shortest_edge": 312}, 312)
    assert large["sampler_options"] == {"rate": 3, "start": "spread"}
    assert values("timesformer", num_frames=16, image_size=448)["sampler_options"] == {"rate": 16}
    assert values("timesformer", num_frames=96)["sampler_options"] == {"rate": 4}
    ssv2 = values("vivit", num_labels=174, image_size=256)
    assert (ssv2["size"], ssv2["sampler_options"]) == ({"shortest_edge": 288}, {"stride": 1})


def test_a_converted_file_has_them(tmp_path):
    """The whole way: file, model, processor's file, Auto class; and what a person passes goes first."""
    shape = {"embed_dim": 16, "num_hidden_layers": 1, "dim_mul": [], "head_mul": [], "pool_q_stride": []}
    model = MViTForVideoClassification(MViTConfig(**shape, image_size=64, num_labels=174))
    renames = (("mvit.embeddings.patch_embeddings.projection", "patch_embed.proj"), ("mvit.embeddings.", ""))
    renames += (("position_embeddings", "pos_embed_spatial"), ("time_embeddings", "pos_embed_temporal"))
    renames += (("cls_pos_embed_spatial", "pos_embed_class"), ("mvit.encoder.layer.", "blocks."))
    renames += (("attention.output.dense", "attn.proj"), ("intermediate.dense", "mlp.fc1"), ("output.dense", "mlp.fc2"))
    renames += (("layernorm_before", "norm1"), ("layernorm_after", "norm2"), ("mvit.layernorm", "norm"))
    renames += (("classifier", "head.projection"), ("attention.pool_k.conv", "attn.pool_k"))
    renames += (("attention.pool_v.conv", "attn.pool_v"), ("attention.pool_k.norm", "attn.norm_k"))
    renames += (("attention.pool_v.norm", "attn.norm_v"), ("attention.", "attn."))
    state = {}
    for key, value in model.state_dict().items():
        for ours, theirs in renames:
            key = key.replace(ours, theirs)
        state[key] = value
    save_file(state, tmp_path / "mvit.safetensors")
    given = {"do_resize": False}
    convert_file(tmp_path / "mvit.safetensors", model_type="mvit", output=tmp_path / "out", processor=given)
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out")
    assert (processor.sampler, processor.sampler_options) == SSV2
    assert (processor.do_resize, processor.size, processor.crop_size["width"]) == (False, {"shortest_edge": 73}, 64)
    video = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)
    seen = processor(video, num_frames=16, return_tensors="pt").pixel_values[0]
    borders = [round(i * 39 / 16) for i in range(17)]
    frames = [(a + b) // 2 for a, b in pairwise(borders)]  # the authors' datasets/ssv2.py
    expected = (torch.from_numpy(video[frames]).movedim(-1, 1) / 255 - 0.45) / 0.225
    torch.testing.assert_close(seen, expected, atol=1e-5, rtol=0)
