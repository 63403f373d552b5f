"""The published models: size and cost, counted, and the accuracy their authors report.

hf-video models
hf-video models videomae mvit
hf-video models --json

GFLOPs are billions of multiply-adds of matrix products and convolutions, attention's included, for one view, counted
layer by layer as training does them. Inference does less: products of weights are merged, and of the last block only
what the class token needs is done. MViTv2 has more than its authors count: here relative positions are part of the
attention product. Input: frames x height x width, and the stride between frames. Accuracies are quoted, not measured
here; --json names their sources.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from hf_video.cli import DONE, CommandError
from hf_video.cli.published import NOT_LISTED, PUBLISHED, PublishedModel
from hf_video.errors import did_you_mean

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

HEADER = ("model", "type", "parameters", "GFLOPs", "input", "stride", "top-1", "data", "views")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("types", nargs="*", metavar="NAME", help="model types to show, such as videomae; default: all")
    parser.add_argument("--json", action="store_true", help="as JSON, with the sources of accuracies")


def run(options: argparse.Namespace) -> int:
    rows = [model_row(row) for row in select_models(options.types)]
    print(json.dumps(rows, indent=2) if options.json else "\n".join(_lines(rows)))
    return DONE


def select_models(types: list[str]) -> list[PublishedModel]:
    """The published models of these types, or all. Raises CommandError for a type that has none."""
    known = sorted({row.model_type for row in PUBLISHED})
    for name in types:
        if name in NOT_LISTED:
            raise CommandError(f"{name} is not in the table of classifiers: {NOT_LISTED[name]}.")
        if name not in known:
            hint = did_you_mean(name, known)
            raise CommandError(f"No published model is of type {name!r}.{hint} Types are: {', '.join(known)}.")
    return [row for row in PUBLISHED if not types or row.model_type in types]


def model_row(row: PublishedModel) -> dict[str, Any]:
    """A published model as plain JSON values. `parameters` and `gflops` are counted on the meta device."""
    from hf_video.base.configuration import pair

    config = row.config()
    parameters, multiply_adds = count_cost(row.model_type, config)
    return {
        "model": row.name,
        "model_type": row.model_type,
        "parameters": parameters,
        "gflops": round(multiply_adds / 1e9, 3),
        "input": [config.num_frames, *pair(config.image_size)],
        "stride": row.stride,
        "classes": row.classes,
        "top1": row.top1,
        "data": row.data or None,
        "views": row.views or None,
        "source": row.source or None,
    }


def count_cost(model_type: str, config: PretrainedConfig) -> tuple[int, int]:
    """Counts the parameters of a classifier, and the multiply-adds for one clip of the configuration's size."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from hf_video.base.modeling import inputs_for
    from hf_video.base.modeling_conv import ConvVideoPreTrainedModel
    from hf_video.registry import MODELS

    row = MODELS[model_type]
    with torch.device("meta"):
        model = row.load(row.auto["AutoModelForVideoClassification"])(config)
    # Transformers take shortcuts at inference. Convolutional ones take none, and batch norms in training cost seconds.
    model.train(not isinstance(model, ConvVideoPreTrainedModel))
    model.requires_grad_(False)  # the counter hooks views of parameters, and finds no gradient's function under no_grad
    model.to("meta")  # tables of positions are made on the CPU whatever the default device is
    # How PyTorch runs fused attention, and so whether it is counted, depends on the device: spell the products out.
    model.set_attn_implementation("eager")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(**inputs_for(model, _meta_inputs(config)), output_hidden_states=True)  # all tokens to the end
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2


def _meta_inputs(config: PretrainedConfig) -> dict[str, torch.Tensor]:
    """A clip, and its flow where the model has a stream for it, on the meta device."""
    import torch

    from hf_video.base.configuration import pair

    channels = {"pixel_values": config.num_channels}
    if config.model_type == "two_stream":
        inputs = {"spatial": "pixel_values", "temporal": "flow_values"}
        channels = {inputs[stream]: spec.channels for stream, spec in config.specs.items()}
    size = pair(config.image_size)
    return {name: torch.empty(1, config.num_frames, n, *size, device="meta") for name, n in channels.items()}


def _lines(rows: list[dict[str, Any]]) -> list[str]:
    """The table, with columns as wide as their cells and numbers to the right."""
    cells = [HEADER, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = {"parameters", "GFLOPs", "stride", "top-1"}
    return [
        "  ".join(
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(HEADER, line, widths, strict=True)
        ).rstrip()
        for line in cells
    ]


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["model"],
        row["model_type"],
        f"{row['parameters']:,}",
        f"{row['gflops']:.1f}" if row["gflops"] >= 10 else f"{row['gflops']:.2f}",
        "x".join(map(str, row["input"])),
        "-" if row["stride"] is None else str(row["stride"]),
        "" if row["top1"] is None else str(row["top1"]),
        row["data"] or "",
        row["views"] or "",
    )
