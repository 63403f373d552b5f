"""The command `hf-video`: one file per verb, imported when its verb is used, so that help answers at once.

Exit codes: 0 success; 1 some of the files failed (each is named on stderr); 2 wrong usage, or a model, checkpoint or
option that doesn't work; 3 a bug in this package; 4 `classify` found labels of interest, 5 it did and some of the files
failed; 130 interrupted; 141 the reader of our output closed it.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

from hf_video.auto import register_auto_classes
from hf_video.base.version import __version__
from hf_video.cli.arguments import Parser
from hf_video.cli.error_messages import error_message
from hf_video.errors import HFVideoError

DONE, SOME_FAILED, WRONG, BUG, FOUND, FOUND_AND_FAILED, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 3, 4, 5, 130, 141

VERBS = {
    "annotate": "draw labels onto a video, with its sound",
    "ask": "ask questions about videos",
    "caption": "say in words what happens in videos, as subtitles if you like",
    "check": "find damaged, duplicate and leaking videos in a folder",
    "classify": "label videos with a model",
    "count": "count what is repeated in videos",
    "compare": "classifiers on the same videos: accuracy, agreement, significance, speed",
    "convert": "turn the authors' checkpoint into a folder that from_pretrained loads",
    "detect": "find events in videos, with a detector or any classifier",
    "export": "turn a model into a folder that OpenVINO or ONNX Runtime computes",
    "explain": "what a model saw of a video, and what its answer rests on",
    "evaluate": "top-1, top-5, per class and calibration on labelled videos",
    "info": "versions and backends, or what is known of video files",
    "map": "a map of embeddings as one HTML file, with pictures of the videos",
    "models": "the published models: parameters, GFLOPs, input, accuracy",
    "push": "put a trained model on the Hub, with its card",
    "preview": "a picture of what augmentation does to your videos",
    "train": "fine-tune a model on a folder of videos",
    "embed": "turn videos into feature vectors, in shards",
    "pretrain": "train a VideoMAE or V-JEPA 2 on unlabelled videos",
    "probe": "a linear classifier on a frozen model's features",
    "index": "make a folder of videos searchable",
    "search": "find moments in an index by a sentence or an example",
    "anomalies": "find what is unusual, by comparison with normal videos",
    "serve": "a web page to search an index with",
    "watch": "labels of a camera, a stream, or a file at its own speed",
    "federated": "train one model together with other sites",
}


# Verbs that load no model and needn't wait for transformers; for all others every model is registered first.
WITHOUT_MODEL = {"check", "federated", "info", "map", "preview", "push"}


class CommandError(HFVideoError):
    """A command that can't be carried out as asked: exit code 2."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `hf-video`. Errors become a line on stderr, with a traceback only under `--debug`.

    Args:
        argv: The arguments after the command's name (default: the process's own).

    Returns:
        The exit code: see the module.
    """
    # The name of a file may hold bytes or letters that the terminal's encoding lacks.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape" if stream.encoding.lower() == "utf-8" else "backslashreplace")
    try:
        options = _parser().parse_args(_normalize_option_names(sys.argv[1:] if argv is None else argv))
    except SystemExit as exit_of_argparse:
        return int(exit_of_argparse.code or 0)
    try:
        code = _run(options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt as stop:
        print(stop.args[0] if stop.args else "interrupted", file=sys.stderr)
        if getattr(stop, "resumable", False):
            print(f"Go on with: {resume_command(argv)}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # What is still in the buffer has no reader; Python would complain about it on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        what = error_message(error, getattr(options, "output", None))
        bug = f"unexpected {type(error).__name__}: {error}{'' if options.debug else ' (--debug shows where)'}"
        print(f"hf-video: error: {what or bug}", file=sys.stderr)
        return WRONG if what else BUG


def _run(options: argparse.Namespace) -> int:
    if options.debug:
        _log_to_stderr()
    if options.verb not in WITHOUT_MODEL:
        register_auto_classes()
    if getattr(options, "device", None) is not None:
        from hf_video.base.loading import check_device

        check_device(options.device)
    return import_module(f"hf_video.cli.verbs.{options.verb}").run(options)


def _log_to_stderr() -> None:
    """Writes the package's log to stderr, such as the class that each model is loaded as."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("hf-video: %(message)s"))
    logger = logging.getLogger("hf_video")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)


def _normalize_option_names(argv: Sequence[str]) -> list[str]:
    """Writes options with hyphens: --push_to_hub, as in transformers' scripts, is accepted too."""
    named = (argument.partition("=") if argument.startswith("--") else (argument, "", "") for argument in argv)
    return [
        (name.replace("_", "-") if name.startswith("--") else name) + equals + value for name, equals, value in named
    ]


def resume_command(argv: Sequence[str] | None) -> str:
    """What was typed, with `--resume` in place of `--overwrite`."""
    typed = sys.argv[1:] if argv is None else argv
    return shlex.join(["hf-video", *(one for one in typed if one not in ("--overwrite", "--resume")), "--resume"])


def _parser() -> Parser:
    parser = Parser(
        prog="hf-video",
        description="Video models from the command line.",
        epilog="exit codes: 0 success, 1 some files failed, 2 wrong usage or model, 3 a bug, "
        "4 labels of interest were found (5: and some files failed), 130 interrupted",
    )
    parser.add_argument("--version", action="version", version=f"hf-video {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, summary in VERBS.items():
        module = import_module(f"hf_video.cli.verbs.{verb}")
        below = verbs.add_parser(
            verb,
            help=summary,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        below.add_argument("--debug", action="store_true", help="show tracebacks, and the class of each model")
        module.add_arguments(below)
    return parser
