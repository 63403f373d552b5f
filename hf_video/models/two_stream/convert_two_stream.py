"""Official two-stream checkpoints (bryanyzhu/two-stream-pytorch: `{"state_dict": …}`, one stream a file) to ours, and
the start from an ImageNet network.

Layouts: VGG `features.N`, `classifier.0|3`, `fc_action`; ResNet `conv1`, `bn1`, `layerN.M.…`, `fc_action`. The image
networks of torchvision are the same with `classifier.6` or `fc` in place of `fc_action`. Two files become one model
where their keys are told apart by `spatial.` and `temporal.` (or `rgb.`, `flow.`): see `join`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch

from hf_video.base.convert import Converted, StateDict, missing_overrides, rename, rename_overrides
from hf_video.errors import CheckpointError
from hf_video.models.two_stream.configuration_two_stream import (
    NETWORKS,
    RESNET_DROPOUT,
    VGG_DROPOUT,
    StreamSpec,
)

OFFICIAL_NAMES = {"num_classes": "num_labels", "in_channels": None}
STREAM_NAMES = {"spatial": "spatial", "rgb": "spatial", "temporal": "temporal", "flow": "temporal"}
HEAD = re.compile(r"^(?:fc_action|fc|classifier\.6)\.")
COUNTERS = "num_batches_tracked"


def join(*, spatial: Mapping[str, torch.Tensor], temporal: Mapping[str, torch.Tensor]) -> StateDict:
    """One state dict for `from_official` from those of two files, each unwrapped (`hf_video.base.convert.unwrap`)."""
    return {f"{name}.{k}": v for name, s in (("spatial", spatial), ("temporal", temporal)) for k, v in s.items()}


def split(state: StateDict) -> dict[str, StateDict]:
    """The streams of a state dict by name, by the prefix of its keys or else by its input channels (3: spatial)."""
    first = {key.split(".")[0] for key in state}
    if first <= set(STREAM_NAMES):
        streams: dict[str, StateDict] = {}
        for key, value in state.items():
            prefix, rest = key.split(".", 1)
            streams.setdefault(STREAM_NAMES[prefix], {})[rest] = value
        return streams
    for key in ("conv1.weight", "features.0.weight"):
        if key in state:
            return {"spatial" if state[key].shape[1] == 3 else "temporal": state}
    raise CheckpointError(
        f"No two-stream checkpoint: keys begin {sorted(state)[:5]}; conv1.weight (ResNet) or features.0.weight (VGG) "
        "is missing."
    )


# -- VGG ---------------------------------------------------------------------------------------------------------------


def vgg_stages(state: StateDict) -> list[list[int]]:
    """The numbers of the convolutions in `features`, stage by stage: a ReLU lies between two of a stage, and a pooling
    besides where one stage ends."""
    numbers = sorted(int(key.split(".")[1]) for key in state if re.fullmatch(r"features\.\d+\.weight", key))
    if any(state[f"features.{n}.weight"].ndim != 4 for n in numbers):
        raise CheckpointError("VGG with batch normalisation is not supported: no official two-stream weights have it.")
    stages = [[numbers[0]]]
    for before, number in pairwise(numbers):
        if number - before == 2:
            stages[-1].append(number)
        else:
            stages.append([number])
    return stages


def vgg_config(state: StateDict) -> dict[str, Any]:
    stages = vgg_stages(state)
    widths = [state[f"features.{stage[0]}.weight"].shape[0] for stage in stages]
    fc_width, inputs = state["classifier.0.weight"].shape
    return {
        "kind": "vgg",
        "depths": [len(stage) for stage in stages],
        "widths": widths,
        "fc_width": fc_width,
        "pool_size": int((inputs // widths[-1]) ** 0.5),
    }


def vgg_names(state: StateDict) -> dict[str, str]:
    """Official prefix -> ours, for every layer but the last."""
    names = {"classifier.0": "hidden.0", "classifier.3": "hidden.1"}
    for i, stage in enumerate(vgg_stages(state)):
        for j, number in enumerate(stage):
            # The first convolution of all stands before the stages; the first stage goes on after it.
            ours = f"encoder.layer.{i}.convs.{j - (i == 0)}" if (i, j) != (0, 0) else "embeddings.conv"
            names[f"features.{number}"] = ours
    return names


# -- ResNet ------------------------------------------------------------------------------------------------------------


def resnet_config(state: StateDict) -> dict[str, Any]:
    blocks = {tuple(map(int, m.groups())) for k in state if (m := re.match(r"layer(\d+)\.(\d+)\.", k))}
    stages = range(1, 1 + max(stage for stage, _ in blocks))
    return {
        "kind": "resnet",
        "depths": [sum(stage == i for stage, _ in blocks) for i in stages],
        "widths": [state[f"layer{i}.0.conv1.weight"].shape[0] for i in stages],
        "expansion": 4 if "layer1.0.conv3.weight" in state else 1,
    }


def torchvision_resnet_name(prefix: str) -> str:
    rules = (
        (r"^conv1$", "embeddings.conv"),
        (r"^bn1$", "embeddings.norm"),
        (r"^layer(\d+)\.", lambda m: f"encoder.layer.{int(m[1]) - 1}.blocks."),
        (r"\.conv(\d)$", lambda m: f".convs.{int(m[1]) - 1}"),
        (r"\.bn(\d)$", lambda m: f".norms.{int(m[1]) - 1}"),
        (r"\.downsample\.0$", ".shortcut.conv"),
        (r"\.downsample\.1$", ".shortcut.norm"),
    )
    for pattern, replacement in rules:
        prefix = re.sub(pattern, replacement, prefix)
    return prefix


# -- both --------------------------------------------------------------------------------------------------------------


def is_vgg(state: StateDict) -> bool:
    return "features.0.weight" in state


def network_of(state: StateDict, stream: str) -> str | dict[str, Any]:
    """A stream's configuration as shapes tell it: a name where it is a published network, else its values."""
    found = vgg_config(state) if is_vgg(state) else resnet_config(state)
    dropout = (VGG_DROPOUT if is_vgg(state) else RESNET_DROPOUT)[stream]
    plain = {"channels": 0, "dropout": dropout}
    comparable = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}
    for name, values in NETWORKS.items():
        if StreamSpec(**plain, **values) == StreamSpec(**plain, **comparable):
            return name
    return found


