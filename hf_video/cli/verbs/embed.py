"""Turn videos into feature vectors, in shards of safetensors or Parquet.

  hf-video embed clips/ --model my-encoder --output features
  hf-video embed clips/ --model my-encoder --output features --shard-format parquet --windows 2s/1s --processes 4

DATA is a folder of videos, a list of them, or tar shards. Of a folder all videos below it are taken, hidden ones
excepted, and labels kept where there are some; what is left out is named. Each vector stands for
a video, or with --windows for a stretch of one, and comes with its name and seconds. The command can be killed at any
moment: run again, it makes what is missing. Videos that can't be read are named, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import sys

from hf_video.cli.arguments import Parser, positive_int
from hf_video.errors import pluralize


def add_arguments(parser: Parser) -> None:
    add = parser.add_option
    add("data", metavar="DATA", help="a folder of videos, a list of them, or tar shards")
    add("--model", required=True, help="a folder, or a name on the Hub")
    add("--revision")
    add("--output", required=True, help="folder for the shards and manifest.json")
    add("--shard-format", choices=("safetensors", "parquet"), default="safetensors", help="default safetensors")
    parser.add_alias("--format", "--shard-format")  # as it was before --format was that of the data
    add("--windows")
    add("--views")
    add("--snap")
    add("--shard-size", type=positive_int, default=512, metavar="N", help="videos of a shard (default 512)")
    add("--processes")
    add(
        "--num-workers", help="processes that read ahead for each of them (default: a thread; 0: nothing is read ahead)"
    )
    add("--batch-size", default=8)
    add("--device")
    add("--compile")
    add("--quiet")


def run(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from hf_video.cli import DONE, SOME_FAILED
    from hf_video.cli.files import skipped_message
    from hf_video.cli.printing import say
    from hf_video.data.rows import VideoRows
    from hf_video.data.sources.load import load_videos
    from hf_video.features.embed import ModelLoader, embed_videos

    splits = load_videos(options.data, test_size=0.0, need_labels=False, inspect=None)
    others = [one for part in splits.values() for one in part.skipped]
    if others:
        print(skipped_message(others), file=sys.stderr)
    rows = VideoRows([row for part in splits.values() for row in part], next(iter(splits.values())).labels)
    hidden = options.quiet or len(rows) < 2 or not sys.stderr.isatty()
    with tqdm(total=len(rows), unit="video", file=sys.stderr, disable=hidden) as bar:
        report = embed_videos(
            ModelLoader(
                options.model,
                revision=options.revision,
                device=options.device,
                compile=say if options.compile else False,
            ),
            rows,
            options.output,
            data_format=options.shard_format,
            shard_size=options.shard_size,
            processes=options.processes,
            on_videos=bar.update,
            windows=options.windows,
            views=options.views,
            snap=options.snap,
            batch_size=options.batch_size,
            num_workers=options.num_workers,
        )
    print(
        f"{pluralize(report.vectors, 'vector')} of {report.dim} numbers from {report.found} of "
        f"{pluralize(report.videos, 'video')} in {options.output} "
        f"({pluralize(report.made, 'shard')} made, {report.kept} were there)"
    )
    for line in report.damaged:
        print(f"hf-video: {line}", file=sys.stderr)
    for one in report.skipped:
        print(one, file=sys.stderr)
    return SOME_FAILED if report.skipped else DONE
