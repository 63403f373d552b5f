"""Optical flow: what the fields say, their images, stacks, flips, threads and the cache."""

from __future__ import annotations

import builtins
import os
import time

import numpy as np
import pytest

from hf_video.errors import BackendError, ShortVideoError, VideoArrayError, VideoOptionError
from hf_video.video.flow import estimation as flow
from hf_video.video.flow.cache import FlowCache, file_identity

REASON = "OpenCV is an extra: pip install hf_video[flow]"


def sliding(count: int, *, right: int, down: int, size=(96, 128), seed: int = 0) -> np.ndarray:
    """(count, H, W, 3) uint8: a smooth texture that moves by whole pixels each frame."""
    random = np.random.default_rng(seed)
    coarse = np.kron(random.integers(0, 256, (size[0] // 8, size[1] // 8)), np.ones((8, 8)))
    kernel = np.ones(7) / 7
    for axis in (0, 1):
        coarse = np.apply_along_axis(
            lambda line: np.convolve(np.pad(line, 3, mode="wrap"), kernel, "valid"), axis, coarse
        )
    frames = [np.roll(coarse, (i * down, i * right), (0, 1)) for i in range(count)]
    return np.repeat(np.stack(frames)[..., None], 3, axis=-1).astype(np.uint8)


@pytest.mark.parametrize("method", flow.METHODS)
@pytest.mark.parametrize(("right", "down"), [(3, 1), (-2, 0), (0, -3)])
def test_fields_say_where_pixels_go(method, right, down):
    cv2 = pytest.importorskip("cv2", reason=REASON)
    if method == "tvl1" and not hasattr(cv2, "optflow"):
        pytest.skip("TV-L1 is in opencv-contrib-python")
    fields = flow.optical_flow(sliding(3, right=right, down=down), method=method)
    assert fields.shape == (2, 96, 128, 2)
    assert fields.dtype == np.float32
    middle = fields[:, 16:-16, 16:-16]
    assert np.abs(np.median(middle, axis=(0, 1, 2)) - (right, down)).max() < 0.15


def test_pairs_and_threads_change_nothing():
    pytest.importorskip("cv2", reason=REASON)
    frames = sliding(5, right=2, down=1)
    whole = flow.optical_flow(frames, workers=1)
    assert np.array_equal(flow.optical_flow(frames, workers=4), whole)
    pairs = np.array([[3, 4], [0, 1], [3, 4], [0, 2]])
    some = flow.optical_flow(frames, pairs=pairs)
    assert np.array_equal(some[:3], whole[[3, 0, 3]])
    assert np.median(some[3], axis=(0, 1)) == pytest.approx((4, 2), abs=0.2)
    images = flow.optical_flow(frames, bound=20)
    assert images.dtype == np.uint8
    assert np.array_equal(images, flow.quantize(whole))


def test_options_reach_the_method():
    pytest.importorskip("cv2", reason=REASON)
    frames = sliding(2, right=3, down=1)
    assert not np.array_equal(flow.optical_flow(frames, preset="ultrafast"), flow.optical_flow(frames))
    small = flow.optical_flow(frames, method="farneback", winsize=5)
    assert not np.array_equal(small, flow.optical_flow(frames, method="farneback"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "raft"}, VideoOptionError, "'dis', 'farneback'"),
        ({"preset": "slow"}, VideoOptionError, "medium"),
        ({"winsize": 5}, VideoOptionError, "preset"),
        ({"method": "farneback", "preset": "fast"}, VideoOptionError, "winsize"),
        ({"pairs": [[0, 2]]}, VideoOptionError, "0 to 1"),
        ({"pairs": [0, 1]}, VideoOptionError, r"\(pairs, 2\)"),
        ({"workers": 0}, VideoOptionError, "workers"),
    ],
)
def test_wrong_options(options, error, message):
    pytest.importorskip("cv2", reason=REASON)
    with pytest.raises(error, match=message):
        flow.optical_flow(sliding(2, right=1, down=0), **options)


def test_wrong_frames():
    frames = sliding(2, right=1, down=0)
    for wrong in (frames[0], frames / 255, frames[..., :1], list(frames)):
        with pytest.raises(VideoArrayError, match="uint8 frames"):
            flow.optical_flow(wrong)
    with pytest.raises(ShortVideoError, match="two frames"):
        flow.optical_flow(frames[:1])


def test_without_opencv_the_error_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest, **named):
        if name == "cv2":
            raise ImportError("No module named 'cv2'")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(BackendError, match=r"hf_video\[flow\]"):
        flow.optical_flow(sliding(2, right=1, down=0))


def test_without_contrib_tvl1_says_so(monkeypatch):
    cv2 = pytest.importorskip("cv2", reason=REASON)
    monkeypatch.delattr(cv2, "optflow", raising=False)
    with pytest.raises(BackendError, match="opencv-contrib"):
        flow.optical_flow(sliding(2, right=1, down=0), method="tvl1")


# -- images of flow ---------------------------------------------------------------------------------------------------


