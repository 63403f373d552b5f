"""Shared by the tests of models."""

from __future__ import annotations

import time

import pytest
import torch


@pytest.fixture
def cpu_seconds():
    """The CPU seconds since the test began, for models that learn. One thread: their products are small, and threads
    that wait for each other on a busy machine burn ten times the CPU time."""
    threads, start = torch.get_num_threads(), time.process_time()
    torch.set_num_threads(1)
    yield lambda: time.process_time() - start
    torch.set_num_threads(threads)
