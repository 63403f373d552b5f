"""MViT: every layout of checkpoints, at full size by shape and in small by value."""

from __future__ import annotations

import hashlib
import json
import re

import pytest
import torch
from contract import assert_close, randomise
from golden_cases import Golden
from test_mvit import TINY, VERSION2

import hf_video
from hf_video.errors import CheckpointError
from hf_video.models.mvit.configuration_mvit import MViTConfig
from hf_video.models.mvit.convert_mvit import convert
from hf_video.models.mvit.modeling_mvit import MViTForVideoClassification

SLOWFAST = (
    (r"^mvit\.", ""),
    (r"^embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
    (r"^embeddings\.cls_token", "cls_token"),
    (r"^embeddings\.position_embeddings", "pos_embed_spatial"),
    (r"^embeddings\.time_embeddings", "pos_embed_temporal"),
    (r"^embeddings\.cls_position_embeddings", "pos_embed_class"),
    (r"^encoder\.layer\.", "blocks."),
    (r"attention\.output\.dense", "attn.proj"),
    (r"attention\.pool_(.)\.conv", r"attn.pool_\1"),
    (r"attention\.pool_(.)\.norm", r"attn.norm_\1"),
    (r"\.attention\.", ".attn."),
    (r"intermediate\.dense", "mlp.fc1"),
    (r"\.output\.dense", ".mlp.fc2"),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"\.projection\.", ".proj."),
    (r"^layernorm", "norm"),
    (r"^classifier", "head.projection"),
)
TORCHVISION = (
    (r"^patch_embed\.proj", "conv_proj"),
    (r"^cls_token", "pos_encoding.class_token"),
    (r"^pos_embed_spatial", "pos_encoding.spatial_pos"),
    (r"^pos_embed_temporal", "pos_encoding.temporal_pos"),
    (r"^pos_embed_class", "pos_encoding.class_pos"),
    (r"attn\.proj", "attn.project.0"),
    (r"attn\.pool_(.)", r"attn.pool_\1.pool"),
    (r"attn\.norm_(.)", r"attn.pool_\1.norm_act.0"),
    (r"mlp\.fc1", "mlp.0"),
    (r"mlp\.fc2", "mlp.3"),
    (r"(\d)\.proj\.", r"\1.project."),
    (r"^head\.projection", "head.1"),
)
PYTORCHVIDEO = (
    (r"^patch_embed\.proj", "patch_embed.patch_model"),
    (r"^(cls_token|pos_embed)", r"cls_positional_encoding.\1"),
    (r"^norm\.", "norm_embed."),
    (r"^head\.projection", "head.proj"),
)


def renamed(state: dict, rules) -> dict:
    result = {}
    for key, value in state.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        result[key] = value
    return result


def torchvision(state: dict) -> dict:
    state = renamed(state, TORCHVISION)
    flat = {"pos_encoding.class_token": (0, 1), "pos_encoding.class_pos": (0, 1), "pos_encoding.spatial_pos": (0,)}
    flat["pos_encoding.temporal_pos"] = (0,)
    return {key: value.squeeze(flat[key]) if key in flat else value for key, value in state.items()}


def pytorchvideo(state: dict) -> dict:
    """q, k and v apart, and every pooling under a second name."""
    result = {}
    for key, value in renamed(state, PYTORCHVIDEO).items():
        if ".qkv." in key:
            result |= {key.replace("qkv", n): part for n, part in zip("qkv", value.chunk(3), strict=True)}
            continue
        result[key] = value
        second = re.sub(r"attn\.pool_(.)", r"attn._attention_pool_\1.pool", key)
        second = re.sub(r"attn\.norm_(.)", r"attn._attention_pool_\1.norm", second)
        result[second] = value
    return result


LAYOUTS = {"slowfast": lambda state: state, "torchvision": torchvision, "pytorchvideo": pytorchvideo}


def official(model: torch.nn.Module, layout: str) -> dict:
    """The model's tensors as that code base would save them."""
    return LAYOUTS[layout](renamed(model.state_dict(), SLOWFAST))


