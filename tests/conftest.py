"""Shared by all tests. That this file exists also puts `tests/` on the import path, for `import contract`."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _same_numbers():
    """Every test draws the same random numbers, alone or in the whole suite."""
    torch.manual_seed(0)
