"""What is installed: the wheel holds every file of the package, and its metadata say what is supported."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy, so that nothing is written beside the package."""
    if find_spec("setuptools") is None:
        pytest.skip("setuptools builds the wheel")
    source = tmp_path_factory.mktemp("source")
    shutil.copytree(ROOT / "hf_video", source / "hf_video", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "hf_video_command.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "import sys, setuptools.build_meta as b; b.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, source], cwd=source, check=True, capture_output=True)
    with zipfile.ZipFile(next(source.glob("*.whl"))) as archive:
        yield archive


def test_wheel_holds_every_file_of_the_package(wheel):
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "hf_video").rglob("*") if path.is_file()}
    files = {name for name in files if "__pycache__" not in name}
    assert {"hf_video/py.typed", "hf_video/__init__.pyi", "hf_video/training/recipes/tiny.yaml"} <= files
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == files | {"hf_video_command.py"}


def test_metadata_say_what_is_supported(wheel):
    folder = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = Parser().parsestr(wheel.read(folder).decode())
    assert metadata["Author"] == "hf_video contributors"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata.get_all("Project-URL")
    versions = [c.rpartition(" ")[2] for c in metadata.get_all("Classifier") if re.search(r":: 3\.\d+$", c)]
    assert versions == ["3.10", "3.11", "3.12", "3.13"]
    assert "hf-video = hf_video_command:main" in wheel.read(folder.replace("METADATA", "entry_points.txt")).decode()
    noxfile = (ROOT / "noxfile.py").read_text()
    assert re.search(r"PYTHONS = (\[.*\])", noxfile)[1] == str(versions).replace("'", '"')
