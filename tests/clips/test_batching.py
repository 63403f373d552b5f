"""What is kept of the clips of a video while a model runs over them."""

from __future__ import annotations

import gc
import itertools
import threading
import time
import weakref

import numpy as np
import pytest
import torch

from hf_video.clips.batching import BYTES_AHEAD, MOST_AHEAD, PART_BYTES, read_each, run_videos
from hf_video.clips.read import ClipInputs, SeenWindows, WindowSample
from hf_video.errors import NotAVideoError, VideoOptionError


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


# --- reading ahead ---------------------------------------------------------------------------------------------------


def readers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("hf_video-reader")]


def test_the_next_video_is_read_while_the_model_has_this_one():
    read = {number: threading.Event() for number in range(4)}

    def reading(number):
        yield from events(1, 1)
        read[number].set()

    def forward(rows):
        number = forwards.pop(0)
        assert read[min(number + 1, 3)].wait(20)  # for ever, where reading waits for the model
        return rows["x"] + number

    forwards = list(range(4))
    results = list(run_videos(read_each(range(4), reading, None), forward, batch_size=None))
    assert [result.vectors().item() for result in results] == [0, 1, 2, 3]
    assert not readers()


def test_the_next_batch_is_read_while_the_model_has_this_one():
    read = [threading.Event() for _ in range(16)]

    def reading(number):
        yield from events(1, 1)
        read[number].set()

    def forward(rows):
        assert read[min(next(batches) * 6 + 11, 15)].wait(20)
        return rows["x"]

    batches = itertools.count()
    assert len(list(run_videos(read_each(range(16), reading, None), forward, batch_size=6))) == 16
    assert next(batches) == 3


def test_reading_ahead_is_bounded_and_of_one_thread():
    begun = []

    def videos():
        for number in itertools.count():
            begun.append(threading.current_thread())
            yield number

    results = run_videos(
        read_each(videos(), lambda number: events(2, 1), None), lambda rows: rows["x"], batch_size=None
    )
    for number in range(5):
        next(results)
        time.sleep(0.01)
        assert len(begun) <= number + 1 + MOST_AHEAD
    assert len(set(begun)) == 1
    assert begun[0] is not threading.current_thread()
    results.close()
    assert not begun[0].is_alive()


def test_a_long_video_is_not_read_as_a_whole():
    taken = []

    def reading(_):
        yield SeenWindows([WindowSample((n, n + 1), None) for n in range(20)], np.array([[0, 0], [20, 20]]))
        for window in range(20):
            taken.append(window)
            yield ClipInputs(window, {"x": torch.zeros(1, PART_BYTES // 4 + 1)})

    def forward(rows):
        time.sleep(0.01)
        ahead.append(len(taken) - len(ahead))
        return rows["x"][:, :1]

    ahead = []
    (result,) = run_videos(read_each([0], reading, None), forward, batch_size=1)
    assert len(result.seen) == 20
    assert max(ahead) <= 1 + BYTES_AHEAD // PART_BYTES


def test_without_workers_nothing_is_read_ahead():
    begun = []

    def reading(number):
        begun.append(threading.current_thread())
        yield from events(1, 1)

    results = run_videos(read_each(range(3), reading, 0), lambda rows: rows["x"], batch_size=None)
    next(results)
    assert begun == [threading.current_thread()]


@pytest.mark.parametrize("num_workers", [None, 0, 2])
def test_a_fault_is_that_of_its_video(num_workers):
    found = list(run_videos(read_each(range(4), _third_is_bad, num_workers), lambda rows: rows["x"], batch_size=2))
    assert [result.error is None for result in found] == [True, True, False, True]
    assert [result.vectors().item() for result in found if result.error is None] == [0, 0, 0]


def _third_is_bad(number):
    if number == 2:
        yield NotAVideoError("no video")
    else:
        yield from events(1, 1)


@pytest.mark.parametrize("num_workers", [None, 0])
def test_what_a_user_does_not_take_of_a_video_is_not_the_next_ones(num_workers):
    videos = read_each([[1, 2], [3, 4]], iter, num_workers)
    assert [next(iter(video)) for video in videos] == [1, 3]


@pytest.mark.parametrize("error", [KeyboardInterrupt, VideoOptionError("no option"), ValueError("a fault")])
@pytest.mark.parametrize("place", ["model", "reading", "stream"])
def test_an_error_ends_the_thread_while_its_traceback_is_kept(place, error):
    def raising(*_):
        raise error

    def reading(number):
        if place == "reading" and number == 2:
            raising()
        yield from events(1, 1)

    def stream():
        yield from range(2)
        if place == "stream":
            raising()
        yield from range(2, 100)

    results = run_videos(
        read_each(stream(), reading, None), raising if place == "model" else lambda rows: rows["x"], batch_size=None
    )
    with pytest.raises(error if isinstance(error, type) else type(error)) as caught:
        list(results)
    assert not readers()
    assert caught.tb is not None


def test_a_reader_has_one_thread_of_torch_and_the_model_keeps_its_own():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        seen = []

        def reading(_):
            seen.append(torch.get_num_threads())
            yield from events(1, 1)

        list(run_videos(read_each(range(3), reading, None), lambda rows: rows["x"], batch_size=None))
        assert seen == [1, 1, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
