"""V-JEPA 2 against the authors' code, through `from_official`."""

from __future__ import annotations

import json
import logging
import re

import pytest
import torch
from golden_cases import FOLDER, Golden, parts_of

import hf_video
from hf_video.errors import CheckpointError
from hf_video.models.vjepa2 import rotation


def converted(golden: Golden, **options):
    return hf_video.from_official("vjepa2", golden.checkpoint, **{**golden.config, **options})


@torch.no_grad()
def pretrained_answers(model, golden: Golden) -> dict[str, torch.Tensor]:
    inputs = golden.inputs
    masks = {f"{name}_mask": [inputs[name]] for name in ("context", "target")}
    masked, whole = model(inputs["video"], **masks), model(inputs["video"])
    trained = converted(golden, checkpoint_key="encoder")
    return {
        "last_hidden_state_8x16": whole.last_hidden_state[:, :8, :16],
        "predicted": masked.predictor_output.last_hidden_state,
        "predicted_all_8x16": whole.predictor_output.last_hidden_state[:, -8:, :16],
        "wide_8x16": model(inputs["wide"], skip_predictor=True).last_hidden_state[:, -8:, :16],
        "trained_encoder_8x16": trained(inputs["video"], skip_predictor=True).last_hidden_state[:, -8:, :16],
    }


def test_pretrained():
    golden = Golden("vjepa2_pretrained")
    golden.compare(pretrained_answers(converted(golden), golden))


@torch.no_grad()
def test_probe():
    golden = Golden("vjepa2_probe")
    model, levels = converted(golden), converted(golden, out_layers=[1, 3])
    video, wide = golden.inputs["video"], golden.inputs["wide"]
    golden.compare(
        {
            "logits": model(video).logits,
            "pooled": model.get_video_features(video).pooler_output,
            "logits_of_two_layers": levels(video).logits,
            "wide_logits": model(wide).logits,
        }
    )


