"""Label videos with a model.

  hf-video classify clip.mp4 --model MCG-NJU/videomae-base-finetuned-kinetics
  hf-video classify clips/ --model my-model --views 5x3 --stride 4 --json > labels.json
  hf-video classify match.mp4 --model my-model --windows 2s/1s --jsonl

A folder means the videos in it (or is one video, if it holds one image a frame). Files that can't be read are named
on stderr, the others go on, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hf_video.cli import DONE, SOME_FAILED
from hf_video.cli.arguments import Parser, non_negative_int, positive_int
from hf_video.cli.files import expand_paths
from hf_video.cli.printing import error_line, format_result, json_result
from hf_video.errors import pluralize

if TYPE_CHECKING:
    from tqdm import tqdm

    from hf_video.pipelines.base import VideoPipeline

DTYPES = {"auto": "auto", "fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def add_arguments(parser: Parser) -> None:
    add = parser.add_option
    add("files", nargs="+", metavar="FILE", help="video files, http(s) URLs, or folders")
    add("--model", required=True, help="a folder, or a name on the Hub")
    add("--revision")
    add("--top-k", type=non_negative_int, default=5, metavar="K", help="labels for each video (default 5; 0: all)")
    add("--num-frames", type=positive_int, metavar="T", help="frames of a clip (default: the model's)")
    add("--stride", type=positive_int, metavar="N", help="frames from one to the next (default: spread over the video)")
    add("--sampler", help="uniform, dense, center, at_fps, uniform_views, adaptive, random (default: the processor's)")
    add("--views")
    add("--windows")
    add("--on-error", choices=("raise", "repeat"), help="damaged frames: fail, or repeat their nearest good neighbour")
    add("--backend")
    add("--batch-size")
    add("--num-workers")
    add("--device")
    add("--dtype", choices=DTYPES, default="auto", help="precision of the model (default: as it was saved)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON array on stdout")
    form.add_argument("--jsonl", action="store_true", help="one JSON object a line, as results come in")
    add("--quiet")


def run(options: argparse.Namespace) -> int:
    files = expand_paths(options.files)
    classify = load_pipeline(options)
    calls = {
        "views": options.views,
        "sampler": options.sampler,
        "frame_sampling_rate": options.stride,
        "num_frames": options.num_frames,
        "windows": options.windows,
        "on_error": options.on_error,
        "backend": options.backend,
        "batch_size": options.batch_size,
        "num_workers": options.num_workers,
    }
    calls = {name: value for name, value in calls.items() if value is not None}
    results = classify(FileDataset(files), bad_files="report", top_k=options.top_k or None, **calls)
    return print_results(files, results, options)


class FileDataset:
    """A list as a data set, whose results the pipeline yields one by one."""

    def __init__(self, files: list[str]):
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> str:
        return self._files[index]


def print_results(files: list[str], results: Iterator[Any], options: argparse.Namespace) -> int:
    """Prints every result as it comes (one array with `--json`), and returns the exit code."""
    failed, collected = 0, list[dict[str, Any]]()
    progress = progress_bar(len(files), options)
    for file, result in zip(files, results, strict=True):
        if isinstance(result, dict) and "error" in result:
            failed += 1
            progress.write(error_line(file, result["message"]))
        if options.json:
            collected.append(json_result(file, result))
        elif options.jsonl:
            print(json.dumps(json_result(file, result), ensure_ascii=False), flush=True)
        elif not (isinstance(result, dict) and "error" in result):
            print(format_result(file, result), flush=True)
        progress.update()
    progress.close()
    if options.json:
        print(json.dumps(collected, ensure_ascii=False, indent=2))
    if failed:
        print(f"hf-video: {failed} of {pluralize(len(files), 'file')} could not be read", file=sys.stderr)
    return SOME_FAILED if failed else DONE


def progress_bar(total: int, options: argparse.Namespace) -> tqdm:
    """For several videos where stderr is a terminal."""
    from tqdm import tqdm

    class Progress(tqdm):
        def write(self, line: str) -> None:
            tqdm.write(line, file=sys.stderr)

    hidden = options.quiet or total < 2 or not sys.stderr.isatty()
    return Progress(total=total, unit="video", file=sys.stderr, disable=hidden)


def load_pipeline(options: argparse.Namespace, task: str = "video-classification", **more: Any) -> VideoPipeline:
    """The pipeline of `--model`. Raises CheckpointError for a model that can't be loaded."""
    import transformers

    from hf_video.base.loading import loading
    from hf_video.pipelines.video_classification import VideoClassificationPipeline

    transformers.utils.logging.set_verbosity_error()
    if not sys.stderr.isatty() or options.quiet:
        transformers.utils.logging.disable_progress_bar()
    if task == "video-classification":
        more["pipeline_class"] = VideoClassificationPipeline  # also with HF_VIDEO_OVERRIDE=0
    with loading(options.model):
        return transformers.pipeline(
            task,
            model=options.model,
            revision=options.revision,
            device=options.device,
            dtype=DTYPES[options.dtype],
            **more,
        )
