"""Find moments in an index that `hf-video index` made, by a sentence or by an example.

  hf-video search library.index "a person cleaning a pool"
  hf-video search library.index --video example.mp4 --top-k 5 --json
  hf-video search library.index --image photo.jpg --per-video 1 --threshold 0.2
  hf-video search library.index "a cat jumping" --sheet found.png
  hf-video search match.mp4 "a player scores" --moment --model openai/clip-vit-base-patch32

Prints the moments with their scores (cosines) and seconds, the best first; those that overlap are one. Without --model
the index's own is loaded.

--moment searches one video without an index, and finds where a moment begins and ends instead of windows. Its --model
is any model of video and text, CLIP and its kin too, or a Moment-DETR.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING

from hf_video.cli.arguments import Parser, finite_float, output_picture, positive_int

if TYPE_CHECKING:
    from hf_video.retrieval.moments import Moment


def add_arguments(parser: Parser) -> None:
    add = parser.add_option
    add("index", metavar="INDEX", help="folder of the index; with --moment, a video")
    add("text", nargs="?", metavar="TEXT", help="what is to be seen, in words")
    add("--video", metavar="FILE", help="an example instead of words")
    add("--image", metavar="FILE", help="a picture instead of words")
    add("--moment", action="store_true", help="search one video by words, with boundaries")
    add("--model", help="the model of the index, if it lies elsewhere by now; with --moment, the model that searches")
    add("--grid", metavar="2s/1s", help="with --moment: length and step of the clips (default 2s/1s)")
    add("--top-k", type=positive_int, default=10, metavar="K", help="moments (default 10)")
    add("--merge", action=argparse.BooleanOptionalAction, default=True, help="join moments that overlap (default)")
    add("--per-video", type=positive_int, metavar="N", help="at most so many moments of one video")
    add("--threshold", type=finite_float, metavar="SCORE", help="only moments of at least this score")
    add("--json", action="store_true", help="a JSON array on stdout")
    add("--sheet", type=output_picture, metavar="FILE.png", help="also write a picture of the moments")
    add("--device")


def run(options: argparse.Namespace) -> int:
    import transformers

    from hf_video.cli import DONE

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    moments = _moments_of_video(options) if options.moment else _moments_of_index(options)
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


def _moments_of_index(options: argparse.Namespace) -> list[Moment]:
    from hf_video.cli import CommandError
    from hf_video.retrieval import VideoIndex

    if options.grid is not None:
        raise CommandError("--grid goes with --moment; the windows of an index are those that it was made with")
    index = VideoIndex.open(options.index, options.model, device=options.device)
    if not len(index):
        raise CommandError(
            f"{options.index} holds no moments yet: nothing was indexed, or the making was stopped before the first "
            "video was written; run hf-video index again"
        )
    return index.search(
        text=options.text,
        video=options.video,
        image=options.image,
        top_k=options.top_k,
        merge=options.merge,
        per_video=options.per_video,
        threshold=options.threshold,
    )


def _moments_of_video(options: argparse.Namespace) -> list[Moment]:
    """Moments of one video that a sentence describes, best first."""
    import transformers

    from hf_video.base.loading import loading
    from hf_video.cli import CommandError
    from hf_video.models.videoclip.from_image_text import video_clip
    from hf_video.pipelines.video_moment_retrieval import VideoMomentRetrievalPipeline
    from hf_video.registry import DETECTORS, MODELS
    from hf_video.retrieval.moments import Moment

    if options.video or options.image or not options.text:
        raise CommandError("--moment searches by words: give the video and a text, without --video and --image")
    if options.model is None:
        raise CommandError("--moment needs --model, a model of video and text")
    with loading(options.model):
        config = transformers.AutoConfig.from_pretrained(options.model)
        if config.model_type not in MODELS | DETECTORS and hasattr(config, "vision_config"):
            model, processor = video_clip(options.model)
            find = VideoMomentRetrievalPipeline(model, processor=processor, device=options.device)
        else:
            find = transformers.pipeline("video-moment-retrieval", model=options.model, device=options.device)
    asked = {"top_k": options.top_k, "threshold": options.threshold, "grid": options.grid}
    found = find(options.index, sentences=options.text, on_error="repeat", **asked)
    return [Moment(options.index, one.start, one.end, one.score) for one in found[: options.per_video]]


def _save_sheet(moments: list[Moment], options: argparse.Namespace) -> None:
    from hf_video.cli import CommandError
    from hf_video.retrieval.moments import sheet

    try:
        sheet(moments, title=options.text or os.path.basename(options.video or options.image)).save(options.sheet)
    except (OSError, ValueError) as error:
        raise CommandError(f"{options.sheet!r} can't be written: {error}") from error
