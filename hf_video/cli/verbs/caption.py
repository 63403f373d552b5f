"""Say in words what happens in videos, as a whole or window by window.

  hf-video caption clip.mp4 --model microsoft/git-base-vatex
  hf-video caption match.mp4 --model HuggingFaceTB/SmolVLM2-500M-Video-Instruct --windows 10s --output match.srt
  hf-video caption clip.mp4 --model Qwen/Qwen3-VL-2B-Instruct --prompt "What is the person cooking?" --json

--model is GIT, or a model of AutoModelForImageTextToText whose processor takes videos: SmolVLM, Qwen-VL,
LLaVA-OneVision, InternVL. A folder means the videos in it. --output is SubRip subtitles or WebVTT chapters of one
video, ActivityNet's JSON or a CSV table, and may be given several times. Seconds are those of the file's time stamps.
Files that can't be read are named on stderr, the others go on, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from hf_video.base.written_files import SUBTITLES
from hf_video.cli import CommandError
from hf_video.cli.arguments import Parser, output_events
from hf_video.cli.files import expand_paths
from hf_video.cli.text_verbs import add_text_options, print_texts
from hf_video.cli.verbs.classify import load_pipeline
from hf_video.cli.verbs.detect import video_names


def add_arguments(parser: Parser) -> None:
    add = parser.add_option
    add_text_options(parser, length="length of a caption (default 64)")
    add("--prompt", metavar="TEXT", help="what the model is asked (default: to describe what happens)")
    add(
        "--output",
        type=output_events,
        action="append",
        default=[],
        metavar="FILE",
        help="captions as .srt, .vtt, .json or .csv",
    )
    for name, other in (("--frames", "--num-frames"), ("--srt", "--output"), ("--vtt", "--output")):
        parser.add_alias(name, other)
    add("--overwrite", help="replace the output if it is there")


def run(options: argparse.Namespace) -> int:
    files = expand_paths(options.files)
    names = video_names(files)
    for path in options.output:
        if path.endswith(SUBTITLES) and len(names) > 1:
            raise CommandError(f"{path} holds the captions of one video, and {len(names)} came: take .json or .csv")
        if os.path.exists(path) and not options.overwrite:
            raise CommandError(f"{path} is there already: --overwrite replaces it, or give another name")
    describe = load_pipeline(options, "video-captioning")

    def row(result: Any) -> dict[str, Any]:
        return {"captions": result if isinstance(result, list) else [result]}

    rows, code = print_texts(files, describe, options, own=("prompt",), row=row, lines=format_captions)
    if rows:
        _save({names[one["file"]]: one["captions"] for one in rows}, options)
    return code


def format_captions(row: dict[str, Any]) -> str:
    """A line for the file, and one for each caption."""
    lines = [row["file"]]
    for one in row["captions"]:
        start, end = one["seconds"]
        damaged = len(one.get("repeated_frames", ()))
        note = f"  [{damaged} damaged frames replaced by neighbours]" if damaged else ""
        lines.append(f"  {start:9.2f} - {end:9.2f} s  {' '.join(one['caption'].split())}{note}")
    return "\n".join(lines)


def _save(found: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> None:
    from hf_video.base.detection.types import Detection, write_detections

    events = {
        name: [Detection(one["caption"], 1.0, *one["seconds"]) for one in captions] for name, captions in found.items()
    }
    chosen = ("model", "revision", "prompt", "windows", "num_frames", "max_new_tokens")
    made_with = {name: getattr(options, name) for name in chosen if getattr(options, name) is not None}
    for path in options.output:
        write_detections(path, events, made_with=made_with)
