"""What is kept of the clips of a video while a model runs over them."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch

from hf_video.clips.batching import run_videos
from hf_video.clips.read import ClipInputs, SeenWindows, WindowSample


def events(windows: int, views: int, broken: int | None = None):
    """A video of so many windows, each clip a number of its own."""
    yield SeenWindows([WindowSample((n, n + 1), None) for n in range(windows)], np.array([[0, 0], [windows, windows]]))
    for window in range(windows):
        for view in range(views):
            yield ClipInputs(
                window, {"x": torch.tensor([[10.0 * window + view]])}, (window,) if window == broken else ()
            )


@pytest.mark.parametrize("views", [1, 3])
def test_no_output_of_a_forward_outlives_it(views):
    """A small block for every clip, among the large ones of frames, is what memory grows by."""
    alive = []

    def forward(rows):
        output = rows["x"] * torch.tensor([[1.0, 2.0]])
        gc.collect()
        assert sum(one() is not None for one in alive) <= 1  # the latest alone
        alive.append(weakref.ref(output))
        return output

    (result,) = run_videos([events(20, views, broken=4)], forward, batch_size=4)
    assert sum(one() is not None for one in alive) <= 1
    assert len({result.views(number).untyped_storage().data_ptr() for number in range(20)}) == 1
    expected = 10 * np.arange(20) + np.arange(views).mean()
    np.testing.assert_allclose(result.vectors(), np.stack([expected, 2 * expected], axis=1))
    assert result.views(7)[:, 1].tolist() == [2 * (70 + view) for view in range(views)]
    assert result.repeated[4] == {4}
    assert not result.repeated[5]


def test_batches_across_videos():
    results = list(run_videos([events(3, 1), events(5, 2), events(1, 1)], lambda rows: rows["x"], batch_size=4))
    assert [result.vectors()[:, 0].tolist() for result in results] == [
        [0, 10, 20],
        [0.5, 10.5, 20.5, 30.5, 40.5],
        [0],
    ]
