"""What is written is what is read back, and a failure leaves nothing."""

from __future__ import annotations

import os
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image

from hf_video.errors import VideoArrayError, VideoWriteError
from hf_video.video.frames.types import VideoFrames
from hf_video.video.reader import VideoReader
from hf_video.video.writer import write_video

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (7, 32, 48, 3), dtype=np.uint8)
# A gentle ramp that brightens with time: lossy codecs keep it within a few levels.
RAMP = (
    (np.add.outer(np.arange(7) * 5, np.add.outer(np.arange(32) * 3, np.arange(48) * 2))[..., None] + [0, 20, 40])
    .clip(0, 255)
    .astype(np.uint8)
)


def decode(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize(
    ("name", "codec", "crf"),
    [("a.mkv", "ffv1", None), ("a.avi", "ffv1", None), ("a.mp4", "libx264rgb", 0), ("a.mkv", "libx264rgb", 0)],
)
def test_lossless_codecs_return_the_same_bits(tmp_path, name, codec, crf):
    path = write_video(tmp_path / name, NOISE, 25, codec, crf=crf)
    assert np.array_equal(decode(path), NOISE)


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", None),
        ("a.mp4", "h264"),
        ("a.mov", "h264"),
        ("a.webm", None),
        ("a.webm", "vp8"),
        ("a.avi", None),
        ("a.ts", None),
        ("a.gif", None),
    ],
)
def test_every_container_keeps_count_order_and_picture(tmp_path, name, codec):
    back = decode(write_video(tmp_path / name, RAMP, 25, codec))
    assert back.shape == RAMP.shape
    assert np.abs(back.astype(int) - RAMP).mean() < 2
    assert np.all(np.diff(back.reshape(7, -1).mean(1)) > 2)  # the ramp brightens by 5 a frame


@pytest.mark.parametrize("codec", ["h265", "av1"])
def test_newer_codecs(tmp_path, codec, capfd):
    frames = RAMP.repeat(3, 1).repeat(3, 2)
    back = decode(write_video(tmp_path / "a.mp4", frames, 25, codec))
    assert back.shape == frames.shape
    assert np.abs(back.astype(int) - frames).mean() < 3


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="this system has no scheduling policies")
def test_the_thread_that_writes_keeps_its_priority(tmp_path):
    before = os.sched_getscheduler(0), os.sched_getparam(0).sched_priority
    write_video(tmp_path / "a.mp4", RAMP.repeat(3, 1).repeat(3, 2), 25, "av1")  # SVT-AV1 changes it, for root
    assert (os.sched_getscheduler(0), os.sched_getparam(0).sched_priority) == before


