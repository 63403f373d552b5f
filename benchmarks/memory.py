"""Peak memory of one read: `python -m benchmarks.memory READER FILE` prints MB over what the imports took.

A process of its own for each, since a peak never goes down again.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

from benchmarks.readers import NEEDS, READERS, STOCK

ROOT = Path(__file__).resolve().parents[1]


def peak_mb(reader: str, path: Path) -> float:
    """MB (10^6 bytes) by which reading raised the process's peak."""
    command = [sys.executable, "-m", "benchmarks.memory", reader, str(path.resolve())]
    return float(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()[-1])


def peak() -> float:
    """The process's peak of resident memory, in MB.

    Not `ru_maxrss` on Linux: a process starts with the value of the one that started it, here one with large models.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _import(reader: str) -> None:
    """What the reader needs, so that the libraries themselves are in the baseline."""
    if reader in NEEDS:
        __import__({"torchcodec": "torchcodec.decoders"}.get(NEEDS[reader], NEEDS[reader]))
    elif reader == STOCK:
        import av  # noqa: F401
        import transformers.video_utils  # noqa: F401
    else:
        import hf_video.video.reader  # noqa: F401


def _main(reader: str, path: str) -> None:
    _import(reader)
    before = peak()
    frames = READERS[reader](Path(path))
    print(f"{peak() - before:.1f}" if len(frames) else "nan")


if __name__ == "__main__":
    _main(*sys.argv[1:])
