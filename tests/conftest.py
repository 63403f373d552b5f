"""Shared by all tests. That this file exists also puts `tests/` on the import path, for `import contract`."""

from __future__ import annotations

import pytest
import torch

THREADS = torch.get_num_threads()


@pytest.fixture(autouse=True)
def _same_numbers_on_one_thread(request):
    """Every test draws the same random numbers, alone or in the whole suite. Models here are tiny: a second thread
    costs more than it brings, and six times the run where other programs share the cores."""
    torch.manual_seed(0)
    torch.set_num_threads(THREADS if request.node.get_closest_marker("slow") else 1)
