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
import json
import os
import sys
from typing import Any

from hf_video.base.written_files import SUBTITLES
from hf_video.cli import DONE, SOME_FAILED, CommandError
from hf_video.cli.arguments import Parser, output_events, positive_int
from hf_video.cli.files import expand_paths
from hf_video.cli.printing import error_line
from hf_video.cli.verbs.classify import FileDataset, load_pipeline, progress_bar
from hf_video.cli.verbs.detect import video_names
from hf_video.errors import pluralize

# Of the pipeline, by their names there.
PIPELINE_OPTIONS = ("prompt", "max_new_tokens", "num_frames", "windows", "on_error", "backend", "num_workers")


def add_arguments(parser: Parser) -> None:
    add = parser.add_option
    add("files", nargs="+", metavar="FILE", help="video files, http(s) URLs, or folders")
    add("--model", required=True, help="a folder, or a name on the Hub")
    add("--revision")
    add("--prompt", metavar="TEXT", help="what the model is asked (default: to describe what happens)")
    add("--windows")
    add("--num-frames", type=positive_int, metavar="T", help="frames of a window (default: the model's)")
    add("--max-new-tokens", type=positive_int, metavar="N", help="length of a caption (default 64)")
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
    add("--json", action="store_true", help="one JSON array on stdout")
    add("--on-error", choices=("raise", "repeat"), help="damaged frames: fail, or repeat their nearest good neighbour")
    add("--backend")
    add("--num-workers")
    add("--device")
    add("--dtype")
    add("--quiet")


def run(options: argparse.Namespace) -> int:
    files = expand_paths(options.files)
    names = video_names(files)
    for path in options.output:
        if path.endswith(SUBTITLES) and len(names) > 1:
            raise CommandError(f"{path} holds the captions of one video, and {len(names)} came: take .json or .csv")
        if os.path.exists(path) and not options.overwrite:
            raise CommandError(f"{path} is there already: --overwrite replaces it, or give another name")
    describe = load_pipeline(options, "video-captioning")
    calls = {name: getattr(options, name) for name in PIPELINE_OPTIONS if getattr(options, name) is not None}
    found: dict[str, list[dict[str, Any]]] = {}
    failed: dict[str, dict[str, Any]] = {}
    progress = progress_bar(len(files), options)
    for file, result in zip(files, describe(FileDataset(files), bad_files="report", **calls), strict=True):
        if isinstance(result, dict) and "error" in result:
            failed[file] = result
            progress.write(error_line(file, result["message"]))
        else:
            found[file] = result if isinstance(result, list) else [result]
            if not options.json:
                print(format_captions(file, found[file]), flush=True)
        progress.update()
    progress.close()
    if options.json:
        rows = [{"file": file, **(failed.get(file) or {"captions": found[file]})} for file in files]
        print(json.dumps(rows, ensure_ascii=False, indent=2))
    if found:
        _save({names[file]: captions for file, captions in found.items()}, options)
    if failed:
        print(f"hf-video: {len(failed)} of {pluralize(len(files), 'file')} could not be read", file=sys.stderr)
    return SOME_FAILED if failed else DONE


def format_captions(file: str, captions: list[dict[str, Any]]) -> str:
    """A line for the file, and one for each caption."""
    lines = [file]
    for one in captions:
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
