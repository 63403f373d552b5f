"""Layer groups against the formulas that the authors decay learning rates by, on the authors' own names.

Each tensor of an official checkpoint is filled with the number of its group; the converter carries these numbers to our
names, whatever it joins, splits and turns around.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
import torch
from golden_cases import CASES, FOLDER

import hf_video
from hf_video.models.vivit.configuration_vivit import VivitConfig
from hf_video.models.vivit.modeling_vivit import VivitForVideoClassification


def videomae(name: str, depth: int) -> int:
    """MCG-NJU/VideoMAE, optim_factory.py, `get_num_layer_for_vit`."""
    if name in ("cls_token", "mask_token", "pos_embed") or name.startswith("patch_embed"):
        return 0
    return int(name.split(".")[1]) + 1 if name.startswith("blocks") else depth + 1


def slowfast(name: str, depth: int) -> int:
    """facebookresearch/SlowFast, models/optimizer.py, `_get_layer_decay`."""
    if name in ("cls_token", "mask_token") or name.startswith(("pos_embed", "patch_embed")):
        return 0
    return int(name.split(".")[1]) + 1 if name.startswith("blocks") else depth + 1


def timesformer(name: str, depth: int) -> int:
    """The authors decay nothing by layers; the rule of every ViT, with positions in time beside those in space."""
    return 0 if name == "time_embed" else slowfast(name, depth)


def swin(name: str, depth: int, depths: tuple[int, ...] = (2, 2, 2, 2)) -> int:
    """microsoft/SimMIM, optimizer.py, `get_swin_layer`: the Swin authors' own, for pictures."""
    if name.startswith("patch_embed"):
        return 0
    if not name.startswith("layers"):
        return depth + 1
    stage, part = int(name.split(".")[1]), name.split(".")[3]
    if part in ("reduction", "norm"):
        return sum(depths[: stage + 1])
    return sum(depths[:stage]) + int(part) + 1


FORMULAS: dict[str, tuple[str, int, Callable[[str, int], int]]] = {
    "videomae_finetune": ("videomae", 3, videomae),
    "timesformer_divided": ("timesformer", 3, timesformer),
    "mvit_v1_slowfast": ("mvit", 6, slowfast),
    "mvit_v2_slowfast": ("mvit", 6, slowfast),
    "video_swin_official": ("video_swin", 8, swin),
}


@pytest.mark.parametrize("case", FORMULAS)
def test_groups_are_the_authors(case):
    model_type, depth, formula = FORMULAS[case]
    shapes = json.loads((FOLDER / "keys" / f"{case}.json").read_text())
    numbers = {}
    for key, shape in shapes.items():
        name = re.sub(r"^(model|backbone)\.", "", key)
        numbers[key] = torch.full(shape, float(formula(name, depth)))
    derived = CASES[case].get("derived", ())
    model = hf_video.from_official(
        model_type, {k: v for k, v in numbers.items() if k not in derived}, **CASES[case]["config"]
    )
    groups = model.layer_groups()
    assert len(groups) == depth + 2
    parameters = dict(model.named_parameters())
    assert sorted(name for group in groups for name in group) == sorted(parameters)
    for number, group in enumerate(groups):
        assert group, number
        for name in group:
            assert torch.equal(parameters[name], torch.full_like(parameters[name], number)), (name, number)


def test_vivits_two_transformers_are_one_row_of_blocks():
    """scenic has no decay by layers. The formula by hand, for model 2: 12 + 4 blocks have 18 groups."""
    shape = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "image_size": 32, "num_frames": 4}
    with torch.device("meta"):
        model = VivitForVideoClassification(VivitConfig(attention_type="factorized_encoder", **shape))
    groups = model.layer_groups()
    assert len(groups) == 12 + 4 + 2
    for number, group in enumerate(groups):
        for name in group:
            block = re.search(r"(temporal_)?encoder\.layer\.(\d+)\.", name)
            if block:
                expected = 1 + int(block[2]) + (12 if block[1] else 0)
            elif name.startswith(("vivit.temporal_embeddings.", "vivit.layernorm.")):
                expected = 13
            else:
                expected = 0 if name.startswith("vivit.embeddings.") else 17
            assert number == expected, name


def test_pretraining_holds_the_mask_token_with_the_embeddings():
    """VideoMAE's formula says so; its decoder comes after all blocks of the encoder."""
    config = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    config |= {"decoder_hidden_size": 8, "decoder_num_attention_heads": 2, "decoder_num_hidden_layers": 1}
    config |= {"decoder_intermediate_size": 8, "image_size": 32, "num_frames": 2, "use_mean_pooling": False}
    model = hf_video.VideoMAEForPreTraining(hf_video.VideoMAEConfig(**config))
    groups = model.layer_groups()
    assert "mask_token" in groups[0]
    assert {name.split(".")[0] for name in groups[-1]} == {"videomae", "encoder_to_decoder", "decoder"}
    assert all("layer.0." in name for name in groups[1])