def renamed(state: StateDict) -> StateDict:
    """One stream under our names, its last layer as `head`."""
    names = vgg_names(state) if is_vgg(state) else {}

    def rules(key: str) -> str:
        if HEAD.match(key):
            return HEAD.sub("head.", key)
        prefix, last = key.rsplit(".", 1)
        return f"{names.get(prefix, prefix) if names else torchvision_resnet_name(prefix)}.{last}"

    return rename(state, rules)


def stream_key(key: str, stream: str, whole: bool) -> str:
    """Our name of a tensor of one stream in the model: the classifier, or the model without one."""
    if key.startswith("head."):
        return f"classifier.heads.{stream}.{key.removeprefix('head.')}"
    return f"{'two_stream.' if whole else ''}{stream}.{key}"


def convert(state: StateDict, overrides: dict[str, Any]) -> Converted:
    """See `hf_video.from_official`. One official file makes a model of one stream, in which the other is None."""
    streams = split(state)
    config: dict[str, Any] = {"spatial_config": None, "temporal_config": None}
    whole = all(any(HEAD.match(key) for key in s) for s in streams.values())
    ours: StateDict = {}
    for stream, tensors in streams.items():
        config[f"{stream}_config"] = network_of(tensors, stream)
        first = tensors["features.0.weight" if is_vgg(tensors) else "conv1.weight"]
        if stream == "temporal":
            config["flow_length"] = first.shape[1] // 2
        else:
            config["num_channels"] = first.shape[1]
        found = renamed(tensors)
        if whole:
            config["num_labels"] = found["head.weight"].shape[0]
        ours |= {stream_key(key, stream, whole): value for key, value in found.items()}
    given = rename_overrides(overrides, OFFICIAL_NAMES)
    config |= given
    fusion = ("fusion", "fusion_weights", "fusion_scores") if len(streams) == 2 else ()
    unspecified = missing_overrides(given, "image_size", "num_frames", *fusion)
    # Files of PyTorch before 0.4.1 don't count batches, and nothing here reads the count.
    counters = {stream_key(f"{k}.{COUNTERS}", s, whole) for s, t in streams.items() for k in norms(renamed(t))}
    name = "TwoStreamForVideoClassification" if whole else "TwoStreamModel"
    return Converted(name, config, ours, optional=counters - set(ours), unspecified=unspecified)


def norms(state: StateDict) -> list[str]:
    return [key.removesuffix(".running_var") for key in state if key.endswith(".running_var")]


# -- from images -------------------------------------------------------------------------------------------------------


def across_modality(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """The first convolution for `channels` of flow from one for RGB (Wang et al. 2015, section 3.2): (O, 3, k, k), its
    mean over colours repeated, to (O, channels, k, k). Not rescaled, as officially."""
    return weight.mean(1, keepdim=True).repeat(1, channels, 1, 1)


@torch.no_grad()
def load_image_weights(
    model: torch.nn.Module,
    state_dict: Mapping[str, torch.Tensor],
    *,
    streams: tuple[str, ...] = ("spatial", "temporal"),
) -> list[str]:
    """Starts the streams of a two-stream model from an image network, as the official recipes do.

    Args:
        model: `TwoStreamModel` or `TwoStreamForVideoClassification`, changed in place; its streams are of the image
            network's kind and size.
        state_dict: torchvision's VGG16 or ResNet for ImageNet (`features.…` or `conv1…layer4…fc`), unwrapped.
        streams: which to start; a stream that the model lacks is passed over.

    Everything but the classifier is copied to the spatial stream. The temporal one takes the same with its first
    convolution made by `across_modality`; its two hidden layers (VGG) stay as they were, as officially.

    Returns the names of the model's parameters that were not set: the classifier, and what the model has besides.
    Raises CheckpointError, and changes nothing, where a stream and the image network do not fit.
    """
    whole = hasattr(model, "two_stream")
    base = model.two_stream if whole else model
    source = {key: value for key, value in renamed(dict(state_dict)).items() if not key.startswith("head.")}
    plans = [(name, getattr(base, name)) for name in streams if getattr(base, name) is not None]
    loads = []
    for name, network in plans:
        tensors = dict(source)
        if name == "temporal":
            tensors = {k: v for k, v in tensors.items() if not k.startswith("hidden.")}
            tensors["embeddings.conv.weight"] = across_modality(
                tensors["embeddings.conv.weight"], network.spec.channels
            )
        own = network.state_dict()
        wrong = sorted(k for k, v in tensors.items() if k not in own or own[k].shape != v.shape)
        absent = sorted(k for k in own if k not in tensors and not k.startswith("hidden.") and not k.endswith(COUNTERS))
        if wrong or absent:
            raise CheckpointError(
                f"The image network does not fit the {name} stream: {wrong[:5]} differ or are not in it, "
                f"{absent[:5]} are missing. Both must be of one kind and size."
            )
        loads.append((name, network, tensors))
    done = set()
    for name, network, tensors in loads:
        network.load_state_dict(tensors, strict=False)
        done |= {stream_key(key, name, whole) for key in tensors}
    return sorted(name for name, _ in model.named_parameters() if name not in done)
