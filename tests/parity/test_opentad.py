"""OpenTAD's detectors, alone and with AdaTAD's encoder in one file, through `from_official`.

`opentad.safetensors` holds what OpenTAD's own projection, neck and head (commit in its metadata) answer in eval mode,
float32, to two sequences of 32 steps, of which the second one ends after 21, and the names and shapes of their weights;
`filled` makes these.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import hf_video
from hf_video.errors import CheckpointError

ANSWERS = Path(__file__).with_name("opentad.safetensors")
with safe_open(ANSWERS, "pt") as file:
    SHAPES = json.loads(file.metadata()["shapes"])
    EXPECTED = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
OPTIONS = {
    "actionformer": {"window_size": -1, "num_attention_heads": 2},
    "actionformer_window": {"window_size": 5, "num_attention_heads": 2},
    "tridet": {"window_scale": 1.5},
}
GRID = {"max_length": 32, "feature_stride": 4, "feature_frames": 16}
NORMS = (".norm.", "ln1.", "ln2.", ".ln.", ".gn.", "_norm.", "fpn_norms.")


def filled(shapes):
    """Weights by name: norms and scales near 1, offsets above 0, so that none is lost in the ReLU behind them."""
    generator, state = torch.Generator().manual_seed(0), {}
    for name in sorted(shapes):
        value = torch.randn(shapes[name], generator=generator)
        is_scale = name.endswith(".scale") or (name.endswith("weight") and any(part in name for part in NORMS))
        state[name] = 1 + 0.2 * value if is_scale else 0.3 * value + name.endswith("reg_head.bias")
    state["rpn_head.loss_normalizer"] = torch.tensor(123.0)
    return state


def sequences():
    x = torch.randn(2, 32, 32, generator=torch.Generator().manual_seed(1))
    return x, torch.arange(32)[None] < torch.tensor([[32], [21]])


@torch.no_grad()
@pytest.mark.parametrize("name", list(OPTIONS))
def test_a_detector_answers_as_opentad_does(name):
    """The end of a padded video too: OpenTAD sets padding to 0 behind norms, the authors' own code does not."""
    kind = name.partition("_")[0]
    state = {f"module.{key}": value for key, value in filled(SHAPES[name]).items()}
    model = hf_video.from_official(kind, {"epoch": 3, "state_dict_ema": state}, **GRID, **OPTIONS[name])
    output = model(*sequences())
    distances = output.offsets if output.offsets.ndim == 4 else output.offsets[:, :, None]
    position, stride = output.points[:, 0, None], output.points[:, 3, None]
    segments = torch.stack((position - distances[..., 0] * stride, position + distances[..., 1] * stride), dim=-1)
    scores, seen = output.logits.sigmoid(), output.mask
    torch.testing.assert_close(scores[seen], EXPECTED[f"{name}.scores"], atol=2e-5, rtol=1e-5)
    expected = EXPECTED[f"{name}.segments"]
    torch.testing.assert_close(segments[seen].reshape(expected.shape), expected, atol=2e-4, rtol=1e-5)
    assert float(model.detection_loss.normalizer) == 123


def test_the_best_candidates_of_all_levels_are_compared():
    """OpenTAD's `pre_nms_topk` counts all levels together."""
    model = hf_video.from_official("tridet", filled(SHAPES["tridet"]), **GRID, **OPTIONS["tridet"])
    with torch.no_grad():
        output = model(*sequences())
    config = type(model.config).from_dict({**model.config.to_dict(), "max_candidates": 7})
    for few, all_of_them in zip(model.candidates(output, config), model.candidates(output, model.config), strict=True):
        assert len(all_of_them.scores) > 7
        assert few.scores.tolist() == sorted(all_of_them.scores.tolist(), reverse=True)[:7]


def encoder_shapes(width=32, depth=2, patch=8):
    """mmaction2's VideoMAE with OpenTAD's adapters."""
    shapes = {"patch_embed.projection.weight": [width, 3, 2, patch, patch], "patch_embed.projection.bias": [width]}
    for block in range(depth):
        name = f"blocks.{block}."
        shapes |= {
            **{f"{name}norm{i}.{end}": [width] for i in (1, 2) for end in ("weight", "bias")},
            **{f"{name}attn.{part}_bias": [width] for part in ("q", "v")},
            f"{name}attn.qkv.weight": [3 * width, width],
            f"{name}attn.proj.weight": [width, width],
            f"{name}attn.proj.bias": [width],
            f"{name}mlp.layers.0.0.weight": [64, width],
            f"{name}mlp.layers.0.0.bias": [64],
            f"{name}mlp.layers.1.weight": [width, 64],
            f"{name}mlp.layers.1.bias": [width],
            f"{name}adapter.gamma": [1],
            f"{name}adapter.dwconv.weight": [8, 1, 3],
            f"{name}adapter.dwconv.bias": [8],
            f"{name}adapter.conv.weight": [8, 8, 1],
            f"{name}adapter.conv.bias": [8],
            f"{name}adapter.down_proj.weight": [8, width],
            f"{name}adapter.down_proj.bias": [8],
            f"{name}adapter.up_proj.weight": [width, 8],
            f"{name}adapter.up_proj.bias": [width],
        }
    return {**shapes, "fc_norm.weight": [width], "fc_norm.bias": [width]}


ENCODER = {"num_frames": 8, "image_size": 16, "num_attention_heads": 2}


@torch.no_grad()
def test_a_whole_detector_of_frames():
    """Encoder and detector of one file are what each is alone."""
    encoder, detector = filled(encoder_shapes()), filled(SHAPES["actionformer"])
    del encoder["rpn_head.loss_normalizer"]
    whole = {f"module.backbone.model.backbone.{key}": value for key, value in encoder.items()}
    whole |= {f"module.{key}": value for key, value in detector.items()}
    model = hf_video.from_official(
        "adatad",
        {"state_dict": {key: 0 * value for key, value in whole.items()}, "state_dict_ema": whole},
        num_frames=32,
        encoder_config=ENCODER,
        frames_per_step=1,
        detector_config={"n_mha_win_size": -1, "n_head": 2, "feature_stride": 4},
    )
    assert isinstance(model, hf_video.AdaTADForTemporalActionDetection)
    config = model.config
    assert (config.num_labels, config.detector_config.num_labels, config.num_frames) == (3, 3, 32)
    assert (config.detector_config.max_length, config.detector_config.nms_sigma) == (32, 0.7)
    clip = torch.randn(1, 32, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    alone = hf_video.from_official("adatad", encoder, num_frames=32, encoder_config=ENCODER)
    sequence = model.adatad(clip).last_hidden_state
    torch.testing.assert_close(sequence, alone(clip).last_hidden_state)
    expected = hf_video.from_official("actionformer", detector, **GRID, **OPTIONS["actionformer"])(sequence)
    found = model(clip)
    torch.testing.assert_close(found.logits, expected.logits)
    torch.testing.assert_close(found.offsets, expected.offsets)
    assert float(model.detector.detection_loss.normalizer) == 123


def test_what_is_no_such_detector():
    whole = {f"backbone.model.backbone.{key}": torch.zeros(shape) for key, shape in encoder_shapes().items()}
    whole |= filled(SHAPES["actionformer"])
    with pytest.raises(CheckpointError, match="convert it as adatad"):
        hf_video.from_official("actionformer", whole)
    extra = {**filled(SHAPES["tridet"]), "rpn_head.more": torch.zeros(2)}
    with pytest.raises(CheckpointError, match="left over"):
        hf_video.from_official("tridet", extra, **GRID, **OPTIONS["tridet"])
