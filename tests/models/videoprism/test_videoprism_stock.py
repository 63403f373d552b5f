"""VideoPrism: files and numbers against plain transformers, every parameter drawn anew, both directions."""

from __future__ import annotations

import pytest
import torch
import transformers
from contract import assert_close, randomise
from safetensors.torch import load_file

import hf_video

stock_modeling = pytest.importorskip("transformers.models.videoprism.modeling_videoprism")
stock_config = pytest.importorskip("transformers.models.videoprism.configuration_videoprism")

TOLERANCE = 1e-5
VISION = {
    "image_size": [36, 54],
    "num_frames": 4,
    "hidden_size": 48,
    "num_spatial_layers": 2,
    "num_temporal_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
}
TEXT = {"vocab_size": 60, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 8}
TEXT |= {"hidden_size": 48, "intermediate_size": 96}
LABELS = {**VISION, "num_labels": 7}
CASES = {
    "base": ("VideoPrismVisionModel", VISION),
    "classifier": ("VideoPrismForVideoClassification", LABELS),
    "no bias, low cap": (
        "VideoPrismForVideoClassification",
        {**LABELS, "qkv_bias": False, "attn_logit_softcapping": 4.0},
    ),
    "clip": ("VideoPrismClipModel", {"vision_config": VISION, "text_config": TEXT}),
    "clip, any length": (
        "VideoPrismClipModel",
        {"vision_config": {**VISION, "apply_l2norm": False}, "text_config": {**TEXT, "apply_l2norm": False}},
    ),
}


def make(module, configs, name: str, options: dict, **more):
    config = configs.VideoPrismConfig if name.endswith("Clip" + "Model") else configs.VideoPrismVisionConfig
    # Norms of twice the scale, as the contract draws them, make logits that no softmax of float32 has to 1e-5.
    model = randomise(getattr(module, name)(config(**options, **more)), gain=0.5)
    return model


def inputs_for(name: str) -> dict[str, torch.Tensor | bool]:
    generator = torch.Generator().manual_seed(1)
    inputs = {"pixel_values_videos": torch.rand(2, 4, 3, 36, 54, generator=generator)}
    if name.endswith("Classification"):
        inputs["labels"] = torch.tensor([3, 6])
    if "Clip" in name:
        mask = torch.tensor([[1] * 8, [1] * 5 + [0] * 3])
        inputs |= {"input_ids": torch.randint(1, 60, (2, 8), generator=generator) * mask, "attention_mask": mask}
        inputs |= {"return_loss": True, "temperature": 0.5}
    return inputs


def assert_same(got, expected):
    assert set(expected) <= set(got)
    for name, value in expected.items():
        if isinstance(value, transformers.utils.ModelOutput):
            assert_same(got[name], value)
            continue
        pairs = zip(got[name], value, strict=True) if isinstance(value, tuple) else [(got[name], value)]
        for mine, theirs in pairs:
            assert mine.shape == theirs.shape, name
            assert_close(mine, theirs, atol=TOLERANCE)
            assert 0.01 < theirs.abs().max() < 100, f"{name} is too small or large for {TOLERANCE} to mean anything"


@torch.no_grad()
def assert_same_answers(ours, stock, inputs):
    for options in ({}, {"output_hidden_states": True, "output_attentions": True}):
        assert_same(ours(**inputs, **options), stock(**inputs, **options))


@pytest.mark.parametrize("case", CASES)
def test_stock_file_in_ours_and_back(case, tmp_path):
    """Same keys, shapes, types and values on disk as well."""
    name, options = CASES[case]
    stock = make(stock_modeling, stock_config, name, options)
    stock.save_pretrained(tmp_path / "stock")
    ours, info = getattr(hf_video, name).from_pretrained(tmp_path / "stock", output_loading_info=True)
    assert not any(info.values()), info
    assert type(ours).__module__.startswith("hf_video.")
    assert_same_answers(ours, stock, inputs_for(name))
    ours.save_pretrained(tmp_path / "ours")
    theirs, mine = (load_file(tmp_path / who / "model.safetensors") for who in ("stock", "ours"))
    assert list(theirs) == list(mine)
    assert_close(theirs, mine, atol=0)


@pytest.mark.parametrize("case", CASES)
def test_our_file_in_stock(case, tmp_path):
    name, options = CASES[case]
    ours = make(hf_video, hf_video, name, options)
    ours.save_pretrained(tmp_path)
    stock, info = getattr(stock_modeling, name).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    assert type(stock).__module__.startswith("transformers.")
    assert_same_answers(ours, stock, inputs_for(name))


@torch.no_grad()
def test_interpolated_positions(tmp_path):
    options = {**VISION, "image_size": 54}  # stock takes them for a square
    stock = make(stock_modeling, stock_config, "VideoPrismVisionModel", options)
    ours = hf_video.VideoPrismVisionModel(hf_video.VideoPrismVisionConfig(**options)).eval()
    ours.load_state_dict(stock.state_dict())
    for clip in ((7, 54, 54), (1, 54, 54), (4, 72, 36), (3, 90, 108)):
        video = torch.rand(1, clip[0], 3, *clip[1:])
        assert_same(ours(video, interpolate_pos_encoding=True), stock(video, interpolate_pos_encoding=True))


def test_texts_without_a_mask(caplog):
    """Not even causal then, as in transformers; we say so."""
    name, options = CASES["clip"]
    stock = make(stock_modeling, stock_config, name, options).text_model
    ours = hf_video.VideoPrismTextModel(hf_video.VideoPrismTextConfig(**TEXT)).eval()
    ours.load_state_dict(stock.state_dict())
    ids = torch.randint(1, 60, (2, 6))
    with torch.no_grad():
        assert_same(ours(ids), stock(ids))
        assert (ours(ids)[0] - ours(ids, torch.ones_like(ids))[0]).abs().max() > 0.01


@pytest.mark.parametrize("name", ["VideoPrismConfig", "VideoPrismVisionConfig", "VideoPrismTextConfig"])
def test_configuration_fields_and_defaults_are_stock(name):
    def same(ours, stock):
        for field, value in stock.items():
            if isinstance(value, dict) and field.endswith("_config"):
                same(ours[field], value)
            else:
                assert ours[field] == value, field

    same(getattr(hf_video, name)().to_dict(), getattr(stock_config, name)().to_dict())


@pytest.mark.parametrize(
    ("head", "case"),
    [("AutoModelForVideoClassification", "classifier"), ("AutoModel", "classifier"), ("AutoModel", "clip")],
)
def test_auto_classes_read_stock_folders_into_ours(head, case, tmp_path):
    name, options = CASES[case]
    make(stock_modeling, stock_config, name, options).save_pretrained(tmp_path)
    model = getattr(transformers, head).from_pretrained(tmp_path)
    assert type(model).__module__.startswith("hf_video.models.videoprism.")
    assert type(model).__name__ == (name if case == "clip" or head != "AutoModel" else "VideoPrismVisionModel")
