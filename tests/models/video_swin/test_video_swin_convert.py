"""Video Swin: every layout of checkpoints, at full size by shape and in small by value; images inflated to video."""

from __future__ import annotations

import json

import pytest
import torch
from contract import assert_close, randomise
from golden_cases import FOLDER, Golden
from safetensors.torch import load_file
from transformers import SwinConfig, SwinForImageClassification

import hf_video
from hf_video.errors import CheckpointError
from hf_video.models.video_swin.configuration_video_swin import VideoSwinConfig


def official_shapes(config: VideoSwinConfig) -> dict[str, list[int]]:
    """The authors' key list, index tables left out."""
    t, h, w = config.window_size
    shapes = {"backbone.patch_embed.proj.weight": [config.embed_dim, 3, *config.patch_size]}
    norms = {"backbone.patch_embed.norm": config.embed_dim, "backbone.norm": config.hidden_size}
    linear = {"cls_head.fc_cls": (config.num_labels, config.hidden_size)}
    for stage, width in enumerate(config.widths):
        for number in range(config.depths[stage]):
            block = f"backbone.layers.{stage}.blocks.{number}"
            ways = (2 * t - 1) * (2 * h - 1) * (2 * w - 1)
            shapes[f"{block}.attn.relative_position_bias_table"] = [ways, config.num_heads[stage]]
            norms |= {f"{block}.norm1": width, f"{block}.norm2": width}
            linear |= {f"{block}.attn.qkv": (3 * width, width), f"{block}.attn.proj": (width, width)}
            linear |= {f"{block}.mlp.fc1": (4 * width, width), f"{block}.mlp.fc2": (width, 4 * width)}
        if stage + 1 < len(config.depths):
            shapes[f"backbone.layers.{stage}.downsample.reduction.weight"] = [2 * width, 4 * width]
            norms[f"backbone.layers.{stage}.downsample.norm"] = 4 * width
    shapes["backbone.patch_embed.proj.bias"] = [config.embed_dim]
    for name, width in norms.items():
        shapes |= {f"{name}.weight": [width], f"{name}.bias": [width]}
    for name, (out, width) in linear.items():
        shapes |= {f"{name}.weight": [out, width], f"{name}.bias": [out]}
    return shapes


def torchvision_name(key: str) -> str:
    key = key.replace("cls_head.fc_cls.", "head.").removeprefix("backbone.")
    key = key.replace(".mlp.fc1.", ".mlp.0.").replace(".mlp.fc2.", ".mlp.3.")
    parts = key.split(".")
    if parts[0] == "layers" and parts[2] == "blocks":
        return ".".join(["features", str(2 * int(parts[1])), *parts[3:]])
    if parts[0] == "layers":
        return ".".join(["features", str(2 * int(parts[1]) + 1), *parts[3:]])
    return key


LAYOUTS = {
    "authors": lambda key: key,
    "mmaction2": lambda key: key.replace("backbone.norm.", "backbone.norm3."),
    "torchvision": torchvision_name,
}


@pytest.mark.parametrize("name", ["video_swin_tiny_k400_full", "video_swin_torchvision"])
def test_the_key_lists_of_these_tests_are_the_real_ones(name):
    keys = json.loads((FOLDER / f"keys/{name}.json").read_text())
    case = Golden(name).config
    config = VideoSwinConfig(
        embed_dim=case["embed_dim"], depths=case["depths"], num_heads=case["num_heads"], num_labels=case["num_classes"]
    )
    layout = LAYOUTS["torchvision" if "torchvision" in name else "authors"]
    shapes = {layout(key): shape for key, shape in official_shapes(config).items()}
    assert shapes == {key: shape for key, shape in keys.items() if not key.endswith("relative_position_index")}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", ["tiny", "small", "base"])
