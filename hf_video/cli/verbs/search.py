"""Find moments in an index that `hf-video index` made, by a sentence or by an example.

  hf-video search library.index "a person cleaning a pool"
  hf-video search library.index --video example.mp4 --top-k 5 --json
  hf-video search library.index --image photo.jpg --per-video 1 --threshold 0.2
  hf-video search library.index "a cat jumping" --sheet found.png

Prints the moments with their scores (cosines) and seconds, the best first; those that overlap are one. Without --model
the index's own is loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING

from hf_video.cli.arguments import Parser, output_picture, positive_int

if TYPE_CHECKING:
    from hf_video.retrieval.moments import Moment


def add_arguments(parser: Parser) -> None:
    add = parser.add_option
    add("index", metavar="INDEX", help="folder of the index")
    add("text", nargs="?", metavar="TEXT", help="what is to be seen, in words")
    add("--video", metavar="FILE", help="an example instead of words")
    add("--image", metavar="FILE", help="a picture instead of words")
    add("--model", help="the model of the index, if it lies elsewhere by now")
    add("--top-k", type=positive_int, default=10, metavar="K", help="moments (default 10)")
    add("--merge", action=argparse.BooleanOptionalAction, default=True, help="join moments that overlap (default)")
    add("--per-video", type=positive_int, metavar="N", help="at most so many moments of one video")
    add("--threshold", type=float, metavar="SCORE", help="only moments of at least this score")
    add("--json", action="store_true", help="a JSON array on stdout")
    add("--sheet", type=output_picture, metavar="FILE.png", help="also write a picture of the moments")
    add("--device")


def run(options: argparse.Namespace) -> int:
    import transformers

    from hf_video.cli import DONE, CommandError
    from hf_video.retrieval import VideoIndex

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    index = VideoIndex.open(options.index, options.model, device=options.device)
    if not len(index):
        raise CommandError(
            f"{options.index} holds no moments yet: nothing was indexed, or the making was stopped before the first "
            "video was written; run hf-video index again"
        )
    moments = index.search(
        text=options.text,
        video=options.video,
        image=options.image,
        top_k=options.top_k,
        merge=options.merge,
        per_video=options.per_video,
        threshold=options.threshold,
    )
    if not moments:
        print(f"hf-video: no moment has a score of {options.threshold:g} or more", file=sys.stderr)
    if options.json:
        print(json.dumps([moment.as_dict() for moment in moments], ensure_ascii=False, indent=2))
    else:
        for moment in moments:
            print(moment)
    if options.sheet and moments:
        _save_sheet(moments, options)
    return DONE


def _save_sheet(moments: list[Moment], options: argparse.Namespace) -> None:
    from hf_video.cli import CommandError
    from hf_video.retrieval.moments import sheet

    try:
        sheet(moments, title=options.text or os.path.basename(options.video or options.image)).save(options.sheet)
    except (OSError, ValueError) as error:
        raise CommandError(f"{options.sheet!r} can't be written: {error}") from error
