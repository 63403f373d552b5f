"""What a checkpoint doesn't say is announced by the name of the option that says it, for every converter."""

from __future__ import annotations

import logging

import pytest
import torch
from golden_cases import CASES, Golden
from transformers.initialization import no_init_weights

import hf_video
from hf_video.base.convert import build_from_official, convert_file, unwrap
from hf_video.errors import CheckpointError
from hf_video.layers.embeddings import sinusoid_table

FIRST = {"clip4clip": "videoclip", "i3d": "i3d", "c3d": "c3d", "mvit": "mvit", "s3dg": "s3d", "slowfast": "slowfast"}
FIRST |= {"timesformer": "timesformer", "twostream": "two_stream", "video_swin": "video_swin", "videoclip": "videoclip"}
FIRST |= {"videomae": "videomae", "violet": "violet", "vivit": "vivit", "vjepa2": "vjepa2"}
FIRST |= {"videoprism_lvt": "videoprism", "videoprism": "videoprism_vision_model", "x3d": "x3d"}
# Cases with a gain are others' layouts once more.
SMALL = [name for name, case in CASES.items() if not case["full_config"] and not name.endswith("_gain")]
# The widest fully connected layers, which take most of the time; the other cases of their models go the same way.
WIDE = ("c3d_jfzhang", "twostream_rgb_vgg16", "twostream_flow_vgg16")


@pytest.fixture(autouse=True)
def logged(caplog):
    logging.getLogger("transformers").propagate = True
    caplog.set_level(logging.WARNING)
    return caplog


def model_type_of(name: str) -> str:
    return next(model_type for first, model_type in FIRST.items() if name.startswith(first))


def value_of(config, name: str):
    for part in name.split("."):
        config = getattr(config, part)
    return config


def nested(options: dict) -> dict:
    """`{"text_config.hidden_act": "gelu"}` as `{"text_config": {"hidden_act": "gelu"}}`."""
    found: dict = {}
    for name, value in options.items():
        part, _, key = name.rpartition(".")
        (found.setdefault(part, {}) if part else found)[key] = value
    return found


def test_every_converter_is_tried():
    assert {model_type_of(name) for name in SMALL} == set(hf_video.MODELS)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in WIDE else n for n in SMALL])
def test_assumptions_are_announced_and_can_be_given(name, logged):
    golden = Golden(name)
    model_type, checkpoint, given = model_type_of(name), golden.checkpoint, dict(golden.config)
    if name == "videoclip_mmpt":
        given["end_token_ids"] = (2, 3)
    with no_init_weights():  # of which nothing is asked here
        model, converted = build_from_official(model_type, checkpoint, dict(given))
    values = {key: value_of(model.config, key) for key in converted.unspecified}
    for key in values:
        assert repr(key.rpartition(".")[2]).strip("'") in logged.text
    logged.clear()
    with no_init_weights():
        again, said = build_from_official(model_type, checkpoint, {**given, **nested(values)})
    assert not said.unspecified
    assert "assumed" not in logged.text
    # A C3D of unknown size takes every clip with as many places; a given size is the only one.
    before, after = ({**m.config.to_dict(), "any_grid": None} for m in (model, again))
    assert after == before


def test_no_official_name_is_announced_when_given_under_it(logged):
    golden = Golden("videomae_finetune")
    official = {"num_heads": 4, "img_size": 32, "all_frames": 4}
    build_from_official("videomae", golden.checkpoint, {**golden.config, **official})
    assert "assumed" not in logged.text


def test_heads_and_activation_of_clip_are_taken():
    golden = Golden("clip4clip_meanP")
    plain, _ = build_from_official("videoclip", golden.checkpoint, dict(golden.config))
    options = {"vision_heads": 1, "text_config": {"hidden_act": "gelu"}}
    model, converted = build_from_official("videoclip", golden.checkpoint, {**golden.config, **options})
    assert model.config.video_config.num_attention_heads == 1
    assert (model.config.text_config.hidden_act, model.config.video_config.hidden_act) == ("gelu", "quick_gelu")
    assert model.config.text_config.hidden_size == plain.config.text_config.hidden_size
    assert "video_config.num_attention_heads" not in converted.unspecified
    assert "text_config.hidden_act" not in converted.unspecified


def test_a_width_without_heads_of_64_channels_is_asked_about():
    state = {"visual.conv1.weight": torch.zeros(48, 3, 8, 8), "visual.proj": torch.zeros(48, 16)}
    state |= {"ln_final.weight": torch.zeros(64), "visual.positional_embedding": torch.zeros(5, 48)}
    state |= {"positional_embedding": torch.zeros(7, 64), "text_projection": torch.zeros(64, 16)}
    with pytest.raises(CheckpointError, match="vision_heads"):
        build_from_official("videoclip", state, {})


def test_saved_positions_of_other_clips_are_refused():
    golden = Golden("videomae_pretrain")
    state = unwrap(golden.checkpoint)
    width = state["encoder.patch_embed.proj.weight"].shape[0]
    state["encoder.pos_embed"] = sinusoid_table(3, width)[None]
    with pytest.raises(CheckpointError, match=r"encoder.pos_embed has positions for 3 tokens.*num_frames"):
        build_from_official("videomae", state, dict(golden.config))


def test_a_converted_file_says_what_its_processor_assumes(logged, tmp_path):
    golden = Golden("x3d_small")
    torch.save(golden.checkpoint, tmp_path / "x3d.pyth")
    convert_file(tmp_path / "x3d.pyth", model_type="x3d", output=tmp_path / "out", **golden.config)
    assert "--processor" in logged.text
    assert "image_mean=[0.45, 0.45, 0.45]" in logged.text


def test_nothing_is_drawn_that_the_checkpoint_replaces():
    golden = Golden("x3d_small")
    checkpoint, before = golden.checkpoint, torch.get_rng_state()
    hf_video.from_official("x3d", checkpoint, **golden.config)
    assert torch.equal(torch.get_rng_state(), before)
