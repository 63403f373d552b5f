"""ViViT's model 1: files and numbers against plain transformers, every parameter drawn anew, both directions."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from contract import assert_close, randomise
from safetensors.torch import load_file
from transformers.models.vivit import configuration_vivit as stock_config
from transformers.models.vivit import modeling_vivit as stock_modeling

import hf_video

TOLERANCE = 1e-5
OPTIONS = {
    "image_size": [32, 48],
    "num_frames": 6,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "num_labels": 7,
}
CASES = {
    "base": ("VivitModel", OPTIONS),
    "base, narrow pooler": ("VivitModel", {**OPTIONS, "pooler_output_size": 20}),
    "classifier": ("VivitForVideoClassification", OPTIONS),
    "no bias, exact gelu": ("VivitForVideoClassification", {**OPTIONS, "qkv_bias": False, "hidden_act": "gelu"}),
    "other tubelets": ("VivitForVideoClassification", {**OPTIONS, "tubelet_size": [3, 8, 16]}),
}


def stock_model(name: str, options: dict):
    config = stock_config.VivitConfig(**options, attn_implementation="eager")
    return randomise(getattr(stock_modeling, name)(config))


def inputs_for(name: str) -> dict[str, torch.Tensor]:
    inputs = {"pixel_values": torch.randn(2, 6, 3, 32, 48)}
    return inputs | ({"labels": torch.tensor([3, 6])} if name.endswith("Classification") else {})


def assert_same_answers(ours, stock, inputs):
    for mode in (False, True):
        options = {"output_hidden_states": mode, "output_attentions": mode}
        with torch.no_grad():
            got, expected = ours(**inputs, **options), stock(**inputs, **options)
        for name, value in expected.items():
            pairs = zip(got[name], value, strict=True) if isinstance(value, tuple) else [(got[name], value)]
            for mine, theirs in pairs:
                assert_close(mine, theirs, atol=TOLERANCE)
                assert 0.01 < theirs.abs().max() < 100, f"{name} is too small or large for {TOLERANCE} to mean anything"
        if mode:
            assert {"hidden_states", "attentions"} <= set(expected)
            assert [len(got[n]) for n in ("hidden_states", "attentions")] == [4, 3]


@pytest.mark.parametrize("case", CASES)
def test_stock_file_in_ours(case, tmp_path):
    name, options = CASES[case]
    stock = stock_model(name, options)
    stock.save_pretrained(tmp_path)
    ours, info = getattr(hf_video, name).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    assert type(ours).__module__.startswith("hf_video.")
    assert_same_answers(ours, stock, inputs_for(name))


@pytest.mark.parametrize("case", CASES)
def test_our_file_in_stock(case, tmp_path):
    name, options = CASES[case]
    cls = getattr(hf_video, name)
    ours = randomise(cls(cls.config_class(**options)))
    ours.save_pretrained(tmp_path)
    stock, info = getattr(stock_modeling, name).from_pretrained(
        tmp_path, output_loading_info=True, attn_implementation="eager"
    )
    assert not any(info.values()), info
    assert type(stock).__module__.startswith("transformers.")
    assert_same_answers(ours, stock, inputs_for(name))


@pytest.mark.parametrize("case", ["base", "classifier"])
def test_files_are_the_same_to_the_byte_of_each_tensor(case, tmp_path):
    """Same keys, shapes, dtypes and values on disk, through stock and back, and the keys of files on the Hub."""
    name, options = CASES[case]
    stock_model(name, options).save_pretrained(tmp_path / "stock")
    getattr(hf_video, name).from_pretrained(tmp_path / "stock").save_pretrained(tmp_path / "ours")
    theirs, ours = (load_file(tmp_path / who / "model.safetensors") for who in ("stock", "ours"))
    assert list(theirs) == list(ours)
    assert_close(theirs, ours, atol=0)
    stem = "vivit." if case == "classifier" else ""
    assert f"{stem}encoder.layer.0.attention.attention.key.bias" in ours


def test_configuration_fields_and_defaults_are_stock():
    ours = hf_video.VivitConfig().to_dict()
    for field, value in stock_config.VivitConfig().to_dict().items():
        assert ours[field] == value, field


@pytest.mark.parametrize("head", ["AutoModelForVideoClassification", "AutoModel"])
def test_auto_classes_read_a_stock_folder_into_ours(head, tmp_path):
    stock = stock_model("VivitForVideoClassification", OPTIONS)
    stock.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "vivit"
    model = getattr(transformers, head).from_pretrained(tmp_path)
    assert type(model).__module__ == "hf_video.models.vivit.modeling_vivit"
    video = torch.randn(1, 6, 3, 32, 48)
    assert_close(model.base_model(video).last_hidden_state, stock.vivit(video).last_hidden_state, atol=TOLERANCE)


def test_the_state_dict_of_a_stock_class_converts():
    stock = stock_model("VivitForVideoClassification", OPTIONS)
    ours = hf_video.from_official("vivit", stock.state_dict(), num_attention_heads=4, num_frames=6, image_size=[32, 48])
    assert_same_answers(ours, stock, inputs_for("VivitForVideoClassification"))


@pytest.mark.slow
def test_base_size(tmp_path):
    stock = stock_model("VivitForVideoClassification", {"num_labels": 400})
    stock.save_pretrained(tmp_path)
    ours = hf_video.VivitForVideoClassification.from_pretrained(tmp_path)
    stock.set_attn_implementation("sdpa")
    video = torch.randn(1, 32, 3, 224, 224)
    with torch.no_grad():
        assert_close(ours(video).logits, stock(video).logits, atol=TOLERANCE)
