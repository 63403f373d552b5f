"""Files and numbers against plain transformers: the same weights, every parameter drawn anew, both directions."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from contract import assert_close, randomise
from safetensors.torch import load_file
from transformers.models.timesformer import configuration_timesformer as stock_timesformer_config
from transformers.models.timesformer import modeling_timesformer as stock_timesformer
from transformers.models.videomae import configuration_videomae as stock_videomae_config
from transformers.models.videomae import modeling_videomae as stock_videomae

import hf_video

TOLERANCE = 1e-5

VIDEOMAE = {
    "image_size": [32, 48],
    "num_frames": 8,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "decoder_hidden_size": 24,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 48,
    "layer_norm_eps": 1e-6,
    "num_labels": 7,
}
TIMESFORMER = {
    "image_size": 48,  # stock counts patches by one number; squares only
    "num_frames": 4,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "num_labels": 7,
}
CASES = {
    "videomae base": ("VideoMAEModel", {**VIDEOMAE, "use_mean_pooling": False}),
    "videomae base, no norm": ("VideoMAEModel", VIDEOMAE),
    "videomae classifier": ("VideoMAEForVideoClassification", VIDEOMAE),
    "videomae classifier, first token": ("VideoMAEForVideoClassification", {**VIDEOMAE, "use_mean_pooling": False}),
    "videomae classifier, defaults": ("VideoMAEForVideoClassification", {**VIDEOMAE, "layer_norm_eps": 1e-12}),
    "videomae pretraining": ("VideoMAEForPreTraining", {**VIDEOMAE, "use_mean_pooling": False}),
    "videomae pretraining, pixels": ("VideoMAEForPreTraining", {**VIDEOMAE, "norm_pix_loss": False}),
    "videomae no bias": ("VideoMAEForPreTraining", {**VIDEOMAE, "qv_bias": False}),
    "timesformer base": ("TimesformerModel", TIMESFORMER),
    "timesformer divided": ("TimesformerForVideoClassification", TIMESFORMER),
    "timesformer joint": ("TimesformerForVideoClassification", {**TIMESFORMER, "attention_type": "joint_space_time"}),
    "timesformer no bias": ("TimesformerForVideoClassification", {**TIMESFORMER, "qkv_bias": False}),
}


def stock_class(name: str):
    return getattr(stock_videomae if name.startswith("VideoMAE") else stock_timesformer, name)


def stock_model(name: str, options: dict):
    cls = stock_class(name)
    config = (
        stock_videomae_config.VideoMAEConfig
        if name.startswith("VideoMAE")
        else stock_timesformer_config.TimesformerConfig
    )
    return randomise(cls(config(**options, attn_implementation="eager")))


def inputs_for(name: str, options: dict) -> dict[str, torch.Tensor]:
    size = options["image_size"]
    height, width = (size, size) if isinstance(size, int) else size
    inputs = {"pixel_values": torch.randn(2, options["num_frames"], 3, height, width)}
    if name.endswith("Classification"):
        inputs["labels"] = torch.tensor([3, 6])
    if name.endswith("PreTraining"):
        grid = (options["num_frames"] // 2, height // 16, width // 16)
        inputs["bool_masked_pos"] = hf_video.models.videomae.masking.random_mask(2, grid, 0.75)
    return inputs


def assert_same_answers(ours, stock, inputs):
    for mode in (False, True):
        options = {"output_hidden_states": mode, "output_attentions": mode}
        with torch.no_grad():
            got, expected = ours(**inputs, **options), stock(**inputs, **options)
        for name, value in expected.items():
            assert_close(got[name], value, atol=TOLERANCE)
            for state in (value,) if isinstance(value, torch.Tensor) else value:
                assert 0.01 < state.abs().max() < 100, f"{name} is too small or large for {TOLERANCE} to mean anything"
        if mode:
            assert {"hidden_states", "attentions"} <= set(expected)


@pytest.mark.parametrize("case", CASES)
def test_stock_file_in_ours(case, tmp_path):
    name, options = CASES[case]
    stock = stock_model(name, options)
    stock.save_pretrained(tmp_path)
    ours, info = getattr(hf_video, name).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    assert type(ours).__module__.startswith("hf_video.")
    assert_same_answers(ours, stock, inputs_for(name, options))


@pytest.mark.parametrize("case", CASES)
def test_our_file_in_stock(case, tmp_path):
    name, options = CASES[case]
    cls = getattr(hf_video, name)
    ours = randomise(cls(cls.config_class(**options)))
    ours.save_pretrained(tmp_path)
    stock, info = stock_class(name).from_pretrained(tmp_path, output_loading_info=True, attn_implementation="eager")
    assert not any(info.values()), info
    assert type(stock).__module__.startswith("transformers.")
    assert_same_answers(ours, stock, inputs_for(name, options))


@pytest.mark.parametrize("case", ["videomae classifier", "videomae pretraining", "timesformer divided"])
def test_files_are_the_same_to_the_byte_of_each_tensor(case, tmp_path):
    """Same keys, shapes, dtypes and values on disk, through stock and back."""
    name, options = CASES[case]
    stock_model(name, options).save_pretrained(tmp_path / "stock")
    getattr(hf_video, name).from_pretrained(tmp_path / "stock").save_pretrained(tmp_path / "ours")
    theirs, ours = (load_file(tmp_path / who / "model.safetensors") for who in ("stock", "ours"))
    assert list(theirs) == list(ours)
    assert_close(theirs, ours, atol=0)


@pytest.mark.parametrize("module", [stock_videomae_config, stock_timesformer_config])
def test_configuration_fields_and_defaults_are_stock(module):
    name = next(n for n in module.__all__ if n.endswith("Config"))
    ours = getattr(hf_video, name)().to_dict()
    for field, value in getattr(module, name)().to_dict().items():
        assert ours[field] == value, field


@pytest.mark.parametrize("rate", [0.1, 0.0])
def test_trained_with_drop_path_still_loads_in_stock(tmp_path, rate):
    """Stock types TimeSformer's drop_path_rate as an integer and refuses the paper's 0.1, and 0.0 too."""
    cls = hf_video.TimesformerForVideoClassification
    ours = randomise(cls(cls.config_class(**TIMESFORMER, drop_path_rate=rate)))
    ours.save_pretrained(tmp_path)
    stock = stock_class("TimesformerForVideoClassification").from_pretrained(tmp_path)
    video = torch.randn(1, 4, 3, 48, 48)
    assert_close(ours(video).logits, stock(video).logits, atol=TOLERANCE)
    assert cls.from_pretrained(tmp_path).config.drop_path_rate == rate


def test_old_bias_names_and_qkv_bias_load(tmp_path):
    """Files of the Hub: `q_bias`/`v_bias` (also what stock still writes), and `qkv_bias` in old configurations."""
    name, options = CASES["videomae classifier"]
    stock = stock_model(name, options)
    stock.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    config["qkv_bias"] = config.pop("qv_bias")
    file.write_text(json.dumps(config))
    ours, info = hf_video.VideoMAEForVideoClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    inputs = inputs_for(name, options)
    assert_close(ours(**inputs).logits, stock(**inputs).logits, atol=TOLERANCE)


@pytest.mark.parametrize("source", ["VideoMAEForPreTraining", "VideoMAEModel"])
def test_pretrained_file_starts_a_classifier(source, tmp_path, caplog):
    """Only the classifier (and, with mean pooling, its norm) is new; the encoder is the file's."""
    stock = stock_model(source, {**VIDEOMAE, "use_mean_pooling": False})
    stock.save_pretrained(tmp_path)
    ours, info = hf_video.VideoMAEForVideoClassification.from_pretrained(
        tmp_path, use_mean_pooling=True, output_loading_info=True
    )
    assert set(info["missing_keys"]) == {"fc_norm.weight", "fc_norm.bias", "classifier.weight", "classifier.bias"}
    assert_close(ours.fc_norm.weight, torch.ones(48), atol=0)
    video = torch.randn(1, 8, 3, 32, 48)
    encoder = stock.videomae if source.endswith("PreTraining") else stock
    state = encoder(video, output_hidden_states=True).hidden_states[-1]
    assert_close(ours.videomae(video).last_hidden_state, state, atol=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("VideoMAEForVideoClassification", {"num_frames": 16, "image_size": 224, "num_labels": 400}),
        ("VideoMAEForPreTraining", {"num_frames": 16, "image_size": 224, "use_mean_pooling": False}),
        ("TimesformerForVideoClassification", {"num_frames": 8, "image_size": 224, "num_labels": 400}),
    ],
)
def test_base_size(name, options):
    stock = stock_model(name, options)
    cls = getattr(hf_video, name)
    ours = cls(cls.config_class(**options)).eval()
    state = {
        k.replace("query.bias", "q_bias").replace("value.bias", "v_bias"): v for k, v in stock.state_dict().items()
    }
    ours.load_state_dict(state)
    inputs = {k: v[:1] for k, v in inputs_for(name, options).items()}
    with torch.no_grad():
        got, expected = ours(**inputs), stock(**inputs)
    assert_close(got.logits, expected.logits, atol=TOLERANCE)
    assert_close(got.loss, expected.loss, atol=TOLERANCE)


@pytest.mark.parametrize("case", ["videomae classifier", "videomae pretraining", "timesformer joint"])
def test_auto_classes_read_stock_folders_into_ours(case, tmp_path):
    name, options = CASES[case]
    stock_model(name, options).save_pretrained(tmp_path)
    head = "AutoModelForPreTraining" if name.endswith("PreTraining") else "AutoModelForVideoClassification"
    for auto, expected in ((head, name), ("AutoModel", name.split("For")[0] + "Model")):
        model = getattr(transformers, auto).from_pretrained(tmp_path)
        assert type(model) is getattr(hf_video, expected)
