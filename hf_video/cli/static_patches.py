"""`--static-patches` and `--static-threshold`: a model that leaves out what doesn't change, and how much that was."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hf_video.cli.arguments import Parser, non_negative_float
from hf_video.errors import VideoOptionError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def add_static_patches(parser: Parser) -> None:
    parser.add_option(
        "--static-patches",
        choices=("keep", "drop"),
        help="drop: patches that didn't change since the frames before are not encoded, for speed (VideoMAE only; "
        "default: as the model was saved)",
    )
    parser.add_option(
        "--static-threshold",
        type=non_negative_float,
        metavar="X",
        help="how much a patch must change to be encoded, in deviations of the normalised pixels (default: as the "
        "model was saved, else 0.1)",
    )


def static_fields(options: argparse.Namespace) -> dict[str, Any]:
    """Those of the two that were given, for the model's configuration. Raises VideoOptionError for a model that can't
    leave patches out, and for a threshold of one that leaves none out."""
    names = ("static_patches", "static_threshold")
    given = {name: getattr(options, name) for name in names if getattr(options, name, None) is not None}
    if not given:
        return given
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(options.model, revision=options.revision)
    if not hasattr(config, "static_patches"):
        raise VideoOptionError(
            f"--static-patches and --static-threshold are for VideoMAE, and {options.model} is a {config.model_type} "
            "model, which sees every patch. Leave them out."
        )
    if "static_threshold" in given and given.get("static_patches", config.static_patches) == "keep":
        raise VideoOptionError(
            "--static-threshold says how much a patch must change to be encoded, and here every patch is: add "
            "--static-patches drop."
        )
    return given


@contextmanager
def patches_counted(model: PreTrainedModel) -> Iterator[None]:
    """Says on stderr, at the end, how many patches were encoded by a model that leaves some out."""
    if getattr(model.config, "static_patches", "keep") == "keep":
        yield
        return
    counts = [0, 0]

    def count(module: PreTrainedModel, given: tuple[Any, ...], output: Any) -> None:
        counts[0] += int(output.kept_tokens.sum())
        counts[1] += output.kept_tokens.numel()

    handle = model.register_forward_hook(count)
    try:
        yield
    finally:
        handle.remove()
        if counts[1]:
            share = f"{counts[0]:,} of {counts[1]:,} patches were encoded ({counts[0] / counts[1]:.0%})"
            print(
                f"hf-video: {share}; the others changed by no more than {model.config.static_threshold:g} deviations",
                file=sys.stderr,
            )
