"""Make a folder of videos searchable, or bring its index up to date.

  hf-video index videos/ --model my-videoclip --output library.index
  hf-video index videos/ --output library.index                  again: only what is new or changed
  hf-video index archive/ --model my-videoclip --output fast.index --snap keyframe
  hf-video index videos/ --model fingerprint --output prints.index --processes 4

Each video is cut into moments (overlapping windows), whose vectors are kept with their seconds. --model is a model of
video and text (search by sentence and by example), any video model (by example), or "fingerprint", which needs no
weights and finds cropped and re-encoded copies. The command can be killed at any moment and run again. Videos that
can't be read are named, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import sys

from hf_video.cli.arguments import Parser
from hf_video.errors import pluralize


def add_arguments(parser: Parser) -> None:
    add = parser.add_option
    add("folder", metavar="DIR", help="a folder of videos, with those in the folders below it")
    add("--model", help='a folder, a name on the Hub, or "fingerprint" (default: the index\'s own)')
    add("--revision")
    add("--output", required=True, metavar="INDEX", help="folder of the index, new or there already")
    add("--windows", help="length [and step] of the moments in seconds (default 2s/1s, or the index's own)")
    add("--snap")
    add("--processes")
    add("--engine", choices=("local", "ray"), default="local", help="this machine, or a Ray cluster (default local)")
    add("--batch-size")
    add("--device")
    add("--quiet")


def run(options: argparse.Namespace) -> int:
    import transformers
    from tqdm import tqdm

    from hf_video.cli import DONE, SOME_FAILED
    from hf_video.cli.files import skipped_message
    from hf_video.retrieval import VideoIndex

    hidden = options.quiet or not sys.stderr.isatty()
    transformers.utils.logging.set_verbosity_error()
    if hidden:
        transformers.utils.logging.disable_progress_bar()
    with tqdm(unit="video", file=sys.stderr, disable=hidden) as bar:

        def progress(done: int, count: int) -> None:
            bar.total, bar.n = count, done
            bar.refresh()

        report = VideoIndex.build(
            options.output,
            options.folder,
            options.model,
            window=options.windows,
            workers=options.processes,
            engine=options.engine,
            revision=options.revision,
            device=options.device,
            batch_size=options.batch_size,
            snap=options.snap,
            on_progress=progress,
        )
    print(
        f"{pluralize(report.moments, 'moment')} of {pluralize(report.videos, 'video')} in {options.output} "
        f"({report.embedded} embedded, {report.copied} known by their content, {report.unchanged} unchanged, "
        f"{report.removed} removed)"
    )
    if report.snap:
        print("Moments show keyframes only, and have their seconds; those of other indexes show exact frames.")
    if report.left_out:
        print(skipped_message(report.left_out), file=sys.stderr)
    for one in report.skipped:
        print(one, file=sys.stderr)
    return SOME_FAILED if report.skipped else DONE
