"""The door for official checkpoints: wrappers, prefixes, what shapes tell, and refusals that name every key."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoImageProcessor, AutoModelForVideoClassification

import hf_video
from hf_video.base.convert import convert_file, load_official_file, unwrap
from hf_video.errors import CheckpointError
from hf_video.layers.embeddings import sinusoid_table


def linear(name: str, out: int, width: int, bias: bool = True) -> dict:
    return {f"{name}.weight": torch.randn(out, width)} | ({f"{name}.bias": torch.randn(out)} if bias else {})


def norm(name: str, width: int) -> dict:
    return {f"{name}.weight": torch.randn(width), f"{name}.bias": torch.randn(width)}


def videomae_block(prefix: str, width: int) -> dict:
    return (
        norm(f"{prefix}.norm1", width)
        | norm(f"{prefix}.norm2", width)
        | linear(f"{prefix}.attn.qkv", 3 * width, width, bias=False)
        | {f"{prefix}.attn.q_bias": torch.randn(width), f"{prefix}.attn.v_bias": torch.randn(width)}
        | linear(f"{prefix}.attn.proj", width, width)
        | linear(f"{prefix}.mlp.fc1", 4 * width, width)
        | linear(f"{prefix}.mlp.fc2", width, 4 * width)
    )


@pytest.fixture
def finetuned() -> dict:
    """An official fine-tuned VideoMAE of 64 channels and 2 blocks."""
    torch.manual_seed(0)
    state = {"patch_embed.proj.weight": torch.randn(64, 3, 2, 16, 16), "patch_embed.proj.bias": torch.randn(64)}
    return (
        state
        | videomae_block("blocks.0", 64)
        | videomae_block("blocks.1", 64)
        | norm("fc_norm", 64)
        | linear("head", 5, 64)
    )


@pytest.fixture
def timesformer() -> dict:
    """An official divided TimeSformer of 64 channels and 1 block, 4 frames of 3x3 patches."""
    torch.manual_seed(0)
    state = {
        "cls_token": torch.randn(1, 1, 64),
        "pos_embed": torch.randn(1, 10, 64),
        "time_embed": torch.randn(1, 4, 64),
        "patch_embed.proj.weight": torch.randn(64, 3, 16, 16),
        "patch_embed.proj.bias": torch.randn(64),
    }
    for name in ("norm1", "norm2", "temporal_norm1"):
        state |= norm(f"blocks.0.{name}", 64)
    for name in ("attn", "temporal_attn"):
        state |= linear(f"blocks.0.{name}.qkv", 192, 64) | linear(f"blocks.0.{name}.proj", 64, 64)
    state |= linear("blocks.0.temporal_fc", 64, 64) | linear("blocks.0.mlp.fc1", 256, 64)
    return state | linear("blocks.0.mlp.fc2", 64, 256) | norm("norm", 64) | linear("head", 7, 64)


def prefixed(state: dict, prefix: str) -> dict:
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"model": s, "epoch": 3, "args": None},
        lambda s: {"module": prefixed(s, "module.")},
        lambda s: {"state_dict": prefixed(s, "module.model."), "optimizer": {"state": {}}},
        lambda s: {"model_state": prefixed(s, "model."), "cfg": "TRAIN: ..."},
    ],
)
def test_wrappers_and_prefixes_are_recognised(finetuned, wrap):
    direct = hf_video.from_official("videomae", finetuned)
    wrapped = hf_video.from_official("videomae", wrap(finetuned))
    for key, value in direct.state_dict().items():
        assert torch.equal(value, wrapped.state_dict()[key]), key


def test_what_shapes_tell_is_read(finetuned, timesformer):
    config = hf_video.from_official("videomae", finetuned).config
    assert (config.hidden_size, config.num_hidden_layers, config.intermediate_size) == (64, 2, 256)
    assert (config.num_attention_heads, config.num_labels, config.layer_norm_eps) == (1, 5, 1e-6)
    assert (config.use_mean_pooling, config.head_norm_eps) == (True, 1e-6)
    config = hf_video.from_official("timesformer", timesformer).config
    assert (config.num_frames, config.image_size, config.attention_type) == (4, 48, "divided_space_time")
    joint = {k: v for k, v in timesformer.items() if "temporal" not in k}
    assert hf_video.from_official("timesformer", joint).config.attention_type == "joint_space_time"
    space = {k: v for k, v in joint.items() if k != "time_embed"}
    assert hf_video.from_official("timesformer", space).config.attention_type == "space_only"


def test_overrides_go_by_our_names_and_the_official_ones(finetuned):
    ours = hf_video.from_official("videomae", finetuned, num_attention_heads=4, num_frames=8, image_size=[32, 48])
    theirs = hf_video.from_official("videomae", finetuned, num_heads=4, all_frames=8, img_size=[32, 48], mlp_ratio=4)
    assert ours.config.num_attention_heads == theirs.config.num_attention_heads == 4
    assert ours.config.grid == theirs.config.grid == (4, 2, 3)


@pytest.mark.parametrize(("wanted", "class_name"), [("head.", "VideoMAEForVideoClassification"), ("", "VideoMAEModel")])
def test_the_keys_choose_the_class(finetuned, wanted, class_name):
    if not wanted:
        finetuned = {k: v for k, v in finetuned.items() if not k.startswith(("head.", "fc_norm."))}
    assert type(hf_video.from_official("videomae", finetuned)).__name__ == class_name


def test_an_encoder_with_its_norm_but_no_classifier_keeps_both(finetuned):
    model = hf_video.from_official("videomae", {k: v for k, v in finetuned.items() if not k.startswith("head.")})
    assert torch.equal(model.fc_norm.weight, finetuned["fc_norm.weight"])
    assert model.get_video_features(torch.randn(1, 16, 3, 32, 32)).embedding.shape == (1, 64)


def test_keys_left_over_and_missing_are_all_named(finetuned):
    del finetuned["blocks.1.norm2.bias"], finetuned["head.bias"]
    finetuned |= {"blocks.0.attn.surprise": torch.zeros(3), "teacher.weight": torch.zeros(3)}
    with pytest.raises(CheckpointError) as error:
        hf_video.from_official("videomae", finetuned)
    for name in ("surprise", "teacher.weight", "layer.1.layernorm_after.bias", "classifier.bias"):
        assert name in str(error.value)


def test_shapes_that_contradict_the_configuration_are_named(finetuned):
    with pytest.raises(CheckpointError, match=r"classifier.weight: \(5, 64\) in the file, \(6, 64\) in the model"):
        hf_video.from_official("videomae", finetuned, num_labels=6)


def test_a_saved_sine_cosine_table_is_left_out_and_a_learnt_one_refused(finetuned):
    table = sinusoid_table(1568, 64)[None]
    hf_video.from_official("videomae", finetuned | {"pos_embed": table})
    with pytest.raises(CheckpointError, match="pos_embed"):
        hf_video.from_official("videomae", finetuned | {"pos_embed": table + 1})


@pytest.mark.parametrize(
    ("model_type", "state", "message"),
    [
        ("videomea", {"x": torch.zeros(1)}, "Known: .*timesformer.*videomae"),
        ("videomae", {"x": torch.zeros(1)}, "No VideoMAE checkpoint"),
        ("timesformer", {"x": torch.zeros(1)}, "No TimeSformer checkpoint"),
        ("videomae", {"epoch": 3}, "No tensors found"),
    ],
)
def test_what_is_no_checkpoint_of_that_model_is_refused(model_type, state, message):
    with pytest.raises(CheckpointError, match=message):
        hf_video.from_official(model_type, state)


def test_odd_widths_ask_for_the_number_of_heads(finetuned):
    odd = {
        key: torch.randn([48 * (s // 64) if s % 64 == 0 and s < 1000 else s for s in value.shape])
        for key, value in finetuned.items()
    }
    with pytest.raises(CheckpointError, match="num_attention_heads"):
        hf_video.from_official("videomae", odd)
    assert hf_video.from_official("videomae", odd, num_attention_heads=4).config.hidden_size == 48


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def test_files_that_need_pickled_code_are_refused(tmp_path, capsys):
    torch.save({"model": {"x": torch.zeros(2)}, "evil": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="never loaded"):
        load_official_file(tmp_path / "evil.pth")
    assert "code ran" not in capsys.readouterr().out
    with pytest.raises(CheckpointError, match="No file"):
        load_official_file(tmp_path / "missing.pth")


def test_training_leftovers_in_a_file_are_read(tmp_path, finetuned):
    extras = {"args": argparse.Namespace(lr=1e-3), "epoch": np.float64(3), "step": np.int64(7)}
    torch.save({"module": finetuned, **extras}, tmp_path / "official.pth")
    assert set(unwrap(load_official_file(tmp_path / "official.pth"))) == set(finetuned)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_becomes_a_folder_that_auto_classes_load(tmp_path, finetuned, suffix):
    path = tmp_path / f"official{suffix}"
    save_file(finetuned, path) if suffix == ".safetensors" else torch.save({"module": finetuned}, path)
    model = convert_file(path, model_type="videomae", output=tmp_path / "out", num_frames=8, image_size=32)
    loaded = AutoModelForVideoClassification.from_pretrained(tmp_path / "out")
    video = torch.randn(1, 8, 3, 32, 32)
    torch.testing.assert_close(loaded(video).logits, model(video).logits)  # other alignment, other rounding
    assert AutoImageProcessor.from_pretrained(tmp_path / "out").crop_size["height"] == 32
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == [type(model).__name__]