def test_golden_cases_can_fail(monkeypatch):
    """Frequencies as they were meant, one for both channels of a pair; and the pooler as transformers has it."""
    golden = Golden("vjepa2_pretrained")
    make = rotation.RotaryTables.make

    def meant(self, *args):
        cos, sin = make(self, *args)
        width = self.head_dim // 3 // 2 * 2
        index = torch.arange(width // 2).repeat_interleave(2)
        index = torch.cat([index, width + index, 2 * width + index])
        sign = torch.tensor([-1.0, 1.0]).repeat(len(index) // 2)
        return torch.cat([cos[..., index], cos[..., 3 * width :]], -1), torch.cat(
            [sin[..., index].abs() * sign, sin[..., 3 * width :]], -1
        )

    monkeypatch.setattr(rotation.RotaryTables, "make", meant)
    with pytest.raises(AssertionError, match="last_hidden"):
        golden.compare(pretrained_answers(converted(golden), golden))
    monkeypatch.undo()
    golden = Golden("vjepa2_probe")
    for change in ({"pooler_num_attention_heads": 2}, {"pooler_layer_norm_eps": 1e-2}):
        with torch.no_grad(), pytest.raises(AssertionError):
            assert_logits(converted(golden, **change), golden)


def assert_logits(model, golden: Golden) -> None:
    expected, allowed = golden.expected["logits"], golden.case["outputs"]["logits"]["tolerance"]
    torch.testing.assert_close(model(golden.inputs["video"]).logits, expected, atol=allowed, rtol=0)


@pytest.mark.slow
@torch.no_grad()
def test_large():
    golden = Golden("vjepa2_vitl_full")
    model = converted(golden)
    assert sum(p.numel() for p in model.vjepa2.encoder.parameters()) == 303_885_312
    output = model(golden.inputs["video"])
    places = {"context_mask": torch.arange(256)[None], "target_mask": torch.arange(256, 512)[None]}
    whole = model.vjepa2(golden.inputs["video"], **places)
    golden.compare(
        {
            "logits": output.logits,
            "last_hidden_state_8x16": whole.last_hidden_state[:, :8, :16],
            "predicted_8x16": whole.predictor_output.last_hidden_state[:, :8, :16],
        }
    )


PRESETS = {"vitl_full": "large", "vith": "huge", "vitg": "giant"}


def official_file(name: str) -> dict:
    """A published file without its values."""
    keys = json.loads((FOLDER / "keys" / f"vjepa2_{name}.json").read_text())
    return parts_of({key: torch.empty(shape, device="meta") for key, shape in keys.items()})


@pytest.mark.parametrize("name", PRESETS)
def test_every_key_of_the_published_sizes(name):
    file = official_file(name)
    with torch.device("meta"):
        model = hf_video.from_official("vjepa2", file)
    config, preset = model.config.to_dict(), hf_video.VJEPA2Config.preset(PRESETS[name]).to_dict()
    same = [key for key in preset if key.startswith(("pred", "hidden", "num_hid", "num_att", "patch", "tube", "qkv"))]
    assert {key: config[key] for key in same} == {key: preset[key] for key in same}
    assert int(config["mlp_ratio"] * config["hidden_size"]) == int(preset["mlp_ratio"] * preset["hidden_size"])


def tiny_file() -> dict:
    """A file of a pretrained encoder and predictor, and 2 probes."""
    file = Golden("vjepa2_pretrained").checkpoint
    return file | {"classifiers": Golden("vjepa2_probe").checkpoint["classifiers"] * 2, "epoch": 3, "opt": [{}]}


GIVEN = {"num_heads": 2, "pred_num_heads": 3, "img_size": 64, "num_frames": 8}


def test_parts_of_a_file():
    """An encoder alone, under any prefix; a probe beside it, which of several must be said."""
    file = tiny_file()
    encoder = file["target_encoder"]
    for alone in (
        encoder,
        {"encoder": {key.replace("backbone.", "_orig_mod.backbone."): value for key, value in encoder.items()}},
        {key.removeprefix("module.backbone."): value for key, value in encoder.items()},
    ):
        model = hf_video.from_official("vjepa2", alone, **GIVEN)
        assert type(model).__name__ == "VJEPA2Model"
        weight = encoder["module.backbone.blocks.3.attn.qkv.weight"]
        assert torch.equal(model.encoder.layer[3].attention.value.weight, weight[128:])
    model = hf_video.from_official("vjepa2", file, classifier=1, **GIVEN)
    assert model.config.num_labels == 9
    assert model.config.pooler_num_attention_heads == 16
    assert torch.equal(model.pooler.query_tokens, file["classifiers"][1]["module.pooler.query_tokens"])


def test_heads_that_are_given_are_not_looked_for_in_the_shapes():
    encoder = tiny_file()["target_encoder"]
    narrow = {key: torch.zeros([n * 48 // 64 if n % 64 == 0 else n for n in v.shape]) for key, v in encoder.items()}
    assert hf_video.from_official("vjepa2", narrow, **GIVEN).config.hidden_size == 48
    with pytest.raises(CheckpointError, match="Pass num_attention_heads"):
        hf_video.from_official("vjepa2", narrow)


def renamed(part: str, old: str, new: str):
    def change(file: dict) -> None:
        file[part] = {key.replace(old, new): value for key, value in file[part].items()}

    return change


def with_key(part: str, *keys: str):
    def change(file: dict) -> None:
        file[part] |= dict.fromkeys(keys, torch.zeros(1, 4, 4))

    return change


def anticipation(file: dict) -> None:
    probe = file["classifiers"][0]
    file["classifiers"] = [probe | {"module.verb_classifier.weight": torch.zeros(2, 64)}]


def two_mask_tokens(file: dict) -> None:
    predictor = {key: v for key, v in file["predictor"].items() if not re.search(r"mask_tokens\.[2-9]", key)}
    file["predictor"] = predictor | {"module.backbone.predictor_pos_embed": torch.zeros(1, 4, 36)}


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (lambda file: None, {}, "has 2 probes.*classifier=0 to 1"),
        (lambda file: None, {"classifier": 2}, "classifier=2 is not in the file"),
        (lambda file: None, {"checkpoint_key": "ema_encoder"}, "has target_encoder, encoder"),
        (anticipation, {}, "action anticipation"),
        (two_mask_tokens, {"classifier": 0}, r"V-JEPA \(1\)"),
        (with_key("target_encoder", "module.backbone.norms_block.0.weight"), {"classifier": 0}, r"V-JEPA 2\.1"),
        (with_key("target_encoder", "module.backbone.video_mod_embed"), {"classifier": 0}, r"V-JEPA 2\.1"),
        (with_key("target_encoder", "module.backbone.blocks.0.mlp.fc3.weight"), {"classifier": 0}, "SwiGLU"),
        (with_key("target_encoder", "module.backbone.cls_token"), {"classifier": 0}, "left over:\n.*encoder.cls_token"),
        (renamed("target_encoder", "blocks.1.norm2", "blocks.1.norm3"), {"classifier": 0}, "layer.1.norm2.weight"),
        (renamed("target_encoder", "patch_embed", "stem"), {"classifier": 0}, "No V-JEPA 2 encoder"),
    ],
)
def test_what_is_refused(change, options, words):
    file = tiny_file()
    change(file)
    with pytest.raises(CheckpointError, match=re.compile(words, re.DOTALL)):
        hf_video.from_official("vjepa2", file, **GIVEN, **options)


def test_what_is_left_out_is_said(caplog):
    logging.getLogger("transformers").propagate = True
    file = tiny_file()
    del file["classifiers"]
    file["predictor"] = {
        "module.action_encoder.weight": torch.zeros(4, 7),
        "module.predictor_embed.bias": torch.zeros(4),
    }
    file["target_encoder"]["module.backbone.pos_embed"] = torch.zeros(1, 4, 64)
    model = hf_video.from_official("vjepa2", file, **GIVEN)
    assert type(model).__name__ == "VJEPA2Model"
    for words in ("action-conditioned predictor of V-JEPA 2-AC is left out", "starts from random", "pos_embed"):
        assert words in caplog.text
