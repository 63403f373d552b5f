"""Official SlowFast and Slow checkpoints to ours, for classification and for the detection of actions (AVA):

- PyTorchVideo (`{"model_state": {"blocks.…": …}}`; with boxes `model.blocks.…` and `detection_head.proj`);
- PySlowFast (`s1.pathway0_stem.…`, `s2.pathway0_res0.…`, `head.projection`), with its non-local blocks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hf_video.base.convert import Converted, StateDict, missing_overrides, rename, rename_overrides, substitute
from hf_video.base.detection.box_convert import BOX_FIELDS, box_overrides
from hf_video.errors import CheckpointError

OFFICIAL_NAMES = {
    "model_num_class": "num_labels",
    "dropout_rate": "classifier_dropout",
    "model_depth": None,
    "slowfast_fusion_conv_kernel_size": None,
    # Of PySlowFast's files, whose other values shapes tell.
    "DATA.NUM_FRAMES": "num_frames",
    "DATA.TEST_CROP_SIZE": "image_size",
    "SLOWFAST.ALPHA": "alpha",
    "MODEL.DROPOUT_RATE": "classifier_dropout",
    "NONLOCAL.INSTANTIATION": "nonlocal_normalization",
    **BOX_FIELDS,
    **dict.fromkeys(("file", "RESNET.WIDTH_PER_GROUP", "RESNET.DEPTH", "MODEL.NUM_CLASSES")),
}
AVA_CLASSES = 80
PATHWAY = ("slow", "fast")
NON_LOCAL = {"conv_theta": "query", "conv_phi": "key", "conv_g": "value", "conv_out": "output", "bn": "norm"}
# PySlowFast's names under PyTorchVideo's, and those of PyTorchVideo's Slow as of a first pathway.
PYTORCHVIDEO = (
    (r"^model\.", ""),
    (r"^blocks\.0\.(conv|norm)\.", r"blocks.0.multipathway_blocks.0.\1."),
    (r"^blocks\.(\d)\.res_blocks\.", r"blocks.\1.multipathway_blocks.0.res_blocks."),
    (r"^s1\.pathway(\d)_stem\.conv\.", r"blocks.0.multipathway_blocks.\1.conv."),
    (r"^s1\.pathway(\d)_stem\.bn\.", r"blocks.0.multipathway_blocks.\1.norm."),
    (
        r"^s(\d)\.pathway(\d)_res(\d+)\.",
        lambda m: f"blocks.{int(m[1]) - 1}.multipathway_blocks.{m[2]}.res_blocks.{m[3]}.",
    ),
    (r"^s(\d)\.pathway0_nonlocal(\d+)\.", lambda m: f"blocks.{int(m[1]) - 1}.nonlocal.{m[2]}."),
    (r"^s(\d)_fuse\.conv_f2s\.", lambda m: f"blocks.{int(m[1]) - 1}.multipathway_fusion.conv_fast_to_slow."),
    (r"^s(\d)_fuse\.bn\.", lambda m: f"blocks.{int(m[1]) - 1}.multipathway_fusion.norm."),
    (r"\.branch1\.weight$", ".branch1_conv.weight"),
    (r"\.branch1_bn\.", ".branch1_norm."),
    (r"\.branch2\.([abc])\.weight$", r".branch2.conv_\1.weight"),
    (r"\.branch2\.([abc])_bn\.", r".branch2.norm_\1."),
    (r"^(blocks\.\d\.proj|head\.projection|detection_head\.proj)\.", "classifier."),
)


def slowfast_names(layers: dict[tuple[int, int], int], last: dict[int, int]):
    """PyTorchVideo's names under ours. `layers` numbers the residual blocks through, `last` has each stage's last."""

    def name(key: str) -> str:
        if match := re.match(r"blocks\.0\.multipathway_blocks\.(\d)\.", key):
            return f"slowfast.embeddings.{PATHWAY[int(match[1])]}.{key[match.end() :]}"
        if match := re.match(r"blocks\.(\d)\.multipathway_blocks\.(\d)\.res_blocks\.(\d+)\.", key):
            rest = re.sub(r"^branch1_(conv|norm)", r"shortcut.\1", key[match.end() :])
            rest = re.sub(r"^branch2\.(conv|norm)_([abc])", r"conv_\2.\1", rest)
            layer = layers[int(match[1]), int(match[3])]
            return f"slowfast.encoder.layer.{layer}.{PATHWAY[int(match[2])]}.{rest}"
        if match := re.match(r"blocks\.(\d)\.nonlocal\.(\d+)\.(\w+)\.", key):
            layer = layers[int(match[1]), int(match[2])]
            unit = NON_LOCAL.get(match[3], match[3])
            return f"slowfast.encoder.layer.{layer}.non_local.{unit}.{key[match.end() :]}"
        if match := re.match(r"blocks\.(\d)\.multipathway_fusion\.(conv_fast_to_slow|norm)\.", key):
            stage, unit = int(match[1]), "norm" if match[2] == "norm" else "conv"
            place = f"encoder.layer.{last[stage]}" if stage in last else "embeddings"
            return f"slowfast.{place}.fusion.lateral.{unit}.{key[match.end() :]}"
        return key

    return name


def infer_slowfast_config(state: StateDict, places: list[tuple[int, int]]) -> dict[str, Any]:
    """Configuration values that PyTorchVideo's names and shapes tell."""
    slow, fast = (state.get(f"blocks.0.multipathway_blocks.{i}.conv.weight") for i in (0, 1))
    stages = sorted({stage for stage, _ in places})
    first = "blocks.{}.multipathway_blocks.{}.res_blocks.0.branch2.conv_a.weight"
    pathway = 0 if fast is None else 1  # the fast one has kernels of several frames in every stage
    kernels = {
        place: state[f"blocks.{place[0]}.multipathway_blocks.{pathway}.res_blocks.{place[1]}.branch2.conv_a.weight"]
        for place in places
    }
    same = [s for s, b in places if kernels[s, b].shape[2] == kernels[s, 0].shape[2]]
    config: dict[str, Any] = {
        "num_channels": slow.shape[1],
        "stem_channels": slow.shape[0],
        "depths": [sum(s == stage for s, _ in places) for stage in stages],
        "slow_kernels": [state[first.format(stage, 0)].shape[2] for stage in stages],
        "kernel_blocks": [same.count(stage) for stage in stages],
        "fast_pathway": fast is not None,
        "fast_kernels": [3] * len(stages),
    }
    attending = {(int(m[1]), int(m[2])) for key in state if (m := re.match(r"blocks\.(\d)\.nonlocal\.(\d+)\.", key))}
    if attending:
        config["nonlocal_blocks"] = [sorted(block for s, block in attending if s == stage) for stage in stages]
        config["nonlocal_pool"] = [2, 2, 2]
    if fast is None:
        return config
    fusion = state["blocks.0.multipathway_fusion.conv_fast_to_slow.weight"]
    return config | {
        "beta_inverse": slow.shape[0] // fast.shape[0],
        "fusion_ratio": fusion.shape[0] // fusion.shape[1],
        "fusion_kernel": fusion.shape[2],
        "fast_kernels": [state[first.format(stage, 1)].shape[2] for stage in stages],
    }