def test_gif_with_few_colours_is_exact_and_keeps_repeated_frames(tmp_path):
    frames = np.repeat((NOISE[:, ::8, ::8] // 64 * 64).repeat(8, 1).repeat(8, 2), 2, axis=0)
    assert np.array_equal(decode(write_video(tmp_path / "a.gif", frames, 10)), frames)


@pytest.mark.parametrize("fps", [1, 12.5, 29.97, Fraction(30000, 1001), 240])
def test_rate_is_kept(tmp_path, fps):
    with av.open(str(write_video(tmp_path / "a.mp4", RAMP, fps))) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times == pytest.approx([n / float(fps) for n in range(7)], abs=1e-4)


@pytest.mark.parametrize(
    "frames",
    [
        torch.from_numpy(NOISE),
        list(NOISE),
        [torch.from_numpy(f) for f in NOISE],
        [Image.fromarray(f) for f in NOISE],
        VideoFrames(data=NOISE, indices=np.arange(7), seconds=np.arange(7) / 25),
        NOISE[:, :, ::1].copy(order="F"),
    ],
    ids=["tensor", "arrays", "tensors", "pil", "VideoFrames", "fortran"],
)
def test_every_form_of_frames(tmp_path, frames):
    assert np.array_equal(decode(write_video(tmp_path / "a.mkv", frames, 25, "ffv1")), NOISE)


def test_generator_is_read_once_and_one_frame_is_a_video(tmp_path):
    path = write_video(tmp_path / "a.mkv", (f for f in NOISE), 25, "ffv1")
    assert len(decode(path)) == 7
    assert np.array_equal(decode(write_video(tmp_path / "b.mkv", NOISE[:1], 25, "ffv1")), NOISE[:1])


def test_keyframe_interval_and_options(tmp_path):
    path = write_video(tmp_path / "a.mp4", RAMP, 25, keyframe_interval=3, options={"preset": "ultrafast", "bf": 0})
    with av.open(str(path)) as container:
        assert [f.key_frame for f in container.decode(video=0)] == [True, False, False, True, False, False, True]


def test_odd_sizes(tmp_path):
    odd = RAMP[:, :31, :47]
    with pytest.raises(VideoArrayError, match=r"31x47.*even.*pad"):
        write_video(tmp_path / "a.mp4", odd, 25)
    edge = decode(write_video(tmp_path / "a.mp4", odd, 25, pad="edge", crf=1))
    assert edge.shape == (7, 32, 48, 3)
    assert np.abs(edge[:, :31, :47].astype(int) - odd).mean() < 2
    assert np.abs(edge[:, 31].astype(int) - edge[:, 30]).mean() < 4
    black = decode(write_video(tmp_path / "a.mp4", odd, 25, pad="black", crf=1))
    assert black[:, 31].mean() < 60 < edge[:, 31].mean()
    assert decode(write_video(tmp_path / "a.mp4", odd, 25, pixel_format="yuv444p")).shape == odd.shape
    assert np.array_equal(decode(write_video(tmp_path / "a.mkv", odd, 25, "ffv1")), odd)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (NOISE[0], "shape"),
        (NOISE.transpose(0, 3, 1, 2), "channels-first"),
        (NOISE.astype(np.float32), "uint8"),
        (NOISE[..., :2], "shape"),
        (NOISE[:0], "no frames"),
        ([], "no frames"),
        ([NOISE[0], NOISE[1, :16]], "Frame 1 is 16x48"),
        ("clip.mp4", "str"),
        (3, "int"),
    ],
)
def test_wrong_arrays(tmp_path, frames, message):
    with pytest.raises(VideoArrayError, match=message):
        write_video(tmp_path / "a.mp4", frames, 25)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "fps", "arguments", "message"),
    [
        ("a.mp4", 0, {}, "frame rate"),
        ("a.mp4", float("nan"), {}, "frame rate"),
        ("a.mp4", "fast", {}, "frame rate"),
        ("a.gif", 60, {}, "at most 50"),
        ("a.xyz", 25, {}, "container"),
        ("a", 25, {}, "container"),
        ("a.mp4", 25, {"codec": "h263+"}, "no video encoder"),
        ("a.mp4", 25, {"codec": "aac"}, "no video encoder"),
        ("a.mp4", 25, {"pixel_format": "yuv9"}, "pixel_format"),
        ("a.mp4", 25, {"pixel_format": "rgb24"}, "can't write rgb24"),
        ("a.mp4", 25, {"options": {"presett": "fast"}}, "no option presett"),
        ("a.mp4", 25, {"options": {"preset": "warp"}}, "could not be written"),
        ("a.mp4", 25, {"pad": "zeros"}, "pad"),
        ("a.mp4", 25, {"keyframe_interval": 0}, "keyframe_interval"),
        ("a.gif", 25, {"crf": 3}, "no crf"),
        ("a.mp4", 25, {"codec": "h265"}, "libx265 is not safe"),
        ("a.webm", 25, {"codec": "h264"}, "does not support"),
        ("none/a.mp4", 25, {}, "folder"),
    ],
)
def test_wrong_requests(tmp_path, name, fps, arguments, message):
    with pytest.raises(VideoWriteError, match=message):
        write_video(tmp_path / name, RAMP, fps, **arguments)
    assert not list(tmp_path.iterdir())


def test_a_failure_keeps_the_old_file_and_the_callers_error(tmp_path):
    def breaks():
        yield RAMP[0]
        raise RuntimeError("my camera fell over")

    path = write_video(tmp_path / "a.mp4", RAMP, 25)
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="camera"):
        write_video(path, breaks(), 25)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_the_last_of_irregular_frames_lasts_as_long_as_was_said(suffix, tmp_path):
    seconds = [0, 0.1, 0.3, 0.4, 0.7, 0.75]
    with VideoReader(write_video(tmp_path / f"clip{suffix}", NOISE[:5], seconds=seconds)) as reader:
        np.testing.assert_allclose([*reader.timestamps, reader.end], seconds, atol=1e-6)
