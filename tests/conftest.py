"""Shared by all tests. That this file exists also puts `tests/` on the import path, for `import contract`."""

from __future__ import annotations

import gc

import pytest
import torch
from PIL import Image

try:
    from matplotlib.figure import Figure
except ImportError:
    Figure = None

THREADS = torch.get_num_threads()


@pytest.fixture(autouse=True)
def _same_numbers_on_one_thread(request):
    """Every test draws the same random numbers, alone or in the whole suite. Models here are tiny: a second thread
    costs more than it brings, and six times the run where other programs share the cores."""
    torch.manual_seed(0)
    torch.set_num_threads(THREADS if request.node.get_closest_marker("slow") else 1)


@pytest.fixture(scope="module", autouse=True)
def _collect_new_garbage_only():
    """What is alive when a module begins is imported for good. Collections, which loading a model asks for, and the
    compiler's many objects, leave it out: to walk through all of torch takes half a second each time."""
    gc.collect()
    gc.freeze()


def _white_figures():
    """A white picture for each figure of matplotlib, as drawing takes two thirds of a tiny training's time. Modules
    that look at figures, or are the one whole run of a kind, have a fixture `quick_figures` that does nothing; their
    other tests use `white_figures`."""
    with pytest.MonkeyPatch.context() as patch:
        if Figure is not None:
            patch.setattr(Figure, "savefig", lambda self, file, **options: Image.new("RGB", (8, 8)).save(file, "png"))
        yield


quick_figures = pytest.fixture(_white_figures, scope="module", autouse=True)
white_figures = pytest.fixture(_white_figures)
