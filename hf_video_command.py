"""The command `hf-video`. It lies beside the package, because importing the package registers every model, which takes
seconds: help and a mistyped option are answered without."""

from __future__ import annotations

running = False  # whether this process is the command; a worker process of it only imports this file


def main() -> int:
    """Runs the command and returns its exit code."""
    global running
    running = True
    from hf_video.cli import main

    return main()
