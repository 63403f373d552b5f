"""V-JEPA 2's files and numbers against plain transformers: the same weights, every parameter drawn anew, both ways."""

from __future__ import annotations

import pytest
import torch
from contract import assert_close, randomise
from safetensors.torch import load_file
from transformers.models.vjepa2 import configuration_vjepa2 as stock_config
from transformers.models.vjepa2 import modeling_vjepa2 as stock

import hf_video
from hf_video.models.vjepa2.rotation import RotaryTables, rotate

OPTIONS = {
    "crop_size": 64,
    "frames_per_clip": 8,
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "pred_hidden_size": 48,
    "pred_num_hidden_layers": 2,
    "pred_num_attention_heads": 3,
    "pred_num_mask_tokens": 3,
    "num_pooler_layers": 2,
    "num_labels": 7,
}
CASES = {
    "encoder and predictor": ("VJEPA2Model", {}),
    "no biases, other tubelets, other MLPs": (
        "VJEPA2Model",
        {"qkv_bias": False, "tubelet_size": 4, "mlp_ratio": 48 / 11, "pred_mlp_ratio": 3.0, "hidden_act": "gelu_new"},
    ),
    "classifier": ("VJEPA2ForVideoClassification", {}),
    "classifier without self-attention, giant's heads": (
        "VJEPA2ForVideoClassification",
        {"num_pooler_layers": 0, "hidden_size": 88, "num_attention_heads": 11},
    ),
}


def classes(case: str):
    name, changes = CASES[case]
    return getattr(hf_video, name), getattr(stock, name), {**OPTIONS, **changes}


def inputs_for(cls) -> dict:
    generator = torch.Generator().manual_seed(0)
    inputs = {"pixel_values_videos": torch.randn(2, 8, 3, 64, 64, generator=generator)}
    if cls.__name__.endswith("Classification"):
        return {**inputs, "labels": torch.tensor([3, 6])}
    order = torch.stack([torch.randperm(32, generator=generator) for _ in range(2)])
    return {**inputs, "context_mask": [order[:, :13]], "target_mask": [order[:, 13:20]]}


def flat(output) -> dict:
    """Every tensor of an output, those of the predictor too."""
    found = {}
    for name, value in output.items():
        found |= {f"{name}.{k}": v for k, v in flat(value).items()} if hasattr(value, "items") else {name: value}
    return found


@torch.no_grad()
def assert_same_answers(ours, theirs):
    inputs = inputs_for(type(ours))
    without = {name: value for name, value in inputs.items() if not name.endswith("_mask")}
    image = {**without, "pixel_values_videos": inputs["pixel_values_videos"][:, :1]}
    for given in (inputs, without, image):
        got, expected = (
            flat(model(**given, output_hidden_states=True, output_attentions=True)) for model in (ours, theirs)
        )
        assert set(got) == set(expected)
        assert {"hidden_states", "attentions"} <= set(expected)
        for name, value in expected.items():
            assert_close(got[name], value, atol=1e-5)
    for cls, model in ((type(ours), ours), (type(theirs), theirs)):
        assert isinstance(model(**without, return_dict=False), tuple), cls
    features = (
        getattr(model, "vjepa2", model).get_vision_features(without["pixel_values_videos"]) for model in (ours, theirs)
    )
    assert_close(*features, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_files_both_ways(case, tmp_path):
    cls, stock_cls, options = classes(case)
    theirs = randomise(stock_cls(stock_config.VJEPA2Config(**options, attn_implementation="eager")))
    theirs.save_pretrained(tmp_path / "theirs")
    ours, info = cls.from_pretrained(tmp_path / "theirs", output_loading_info=True)
    assert not any(info.values()), info
    assert_same_answers(ours, theirs)

    ours.save_pretrained(tmp_path / "ours")
    back, info = stock_cls.from_pretrained(tmp_path / "ours", output_loading_info=True, attn_implementation="eager")
    assert not any(info.values()), info
    assert type(back).__module__.startswith("transformers.")
    assert_same_answers(ours, back)
    first, second = (load_file(tmp_path / who / "model.safetensors") for who in ("theirs", "ours"))
    assert list(first) == list(second)
    assert_close(first, second, atol=0)


def test_configuration_fields_and_defaults_are_stock():
    ours = hf_video.VJEPA2Config().to_dict()
    for field, value in stock_config.VJEPA2Config().to_dict().items():
        assert ours[field] == value, field


def test_angles_are_exact_in_bfloat16():
    """Stock works them out in the type of the weights, up to 2° off in the last of 64 frames."""
    pair = torch.tensor([1.0, 0.0]).repeat(10)
    exact, ours = (
        rotate(pair.repeat(3).to(dtype).expand(1, 32, 2, 1, -1), RotaryTables(60)((32, 1, 1), dtype, pair.device))
        for dtype in (torch.float64, torch.bfloat16)
    )
    theirs = stock.rotate_queries_or_keys(pair.bfloat16().expand(1, 1, 32, -1), torch.arange(32))[0, 0]
    wanted = exact[0, :, 0, 0, :20]
    assert (ours[0, :, 0, 0, :20].double() - wanted).abs().max() < 0.002
    assert (theirs.double() - wanted).abs().max() > 0.03
