"""ViViT: the authors' flax trees, from the published models' keys and shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from contract import assert_close
from test_vivit import TINY
from test_vivit_references import FACTORIZED, model

import hf_video
from hf_video.base.convert import convert_file, load_official_file
from hf_video.errors import CheckpointError
from hf_video.models.vivit.convert_vivit import convert

ATTENTION = ("MultiHeadDotProductAttention_0",)
NORMS = {"LayerNorm_0": "layernorm_before", "LayerNorm_1": "layernorm_after"}
BLOCK_3 = {
    "LayerNorm_time": "temporal_layernorm",
    "LayerNorm_space": "layernorm_before",
    "LayerNorm_mlp": "layernorm_after",
}


def to_flax(net):
    """The inverse of the converter, written from the layout of flax: {key: numpy array} for a model of ours."""
    state = {k: v.detach().numpy() for k, v in net.state_dict().items()}
    heads, third = net.config.num_attention_heads, net.config.attention_type == "factorized_self_attention_block"
    two = net.config.attention_type == "factorized_encoder"
    tree = {
        "embedding/kernel": state["vivit.embeddings.patch_embeddings.projection.weight"].transpose(2, 3, 4, 1, 0),
        "embedding/bias": state["vivit.embeddings.patch_embeddings.projection.bias"],
        "output_projection/kernel": state["classifier.weight"].T,
        "output_projection/bias": state["classifier.bias"],
    }

    def stage(name, prefix, depth):
        tree[f"{name}/posembed_input/pos_embedding"] = state[f"{prefix}embeddings.position_embeddings"]
        tree[f"{name}/encoder_norm/scale"] = state[f"{prefix}layernorm.weight"]
        tree[f"{name}/encoder_norm/bias"] = state[f"{prefix}layernorm.bias"]
        if f"{prefix}embeddings.cls_token" in state:
            tree[f"cls_{name}" if two else "cls"] = state[f"{prefix}embeddings.cls_token"]
        for i in range(depth):
            block, ours = f"{name}/encoderblock_{i}", f"{prefix}encoder.layer.{i}"
            for theirs, norm in (BLOCK_3 if third else NORMS).items():
                tree[f"{block}/{theirs}/scale"] = state[f"{ours}.{norm}.weight"]
                tree[f"{block}/{theirs}/bias"] = state[f"{ours}.{norm}.bias"]
            names = {"_time": "temporal_attention", "_space": "attention"} if third else {"_0": "attention"}
            for suffix, attention in names.items():
                head = f"{block}/MultiHeadDotProductAttention{suffix}"
                for part in ("query", "key", "value"):
                    weight = state[f"{ours}.{attention}.attention.{part}.weight"]
                    tree[f"{head}/{part}/kernel"] = weight.T.reshape(len(weight), heads, -1)
                    tree[f"{head}/{part}/bias"] = state[f"{ours}.{attention}.attention.{part}.bias"].reshape(heads, -1)
                weight = state[f"{ours}.{attention}.output.dense.weight"]
                tree[f"{head}/out/kernel"] = weight.T.reshape(heads, -1, len(weight))
                tree[f"{head}/out/bias"] = state[f"{ours}.{attention}.output.dense.bias"]
            for j, dense in enumerate(("intermediate", "output")):
                mlp = f"{block}/MlpBlock{'' if third else '_0'}/Dense_{j}"
                tree[f"{mlp}/kernel"] = state[f"{ours}.{dense}.dense.weight"].T
                tree[f"{mlp}/bias"] = state[f"{ours}.{dense}.dense.bias"]

    stage("SpatialTransformer" if two else "Transformer", "vivit.", net.config.num_hidden_layers)
    if two:
        stage("TemporalTransformer", "vivit.temporal_", net.config.num_temporal_layers)
    return tree


def nested(flat):
    tree = {}
    for key, value in flat.items():
        *path, last = key.split("/")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return tree


@pytest.mark.parametrize("attention_type", ["spacetime", *FACTORIZED])
@pytest.mark.parametrize("form", ["flat numpy", "flat torch", "train state", "params"])
def test_flax_trees(attention_type, form):
    net = model(attention_type, num_hidden_layers=3, num_temporal_layers=2)
    tree = to_flax(net)
    momentum = {"state": {"param_states": nested({f"{k}/momentum": np.zeros(2) for k in tree})}, "target": nested(tree)}
    checkpoint = {
        "flat numpy": tree,
        "flat torch": {k: torch.from_numpy(v.copy()) for k, v in tree.items()},
        "train state": {"optimizer": momentum, "global_step": np.int64(3), "model_state": {}, "rng": np.zeros(2)},
        "params": {"params": nested(tree)},
    }[form]
    known = {"attention_type": attention_type} if attention_type == FACTORIZED[2] else {}
    converted = hf_video.from_official("vivit", checkpoint, num_frames=6, image_size=[32, 48], **known)
    assert converted.config.attention_type == attention_type
    assert (converted.config.num_hidden_layers, converted.config.num_attention_heads) == (3, 4)
    assert_close(converted.state_dict(), net.state_dict(), atol=0)


def test_kernels_are_not_mixed_up():
    """The same heads, not their transposes: queries through flax's own product, which contracts named axes."""
    net = model("spacetime")
    tree = to_flax(net)
    x = torch.randn(5, 24)
    kernel = torch.from_numpy(tree["Transformer/encoderblock_0/MultiHeadDotProductAttention_0/query/kernel"].copy())
    ours = net.vivit.encoder.layer[0].attention.attention.query
    assert_close(torch.einsum("nd,dhe->nhe", x, kernel).flatten(1), x @ ours.weight.T)
    out = torch.from_numpy(tree["Transformer/encoderblock_0/MultiHeadDotProductAttention_0/out/kernel"].copy())
    y = torch.randn(5, 4, 6)
    dense = net.vivit.encoder.layer[0].attention.output.dense
    assert_close(torch.einsum("nhe,hed->nd", y, out), y.flatten(1) @ dense.weight.T)


