"""The picture and the pages of the architecture show the folders, floors and imports that there are."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml
from test_architecture import FLOORS, modules

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def drawing():
    sys.path.insert(0, str(DOCS))
    try:
        import draw_architecture

        return draw_architecture
    finally:
        sys.path.remove(str(DOCS))


def test_the_picture_is_of_this_tree(drawing):
    assert set(drawing.BOXES) == drawing.parts(), "add the folder to BOXES in docs/draw_architecture.py"
    assert (DOCS / "architecture.svg").read_text(encoding="utf-8") == drawing.draw(), "draw it again: make picture"


def test_arrows_are_imports_and_the_rest_follows(drawing):
    """Each arrow stands for an import of a file, and every import for a way along arrows."""
    arrows = set(drawing.arrows())
    imports = {(drawing.box_of(a), drawing.box_of(b)) for a, below in drawing.folders(modules()).items() for b in below}
    assert arrows <= imports
    ways = set(arrows)
    while more := {(a, d) for a, b in ways for c, d in ways if b == c} - ways:
        ways |= more
    assert {(a, b) for a, b in imports if a != b} <= ways


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_pages_name_all_folders_and_nothing_that_is_gone(page, drawing):
    text = (ROOT / page).read_text()
    named = set(re.findall(r"^\|? *`?(\w+)(?:/|\.py)`?", text, re.M))
    assert drawing.parts() <= named, "a table's or tree's first words are the folders"
    for path in re.findall(r"`((?:hf_video|tests|docs|benchmarks|examples)/[\w/.]*)`", text):
        assert (ROOT / path).exists(), f"{page} names {path}"
    for module in re.findall(r"`(hf_video(?:\.[a-z_]+)+)`", text):
        assert module in modules() or module.rpartition(".")[0] in modules(), f"{page} names {module}"


def test_floors_of_contributing_are_those_that_are_checked(drawing):
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("## Floors")[2].partition("\n##")[0]
    floors = [set(re.findall(r"\w+", one)) for one in re.findall(r"^\d+\. (.*)$", text, re.M)]
    assert floors == [floor & drawing.parts() for floor in FLOORS if floor & drawing.parts()]


def test_workflows_run_what_there_is():
    """Each workflow is valid YAML, pins its actions, and calls targets of the Makefile or sessions of the noxfile."""
    makefile, noxfile = (ROOT / "Makefile").read_text(), (ROOT / "noxfile.py").read_text()
    for file in (ROOT / ".github/workflows").glob("*.yml"):
        steps = [step for job in yaml.safe_load(file.read_text())["jobs"].values() for step in job["steps"]]
        assert all(re.search(r"@v\d+$", step["uses"]) for step in steps if "uses" in step)
        commands = "\n".join(step.get("run", "") for step in steps)
        called = re.findall(r"^make (\w+)", commands, re.M)
        assert all(re.search(rf"^{target}:", makefile, re.M) for target in called)
        assert called or ("nox --session" in commands and "def matrix" in noxfile)
    strategy = yaml.safe_load((ROOT / ".github/workflows/matrix.yml").read_text())["jobs"]["matrix"]["strategy"][
        "matrix"
    ]
    assert re.search(r"PYTHONS = (\[.*\])", noxfile)[1] == str(strategy["python"]).replace("'", '"')
    assert all(f'"{versions}": ' in noxfile for versions in strategy["versions"])
