"""Times as people store them (float32, float16, rounded to decimals) find the frames that they are the times of."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from odd_files import encode, read_stamp, stamp, x264

from hf_video.errors import FrameIndexError
from hf_video.video import VideoReader
from hf_video.video.frames.times import frames_at, frames_during, plain_seconds

RATES = {"30": 30.0, "29.97": 30000 / 1001, "23.976": 24000 / 1001, "60": 60.0}


def timeline(rate: float, begin: float) -> np.ndarray:
    return begin + np.arange(300) / rate


def uneven(begin: float) -> np.ndarray:
    """Times of a camera that drops frames, in seconds."""
    return begin + np.cumsum(np.random.default_rng(0).integers(11, 120, 300)) / 1000


def found(timestamps, times) -> np.ndarray:
    return frames_at(timestamps, *plain_seconds(times))


@pytest.mark.parametrize("begin", [0.0, 600.0, 700.0, 7200.0])
@pytest.mark.parametrize("rate", [*RATES, "uneven"])
@pytest.mark.parametrize(
    "stored",
    [
        lambda t: t,
        lambda t: t.astype(np.float32),
        lambda t: torch.tensor(t, dtype=torch.float32),
        lambda t: list(t.astype(np.float32)),
        lambda t: t.tolist(),
        lambda t: [round(x, 6) for x in t.tolist()],
        lambda t: [round(x, 4) for x in t.tolist()],
        lambda t: np.round(t, 3),
        lambda t: np.round(t, 2),
        lambda t: np.round(t, 4).astype(np.float32),
    ],
    ids=["float64", "float32", "tensor", "scalars", "list", "6", "4", "3", "2", "4 in float32"],
)
def test_own_times_give_own_frames(stored, rate, begin):
    timestamps = uneven(begin) if rate == "uneven" else timeline(RATES[rate], begin)
    assert found(timestamps, stored(timestamps)).tolist() == list(range(300))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_goes_to_the_nearest_frame_at_most(dtype):
    timestamps = timeline(2.0, 0.0)[:100]
    assert found(timestamps, torch.tensor(timestamps, dtype=dtype)).tolist() == list(range(100))
    far = timeline(30.0, 600.0)
    given = torch.tensor(far, dtype=dtype)
    error = np.abs(far[found(far, given)] - given.double().numpy())
    inside = (given.double().numpy() > far[0]) & (given.double().numpy() < far[-1])
    assert (error[inside] <= 1 / 60 + 1e-9).all()


def test_round_times_are_meant_as_they_are():
    timestamps = timeline(30.0, 0.02)
    assert found(timestamps, [1.0, 2.0]).tolist() == [29, 59]  # 1.02 and 2.02 come later
    assert found(timestamps, [1, 2]).tolist() == [29, 59]
    assert found(timeline(30.0, 0.0), [0.05, 0.25]).tolist() == [1, 7]


def test_never_more_than_half_a_frame():
    timestamps = timeline(240.0, 0.0)
    assert found(timestamps, [0.01]).tolist() == [2]  # 0.0083 is shown until 0.0125
    assert frames_at(timestamps, [0.0], tolerance=9.0).tolist() == [0]


def test_a_stretch_holds_what_is_on_screen():
    timestamps = timeline(10.0, 0.0)
    assert frames_during(timestamps, 0.1 + 0.2, 0.5) == (3, 5)
    assert frames_during(timestamps, 0.35, 0.36) == (3, 4)


def test_a_reader_takes_them(tmp_path):
    """Half of these float32 times fall short of their frames."""
    ticks = [700 * 30 + i for i in range(24)]
    path = encode(tmp_path / "late.mkv", frames=[stamp(i) for i in range(24)], pts=ticks,
                  time_base=Fraction(1, 30), options=x264())  # fmt: skip
    with VideoReader(path) as reader:
        own = reader.timestamps
        for times in (own.astype(np.float32), torch.from_numpy(own).float(), np.round(own, 2)):
            assert [read_stamp(f) for f in reader.get_frames_at(times).data] == list(range(24))
        with pytest.raises(FrameIndexError, match="no frame is shown"):
            reader.get_frames_at([own[0] - 0.1])
        with pytest.raises(FrameIndexError, match="no frame is shown"):
            reader.get_frames_at([reader.metadata.begin + reader.metadata.duration])
