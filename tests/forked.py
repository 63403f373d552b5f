"""Processes in which hf_video is imported anew, without the seconds that torch and transformers take: they are forked
from a server that has imported these, and nothing of hf_video."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import torch.multiprocessing

CONTEXT = multiprocessing.get_context("forkserver")
AUTO = ("image_processing", "video_processing", "modeling")
PRELOADED = ["torch", "av", "transformers.trainer", *(f"transformers.models.auto.{kind}_auto" for kind in AUTO)]
CONTEXT.set_forkserver_preload(PRELOADED)
COMMAND = "import sys, hf_video_command; sys.exit(hf_video_command.main())"  # what the installed script does


def _execute(code: str, words: list[str], environment: dict[str, str], folder: Path) -> None:
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), number)
    assert "hf_video" not in sys.modules
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = words
    exec(compile(code, words[0], "exec"), {"__name__": "__main__"})


def spawn(function: Callable[..., None], *arguments: Any, count: int = 2) -> None:
    """Calls `function(rank, *arguments)` in `count` processes at once."""
    torch.multiprocessing.start_processes(function, arguments, nprocs=count, start_method="forkserver")


def run(code: str, *words: object, **environment: str) -> CompletedProcess:
    """Runs `code` with `words` as `sys.argv`, and these variables beside those of this process."""
    words = list(map(str, words)) or ["-c"]
    with tempfile.TemporaryDirectory() as folder:
        arguments = (code, words, {**os.environ, **environment}, Path(folder))
        process = CONTEXT.Process(target=_execute, args=arguments)
        process.start()
        process.join(300)
        if process.is_alive():
            process.kill()
        out, err = ((Path(folder) / name).read_text() for name in ("out", "err"))
    return CompletedProcess(words, process.exitcode, out, err)
