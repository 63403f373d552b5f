"""What the verbs that get texts about videos share, `caption` and `ask`: options, and a result a file."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

from hf_video.cli import DONE, SOME_FAILED
from hf_video.cli.arguments import Parser, positive_int
from hf_video.cli.printing import error_line
from hf_video.cli.verbs.classify import FileDataset, progress_bar
from hf_video.errors import pluralize

# Of the pipelines, by their names there.
PIPELINE_OPTIONS = ("max_new_tokens", "num_frames", "windows", "on_error", "backend", "num_workers")


def add_text_options(parser: Parser, length: str) -> None:
    """Adds the options of both verbs; `length` is the help of --max-new-tokens."""
    add = parser.add_option
    add("files", nargs="+", metavar="FILE", help="video files, http(s) URLs, or folders")
    add("--model", required=True, help="a folder, or a name on the Hub")
    add("--revision")
    add("--windows")
    add("--num-frames", type=positive_int, metavar="T", help="frames of a window (default: the model's)")
    add("--max-new-tokens", type=positive_int, metavar="N", help=length)
    add("--json", action="store_true", help="one JSON array on stdout")
    add("--on-error", choices=("raise", "repeat"), help="damaged frames: fail, or repeat their nearest good neighbour")
    add("--backend")
    add("--num-workers")
    add("--device")
    add("--dtype")
    add("--quiet")


def print_texts(
    files: list[str],
    pipeline: Callable[..., Iterator[Any]],
    options: argparse.Namespace,
    *,
    own: tuple[str, ...],
    row: Callable[[Any], dict[str, Any]],
    lines: Callable[[dict[str, Any]], str],
    **asked: Any,
) -> tuple[list[dict[str, Any]], int]:
    """Runs a pipeline over files, and prints each result as it comes, or one array with --json.

    Args:
        files: Paths and URLs.
        pipeline: Of captions or answers.
        options: What was typed.
        own: Names of further options that go to the pipeline.
        row: A file's result as JSON values, beside its name.
        lines: A row as text.
        asked: For the pipeline, besides options.

    Returns:
        A row for each file that could be read, and the exit code.
    """
    asked |= {name: getattr(options, name) for name in (*PIPELINE_OPTIONS, *own) if getattr(options, name) is not None}
    rows = list[dict[str, Any]]()
    progress = progress_bar(len(files), options)
    for file, result in zip(files, pipeline(FileDataset(files), bad_files="report", **asked), strict=True):
        failed = isinstance(result, dict) and "error" in result
        rows.append({"file": file, **(result if failed else row(result))})
        if failed:
            progress.write(error_line(file, result["message"]))
        elif not options.json:
            print(lines(rows[-1]), flush=True)
        progress.update()
    progress.close()
    if options.json:
        print(json.dumps(rows, ensure_ascii=False, indent=2))
    read = [one for one in rows if "error" not in one]
    if len(read) == len(files):
        return read, DONE
    print(
        f"hf-video: {len(files) - len(read)} of {pluralize(len(files), 'file')} could not be read",
        file=sys.stderr,
    )
    return read, SOME_FAILED
