"""Shared by the tests of video files."""

from __future__ import annotations

from pathlib import Path

import pytest
from odd_files import DAMAGED, ODD


@pytest.fixture(scope="session")
def odd(tmp_path_factory):
    """Makes an odd file by name, once."""
    folder = tmp_path_factory.mktemp("odd")
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = {**ODD, **DAMAGED}[name](folder / name)
        return made[name]

    return make
