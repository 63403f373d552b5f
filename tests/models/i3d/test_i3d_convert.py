"""I3D: every layout of checkpoints, at full size by shape and in small by value; images inflated to video."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from contract import assert_close, randomise
from golden_cases import FOLDER, weight
from transformers import ResNetConfig, ResNetForImageClassification

import hf_video
from hf_video.errors import CheckpointError

PORT = "i3d_rgb_64f_full"  # piergiaj's keys
TF_BRANCH = {
    "b0": "Branch_0/Conv3d_0a_1x1",
    "b1a": "Branch_1/Conv3d_0a_1x1",
    "b1b": "Branch_1/Conv3d_0b_3x3",
    "b2a": "Branch_2/Conv3d_0a_1x1",
    "b2b": "Branch_2/Conv3d_0b_3x3",
    "b3b": "Branch_3/Conv3d_0b_1x1",
}
TF_KIND = {
    "bn.bias": "batch_norm/beta",
    "bn.running_mean": "batch_norm/moving_mean",
    "bn.running_var": "batch_norm/moving_variance",
    "conv3d.weight": "conv_3d/w",
    "conv3d.bias": "conv_3d/b",
}
HASSONY = {"b0": "branch_0", "b1a": "branch_1.0", "b1b": "branch_1.1", "b2a": "branch_2.0", "b2b": "branch_2.1"}
HASSONY |= {"b3b": "branch_3.1"}


def keys(name: str) -> dict[str, list[int]]:
    return json.loads((FOLDER / f"keys/{name}.json").read_text())


def small_port() -> dict[str, torch.Tensor]:
    """piergiaj's tensors with an eighth of the channels."""
    state = {}
    for key, shape in keys(PORT).items():
        state[key] = weight(key, [n if n == 3 else n // 8 for n in shape[:2]] + shape[2:], seed=0, gain=1.0)
    return state


def tensorflow(state: dict[str, torch.Tensor], stream: str = "RGB") -> dict[str, np.ndarray]:
    """piergiaj's tensors as DeepMind's variables; scales of norms, which TensorFlow's have not, fall away."""
    variables = {}
    for key, value in state.items():
        unit, kind = re.match(r"(.*)\.((?:bn|conv3d)\.\w+)$", key).groups()
        if kind in TF_KIND:
            unit = unit.replace("logits", "Logits/Conv3d_0c_1x1")
            unit = re.sub(r"\.(b\d\w?)$", lambda m: "/" + TF_BRANCH[m[1]], unit)
            unit = unit.replace("Mixed_5b/Branch_2/Conv3d_0b_3x3", "Mixed_5b/Branch_2/Conv3d_0a_3x3")
            value = value.permute(2, 3, 4, 1, 0) if value.ndim == 5 else value
            variables[f"{stream}/inception_i3d/{unit}/{TF_KIND[kind]}"] = value.numpy()
    return variables


def hassony(key: str) -> str:
    key = re.sub(r"\.(b\d\w?)\.", lambda m: f".{HASSONY[m[1]]}.", key)
    key = key.replace("logits.", "conv3d_0c_1x1.").replace(".bn.", ".batch3d.")
    return re.sub(r"^(Mixed|Conv)", lambda m: m[1].lower(), key)


def test_the_variables_of_these_tests_are_deepminds():
    state = {key: torch.zeros(shape) for key, shape in keys("i3d_flow_24f_full").items()}
    made = {key: list(value.shape) for key, value in tensorflow(state, "Flow").items()}
    assert made == keys("i3d_tf_flow_imagenet")


@pytest.mark.parametrize(
    ("name", "channels", "labels"),
    [
        (PORT, 3, 400),
        ("i3d_flow_24f_full", 2, 400),
        ("i3d_tf_flow_imagenet", 2, 400),
        ("i3d_tf_rgb_scratch_kin600", 3, 600),
        ("hassony", 3, 400),
    ],
)
def test_full_sizes_convert_to_the_last_key(name, channels, labels):
    """On the meta device: names and shapes alone."""
    shapes = {hassony(k): s for k, s in keys(PORT).items()} if name == "hassony" else keys(name)
    with torch.device("meta"):
        model = hf_video.from_official("i3d", {key: torch.empty(shape) for key, shape in shapes.items()})
    assert (model.config.num_channels, model.config.num_labels, model.config.stem_channels) == (channels, labels, 64)
    count = sum(p.numel() for p in model.parameters())
    assert count == (12_697_264 if channels == 3 else 12_675_312) + (1024 + 1) * (labels - 400)


def test_r50_converts_to_the_last_key():
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in keys("i3d_r50_8x8_full").items()}
        model = hf_video.from_official("i3d", {"model_state": state})
        headless = hf_video.from_official("i3d", {k: v for k, v in state.items() if "proj" not in k})
    assert sum(p.numel() for p in model.parameters()) == 28_043_472
    config, official = model.config, hf_video.I3DConfig.preset("r50")
    assert config.depths == list(official.depths)
    for found, kernels, depth in zip(config.temporal_kernels, official.temporal_kernels, official.depths, strict=True):
        assert found == list((kernels * depth)[:depth])
    assert type(headless).__name__ == "I3DModel"


@torch.no_grad()
def test_all_inception_layouts_give_one_model():
    state = small_port()
    state |= {key: torch.ones_like(value) for key, value in state.items() if key.endswith("bn.weight")}
    video = torch.randn(1, 5, 3, 40, 48)
    expected = hf_video.from_official("i3d", state)(video).logits
    variables = tensorflow(state)
    kinetics600 = {key.removeprefix("RGB/inception_i3d/"): value for key, value in variables.items()}
    kinetics600 |= {f"{key}/Momentum": value for key, value in kinetics600.items() if key.endswith(("beta", "w", "b"))}
    kinetics600 |= {k: v.reshape(1, 1, 1, 1, -1) for k, v in kinetics600.items() if "/batch_norm/" in k}
    old = {key: value for key, value in state.items() if "num_batches_tracked" not in key}
    for layout in (variables, kinetics600, old, {hassony(key): value for key, value in old.items()}):
        assert_close(hf_video.from_official("i3d", layout)(video).logits, expected, atol=0)


def test_what_does_not_fit_is_named():
    variables = tensorflow(small_port())
    with pytest.raises(CheckpointError, match="surprise"):
        hf_video.from_official("i3d", variables | {"RGB/inception_i3d/Mixed_3b/surprise": np.zeros(1)})
    for name in ("RGB/inception_i3d/Mixed_3b/Branch_4/Conv3d_0a_1x1/conv_3d/w", "Mixed_9z/Branch_0/x/batch_norm/beta"):
        with pytest.raises(CheckpointError, match=name.split("/")[-4] if "RGB" in name else "Mixed_9z"):
            hf_video.from_official("i3d", variables | {name: np.zeros((1, 1, 1, 1, 1))})
    missing = {k: v for k, v in variables.items() if "Mixed_4c/Branch_1/Conv3d_0b_3x3/conv_3d/w" not in k}
    with pytest.raises(CheckpointError, match=r"layer\.3\.b1b\.conv\.weight"):
        hf_video.from_official("i3d", missing)
    with pytest.raises(CheckpointError, match="No I3D checkpoint"):
        hf_video.from_official("i3d", {"x": torch.zeros(1)})


def image_resnet(**changes):
    config = {"embedding_size": 8, "hidden_sizes": [32, 64], "depths": [1, 2], "num_labels": 3, **changes}
    return randomise(ResNetForImageClassification(ResNetConfig(**config)))


def torchvision_name(key: str) -> str:
    key = key.removeprefix("resnet.")
    key = key.replace("embedder.embedder.convolution", "conv1").replace("embedder.embedder.normalization", "bn1")
    key = re.sub(r"encoder\.stages\.(\d)\.layers", lambda m: f"layer{int(m[1]) + 1}", key)
    key = key.replace("shortcut.convolution", "downsample.0").replace("shortcut.normalization", "downsample.1")
    key = re.sub(r"layer\.(\d)\.convolution", lambda m: f"conv{int(m[1]) + 1}", key)
    key = re.sub(r"layer\.(\d)\.normalization", lambda m: f"bn{int(m[1]) + 1}", key)
    return key.replace("classifier.1", "fc")


@pytest.mark.parametrize("name", [str, torchvision_name])
@torch.no_grad()
def test_a_still_video_is_the_image(name):
    """Inflated from an image ResNet: away from the ends of the clip every frame gives what the image gives."""
    image_model, image = image_resnet(), torch.randn(2, 3, 40, 56)
    model = hf_video.from_official("i3d", {name(key): value for key, value in image_model.state_dict().items()})
    assert type(model).__name__ == "I3DModel"
    feature_map = model.get_video_features(image[:, None].expand(-1, 32, -1, -1, -1)).feature_map
    expected = image_model.resnet(image).last_hidden_state.movedim(1, -1)
    assert feature_map.shape == (2, 16, 5, 7, 64)
    assert_close(feature_map[:, 8], expected, atol=2e-5)
    assert not torch.allclose(feature_map[:, 0], expected, atol=1e-3)


def test_resnets_without_bottlenecks_are_refused():
    state = image_resnet(layer_type="basic").state_dict()
    with pytest.raises(CheckpointError, match="bottlenecks"):
        hf_video.from_official("i3d", state)
