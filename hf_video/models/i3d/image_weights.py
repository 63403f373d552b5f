"""I3D-R50 from an image ResNet: filters inflated over time (Carreira, Zisserman, 2017, section 2.1)."""

from __future__ import annotations

import re
from typing import Any

import torch

from hf_video.base.convert import StateDict
from hf_video.errors import CheckpointError
from hf_video.models.i3d.configuration_i3d import I3DConfig

# transformers' names, then torchvision's, for a convolution and the norm behind it.
STEMS = (("embedder.embedder.convolution", "embedder.embedder.normalization"), ("conv1", "bn1"))
TRANSFORMERS = r"encoder\.stages\.(?P<stage>\d+)\.layers\.(?P<block>\d+)\.(?P<part>shortcut|layer\.\d)\.(?P<kind>\w+)\."
TORCHVISION = r"layer(?P<stage>\d+)\.(?P<block>\d+)\.(?P<part>downsample|(?:conv|bn)(?P<number>\d))\.(?P<kind>\d)?\.?"


def is_image_resnet(state: StateDict) -> bool:
    return any(key.removeprefix("resnet.") in (f"{STEMS[0][0]}.weight", f"{STEMS[1][0]}.weight") for key in state)


def residual_unit(key: str) -> tuple[int, int, str] | None:
    """(stage, block, unit's own name) of a tensor in a residual block, None for others. Stages count from 0."""
    if match := re.match(TRANSFORMERS, key):
        norm = match["kind"] == "normalization"
        unit = "shortcut" if match["part"] == "shortcut" else f"conv_{'abc'[int(match['part'][-1])]}"
        stage = int(match["stage"])
    elif match := re.match(TORCHVISION, key):
        norm = match["part"].startswith("bn") or match["kind"] == "1"
        unit = "shortcut" if match["part"] == "downsample" else f"conv_{'abc'[int(match['number']) - 1]}"
        stage = int(match["stage"]) - 1
    else:
        return None
    return stage, int(match["block"]), f"{unit}.{'norm' if norm else 'conv'}.{key[match.end() :]}"


def inflate_kernel(weight: torch.Tensor, frames: int) -> torch.Tensor:
    """(out, in, h, w) -> (out, in, frames, h, w): each frame a share, so that a video of one picture gives what the
    picture gave (but near its ends, where the padding is not that picture)."""
    return weight[:, :, None].expand(-1, -1, frames, -1, -1) / frames


def inflate_resnet(state: StateDict, overrides: dict[str, Any]) -> tuple[dict[str, Any], StateDict]:
    """Configuration and state dict of an I3D encoder from an image ResNet-50, -101 or -152 of transformers or
    torchvision. Its classifier, which knows pictures' classes, is left out. Raises CheckpointError for ResNets without
    bottlenecks (18, 34)."""
    state = {key.removeprefix("resnet."): value for key, value in state.items()}
    places = {key: residual_unit(key) for key in state}
    blocks = sorted({found[:2] for found in places.values() if found})
    stages = sorted({stage for stage, _ in blocks})
    if not any(found and found[2].startswith("conv_c.") for found in places.values()):
        raise CheckpointError("Only ResNets with bottlenecks (50, 101, 152) are inflated to I3D; this one has none.")
    stem, norm = next(names for names in STEMS if f"{names[0]}.weight" in state)
    config: dict[str, Any] = {
        "architecture": "resnet",
        "num_frames": 8,
        "num_channels": state[f"{stem}.weight"].shape[1],
        "stem_channels": state[f"{stem}.weight"].shape[0],
        "depths": [sum(s == stage for s, _ in blocks) for stage in stages],
        "temporal_kernels": [list(kernels) for kernels in I3DConfig.temporal_kernels[: len(stages)]],
    } | overrides
    kernels = [cycle[block % len(cycle)] for (stage, block) in blocks for cycle in [config["temporal_kernels"][stage]]]
    result: StateDict = {}
    for key, value in state.items():
        if found := places[key]:
            layer = blocks.index(found[:2])
            frames = kernels[layer] if found[2].startswith("conv_a.") else 1
            result[f"encoder.layer.{layer}.{found[2]}"] = inflate_kernel(value, frames) if value.ndim == 4 else value
        elif key == f"{stem}.weight":
            frames = config.get("stem_temporal_kernel", I3DConfig.stem_temporal_kernel)
            result["embeddings.conv.conv.weight"] = inflate_kernel(value, frames)
        elif key.startswith(f"{norm}."):
            result[key.replace(norm, "embeddings.conv.norm")] = value
    return config, result
