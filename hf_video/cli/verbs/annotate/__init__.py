"""Draw labels onto a video: the best ones of each moment, bars for their scores, and a line of time.

  hf-video annotate match.mp4 --model my-model --output labelled.mp4
  hf-video annotate match.mp4 --model my-model --windows 4s/1s --threshold 0.3 --top-k 1 --output labelled.mp4
  hf-video annotate match.mp4 --events events.json --output labelled.mkv --codec ffv1
  hf-video annotate talk.mp4 --model my-model --colors "speech=#2f6db5,applause=orange" --size 32 --output labelled.webm

--model is a video classifier; --events is what `hf-video detect` wrote as .json. The output has the frames of the video
at their own times, upright and unsquashed whatever the file's rotation and pixels, and its sound: packets are copied
where the container takes them, else encoded anew. Its suffix names the container (.mp4 .m4v .mov .mkv .webm .avi .ts
.gif). Files of one rate only (.avi) refuse videos of varying rate.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_video.cli import DONE, CommandError
from hf_video.cli.arguments import Parser, check_output, name_list, non_negative_int, positive_int, score_limit
from hf_video.cli.verbs.classify import load_pipeline

WINDOWS = "2s"
# Of the pipeline, by their names there.
PIPELINE_OPTIONS = {
    "windows": "windows", "views": "views", "sampler": "sampler", "frame_sampling_rate": "stride",
    "num_frames": "num_frames", "batch_size": "batch_size", "backend": "backend",
}  # fmt: skip


def add_arguments(parser: Parser) -> None:
    add = parser.add_option
    add("file", metavar="FILE", help="a video file, an http(s) URL, or a folder of images")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", "-m", help="a video classifier: a folder, or a name on the Hub")
    what.add_argument("--events", metavar="FILE.json", help="events to draw, as `hf-video detect` writes them")
    add("--output", required=True, type=output_video, metavar="FILE.mp4", help="the video to write")
    add("--revision")
    add("--windows", help=f"labels for each window of that length [and step] in seconds (default {WINDOWS}); all: one")
    add("--threshold", type=score_limit, metavar="SCORE", help='lowest score that is drawn; "model": each class\'s own')
    add("--top-k", type=positive_int, default=3, metavar="K", help="most labels at a time (default 3)")
    add("--font", metavar="FILE.ttf", help="a TrueType or OpenType font (default: one with Latin letters)")
    add("--size", type=positive_int, metavar="PIXELS", help="height of the text (default: 1/26 of the shorter side)")
    add("--colors", type=name_list, metavar="C,C or LABEL=C,…", help="of the labels: #rrggbb, or names such as orange")
    add("--scale", type=positive_int, metavar="N", help="enlarge frames so many times (default: to 240 pixels or more)")
    add("--codec", metavar="NAME", help="h264, h265, vp9, av1, ffv1, or an encoder of FFmpeg (default: h264)")
    add("--crf", type=non_negative_int, metavar="N", help="constant quality, lower is better (h264: default 23)")
    add("--views")
    add("--num-frames", type=positive_int, metavar="T", help="frames of a clip (default: the model's)")
    add("--stride", type=positive_int, metavar="N", help="frames from one to the next (default: spread out)")
    add("--sampler", help="uniform, dense, center, at_fps, … (default: the processor's)")
    add("--on-error", choices=("raise", "repeat"), help="damaged frames: fail, or repeat their nearest good neighbour")
    add("--backend")
    add("--batch-size")
    add("--device")
    add("--dtype")
    add("--quiet")


def output_video(path: str) -> str:
    from hf_video.base.written_files import check_output_file
    from hf_video.video.writer import CONTAINERS

    return check_output(path, lambda file: check_output_file(file, suffixes=tuple(CONTAINERS)))


def label_colors(words: Sequence[str] | None) -> dict[str, str] | list[str] | None:
    """`["red", "blue"]` or `["jump=red"]` as `annotate_video` takes them. Raises CommandError for a mixture."""
    if not words:
        return None
    pairs = [word.rpartition("=") for word in words]
    if all(equals for _, equals, _ in pairs):
        return {label: color for label, _, color in pairs}
    if any(equals for _, equals, _ in pairs):
        raise CommandError("--colors is a list of colours, or LABEL=COLOUR for each of them; a mixture came")
    return list(words)


def run(options: argparse.Namespace) -> int:
    from hf_video.visual import annotate_video

    colors = label_colors(options.colors)
    results = _from_file(options) if options.events else _from_model(options)
    written = annotate_video(
        options.file,
        results,
        options.output,
        top_k=options.top_k,
        size=options.size,
        font=options.font,
        colors=colors,
        scale=options.scale,
        codec=options.codec,
        crf=options.crf,
        on_error=options.on_error or "raise",
    )
    for track in written.sound:
        print(f"hf-video: sound: {track}", file=sys.stderr)
    print(f"{written.path}: {written.frames} frames")
    return DONE


def _from_model(options: argparse.Namespace) -> Any:
    classify = load_pipeline(options)
    asked = {name: getattr(options, option) for name, option in PIPELINE_OPTIONS.items()}
    asked |= {"on_error": options.on_error, "threshold": options.threshold, "windows": options.windows or WINDOWS}
    if options.windows == "all":
        asked["windows"] = None
    asked = {name: value for name, value in asked.items() if value is not None}
    if not options.quiet:
        print(f"hf-video: labelling {options.file}", file=sys.stderr)
    return classify(options.file, top_k=options.top_k, **asked)


def _from_file(options: argparse.Namespace) -> list[Any]:
    from hf_video.base.detection.types import read_detections

    names = (*PIPELINE_OPTIONS.values(), "revision", "device")
    unused = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) is not None]
    unused += ["--dtype"] * (options.dtype != "saved")
    if unused:
        raise CommandError(f"{', '.join(unused)} is for a model, and --events are drawn as they are")
    if options.threshold == "model":
        raise CommandError("--threshold model is for a model; for --events give a score")
    found, _ = read_detections(options.events)
    name = options.file if options.file in found else Path(options.file).stem
    if name not in found:
        raise CommandError(f"{options.events} has no events of {name}; it has {', '.join(list(found)[:5]) or 'none'}")
    limit = options.threshold
    return [event for event in found[name] if limit is None or event.score >= limit]
