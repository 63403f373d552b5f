"""Shared by tests of federated learning."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="module", autouse=True)
def _one_thread_from_the_first_fixture_on():
    """Runs that a module's fixtures make are compared bit by bit with those of its tests, which have one thread."""
    torch.set_num_threads(1)
