"""The versions that are supported, and a short run on each: `make matrix`, or `nox -s "matrix-3.12(lowest)"`.

Every session is a new environment with the wheel, not with this checkout. `lowest` installs the oldest release that
pyproject.toml allows of torch, transformers and everything else it names, `newest` the latest of each. uv downloads the
Pythons that the machine lacks. A CPU build of torch is enough: set UV_TORCH_BACKEND=cpu.
"""

from __future__ import annotations

from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv"
nox.options.sessions = ["matrix"]

PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
RESOLUTIONS = {"lowest": "lowest-direct", "newest": "highest"}
# The registration of every model, a model's whole contract, exact frames, and a pipeline from a file to labels.
TESTS = [
    "tests/test_registry.py",
    "tests/models/videomae/test_videomae.py",
    "tests/video/decode/test_reader_exact.py",
    "tests/pipelines/test_video_classification.py",
]


@nox.session(python=PYTHONS)
@nox.parametrize("versions", list(RESOLUTIONS), ids=list(RESOLUTIONS))
def matrix(session: nox.Session, versions: str) -> None:
    """A short run with the lowest or the newest versions of what the package needs."""
    wheels = session.create_tmp()
    session.run("uv", "build", "--wheel", "--out-dir", wheels, external=True, silent=True)
    # Only releases with a binary for this Python count: the lowest of them is the lowest that is supported.
    options = "--only-binary=:all:", f"--resolution={RESOLUTIONS[versions]}"
    session.install(*options, "--requirements=pyproject.toml", "--extra=train", "pytest>=8")
    session.install("--no-deps", *map(str, Path(wheels).glob("*.whl")))
    session.run("uv", "pip", "list", external=True)
    # torch 2.6 runs all models, but its compiler cannot trace them.
    chosen = ["-k", "not compile and not export"] if versions == "lowest" else []
    session.run("pytest", "-q", "-p", "no:cacheprovider", *(session.posargs or [*chosen, *TESTS]))
