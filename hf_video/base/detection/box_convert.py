"""What official layouts of classifiers of boxes have in common, and mmaction2's heads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hf_video.base.convert import StateDict, rename
from hf_video.errors import CheckpointError

# Fields of the official files under ours.
BOX_FIELDS: dict[str, str | None] = {
    "aligned": "box_aligned",
    "resolution": "box_resolution",
    "pooler_resolution": "box_resolution",
    "test_ext": "box_growth",
    "DETECTION.ALIGNED": "box_aligned",
    "DETECTION.ROI_XFORM_RESOLUTION": "box_resolution",
    **dict.fromkeys(("spatial_scale_factor", "pooler_scale", "DETECTION.SPATIAL_SCALE_FACTOR", "DETECTION.ENABLE")),
}


def box_overrides(overrides: Mapping[str, Any]) -> tuple[bool | None, dict[str, Any]]:
    """Whether a classifier of boxes is asked for, None where nothing says it, and the overrides with the fields of
    `detection`, which is True, False or the official section."""
    given = dict(overrides)
    section = given.pop("detection", None)
    if isinstance(section, Mapping):
        return True, given | dict(section)
    named = [name for name in given if name in BOX_FIELDS or name.startswith("box_")]
    return (True if named and section is None else section), given


def mmaction_head(state: StateDict, extractor: Mapping[str, Any], head: Mapping[str, Any]) -> tuple[dict, StateDict]:
    """mmaction2's `BBoxHeadAVA` behind its `SingleRoIExtractor3D`.

    Args:
        state: A state dict that holds `bbox_head.fc_cls…`; other keys are left alone.
        extractor, head: Arguments of the two in mmaction2's configuration.

    Returns:
        Fields of `BoxHeadConfig` and `num_labels`, and the tensors of our `BoxHead`. Class 0, the background that
        neither loss nor evaluation looks at, is left out: our class i is their class i + 1, AVA's action i + 1.

    Raises:
        CheckpointError: There is no such head, or it pools what ours does not.
    """
    names = {key: re.sub(r"^.*bbox_head\.fc_cls\.", "", key) for key in state if "bbox_head.fc_cls." in key}
    if not names:
        raise CheckpointError(f"No head of mmaction2: no key holds bbox_head.fc_cls; keys begin {sorted(state)[:5]}.")
    if head.get("spatial_pool_type", "max") != "max" or not extractor.get("with_temporal_pool", False):
        raise CheckpointError(
            "Heads with spatial_pool_type='max' and extractors with with_temporal_pool=True convert; this file has "
            f"{head.get('spatial_pool_type', 'max')!r} and {extractor.get('with_temporal_pool', False)}."
        )
    tensors = rename({key: state[key] for key in names}, names.__getitem__)
    is_deep = "0.weight" in tensors
    if is_deep:
        tensors = rename(tensors, lambda key: key.replace("0.", "hidden.0.", 1).replace("2.", "classifier.", 1))
    else:
        tensors = {f"classifier.{key}": value for key, value in tensors.items()}
    if head.get("background_class", True):
        tensors |= {key: value[1:] for key, value in tensors.items() if key.startswith("classifier.")}
    size = extractor.get("output_size", 16)
    config = {
        "num_labels": tensors["classifier.weight"].shape[0],
        "box_resolution": size if isinstance(size, int) else size[0],
        "box_aligned": extractor.get("aligned", True),
        "box_time_pool": {"avg": "mean"}.get(extractor.get("temporal_pool_mode", "avg"), "max"),
        "box_context": extractor.get("with_global", False),
        "box_layers": 2 if is_deep else 1,
        "classifier_dropout": head.get("dropout_ratio", 0.0),
        "focal_gamma": head.get("focal_gamma", 0.0),
        "focal_alpha": head.get("focal_alpha", 1.0),
    }
    return config, tensors
