"""Turn the authors' checkpoint, or a model in pickles, into a folder that from_pretrained loads: safetensors, config,
image processor.

  hf-video convert checkpoint.pth --model-type videomae --output videomae-base
  hf-video convert timesformer.pyth --model-type timesformer --output tsf --labels kinetics_400.txt
  hf-video convert v.pth --model-type videomae --output v --set num_frames=32 --processor image_mean=[.5,.5,.5]
  hf-video convert videoclip.pt --model-type videoclip --output vc --set end_token_ids=[101,102]
  hf-video convert somebody/model-in-pickles --output model

What a file doesn't say is assumed as its authors published it, and said by name: --set and --processor change it.
Files are read as safetensors or as plain tensors; one that needs pickled code is refused.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_video.cli import DONE, CommandError
from hf_video.cli.arguments import Parser


def add_arguments(parser: Parser) -> None:
    add = parser.add_option
    kinds = "(.safetensors, .pth, .pyth, .pt, .bin)"
    add("file", metavar="FILE", help=f"a checkpoint file {kinds}, or a folder or Hub name with pytorch_model.bin")
    add("--model-type", help="of a checkpoint file: videomae, timesformer, ...: see hf-video info")
    add("--revision")
    add("--output", required=True, help="the folder to write")
    add("--set", dest="set", metavar="FIELD=VALUE", help="a configuration value (JSON); repeatable")
    add("--processor", action="append", default=[], metavar="FIELD=VALUE", help="a processor value (JSON); repeatable")
    add("--labels", metavar="FILE", help="label names in order, one a line, or JSON (a list, or {index: name})")
    add("--overwrite", help="write into a folder that is not empty")


def run(options: argparse.Namespace) -> int:
    output = Path(options.output)
    if output.is_dir() and os.listdir(output) and not options.overwrite:
        raise CommandError(f"the folder {output} is not empty; choose another, or add --overwrite")
    _check_kind(options)
    values = parse_values(options.set, "--set")
    processor = parse_values(options.processor, "--processor")
    if options.labels:
        values |= read_labels(Path(options.labels))

    import transformers

    from hf_video.base.convert import convert_file, convert_pickles
    from hf_video.base.loading import loading

    transformers.utils.logging.disable_progress_bar()
    if options.model_type:
        model = convert_file(options.file, model_type=options.model_type, output=output, processor=processor, **values)
    else:
        with loading(options.file):
            model = convert_pickles(options.file, output=output, revision=options.revision)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{output}: {type(model).__name__}, {parameters:,} parameters", file=sys.stderr)
    print(output)
    return DONE


def _check_kind(options: argparse.Namespace) -> None:
    """A file needs its model type; a whole model has it, and its configuration, in config.json."""
    if os.path.isfile(options.file) and not options.model_type:
        raise CommandError(f"{options.file} is a file: add --model-type, such as videomae")
    if not options.model_type and (options.set or options.processor or options.labels):
        raise CommandError("--set, --processor and --labels are for checkpoint files, with --model-type")
    if options.model_type and options.revision:
        raise CommandError("--revision is for a model on the Hub, without --model-type")


def parse_values(pairs: Sequence[str], option: str) -> dict[str, Any]:
    """`["num_frames=32", "hidden_act=gelu"]` -> `{"num_frames": 32, "hidden_act": "gelu"}`: JSON where it is JSON, else
    the text itself. Raises CommandError for an item without `=`."""
    values = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise CommandError(f"{option} {pair!r} must be FIELD=VALUE, such as num_frames=32")
        try:
            values[name] = json.loads(text)
        except json.JSONDecodeError:
            values[name] = text
    return values


def read_labels(path: Path) -> dict[str, Any]:
    """The configuration's `id2label` and `label2id` from a file of names. Raises CommandError."""
    try:
        text = path.read_text(encoding="utf-8")
        names = json.loads(text) if path.suffix == ".json" else [line for line in text.split("\n") if line.strip()]
        if isinstance(names, dict):
            names = [names[str(i)] for i in range(len(names))]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError) as error:
        raise CommandError(f"the labels in {path} can't be read: {error or type(error).__name__}") from error
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise CommandError(f"{path} must hold label names: one a line, a JSON list, or JSON like {{'0': 'archery'}}")
    names = [name.strip() for name in names]
    return {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
