"""Compare classifiers on the same labelled videos.

  hf-video compare first-model second-model --data clips/ --protocol paper
  hf-video compare a b c --data ssv2.csv --protocol paper:ssv2 --split validation --output comparison

Each file is opened and decoded once for all models, whatever frames, size and views they take, and each model's
figures are those of hf-video evaluate. Prints top-1 with its 95 % interval, clips a second, memory and parameters of
each model, and of each pair on what share of the videos they agree, how many only one has right, and McNemar's exact
test.

With --output, a folder, the tables are written as text, Markdown, HTML and JSON, with an evaluation of each model; the
same command goes on where it was stopped. DATA is what hf-video evaluate takes; without splits of its own it is divided
as when the models were trained on it. Videos that can't be read are named, and the exit code is 1.

Options such as --dtype and --static-patches are for every model; one that can't do what they ask is refused. Save a
VideoMAE a second time, with static_patches="drop" in its configuration, to compare it with itself.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING

from hf_video.cli import DONE, SOME_FAILED, CommandError
from hf_video.cli.arguments import Parser, fraction
from hf_video.cli.static_patches import static_fields
from hf_video.cli.verbs.classify import load_pipeline
from hf_video.cli.verbs.evaluate import add_run_arguments

if TYPE_CHECKING:
    from hf_video.data.rows import VideoRows


def add_arguments(parser: Parser) -> None:
    add = parser.add_option
    add("models", nargs="+", metavar="MODEL", help="two folders or names on the Hub, or more")
    add("--data", required=True, metavar="DATA", help="a folder of videos, a list of them, or tar shards")
    add("--protocol", default="1x1", help="paper, paper:ssv2, 5x3, center, 1x1 (default): see hf-video evaluate")
    add("--format")
    add("--videos")
    add("--split", default="test", help="train, validation, test (default), or all")
    add("--test-size", type=fraction, metavar="FRACTION", help="kept for the test, of unsplit data")
    add("--group-pattern", help="clips of one recording stay on one side (default: as the models were trained)")
    reading = {"default": 0, "help": "processes that read ahead (default 0: none, so that speeds are the models' own)"}
    add_run_arguments(parser, reading)
    add("--json", action="store_true", help="the comparison as JSON on stdout")


def run(options: argparse.Namespace) -> int:
    from hf_video.evaluation.compare import compare_models
    from hf_video.evaluation.protocols import check_protocol

    check_protocol(options.protocol)
    twice = {name for name in options.models if options.models.count(name) > 1}
    if len(options.models) < 2 or twice:
        raise CommandError(f"compare needs two different models or more; {' '.join(options.models)} came")
    of_models = {name: argparse.Namespace(**{**vars(options), "model": name}) for name in options.models}
    for of_model in of_models.values():
        static_fields(of_model)  # a model that can't leave patches out is told before anything is read
    rows = _rows(options)
    models = {}
    for name, of_model in of_models.items():
        pipe = load_pipeline(of_model)
        models[name] = pipe.model, pipe.image_processor or pipe.video_processor
    comparison = compare_models(
        models,
        rows,
        protocol=options.protocol,
        batch_size=options.batch_size,
        num_workers=options.num_workers,
        output=options.output,
        on_error=options.on_error,
        backend=options.backend,
        progress=not options.quiet,
    )
    if options.output:
        print(f"hf-video: comparison in {comparison.save(options.output)}", file=sys.stderr)
    print(json.dumps(comparison.to_dict(), indent=2) if options.json else comparison)
    skipped = {str(one): one for report in comparison.reports.values() for one in report.skipped}
    for line in skipped:
        print(f"hf-video: {line}", file=sys.stderr)
    return DONE if all(one.found == one.total for one in comparison.reports.values()) else SOME_FAILED


def _rows(options: argparse.Namespace) -> VideoRows:
    """The videos of the split. Raises CommandError where the models were trained on different parts of the data."""
    from hf_video.data.sources.division import Division
    from hf_video.evaluation.rows import split_rows

    divisions = {name: Division.read(name, options.data) for name in options.models if os.path.isdir(name)}
    known = {name: found for name, found in divisions.items() if found is not None}
    rows = split_rows(
        options.data,
        options.split,
        next(iter(known), options.models[0]),
        test_size=options.test_size,
        group_pattern=options.group_pattern,
        data_format=options.format,
        videos=options.videos,
    )
    held_out = rows if options.split not in ("all", "train") else []
    for name, division in known.items():
        if videos := division.trained_on(held_out):
            raise CommandError(
                f"{len(videos)} of the {len(rows)} videos are ones that {name} was trained on, such as {videos[0]}: "
                "compare models that were trained on the same part of the data, on videos of a folder of their own; "
                "--split all takes everything all the same"
            )
    return rows
