"""VideoMAE v2: the published sizes, and its checkpoints in every layout, the giant's by shape."""

from __future__ import annotations

import math

import pytest
import torch
from contract import assert_close

import hf_video
from hf_video.errors import CheckpointError, ConfigError
from hf_video.models.videomae.configuration_videomae import VideoMAEConfig
from hf_video.models.videomae.modeling_videomae import VideoMAEForPreTraining, VideoMAEForVideoClassification

# `model_config` of OpenGVLab/VideoMAEv2-Base on the Hub, but for its sizes.
HUB_CONFIG = {
    "in_chans": 3, "num_classes": 0, "mlp_ratio": 4, "qkv_bias": True, "qk_scale": None, "drop_rate": 0.0,
    "attn_drop_rate": 0.0, "drop_path_rate": 0.0, "norm_layer": "nn.LayerNorm", "layer_norm_eps": 1e-6,
    "init_values": 0.0, "use_learnable_pos_emb": False, "tubelet_size": 2, "use_mean_pooling": True, "with_cp": False,
    "num_frames": 16, "cos_attn": False,
}  # fmt: skip


def blocks(prefix: str, width: int, depth: int, intermediate: int) -> dict[str, list[int]]:
    """The authors' keys of a stack of blocks."""
    shapes = {}
    for i in range(depth):
        b = f"{prefix}blocks.{i}"
        shapes |= {f"{b}.attn.q_bias": [width], f"{b}.attn.v_bias": [width], f"{b}.attn.qkv.weight": [3 * width, width]}
        for name, out, inner in (
            ("attn.proj", width, width), ("mlp.fc1", intermediate, width), ("mlp.fc2", width, intermediate)
        ):  # fmt: skip
            shapes |= {f"{b}.{name}.weight": [out, inner], f"{b}.{name}.bias": [out]}
        for name in ("norm1", "norm2"):
            shapes |= {f"{b}.{name}.weight": [width], f"{b}.{name}.bias": [width]}
    return shapes


def encoder(prefix: str, config: VideoMAEConfig) -> dict[str, list[int]]:
    stem = {
        f"{prefix}patch_embed.proj.weight": [config.hidden_size, 3, *config.patch],
        f"{prefix}patch_embed.proj.bias": [config.hidden_size],
    }
    return stem | blocks(prefix, config.hidden_size, config.num_hidden_layers, config.intermediate_size)


def finetuned(config: VideoMAEConfig, classes: int = 0) -> dict[str, list[int]]:
    width = config.hidden_size
    head = {"head.weight": [classes, width], "head.bias": [classes]} if classes else {}
    return encoder("", config) | {"fc_norm.weight": [width], "fc_norm.bias": [width]} | head


def pretrained(config: VideoMAEConfig) -> dict[str, list[int]]:
    width, decoder = config.hidden_size, config.decoder_hidden_size
    t, p, q = config.patch
    return (
        encoder("encoder.", config)
        | {"encoder.norm.weight": [width], "encoder.norm.bias": [width], "mask_token": [1, 1, decoder]}
        | {"encoder_to_decoder.weight": [decoder, width]}
        | blocks("decoder.", decoder, config.decoder_num_hidden_layers, config.decoder_intermediate_size)
        | {"decoder.norm.weight": [decoder], "decoder.norm.bias": [decoder]}
        | {"decoder.head.weight": [3 * t * p * q, decoder], "decoder.head.bias": [3 * t * p * q]}
    )


def convert(shapes: dict[str, list[int]], wrapper: str = "model", prefix: str = "", **overrides):
    """Names and shapes alone: everything on the meta device."""
    with torch.device("meta"):
        state = {prefix + key: torch.empty(shape) for key, shape in shapes.items()}
        return hf_video.from_official("videomae", {wrapper: state}, **overrides)


SIZE_FIELDS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "patch_size")


@pytest.mark.parametrize(
    ("size", "count"),
    [
        ("small", 22_033_936),
        ("base", 86_534_800),
        ("large", 304_270_736),
        ("huge", 632_119_440),
        ("giant", 1_012_174_352),
    ],
)
def test_presets_have_the_published_numbers_of_parameters(size, count):
    """And the key list of these tests adds up to as many."""
    config = VideoMAEConfig.preset(size, num_labels=400)
    with torch.device("meta"):
        assert VideoMAEForVideoClassification(config).num_parameters() == count
    assert sum(math.prod(shape) for shape in finetuned(config, 400).values()) == count


