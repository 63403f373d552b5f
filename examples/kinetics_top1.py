"""Kinetics-400 top-1 of a published model, by the protocol of its paper: is it above 70 %?

  python examples/kinetics_top1.py VIDEOS --annotations kinetics_400_val.csv --num-workers 8

VIDEOS holds the validation videos at any depth, as <youtube id>_<start>_<end>.mp4 (seconds, six digits). The list is
the official CSV (label, youtube_id, time_start, time_end). Without it, VIDEOS is <label>/<video>. Videos that are
missing are counted: "found N of M". Stop it at any time; the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import sys

from hf_video.cli.arguments import Parser
from hf_video.cli.verbs.evaluate import add_run_arguments, evaluate_rows
from hf_video.errors import HFVideoError
from hf_video.evaluation import kinetics_rows

TARGET = 0.70


def main(argv: list[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", metavar="VIDEOS", help="folder of the validation videos")
    parser.add_argument("--annotations", metavar="CSV", help="the official list")
    parser.add_argument("--model", "-m", default="MCG-NJU/videomae-base-finetuned-kinetics")
    parser.add_argument("--protocol", default="paper", help="default: paper")
    add_run_arguments(parser)
    parser.set_defaults(output="kinetics_top1", debug=False)
    options = parser.parse_args(argv)
    try:
        report = evaluate_rows(kinetics_rows(options.videos, options.annotations), options)
    except HFVideoError as error:
        print(f"kinetics_top1: error: {error}", file=sys.stderr)
        return 2
    print(report)
    above = report.top1 > TARGET
    worst = report.top1 * report.found / report.total
    print(
        f"\nfound {report.found} of {report.total} videos; top-1 {report.top1:.2%} of those found: "
        f"{'above' if above else 'NOT above'} {TARGET:.0%}."
    )
    if report.found < report.total:
        print(f"With every video that was not found counted as wrong it is {worst:.2%}.")
    return 0 if above else 1


if __name__ == "__main__":
    sys.exit(main())
