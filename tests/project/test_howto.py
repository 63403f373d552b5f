"""Every block of code of the how-to pages runs, page by page, as a reader would copy it: see `page_blocks`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from project.page_blocks import ROOT, blocks, run_page, write_world

PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs/howto").glob("*.md") if path.stem != "index")
# By what they take on a CPU; the default suite has 20 seconds for all others.
SLOW = {"datasets_and_streaming", "detect_actions", "federated", "pretrain", "several_gpus"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


def folder_of(world: Path, folder: Path) -> Path:
    """A folder of the page's own in which everything of the world lies too."""
    for path in world.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[pytest.mark.slow] * (Path(page).stem in SLOW)) for page in PAGES]
)
def test_page_runs(page, world, tmp_path, monkeypatch):
    monkeypatch.chdir(folder_of(world, tmp_path))
    assert run_page(page, monkeypatch) == sum(language in ("python", "bash") for language, _ in blocks(page))
    assert os.getcwd() == str(tmp_path)