@pytest.mark.parametrize(("size", "count"), [("small", 24_029_376), ("base", 94_210_944), ("large", 342_996_992)])
def test_pretraining_presets_have_the_published_numbers_of_parameters(size, count):
    config = VideoMAEConfig.preset(size, use_mean_pooling=False)
    with torch.device("meta"):
        assert VideoMAEForPreTraining(config).num_parameters() == count


def test_distilled_presets_and_unknown_ones():
    small, base = VideoMAEConfig.preset("v2-small-k710"), VideoMAEConfig.preset("v2-base-k710", num_frames=32)
    assert (small.hidden_size, small.num_attention_heads, small.num_labels) == (384, 6, 710)
    assert (base.hidden_size, base.num_labels, base.num_frames, base.layer_norm_eps) == (768, 710, 32, 1e-6)
    assert not base.cosine_attention
    with pytest.raises(ConfigError, match="small, base, large, huge, giant"):
        VideoMAEConfig.preset("gigantic")


@pytest.mark.parametrize("size", ["small", "base", "large", "huge", "giant"])
@pytest.mark.parametrize("layout", ["finetuned", "hub", "pretrained"])
def test_official_files_of_every_size_convert_to_the_last_key(size, layout):
    config = VideoMAEConfig.preset(size)
    if layout == "finetuned":
        model = convert(finetuned(config, 710), "module")
        assert type(model) is VideoMAEForVideoClassification
        assert model.config.num_labels == 710
    elif layout == "hub":
        model = convert(finetuned(config), "state_dict", "model.")
        assert type(model) is VideoMAEForVideoClassification
        assert model.config.num_labels == 0
    else:
        model = convert(pretrained(config))
        assert type(model) is VideoMAEForPreTraining
        assert not model.config.use_mean_pooling
        for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
            assert getattr(model.config, f"decoder_{name}") == getattr(config, f"decoder_{name}")
    assert [getattr(model.config, n) for n in SIZE_FIELDS] == [getattr(config, n) for n in SIZE_FIELDS]
    assert model.config.grid == ((8, 16, 16) if size == "giant" else (8, 14, 14))


def hub_state(prefix: str = "model.") -> dict[str, torch.Tensor]:
    config = VideoMAEConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=1, intermediate_size=96)
    torch.manual_seed(0)
    return {prefix + key: 0.2 * torch.randn(shape) for key, shape in finetuned(config).items()}


def test_hub_files_give_features(tmp_path):
    """`OpenGVLab/VideoMAEv2-*`: the custom model hands out fc_norm of the mean of tokens, our embedding."""
    state = hub_state()
    model = hf_video.from_official("videomae", state, **HUB_CONFIG, embed_dim=64, depth=2, num_heads=1, img_size=32)
    assert model.config.num_frames == 16
    assert model.config.layer_norm_eps == model.config.head_norm_eps == 1e-6
    assert not any(hasattr(model.config, name) for name in ("qk_scale", "with_cp", "norm_layer", "drop_rate"))
    video = torch.randn(1, 16, 3, 32, 32)
    tokens = model.videomae(video).last_hidden_state
    expected = torch.nn.functional.layer_norm(
        tokens.mean(1), (64,), state["model.fc_norm.weight"], state["model.fc_norm.bias"], 1e-6
    )
    assert_close(model.get_video_features(video).embedding, expected)
    assert_close(model(video).logits, expected)
    # From here a classifier is trained: the norm of the features stays, the head is new.
    model.save_pretrained(tmp_path)
    trained = VideoMAEForVideoClassification.from_pretrained(tmp_path, num_labels=5)
    assert_close(trained.get_video_features(video).embedding, expected)
    assert trained(video).logits.shape == (1, 5)


def test_hub_files_are_refused_where_they_do_not_fit():
    with pytest.raises(CheckpointError, match="surprise"):
        hf_video.from_official("videomae", hub_state() | {"model.surprise": torch.zeros(1)})