def fingerprint(state: dict) -> str:
    lines = sorted(f"{key} {list(value.shape)}" for key, value in state.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


# Of the key lists of the authors' own models, so that the names made above are known to be theirs.
FULL = {
    ("v1_b_16x4", "slowfast"): "74606439900e0a77",
    ("v1_b_16x4", "torchvision"): "035675b71afa0fa4",
    ("v1_b_16x4", "pytorchvideo"): "e817a2009e7bcd9e",
    ("v1_24_32x3", "slowfast"): "1d9eb6c83a184c69",
    ("v2_s_16x4", "slowfast"): "01f9e2fee8ff12d3",
    ("v2_s_16x4", "torchvision"): "c614077606fcb64f",
    ("v2_b_32x3", "slowfast"): "06700f82211add9b",
    ("v2_l_40x3", "slowfast"): "fda31a64a1ff65d2",
}


@pytest.mark.parametrize(("preset", "layout"), FULL)
def test_a_published_checkpoint_is_recognised_from_its_shapes_alone(preset, layout):
    with torch.device("meta"):
        expected = MViTForVideoClassification(MViTConfig.preset(preset, num_labels=400))
        state = official(expected, layout)
    assert fingerprint(state) == FULL[preset, layout]
    if layout == "pytorchvideo":  # names of one tensor are compared, which meta tensors can't be
        state = {key: value for key, value in state.items() if "_attention_pool" not in key}
    converted = convert(state, {})
    config = MViTConfig(**converted.config)
    assert converted.class_name == "MViTForVideoClassification"
    assert config.block_shapes() == expected.config.block_shapes()
    for name in ("num_frames", "image_size", "residual_pooling", "hidden_size", "num_labels", "mlp_ratio"):
        assert getattr(config, name) == getattr(expected.config, name), name
    shapes = {key: value.shape for key, value in converted.state_dict.items()}
    assert shapes == {key: value.shape for key, value in expected.state_dict().items()}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("tiny", [TINY, VERSION2], ids=["v1", "v2"])
def test_every_layout_keeps_every_value(layout, tiny):
    model = randomise(MViTForVideoClassification(MViTConfig(**{**tiny, "image_size": 32, "num_labels": 5})))
    state = official(model, layout)
    again = hf_video.from_official("mvit", {"model_state": state}, pool_kv_stride_adaptive=[1, 4, 4])
    video = torch.randn(1, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert_close(again(video).logits, model(video).logits, atol=0)
    assert again.config.image_size == 32
    headless = {key: value for key, value in state.items() if not key.startswith("head.")}
    encoder = hf_video.from_official("mvit", headless, pool_kv_stride_adaptive=[1, 4, 4])
    assert_close(encoder(video).last_hidden_state, model.mvit(video).last_hidden_state, atol=0)


def test_pytorchvideo_second_names():
    model = randomise(MViTForVideoClassification(MViTConfig(**{**TINY, "image_size": 32, "num_labels": 5})))
    state = official(model, "pytorchvideo")
    only = {key: value for key, value in state.items() if not re.search(r"attn\.(pool|norm)_", key)}
    hf_video.from_official("mvit", only)
    state["blocks.0.attn.pool_k.weight"] = state["blocks.0.attn.pool_k.weight"] + 1
    with pytest.raises(CheckpointError, match="names of one tensor"):
        hf_video.from_official("mvit", state)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mvit": {"MODE": "max"}}, "MVIT.MODE='max' is not supported"),
        ({"mvit": {"CLS_EMBED_ON": False}}, "CLS_EMBED_ON"),
        ({"mvit": {"REV": {"ENABLE": True}}}, "MVIT.REV is not known"),
        ({"mvit": {"USE_ABS_POS": True, "SEP_POS_EMBED": False}}, "SEP_POS_EMBED=False"),
        ({"mvit": {"PATCH_PADDING": [0, 0, 0]}}, "PATCH_PADDING"),
        ({"residual_pool": True, "residual_with_cls_embed": True}, "residual_with_cls_embed"),
        ({"mvit": {"EMBED_DIM": 32}}, r"cls_token: \(1, 1, 24\) in the file, \(1, 1, 32\) in the model"),
    ],
)
def test_other_networks_are_refused(changes, message):
    with pytest.raises(CheckpointError, match=message):
        hf_video.from_official("mvit", Golden("mvit_v1_slowfast").checkpoint, **changes)


def test_incomplete_and_foreign_checkpoints_are_refused():
    with pytest.raises(CheckpointError, match="No MViT checkpoint"):
        hf_video.from_official("mvit", {"x": torch.zeros(1)})
    state = Golden("mvit_v1_torchvision_nonsquare").checkpoint
    with pytest.raises(CheckpointError, match=r"240 positions in space .* image_size=\(height, width\)"):
        hf_video.from_official("mvit", state)
    del state["blocks.2.attn.qkv.weight"]
    with pytest.raises(CheckpointError, match=r"layer.2.attention.qkv.weight"):
        hf_video.from_official("mvit", state, image_size=(48, 80))


def test_a_recipe_of_pytorchvideo_is_understood():
    state = official(MViTForVideoClassification(MViTConfig(**{**TINY, "image_size": 32})), "pytorchvideo")
    recipe = {
        "spatial_size": 32,
        "temporal_size": 4,
        "depth": 3,
        "patch_embed_dim": 16,
        "embed_dim_mul": [[1, 2.0]],
        "atten_head_mul": [[1, 2.0]],
        "pool_q_stride_size": [[1, 1, 2, 2]],
        "pool_kv_stride_adaptive": [1, 4, 4],
        "pool_kvq_kernel": [3, 3, 3],
        "head_num_classes": 2,
    }
    config = hf_video.from_official("mvit", state, **recipe).config
    assert config.block_shapes() == MViTConfig(**{**TINY, "image_size": 32}).block_shapes()
    assert json.loads(config.to_json_string())["pool_q_stride"] == [[1, 1, 2, 2]]
