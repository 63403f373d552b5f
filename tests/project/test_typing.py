"""A type checker knows the public names, and pyproject's lists of checked modules name modules that there are."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = Path(__file__).with_name("typed_names.py")
# What the package is built on is skipped, which takes 2 seconds instead of 20; `make lint` reads it too.
CONFIG = """
[mypy]
ignore_missing_imports = True
[mypy-torch.*,transformers.*,numpy.*,PIL.*,av.*,huggingface_hub.*,safetensors.*,tqdm.*]
follow_imports = skip
follow_imports_for_stubs = True
[mypy-hf_video.*]
ignore_errors = True
"""


@pytest.mark.skipif(find_spec("mypy") is None, reason="mypy is not installed")
def test_public_names_have_types_and_others_are_errors(tmp_path):
    """mypy finds exactly the faults that typed_names.py marks, with the codes that it says."""
    (tmp_path / "mypy.ini").write_text(CONFIG)
    lines = NAMES.read_text().splitlines()
    marked = {n: found[1] for n, line in enumerate(lines, 1) if (found := re.search(r"# type: ignore(\[.*\])", line))}
    assert len(marked) > 4
    (tmp_path / "names.py").write_text("\n".join(line.partition("  # type: ignore")[0] for line in lines))
    command = [sys.executable, "-m", "mypy", "--config-file", tmp_path / "mypy.ini", "--cache-dir", tmp_path / "cache"]
    done = subprocess.run([*command, tmp_path / "names.py"], cwd=ROOT, capture_output=True, text=True)
    found = {int(n): code for n, code in re.findall(r"names\.py:(\d+): error: .*  (\[[\w-]+\])$", done.stdout, re.M)}
    assert found == marked, done.stdout + done.stderr


def listed() -> list[str]:
    """The modules and folders that pyproject names for mypy."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 reads TOML")
    sections = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["overrides"]
    names = [name for section in sections for name in section["module"]]
    return [name.removesuffix(".*") for name in names if name.startswith("hf_video")]


def test_checked_modules_are_there_and_named_once():
    names = listed()
    assert len(names) == len(set(names))
    places = {name: ROOT.joinpath(*name.split(".")) for name in names}
    missing = [name for name, path in places.items() if not path.with_suffix(".py").is_file() and not path.is_dir()]
    assert not missing, "listed for mypy in pyproject.toml, and no modules"
