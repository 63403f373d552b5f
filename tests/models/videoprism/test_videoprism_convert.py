"""The authors' flax checkpoints: their own answers (google-deepmind/videoprism, in float64), and the published keys."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from contract import assert_close
from golden_cases import FOLDER, Golden
from transformers import AutoVideoProcessor

import hf_video
from hf_video.base.convert import convert_file, from_official, load_official_file, unwrap
from hf_video.errors import CheckpointError
from hf_video.models.videoprism.convert_videoprism import convert


@torch.no_grad()
def test_encoder():
    golden = Golden("videoprism_encoder")
    model = from_official("videoprism", golden.checkpoint)
    output = model(golden.inputs["video"])
    spatial = model.layernorm1(output.last_spatial_hidden_state).unflatten(0, (2, 4)).flatten(1, 2)
    golden.compare({"last_hidden_state": output.last_hidden_state, "spatial_features": spatial})


@torch.no_grad()
def test_encoder_with_interpolated_positions():
    golden = Golden("videoprism_encoder_resized")
    model = from_official("videoprism_vision_model", golden.checkpoint)
    output = model(golden.inputs["video"], interpolate_pos_encoding=True)
    spatial = model.layernorm1(output.last_spatial_hidden_state)[None].flatten(1, 2)
    golden.compare({"last_hidden_state": output.last_hidden_state, "spatial_features": spatial})


@torch.no_grad()
def test_classifier():
    """Its pooling is narrower than transformers'."""
    golden = Golden("videoprism_vc")
    model = from_official("videoprism", golden.checkpoint)
    assert (model.config.num_labels, model.config.pooler_size) == (5, 16)
    video = golden.inputs["video"]
    golden.compare({"logits": model(video).logits[:, 0], "embeddings": model.get_video_features(video).embedding})


@torch.no_grad()
def test_clip_model(tmp_path):
    """And through a file of transformers' layout, whose text positions are the official ones."""
    golden = Golden("videoprism_lvt")
    model = from_official("videoprism", golden.checkpoint, **golden.config)
    model.save_pretrained(tmp_path)
    for one in (model, hf_video.VideoPrismClipModel.from_pretrained(tmp_path)):
        output = one(golden.inputs["video"], golden.inputs["input_ids"], golden.inputs["attention_mask"])
        golden.compare({"video_embeds": output.video_embeds, "text_embeds": output.text_embeds})
    table = model.text_model.embeddings
    assert (table.position_embedding - table.table()).abs().max() > 0.1  # transformers' are others


@pytest.mark.parametrize(
    ("name", "cls", "parameters", "frames"),
    [
        ("base", "VideoPrismVisionModel", 114_365_184, 16),
        ("large", "VideoPrismVisionModel", 353_965_056, 8),
        ("lvt_base", "VideoPrismClipModel", 247_623_424, 16),
        ("lvt_large", "VideoPrismClipModel", 579_877_120, 8),
    ],
)
def test_published_layouts(name, cls, parameters, frames):
    """No key left over, none missing, every shape right; on the meta device, so the large ones cost nothing."""
    keys = json.loads((FOLDER / "keys" / f"videoprism_{name}_full.json").read_text())
    converted = convert(unwrap({k: torch.empty(s, device="meta") for k, s in keys.items()}), {})
    assert converted.class_name == cls
    kind = getattr(hf_video, cls)
    config = kind.config_class(**converted.config)
    assert (config.num_frames, config.image_size) == (frames, 288)
    expected = hf_video.VideoPrismVisionConfig.preset(name.removeprefix("lvt_"))
    assert getattr(config, "vision_config", config).to_dict() == {**expected.to_dict(), **_only_ours(config)}
    with torch.device("meta"):
        net = kind(config)
    assert {k: v.shape for k, v in net.state_dict().items()} == {k: v.shape for k, v in converted.state_dict.items()}
    assert sum(p.numel() for p in net.parameters()) == parameters


def _only_ours(config) -> dict:
    """A checkpoint of the encoder has no auxiliary layers."""
    return {} if hasattr(config, "vision_config") else {"num_auxiliary_layers": 0}


def test_npz_files(tmp_path):
    golden = Golden("videoprism_encoder")
    np.savez(tmp_path / "flax.npz", **{k: v.numpy() for k, v in golden.checkpoint.items()})
    model = convert_file(tmp_path / "flax.npz", model_type="videoprism_vision_model", output=tmp_path / "out")
    assert_close(model.state_dict(), from_official("videoprism", golden.checkpoint).state_dict(), atol=0)
    processor = AutoVideoProcessor.from_pretrained(tmp_path / "out")
    assert (dict(processor.size), processor.do_normalize) == ({"height": 18, "width": 18}, False)
    np.savez(tmp_path / "code.npz", x=np.array([{}], dtype=object))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04")
    for name in ("code", "broken"):
        with pytest.raises(CheckpointError, match=name):
            load_official_file(tmp_path / f"{name}.npz")


def test_what_does_not_fit_is_named():
    state = Golden("videoprism_lvt").checkpoint
    del state["params/text_encoder/unimodal_ln/scale"]
    with pytest.raises(CheckpointError, match=r"text_model\.layernorm\.weight"):
        from_official("videoprism", state)
    with pytest.raises(CheckpointError, match="No VideoPrism checkpoint"):
        from_official("videoprism", {"params/x/kernel": np.zeros(3)})
    model = from_official("videoprism", Golden("videoprism_lvt").checkpoint, atten_logit_cap=30.0)
    towers = model.config.vision_config, model.config.text_config
    assert [tower.attn_logit_softcapping for tower in towers] == [30.0, 30.0]
