"""Turn a model into a folder that OpenVINO or ONNX Runtime computes.

  hf-video export my-model --to openvino --output my-model-openvino
  hf-video classify clip.mp4 --model my-model-openvino
  hf-video export my-encoder --to onnx --output my-encoder-onnx --num-frames 16 --size 224x224
  hf-video export my-model --to openvino --int8 --calibration videos/ --output my-model-int8

The folder is loaded by pipelines and by the other verbs as the model was. The batch may have any size; frames and their
size are fixed. --int8 puts products into 8 bits, fitted to the videos of --calibration. What was written is loaded and
compared with torch, 8 bits on those videos; an export that does not agree is refused. Needs
pip install "hf_video[openvino]" or "hf_video[onnx]".
"""

from __future__ import annotations

import argparse
import re
import sys
import warnings

from hf_video.cli import DONE
from hf_video.cli.arguments import Parser, positive_int


def add_arguments(parser: Parser) -> None:
    add = parser.add_option
    add("model", metavar="MODEL", help="a folder, or a name on the Hub")
    add("--to", choices=("openvino", "onnx"), required=True, help="what computes it")
    add("--output", required=True, help="the folder to write, new or empty")
    add("--num-frames", type=positive_int, metavar="T", help="frames of a clip (default: the model's)")
    add("--size", type=frame_size, metavar="HxW", help="pixels of a frame, such as 224x224 (default: the model's)")
    add(
        "--int8",
        action="store_true",
        help="products in 8 bits (OpenVINO by NNCF; ONNX: linear maps); --calibration too",
    )
    add("--calibration", metavar="DIR", help="videos like those that the model will see; at most 32 are read")
    add("--revision")
    add("--force", action="store_true", help="keep an export that does not agree with torch")


def frame_size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} came, and it must be a height and a width such as 224x224")
    return int(found[1]), int(found[2] or found[1])


def run(options: argparse.Namespace) -> int:
    import transformers

    from hf_video.export import export_model

    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", "`isinstance\\(treespec", FutureWarning)  # of torch, about itself
    report = export_model(
        options.model,
        options.output,
        to=options.to,
        num_frames=options.num_frames,
        size=options.size,
        int8=options.int8,
        calibration=options.calibration,
        revision=options.revision,
        force=options.force,
    )
    for one in report.agreements:
        label = "" if one.same_label is None else f", same best label {one.same_label:.0%}"
        if one.int8_share is not None:
            label += f" of {one.rows} clips, {one.int8_share:.0%} of the weights in 8 bits"
        print(
            f"{one.graph}: largest difference from torch {one.largest:.1e} (relative {one.relative:.1e}){label}; "
            f"{one.seconds[1]:.3g} s, torch {one.seconds[0]:.3g} s",
            file=sys.stderr,
        )
    print(f"{report.folder}: {report.bytes / 1e6:.1f} MB for {options.to}", file=sys.stderr)
    print(report.folder)
    return DONE
