"""C3D: every layout of checkpoints, at full size by shape and in small by value."""

from __future__ import annotations

import json

import pytest
import torch
from contract import assert_close
from golden_cases import FOLDER

import hf_video
from hf_video.errors import CheckpointError

NAMES = ("conv1", "conv2", "conv3a", "conv3b", "conv4a", "conv4b", "conv5a", "conv5b")
SEQUENTIAL = ("0", "3", "6", "8", "11", "13", "16", "18")


def keys(name: str) -> dict[str, list[int]]:
    return json.loads((FOLDER / f"keys/{name}.json").read_text())


@pytest.mark.parametrize(
    ("name", "class_name", "count"),
    [
        ("c3d_sports1m_full", "C3DForVideoClassification", 79_991_015),
        ("c3d_mmaction2_ucf101", "C3DForVideoClassification", 78_409_573),
        ("c3d_sports1m_jfzhang_pretrained", "C3DModel", 77_995_776),
    ],
)
def test_full_sizes_convert_to_the_last_key(name, class_name, count):
    """On the meta device: names and shapes alone."""
    with torch.device("meta"):
        model = hf_video.from_official("c3d", {key: torch.empty(shape) for key, shape in keys(name).items()})
    assert type(model).__name__ == class_name
    assert sum(p.numel() for p in model.parameters()) == count
    assert (model.config.image_size, model.config.any_grid, model.config.pool5_padding) == (112, False, "symmetric")


def small(places: int = 4) -> dict[str, torch.Tensor]:
    """DavideA's keys with a stem of 4 channels."""
    widths = [3, *(4 * m for m in (1, 2, 4, 4, 8, 8, 8, 8))]
    state = {}
    for name, before, after in zip(NAMES, widths, widths[1:], strict=False):
        state |= {f"{name}.weight": torch.randn(after, before, 3, 3, 3) / 9, f"{name}.bias": torch.randn(after)}
    for name, before, after in (("fc6", 32 * places, 12), ("fc7", 12, 12), ("fc8", 12, 5)):
        state |= {f"{name}.weight": torch.randn(after, before) / 3, f"{name}.bias": torch.randn(after)}
    return state


def sequential(key: str) -> str:
    layer, kind = key.rsplit(".", 1)
    linear = {"fc6": "classifier.0", "fc7": "classifier.3", "fc8": "classifier.6"}
    return f"{linear[layer]}.{kind}" if layer in linear else f"features.{SEQUENTIAL[NAMES.index(layer)]}.{kind}"


def mmaction2(key: str) -> str:
    layer, kind = key.rsplit(".", 1)
    layer = {"conv1": "conv1a", "conv2": "conv2a", "fc8": "cls_head.fc_cls"}.get(layer, layer)
    return f"backbone.{layer}{'.conv' if 'conv' in layer else ''}.{kind}".replace("backbone.cls", "cls")


@torch.no_grad()
def test_all_layouts_give_one_model():
    state, video = small(), torch.randn(2, 16, 3, 48, 48)
    expected = hf_video.from_official("c3d", state)(video).logits
    for layout in (sequential, mmaction2):
        renamed = {layout(key): value for key, value in state.items()}
        assert_close(hf_video.from_official("c3d", renamed)(video).logits, expected, atol=0)
    backbone = {mmaction2(k).removeprefix("backbone."): v for k, v in state.items() if "fc8" not in k}
    assert type(hf_video.from_official("c3d", backbone)).__name__ == "C3DModel"
    assert not torch.allclose(hf_video.from_official("c3d", state, pool5_padding="ceil")(video).logits, expected)


def test_frames_that_are_no_squares():
    """fc6 reads 6 places: 3×2 or 2×3, unless the frame size is given."""
    state = small(6)
    model = hf_video.from_official("c3d", state)
    for size in ((80, 48), (48, 80)):
        assert model(torch.randn(1, 16, 3, *size)).logits.shape == (1, 5)
    model = hf_video.from_official("c3d", state, image_size=[80, 48])
    with pytest.raises(hf_video.HFVideoError, match="80"):
        model(torch.randn(1, 16, 3, 48, 80))
    two = hf_video.from_official("c3d", small(8), num_frames=32)
    assert two(torch.randn(1, 32, 3, 48, 48)).logits.shape == (1, 5)


def test_what_does_not_fit_is_named():
    state = small()
    with pytest.raises(CheckpointError, match="surprise"):
        hf_video.from_official("c3d", state | {"surprise.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"layer\.4\.conv\.bias"):
        hf_video.from_official(
            "c3d", {k: v for k, v in state.items() if k != "conv4b.bias"} | {"conv9.bias": state["fc8.bias"]}
        )
    with pytest.raises(CheckpointError, match="No C3D checkpoint"):
        hf_video.from_official("c3d", {"x": torch.zeros(1)})