def published(width, heads, spatial, temporal, layers=()):
    """Keys and shapes of the published checkpoints: {key: shape}."""
    mlp, shapes = 4 * width, {"embedding/kernel": (2, 16, 16, 3, width), "embedding/bias": (width,)}
    shapes |= {"output_projection/kernel": (width, 400), "output_projection/bias": (400,)}
    stages = [("SpatialTransformer", spatial, 197), ("TemporalTransformer", temporal, 17)]
    for name, depth, positions in stages if temporal else [("Transformer", spatial, 3137)]:
        shapes[f"cls_{name}" if temporal else "cls"] = (1, 1, width)
        shapes[f"{name}/posembed_input/pos_embedding"] = (1, positions, width)
        shapes |= {f"{name}/encoder_norm/{part}": (width,) for part in ("scale", "bias")}
        for block in (f"{name}/encoderblock_{i}" for i in range(depth)):
            shapes |= {f"{block}/LayerNorm_{i}/{part}": (width,) for i in (0, 1) for part in ("scale", "bias")}
            head = f"{block}/MultiHeadDotProductAttention_0"
            for part in ("query", "key", "value"):
                shapes |= {f"{head}/{part}/kernel": (width, heads, 64), f"{head}/{part}/bias": (heads, 64)}
            shapes |= {f"{head}/out/kernel": (heads, 64, width), f"{head}/out/bias": (width,)}
            shapes |= {f"{block}/MlpBlock_0/Dense_0/kernel": (width, mlp), f"{block}/MlpBlock_0/Dense_0/bias": (mlp,)}
            shapes |= {f"{block}/MlpBlock_0/Dense_1/kernel": (mlp, width), f"{block}/MlpBlock_0/Dense_1/bias": (width,)}
    return shapes


