"""Measure a frozen encoder: a linear classifier on its features.

  hf-video probe labelled/ --model my-encoder
  hf-video probe labelled/ --model my-encoder --random --output my-probe
  hf-video probe labelled/ --model facebook/vjepa2-vitl-fpc64-256 --recipe vjepa2_attentive_probe --output my-probe

DATA is a folder (train/<label>/clip.mp4 and test/..., or <label>/clip.mp4 to be divided), a list, or tar shards.
Features are made once for each video; the classifier is solved to its end, its penalty chosen on a part of the training
videos. --random probes the same model with random weights too: what the features have to be better than. With --output
the probe is saved as a model that `hf-video classify` and the pipeline take. --recipe vjepa2_attentive_probe trains
V-JEPA 2's attentive pooler on the encoder's tokens, which are made once; its variant `:grid` tries the authors' twenty
learning rates and weight decays. --views 2x1 shows two clips of each video, which are classified together, as by the
authors. hf-video train --recipe vjepa2_attentive_probe makes the same model with a card and a report.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from hf_video.cli.arguments import Parser
from hf_video.errors import pluralize


def add_arguments(parser: Parser) -> None:
    add = parser.add_option
    add("data", metavar="DATA", help="labelled videos: a folder, a list, or tar shards")
    add("--model", required=True, help="a folder, or a name on the Hub; pretrained or fine-tuned")
    add("--revision")
    add("--format")
    add("--videos")
    add("--output", help="save the model with the probe as its classifier")
    add("--recipe", help="vjepa2_attentive_probe, or a YAML file like it (default: a linear probe)")
    add("--set")
    add("--random", action="store_true", help="probe random weights as well")
    add("--views")
    add("--batch-size", default=8)
    add("--num-workers")
    add("--device")
    add("--compile")
    add("--seed", default=None, help="of the splits (default: as MODEL was trained), and of random weights")
    add("--json", action="store_true", help="the report as JSON on stdout")


def run(options: argparse.Namespace) -> int:
    from hf_video.cli import DONE, SOME_FAILED, CommandError
    from hf_video.cli.printing import say
    from hf_video.data.rows import Skipped
    from hf_video.training.runs.attentive_probe import attentive_probe_model
    from hf_video.training.runs.probe import probe_model

    probe: Callable[..., dict[str, Any]]
    if options.recipe is None:
        if options.settings:
            raise CommandError("--set changes a recipe; a linear probe has none. Pass --recipe.")
        probe, more = probe_model, {"random": options.random, "compile": say if options.compile else False}
    else:
        if options.random:
            raise CommandError("--random is for a linear probe. For an attentive one pass a folder of random weights.")
        if options.compile:
            raise CommandError("--compile is for a linear probe. Leave it out.")
        probe, more = attentive_probe_model, {"recipe": options.recipe, "settings": options.settings}
    report = probe(
        options.data,
        options.model,
        output=options.output,
        revision=options.revision,
        **more,
        device=options.device,
        seed=options.seed,
        data_format=options.format,
        videos=options.videos,
        views=options.views,
        batch_size=options.batch_size,
        num_workers=options.num_workers,
    )
    if options.json:
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        print_report(report)
    for one in report["skipped"]:
        print(Skipped(**one), file=sys.stderr)
    return SOME_FAILED if any(not one["used"] for one in report["skipped"]) else DONE


def print_report(report: dict[str, Any]) -> None:
    print(
        f"{pluralize(report['train_found'], 'training video')}, {pluralize(report['test_found'], 'test video')}, "
        f"{pluralize(len(report['labels']), 'class', 'classes')}"
    )
    kind = "linear" if "penalty" in report else "attentive"
    print(f"{kind + ' probe':16} top-1 {report['test_top1']:.1%}   (training {report['train_top1']:.1%})")
    if report.get("random_top1") is not None:
        print(f"random weights   top-1 {report['random_top1']:.1%}")
    print(f"chance           top-1 {report['chance']:.1%}   (the most frequent class)")