@pytest.mark.parametrize("with_tables", [True, False])
def test_full_sizes_convert_to_the_last_key(layout, size, with_tables):
    """On the meta device: names and shapes alone."""
    wanted = VideoSwinConfig.preset(size, num_labels=400)
    shapes = official_shapes(wanted)
    if with_tables:
        tables = [key.replace("bias_table", "index") for key in shapes if key.endswith("bias_table")]
        shapes |= {key: [392, 392] for key in tables}
    with torch.device("meta"):
        state = {LAYOUTS[layout](key): torch.empty(shape) for key, shape in shapes.items()}
        config = hf_video.from_official("video_swin", {"state_dict": state}).config
    for name in ("embed_dim", "depths", "num_heads", "window_size", "patch_size", "mlp_ratio", "num_labels"):
        assert list(map(float, torch.tensor(getattr(config, name)).view(-1))) == list(
            map(float, torch.tensor(getattr(wanted, name)).view(-1))
        ), name


def test_backbones_and_something_something_windows():
    shapes = official_shapes(VideoSwinConfig(window_size=(16, 7, 7)))
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in shapes.items() if key.startswith("backbone.")}
        model = hf_video.from_official("video_swin", state, drop_rate=0.1)
    assert type(model).__name__ == "VideoSwinModel"
    assert list(model.config.window_size) == [16, 7, 7]
    assert model.config.hidden_dropout_prob == 0.1


def test_what_does_not_fit_is_named():
    state = Golden("video_swin_official").checkpoint["state_dict"]
    with pytest.raises(CheckpointError, match="2535 rows"):
        hf_video.from_official("video_swin", state, window_size=(2, 7, 7))
    odd = {key: value[:-1] if key.endswith("bias_table") else value for key, value in state.items()}
    with pytest.raises(CheckpointError, match="window_size="):
        hf_video.from_official("video_swin", odd)
    with pytest.raises(CheckpointError, match="surprise"):
        hf_video.from_official("video_swin", state | {"backbone.surprise": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="no patch embedding"):
        hf_video.from_official("video_swin", {"blocks.0.x": torch.zeros(1)})


def image_model(tmp_path, window: int = 7):
    """A stock Swin image model with random weights, and its file."""
    config = SwinConfig(image_size=56, embed_dim=12, depths=[2, 2], num_heads=[2, 3], window_size=window, num_labels=3)
    model = randomise(SwinForImageClassification(config))
    model.save_pretrained(tmp_path)
    return model, load_file(tmp_path / "model.safetensors")


def test_a_still_video_is_the_image(tmp_path):
    """Inflated from a file of transformers' Swin: every frame alike gives what the image gives, shifted in time or not,
    as long as whole windows need no zeros beside them."""
    stock, state = image_model(tmp_path)
    model = hf_video.from_official("video_swin", state)
    assert list(model.config.window_size) == [8, 7, 7]
    image = torch.randn(2, 3, 56, 56)
    expected = stock.swin(image).last_hidden_state
    for frames in (2, 16, 32):
        map_ = model.get_video_features(image[:, None].expand(-1, frames, -1, -1, -1)).feature_map
        assert map_.shape == (2, frames // 2, 7, 7, 24)
        for t in range(frames // 2):
            assert_close(map_[:, t].flatten(1, 2), expected)


def test_image_windows_of_another_size_are_interpolated(tmp_path):
    _, state = image_model(tmp_path, window=4)
    model = hf_video.from_official("video_swin", state, window_size=[4, 7, 7])
    table = model.encoder.layer[0].attention.attention.relative_position_bias_table
    assert table.shape == (7 * 13 * 13, 2)
    over_time = table.view(7, 13, 13, 2)
    assert_close(over_time[0], over_time[6], atol=0)
    name = next(key for key in state if key.endswith("layers.0.blocks.0.attention.self.relative_position_bias_table"))
    assert_close(over_time[0, 6, 6], state[name].view(7, 7, 2)[3, 3])  # no way at all stays where it was
