"""Two-stream networks against bryanyzhu/two-stream-pytorch, one stream a case, through `from_official`."""

from __future__ import annotations

import pytest
import torch
from golden_cases import CASES, Golden

import hf_video

NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] if case["full_config"] else [])
    for name, case in CASES.items()
    if name.startswith("twostream")
]


def outputs(model, golden) -> dict[str, torch.Tensor]:
    """A case's outputs; its inputs are images (B, C, H, W), which are clips of one."""
    images = golden.inputs["video"].transpose(1, 2)[:, None]
    inputs = {model.main_input_name: images}
    places = model.get_video_features(**inputs).feature_map.flatten(1, 3)
    return {"logits": model(**inputs).logits, "last_feature_8x16": places[:, :8, :16]}


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_two_stream(name):
    golden = Golden(name)
    model = hf_video.from_official("two_stream", golden.checkpoint, **golden.config)
    network = name.split("_")[2]
    present, absent = ("spatial", "temporal") if "rgb" in name else ("temporal", "spatial")
    assert getattr(model.config, f"{present}_config") == network
    assert getattr(model.config, f"{absent}_config") is None
    assert model.main_input_name == ("pixel_values" if present == "spatial" else "flow_values")
    golden.compare(outputs(model, golden))


@torch.no_grad()
def test_a_golden_case_can_fail():
    golden = Golden("twostream_flow_resnet18")
    model = hf_video.from_official("two_stream", golden.checkpoint, **golden.config)
    model.two_stream.temporal.encoder.layer[3].blocks[1].norms[1].running_var[0] *= 1.1
    with pytest.raises(AssertionError, match=r"logits|last_feature"):
        golden.compare(outputs(model, golden))
