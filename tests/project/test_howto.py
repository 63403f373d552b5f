"""Every block of code of the pages runs as a reader would copy it, or says why not: see `page_blocks`."""

from __future__ import annotations

import os
import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
from project.page_blocks import ROOT, blocks, run_page, write_world
from test_readme import PAGES as PYTHON_RUN_IN_TEST_README

from hf_video import cli

DOCS = ROOT / "docs"
MADE = ("_build", "models", "project", "reference")  # by the build, of the code's own texts
EVERY = sorted(
    str(path.relative_to(ROOT)) for path in DOCS.rglob("*.md") if path.relative_to(DOCS).parts[0] not in MADE
)
CARDS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "model_cards").glob("*.md"))
# Pages whose blocks run here, one after the other.
PAGES = [page for page in EVERY if page not in PYTHON_RUN_IN_TEST_README and any(block.runs for block in blocks(page))]
# By what they take on a CPU; the default suite has 20 seconds for all others.
SLOW = {"datasets_and_streaming", "detect_actions", "howto/federated", "openvino_and_onnx", "pretrain", "several_gpus"}
SLOW |= {"start/index"}
NEEDS = {"docs/howto/openvino_and_onnx.md": "openvino"}
# What is no code that a reader would run.
NOT_CODE = {"text", "yaml", "json", "csv"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


def folder_of(world: Path, folder: Path) -> Path:
    """A folder of the page's own in which everything of the world lies too."""
    for path in world.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


def marks(page: str) -> list[pytest.MarkDecorator]:
    missing = page in NEEDS and find_spec(NEEDS[page]) is None
    slow = any(page.removesuffix(".md").endswith(name) for name in SLOW)
    return [pytest.mark.slow] * slow + [pytest.mark.skip(reason=f"needs {NEEDS.get(page)}")] * missing


@pytest.mark.parametrize("page", [pytest.param(page, marks=marks(page)) for page in PAGES])
def test_page_runs(page, world, tmp_path, monkeypatch):
    monkeypatch.chdir(folder_of(world, tmp_path))
    assert run_page(page, monkeypatch) == sum(block.runs for block in blocks(page))
    assert os.getcwd() == str(tmp_path)


@pytest.mark.parametrize("page", EVERY)
def test_every_block_runs_or_says_why_not(page):
    """Python and commands run in `test_page_runs`, Python of some pages in `test_readme`, and cells of pages that name
    a kernel in the build of the site."""
    cells = re.search(r"^kernelspec:", (ROOT / page).read_text(encoding="utf-8"), re.M) is not None
    for block in blocks(page):
        if block.not_run or block.language in NOT_CODE:
            continue
        if block.language.startswith("{"):
            assert block.language != "{code-cell}" or cells, f"{page} has cells and names no kernel"
            continue
        assert block.language in ("python", "bash"), f"{page}: the language {block.language!r} of a block is not known"
        run = page in PAGES or (page in PYTHON_RUN_IN_TEST_README and block.language == "python")
        assert run, f"{page}: nothing runs\n{block.code}\nLet it run, or put <!-- not run: why --> before it."


@pytest.mark.parametrize("page", [*EVERY, "README.md", *CARDS])
def test_commands_that_do_not_run_are_commands(page, tmp_path, monkeypatch, capsys):
    """Of a block that does not run, each line of `hf-video` has a verb and options that there are."""
    monkeypatch.chdir(tmp_path)
    parser = cli._parser()
    for block in blocks(page):
        if block.language != "bash" or (block.runs and page in PAGES):
            continue
        for line in block.code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["hf-video"]:
                words = words[1 : words.index(">") if ">" in words else None]
                try:
                    parser.parse_args(words)
                except SystemExit:
                    pytest.fail(f"{page}: {line}\n{capsys.readouterr().err}")
