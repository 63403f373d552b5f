"""torchcodec gives the same frames or is not used; without it nothing changes."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from odd_files import ODD

from hf_video.errors import BackendError
from hf_video.video import VideoReader

# Where torchcodec was found to be wrong or to fail.
REFUSED = (
    "h264_avi_b", "h264_ts", "h264_raw", "h264_10bit", "h264_interlaced", "h264_intra_refresh", "h264_two_sizes",
    "mpeg1_ps", "rotated_90", "gif",
)  # fmt: skip


@pytest.fixture(scope="module")
def torchcodec():
    from hf_video.video.decode.torchcodec_backend import load_torchcodec

    try:
        return load_torchcodec()
    except BackendError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", list(ODD))
def test_same_frames(torchcodec, odd, name):
    with VideoReader(odd(name)) as exact, VideoReader(odd(name), backend="torchcodec") as other:
        indices = np.random.default_rng(0).integers(0, len(exact), 16)
        got = other.get_frames(indices)
        assert np.array_equal(got.data, exact.get_frames(indices).data)
        assert np.array_equal(got.seconds, exact.timestamps[indices])


def test_it_is_used_where_it_is_exact(torchcodec, odd):
    with VideoReader(odd("h264_b"), backend="torchcodec", shortest_edge=20) as reader:
        assert reader.backend == "torchcodec"
        with VideoReader(odd("h264_b"), shortest_edge=20) as exact:
            assert np.array_equal(reader.get_frames([5, 2]).data, exact.get_frames([5, 2]).data)


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_where_it_is_not(torchcodec, odd, name):
    with VideoReader(odd(name), backend="torchcodec") as reader:
        assert reader.backend == "pyav"


def test_asking_for_what_is_not_there(odd, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(BackendError, match="backend='auto'"):
        VideoReader(odd("h264_b"), backend="torchcodec")
    with VideoReader(odd("h264_b")) as reader:
        assert reader.backend == "pyav"
        assert len(reader.get_frames([3])) == 1


def test_arrays_need_no_backend():
    with VideoReader(np.zeros((2, 8, 8, 3), np.uint8), backend="auto") as reader:
        assert reader.backend == "none"


@pytest.mark.parametrize("name", ["h264_mirrored", "h264_mkv_joined_midway", "h264_open_mkv_joined_midway"])
def test_mirrors_and_cuts_are_read_by_pyav(torchcodec, odd, name):
    with VideoReader(odd(name), backend="torchcodec") as reader, VideoReader(odd(name)) as exact:
        assert reader.backend == "pyav"
        assert np.array_equal(reader.get_frames([0, 1]).data, exact.get_frames([0, 1]).data)