def official_values(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides under our names; `options` is PySlowFast's list of names and values."""
    given = dict(overrides)
    options = list(given.pop("options", ()))
    given |= {name: _number(value) for name, value in zip(options[::2], options[1::2], strict=True)}
    return rename_overrides(given, OFFICIAL_NAMES)


def _number(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value in ("True", "False"):
        return value == "True"
    return float(value) if re.fullmatch(r"\d+\.\d+", value) else int(value) if value.isdigit() else value


def convert(state: StateDict, overrides: dict[str, Any]) -> Converted:
    """See `hf_video.from_official`. Files of 80 classes, or with an override of the head for boxes (`detection=True`),
    become classifiers of boxes, whose last stage keeps its size."""
    overrides = dict(overrides)
    boxes = "detection_head.proj.weight" in state
    state = rename(state, lambda key: substitute(key, PYTORCHVIDEO))
    is_fast = "blocks.0.multipathway_blocks.1.conv.weight" in state
    needed = ["blocks.0.multipathway_blocks.0.conv.weight"]
    needed += ["blocks.0.multipathway_fusion.conv_fast_to_slow.weight"] if is_fast else []
    found = [re.match(r"blocks\.(\d)\.multipathway_blocks\.\d\.res_blocks\.(\d+)\.", key) for key in state]
    places = sorted({(int(m[1]), int(m[2])) for m in found if m})
    if not places or any(key not in state for key in needed):
        raise CheckpointError(
            f"No SlowFast checkpoint: keys begin {sorted(state)[:5]}; the stem or the first fusion is missing."
        )
    if windows := overrides.pop("head_pool_kernel_sizes", None):
        overrides.setdefault("head_pool", windows[0][1:])  # (frames, rows, columns) of the slow and of the fast pathway
    asked, overrides = box_overrides(overrides)
    given = official_values(overrides)
    config = infer_slowfast_config(state, places) | given
    layers = {place: i for i, place in enumerate(places)}
    state = rename(state, slowfast_names(layers, {stage: layer for (stage, _), layer in layers.items()}))
    settings = ["alpha"] * is_fast + ["image_size", "num_frames"]
    if "nonlocal_blocks" in config:
        settings += ["nonlocal_pool", "nonlocal_normalization"]
    if "classifier.weight" not in state:
        state = rename(state, lambda key: key.removeprefix("slowfast."))
        unspecified = missing_overrides(given, *settings, "head_pool")
        return Converted("SlowFastModel", config, state, unspecified=unspecified)
    config.setdefault("num_labels", state["classifier.weight"].shape[0])
    if asked is not None:
        boxes = asked
    elif not boxes:
        boxes = config["num_labels"] == AVA_CLASSES
    if not boxes:
        unspecified = missing_overrides(given, *settings, "head_pool")
        return Converted("SlowFastForVideoClassification", config, state, unspecified=unspecified)
    stages = len(config["depths"])
    config.setdefault("spatial_strides", [1, *[2] * (stages - 2), 1])
    config.setdefault("spatial_dilations", [*[1] * (stages - 1), 2])
    config.setdefault("box_aligned", False)  # as in all published files
    if not is_fast:
        config.setdefault("num_frames", 4)
    state = rename(state, lambda key: re.sub("^classifier", "box_head.classifier", key))
    unspecified = missing_overrides(given, *settings, "box_aligned")
    rate = 2 if is_fast else 16
    processor = {"do_center_crop": False, "sampler": "at_fps", "sampler_options": {"rate": rate, "start": "center"}}
    return Converted(
        "SlowFastForSpatioTemporalActionDetection", config, state, processor=processor, unspecified=unspecified
    )