def test_quantisation_is_dense_flows():
    """255 · (v + 20) / 40, rounded half to even; 0 becomes 128."""
    values = np.array([-25, -20, -10, 0, 0.07, 0.1, 10, 20, 30], np.float32)
    assert flow.quantize(values).tolist() == [0, 0, 64, 128, 128, 128, 191, 255, 255]
    assert flow.quantize(np.float32(2.5), bound=5).tolist() == 191
    inside = np.linspace(-20, 20, 1001, dtype=np.float32)
    assert np.abs(flow.dequantize(flow.quantize(inside)) - inside).max() <= 20 / 255 + 1e-5
    assert flow.quantize(np.zeros(1)) == flow.STILL
    with pytest.raises(VideoOptionError, match="bound"):
        flow.quantize(inside, bound=0)


def test_a_flipped_field_is_the_field_of_flipped_frames():
    pytest.importorskip("cv2", reason=REASON)
    frames = sliding(2, right=3, down=1)
    field, mirrored = flow.optical_flow(frames), flow.optical_flow(np.ascontiguousarray(frames[:, :, ::-1]))
    flipped = flow.flip_flow(field)
    middle = np.s_[:, 16:-16, 16:-16]
    assert np.median(np.abs(flipped - mirrored)[middle]) < 0.02
    assert np.median(flipped[middle][..., 0]) == pytest.approx(-3, abs=0.1)
    assert np.array_equal(flow.flip_flow(flipped), field)
    images = flow.quantize(field)
    assert np.array_equal(flow.flip_flow(images)[..., 0], 255 - images[..., ::-1, 0])
    assert np.array_equal(flow.flip_flow(images)[..., 1], images[..., ::-1, 1])
    with pytest.raises(VideoArrayError, match="height, width, 2"):
        flow.flip_flow(frames)


# -- stacks -----------------------------------------------------------------------------------------------------------


def test_stacks_begin_at_their_frame_and_earlier_near_the_end():
    stacks = flow.stack_frames([0, 5, 18, 19], 0, 20, 3)
    assert stacks.tolist() == [[0, 1, 2, 3], [5, 6, 7, 8], [16, 17, 18, 19], [16, 17, 18, 19]]
    assert flow.stack_frames([[7], [11]], 4, 12, 2).tolist() == [[[7, 8, 9]], [[9, 10, 11]]]
    assert flow.stack_pairs(stacks)[1].tolist() == [[5, 6], [6, 7], [7, 8]]


def test_a_short_video_repeats_its_last_field():
    stacks = flow.stack_frames([0, 2], 0, 3, 4)
    assert stacks.tolist() == [[0, 1, 2, 2, 2]] * 2
    assert flow.stack_pairs(stacks)[0].tolist() == [[0, 1], [1, 2], [1, 2], [1, 2]]
    with pytest.raises(ShortVideoError, match="two frames"):
        flow.stack_frames([0], 0, 1, 4)


def test_channels_are_x1_y1_x2_y2():
    fields = np.zeros((2, 3, 4, 5, 2), np.float32)
    fields[..., 0] = np.arange(3)[:, None, None]
    fields[..., 1] = 10 + np.arange(3)[:, None, None]
    fields[1] += 100
    channels = flow.flow_stacks(fields)
    assert channels.shape == (2, 6, 4, 5)
    assert channels[0, :, 0, 0].tolist() == [0, 10, 1, 11, 2, 12]
    assert channels[1, :, 3, 4].tolist() == [100, 110, 101, 111, 102, 112]


# -- cache ------------------------------------------------------------------------------------------------------------


def test_what_is_read_is_what_was_written(tmp_path):
    cache = FlowCache(tmp_path, "a", {"method": "dis"})
    field = np.random.default_rng(0).integers(0, 256, (12, 17, 2), dtype=np.uint8)
    assert cache.read((3, 4)) is None
    cache.write((3, 4), field)
    assert np.array_equal(cache.read((3, 4)), field)
    assert cache.read((3, 5)) is None
    assert not list(tmp_path.rglob("*.part"))
    for other in (FlowCache(tmp_path, "b", {"method": "dis"}), FlowCache(tmp_path, "a", {"method": "tvl1"})):
        assert other.read((3, 4)) is None
    assert np.array_equal(FlowCache(tmp_path, "a", {"method": "dis"}).read((3, 4)), field)


@pytest.mark.parametrize("damage", [b"", b"not a picture", None])
def test_a_damaged_file_counts_as_missing(tmp_path, damage):
    cache = FlowCache(tmp_path, "a", {})
    cache.write((0, 1), np.zeros((40, 40, 2), np.uint8))
    path = cache.path((0, 1))
    path.write_bytes(path.read_bytes()[:-30] if damage is None else damage)
    assert cache.read((0, 1)) is None


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    cache = FlowCache(tmp_path, "a", {})

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        cache.write((0, 1), np.zeros((4, 4, 2), np.uint8))
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_identity_follows_the_file(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"one")
    first = file_identity(path)
    assert file_identity(str(path)) == first
    path.write_bytes(b"other")
    os.utime(path, ns=(time.time_ns(), time.time_ns() + 10**9))
    assert file_identity(path) != first
    assert file_identity(b"one") == file_identity(bytearray(b"one")) != file_identity(b"two")
    assert file_identity("http://a/b.mp4") is None
    assert file_identity(np.zeros(3)) is None
