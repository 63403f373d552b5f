"""Verbs that read videos in threads, each as a process of its own: nothing is imported yet when the threads start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import tiny

from hf_video import cli
from hf_video.video.writer import write_video

COMMAND = "import sys; sys.argv[0] = 'hf-video'; from hf_video.cli import main; sys.exit(main())"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """33 clips in two classes."""
    root = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    for number in range(33):
        (root / "ab"[number % 2]).mkdir(exist_ok=True)
        frames = rng.integers(0, 256, (8, 32, 32, 3), np.uint8)
        write_video(root / "ab"[number % 2] / f"{number}.mp4", frames, 10, options={"preset": "ultrafast"})
    return root


def fresh(cache, *arguments):
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *map(str, arguments)],
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_check_in_a_fresh_process(folder, tmp_path):
    done = fresh(tmp_path, "check", folder)
    assert done.returncode == cli.DONE, done.stderr
    assert "33 videos that can be read" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(3))
def test_every_verb_that_reads_in_threads(folder, tmp_path, trial):
    model = tiny.save_tiny(tmp_path / "model")
    options = ("--model", model, "--device", "cpu")
    for arguments in (
        ("check", folder),
        ("info", *sorted(folder.rglob("*.mp4"))),
        ("index", folder, "--output", tmp_path / "index", "--model", "fingerprint"),
        ("embed", folder, "--output", tmp_path / "vectors", *options),
        ("classify", folder, *options),
    ):
        done = fresh(tmp_path / f"cache {arguments[0]}", *arguments)
        assert done.returncode == cli.DONE, f"{arguments[0]}: {done.stderr}"


def test_an_interrupt_ends_a_folder_that_is_read_ahead(folder, tmp_path):
    model = tiny.save_tiny(tmp_path / "model")
    files = [str(file) for file in sorted(folder.rglob("*.mp4"))] * 30
    command = [sys.executable, "-c", COMMAND, "classify", *files, "--model", str(model), "--device", "cpu", "--jsonl"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # A suite that was started in a shell's background ignores interrupts, and so would what it starts.
    listen = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, preexec_fn=listen, **pipes) as process:
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == cli.INTERRUPTED, errors
    assert json.loads(first)["predictions"]
    assert len(rest.splitlines()) < len(files) / 2
    assert "Traceback" not in errors