@pytest.mark.parametrize(
    ("sizes", "keys", "parameters"),
    [
        ((768, 12, 12, 0), 200, 88_954_000),
        ((768, 12, 12, 4), 268, 115_062_928),
        ((1024, 16, 24, 24), 780, 606_827_920),
    ],
)
def test_published_layouts(sizes, keys, parameters):
    """No key left over, none missing, every shape right; on the meta device, so the large ones cost nothing."""
    shapes = published(*sizes)
    assert len(shapes) == keys
    converted = convert({k: torch.empty(s, device="meta") for k, s in shapes.items()}, {})
    config = hf_video.VivitConfig(**converted.config)
    with torch.device("meta"):
        net = hf_video.VivitForVideoClassification(config)
    assert {k: v.shape for k, v in net.state_dict().items()} == {k: v.shape for k, v in converted.state_dict.items()}
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert (config.num_frames, config.image_size, config.num_temporal_layers) == (32, 224, sizes[3] or 4)


def test_what_keys_do_not_tell_is_asked_for():
    tree = to_flax(model("factorized_dot_product_attention"))
    with pytest.raises(CheckpointError, match="factorized_dot_product_attention"):
        hf_video.from_official("vivit", tree, num_frames=6, image_size=[32, 48])
    with pytest.raises(CheckpointError, match=r"num_frames and image_size"):
        hf_video.from_official("vivit", to_flax(model("spacetime")))
    with pytest.raises(CheckpointError, match="No ViViT checkpoint"):
        hf_video.from_official("vivit", {"x": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="No ViViT checkpoint"):
        hf_video.from_official("vivit", {"x/kernel": np.zeros(1)})


def test_keys_left_over_and_missing_are_named():
    tree = to_flax(model("spacetime"))
    del tree["Transformer/encoderblock_1/LayerNorm_0/scale"]
    tree["pre_logits/kernel"] = np.zeros((24, 24), np.float32)
    with pytest.raises(CheckpointError) as error:
        hf_video.from_official("vivit", tree, num_frames=6, image_size=[32, 48])
    assert "pre_logits" in str(error.value)
    assert "layer.1.layernorm_before.weight" in str(error.value)


def test_one_of_frames_and_size_tells_the_other():
    tree = to_flax(model("spacetime", image_size=32))
    assert hf_video.from_official("vivit", tree, num_frames=6).config.image_size == 32
    assert hf_video.from_official("vivit", tree, image_size=32).config.num_frames == 6


def test_flax_files(tmp_path):
    msgpack = pytest.importorskip("msgpack")
    net = model("factorized_encoder")

    def pack(value):
        raw = (value.shape, value.dtype.name, value.tobytes())
        return msgpack.ExtType(1, msgpack.packb(raw, use_bin_type=True))

    tree = {"optimizer": {"target": nested({k: np.ascontiguousarray(v) for k, v in to_flax(net).items()})}, "step": 3}
    (tmp_path / "checkpoint").write_bytes(msgpack.packb(tree, default=pack, strict_types=True))
    ours = convert_file(
        tmp_path / "checkpoint", model_type="vivit", output=tmp_path / "out", num_frames=6, image_size=[32, 48]
    )
    assert_close(ours.state_dict(), net.state_dict(), atol=0)
    (tmp_path / "broken").write_bytes(b"\x81\xa1")
    with pytest.raises(CheckpointError, match="no flax checkpoint"):
        load_official_file(tmp_path / "broken")


def test_flax_files_without_msgpack_say_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "msgpack", None)
    (tmp_path / "checkpoint").write_bytes(b"\x81\xa1a\x01")
    with pytest.raises(CheckpointError, match="pip install msgpack"):
        load_official_file(tmp_path / "checkpoint")


def test_a_converted_folder_has_the_official_processor(tmp_path):
    net = model("spacetime", **{**TINY, "image_size": 32})
    torch.save({k: torch.from_numpy(v.copy()) for k, v in to_flax(net).items()}, tmp_path / "vivit.pth")
    convert_file(tmp_path / "vivit.pth", model_type="vivit", output=tmp_path / "out", num_frames=6)
    processor = hf_video.VivitImageProcessor.from_pretrained(tmp_path / "out")
    assert (processor.size, processor.crop_size["height"]) == ({"shortest_edge": 37}, 32)  # 256 to 224
