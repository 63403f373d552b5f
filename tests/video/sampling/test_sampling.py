"""Samplers: official formulas by hand, and properties that hold for every count."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from hf_video.errors import NoFramesError, SamplingError, ShortVideoError
from hf_video.video.frames.types import VideoMetadata
from hf_video.video.sampling import samplers as sampling
from hf_video.video.sampling.frame_sample import FrameSample
from hf_video.video.sampling.samplers import sample_video

TOTALS = (1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 64, 100, 301)
COUNTS = (1, 2, 3, 8, 16, 32)
RNG = np.random.default_rng(0)


def every_sampler(n, t):
    """(name, call) of all samplers with all their modes, for n frames and t to take."""
    energy = RNG.random(n) ** 4
    for mode in ("segment_center", "floor", "end_to_end"):
        yield f"uniform {mode}", lambda short, m=mode: sampling.uniform(n, t, mode=m, short=short)
    yield "random", lambda short: sampling.random_segments(n, t, seed=1, short=short)
    yield "adaptive", lambda short: sampling.adaptive(n, t, energy=energy, short=short)
    yield "uniform_views", lambda short: sampling.uniform_views(n, t, num_clips=3, short=short)
    for s, k in itertools.product((1, 2, 4, 7), (1, 2, 5)):
        yield f"center {s}", lambda short, s=s: sampling.center(n, t, stride=s, short=short)
        for start in ("spread", "random"):
            yield (
                f"dense {s} {k} {start}",
                lambda short, s=s, k=k, a=start: sampling.dense(
                    n, t, stride=s, num_clips=k, start=a, seed=2, short=short
                ),
            )
        yield (
            f"at_fps {s} {k}",
            lambda short, s=s, k=k: sampling.at_fps(n, t, rate=s, num_clips=k, fps=23.976, start="center", short=short),
        )


@pytest.mark.parametrize("t", COUNTS)
@pytest.mark.parametrize("n", TOTALS)
def test_in_range_in_order_and_of_the_right_shape(n, t):
    for name, call in every_sampler(n, t):
        sample = call("repeat_last")
        assert sample.indices.dtype == np.int64, name
        assert sample.indices.ndim == 2, name
        assert sample.num_frames == t, name
        assert sample.indices.min() >= 0, name
        assert sample.indices.max() < n, name
        assert (np.diff(sample.indices, axis=1) >= 0).all(), name
        assert (np.diff(sample.indices[:, 0]) >= 0).all(), name
        looped = call("loop").indices
        assert 0 <= looped.min() <= looped.max() < n, name
        if sample.short:
            with pytest.raises(ShortVideoError, match="repeat_last"):
                call("error")
        else:
            assert np.array_equal(call("error").indices, sample.indices), name
            assert np.array_equal(looped, sample.indices), name


@pytest.mark.parametrize("t", COUNTS)
@pytest.mark.parametrize("n", TOTALS)
def test_no_frame_twice_where_there_are_enough(n, t):
    if n >= t:
        for call in (
            lambda: sampling.uniform(n, t),
            lambda: sampling.uniform(n, t, mode="floor"),
            lambda: sampling.uniform(n, t, mode="end_to_end"),
            lambda: sampling.random_segments(n, t, seed=3),
            lambda: sampling.adaptive(n, t, energy=np.eye(1, n, n // 2)[0], uniform_share=0),
        ):
            assert len(set(call().indices[0])) == t


def test_uniform_by_hand():
    assert sampling.uniform(20, 4).indices.tolist() == [[2, 7, 12, 17]]
    assert sampling.uniform(20, 4, mode="floor").indices.tolist() == [[0, 5, 10, 15]]
    assert sampling.uniform(20, 4, mode="end_to_end").indices.tolist() == [[0, 6, 12, 19]]
    assert sampling.uniform(10, 1, mode="end_to_end").indices.tolist() == [[0]]
    assert sampling.uniform(10, 1).indices.tolist() == [[5]]
    for n, t in itertools.product(TOTALS, (4, 8, 16)):  # powers of two: the official float formula is exact
        tick = n / float(t)
        assert sampling.uniform(n, t).indices[0].tolist() == [int(tick / 2.0 + tick * x) for x in range(t)]


def test_short_videos_by_hand():
    for short, expected in {
        "stretch": [0, 0, 1, 1, 2, 2],
        "repeat_last": [0, 1, 2, 2, 2, 2],
        "loop": [0, 1, 2] * 2,
    }.items():
        sample = sampling.uniform(3, 6, short=short)
        assert sample.indices.tolist() == [expected]
        assert sample.short
    # frames 0 2 4 exist at stride 2 of 5
    assert sampling.dense(5, 4, stride=2).indices.tolist() == [[0, 2, 4, 4]]
    assert sampling.dense(5, 4, stride=2, short="loop", num_clips=2).indices.tolist() == [[0, 2, 4, 0]] * 2
    assert sampling.center(5, 4, stride=2).indices.tolist() == [[0, 2, 4, 4]]
    assert sampling.uniform(1, 16).indices.tolist() == [[0] * 16]


def test_center_by_hand():
    assert sampling.center(26, 4, stride=3).indices.tolist() == [[8, 11, 14, 17]]
    assert sampling.center(10, 10).indices.tolist() == [list(range(10))]


@pytest.mark.parametrize("n", [10, 63, 64, 65, 100, 299, 300, 301, 1000])
def test_dense_is_videomaes_test_protocol(n):
    """kinetics.py: every 4th frame, repeat the last up to 16, 5 clips by int(k * step)."""
    buffer = list(range(0, n, 4))
    while len(buffer) < 16:
        buffer.append(buffer[-1])
    step = max(1.0 * (len(buffer) - 16) / (5 - 1), 0)
    official = [buffer[int(k * step) : int(k * step) + 16] for k in range(5)]
    assert sampling.dense(n, 16, stride=4, num_clips=5).indices.tolist() == official


def test_dense_random_reaches_every_start():
    starts = {sampling.dense(12, 4, stride=3, start="random", seed=s).indices[0, 0] for s in range(60)}
    assert starts == {0, 1, 2}
    clips = sampling.dense(100, 4, stride=3, start="random", num_clips=4, seed=0).indices
    assert (np.diff(clips, axis=1) == 3).all()


@pytest.mark.parametrize("n", [4, 16, 31, 32, 50, 301])
def test_uniform_views_is_videomaes_ssv2_protocol(n):
    tick = n / 16.0
    both = sorted([int(tick / 2.0 + tick * x) for x in range(16)] + [int(tick * x) for x in range(16)])
    assert sampling.uniform_views(n, 16).indices.tolist() == [both[0::2], both[1::2]]


@pytest.mark.parametrize("fps", [12.5, 24, 25, 29.97, 30, 50, 60])
@pytest.mark.parametrize(("t", "rate"), [(8, 32), (16, 16), (96, 4), (8, 4), (1, 4)])
def test_at_fps_is_timesformers_decoder(fps, t, rate):
    for n, clips in itertools.product((5, 100, 300, 1000), (1, 3)):
        length = rate * t * fps / 30
        official = []
        for k in range(clips):
            start = max(n - length, 0) * k / clips
            official.append(torch.linspace(start, start + length - 1, t).clamp(0, n - 1).long().tolist())
        assert sampling.at_fps(n, t, rate=rate, fps=fps, num_clips=clips).indices.tolist() == official


@pytest.mark.parametrize("clips", [1, 2, 5, 10])
@pytest.mark.parametrize(("t", "rate"), [(16, 4), (32, 3), (32, 2)])
def test_at_fps_is_slowfasts_decoder_with_and_without_offset(clips, t, rate):
    """facebookresearch/SlowFast, datasets/decoder.py: MViT's configs set USE_OFFSET_SAMPLING, those
    of SlowFast, X3D and I3D-R50 don't."""
    for n, fps in itertools.product((40, 250, 300, 301), (25, 29.97, 30)):
        length = rate * t / 30 * fps
        delta = max(n - length, 0)
        plain = [delta * k / clips for k in range(clips)]
        offset = [k * math.floor(delta / (clips - 1)) for k in range(clips)] if clips > 1 else [math.floor(delta / 2)]
        for start, firsts in (("begin", plain), ("spread", offset)):
            official = [torch.linspace(f, f + length - 1, t).clamp(0, n - 1).long().tolist() for f in firsts]
            ours = sampling.at_fps(n, t, rate=rate, fps=fps, num_clips=clips, start=start)
            # The authors count the length as rate·t/30·fps, TimeSformer as rate·t·fps/30: a last bit may differ.
            assert np.abs(ours.indices - official).max() <= (0 if fps in (25, 30) else 1), (n, fps, start)


def test_rounded_centers_are_slowfasts_loader_for_something_something():
    """facebookresearch/SlowFast, datasets/ssv2.py, `get_seq_frames` outside training."""
    for n, t in itertools.product((1, 7, 16, 40, 117), (8, 16, 32)):
        seg_size = float(n - 1) / t
        official = [(round(seg_size * i) + round(seg_size * (i + 1))) // 2 for i in range(t)]
        assert sampling.uniform(n, t, mode="rounded_center").indices[0].tolist() == official


def test_at_fps_spans_the_same_seconds_at_every_rate():
    for fps in (15, 30, 60):
        sample = sampling.at_fps(int(fps * 10), 4, rate=4, fps=fps, start="center")
        assert np.ptp(sample.seconds) == pytest.approx(0.5, abs=2 / fps)
        assert sample.spans.mean() == pytest.approx(5, abs=2 / fps)


def test_random_segments_stays_in_its_segments_and_reaches_all_of_them():
    seen = np.concatenate([sampling.random_segments(20, 4, seed=s).indices for s in range(200)])
    assert [sorted(set(column)) for column in seen.T] == [list(range(5 * i, 5 * i + 5)) for i in range(4)]


@pytest.mark.parametrize("name", ["random", "dense", "at_fps"])
def test_seeds(name):
    call = {
        "random": lambda seed: sampling.random_segments(300, 16, seed=seed),
        "dense": lambda seed: sampling.dense(300, 16, stride=4, num_clips=3, start="random", seed=seed),
        "at_fps": lambda seed: sampling.at_fps(300, 16, rate=4, fps=30, num_clips=3, start="random", seed=seed),
    }[name]
    assert np.array_equal(call(7).indices, call(7).indices)
    assert not np.array_equal(call(7).indices, call(8).indices)
    generator = np.random.default_rng(0)
    assert not np.array_equal(call(generator).indices, call(generator).indices)
    assert call(None).indices.shape == call(7).indices.shape


def test_adaptive():
    assert np.array_equal(sampling.adaptive(50, 8, energy=np.full(50, 3.0)).indices, sampling.uniform(50, 8).indices)
    assert np.array_equal(sampling.adaptive(50, 8, energy=np.zeros(50)).indices, sampling.uniform(50, 8).indices)
    energy = np.zeros(100)
    energy[60:70] = 1
    only_motion = sampling.adaptive(100, 4, energy=energy, uniform_share=0).indices[0]
    assert only_motion.tolist() == [61, 63, 66, 68]
    mixed = sampling.adaptive(100, 16, energy=energy, uniform_share=0.5).indices[0]
    assert 7 <= ((mixed >= 60) & (mixed < 70)).sum() <= 10
    assert mixed.min() < 15
    assert mixed.max() > 85
    spike = np.zeros(100)
    spike[40] = 1e9
    assert len(set(sampling.adaptive(100, 16, energy=spike, uniform_share=0.0).indices[0])) == 16


@pytest.mark.parametrize("n", TOTALS)
def test_adaptive_is_monotone_for_wild_energies(n):
    for t, share in itertools.product(COUNTS, (0, 0.1, 1)):
        energy = np.random.default_rng(n * t).random(n) ** 12
        index = sampling.adaptive(n, t, energy=energy, uniform_share=share).indices[0]
        assert (np.diff(index) >= (1 if n >= t else 0)).all()
        assert 0 <= index.min() <= index.max() < n


def test_seconds_and_spans():
    sample = sampling.uniform(20, 4, fps=10)
    assert sample.seconds.tolist() == [[0.2, 0.7, 1.2, 1.7]]
    assert sample.spans == pytest.approx(np.array([[0.2, 1.8]]))
    assert sampling.uniform(20, 4).seconds is None
    metadata = VideoMetadata(num_frames=20, fps=10, duration=2, height=4, width=4, begin=5.0)
    assert sampling.uniform(metadata, 4).seconds == pytest.approx(sample.seconds + 5)
    variable = np.array([0.0, 0.1, 0.5, 2.0])
    sample = sampling.dense(4, 2, timestamps=variable, stride=2, num_clips=1)
    assert sample.indices.tolist() == [[0, 2]]
    assert sample.seconds.tolist() == [[0.0, 0.5]]
    assert sample.spans.tolist() == [[0.0, 2.0]]  # frame 2 is shown until frame 3 begins


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sampling.uniform(10, 0), "num_frames"),
        (lambda: sampling.uniform(10, 2.5), "num_frames"),
        (lambda: sampling.uniform(10.0, 2), "total"),
        (lambda: sampling.uniform(10, 2, mode="middle"), "segment_center"),
        (lambda: sampling.uniform(10, 2, short="freeze"), "repeat_last"),
        (lambda: sampling.uniform(10, 2, fps=-1), "fps"),
        (lambda: sampling.uniform(10, 2, timestamps=[0, 1]), "timestamps"),
        (lambda: sampling.dense(10, 2, stride=0), "stride"),
        (lambda: sampling.dense(10, 2, num_clips=0), "num_clips"),
        (lambda: sampling.dense(10, 2, start="middle"), "spread"),
        (lambda: sampling.dense(10, 2, short="stretch"), "repeat_last"),
        (lambda: sampling.at_fps(10, 2, rate=4), "fps="),
        (lambda: sampling.at_fps(10, 2, rate=0, fps=30), "rate"),
        (lambda: sampling.adaptive(10, 2, energy=[1, 2]), "10 frames"),
        (lambda: sampling.adaptive(3, 2, energy=[1, 2, -1]), "0 or more"),
        (lambda: sampling.adaptive(3, 2, energy=[1, 2, float("nan")]), "finite"),
        (lambda: sampling.adaptive(3, 2, energy=[1, 2, 3], uniform_share=2), "uniform_share"),
    ],
)
def test_errors(call, message):
    with pytest.raises(SamplingError, match=message):
        call()


def test_no_frames():
    with pytest.raises(NoFramesError, match="0 frames"):
        sampling.uniform(0, 4)


def test_resolve():
    assert sampling.resolve("dense") is sampling.dense
    assert sampling.resolve(len) is len
    with pytest.raises(SamplingError, match="Did you mean 'uniform'"):
        sampling.resolve("unifrom")
    with pytest.raises(SamplingError, match="Known: uniform"):
        sampling.resolve("zzz")


class FakeReader:
    metadata = VideoMetadata(num_frames=20, fps=10, duration=2, height=4, width=4)
    timestamps = np.arange(20) / 10


def test_sample_video():
    sample = sample_video(FakeReader(), 4, sampler="dense", stride=2, num_clips=3)
    assert sample.indices.shape == (3, 4)
    assert sample.seconds == pytest.approx(sample.indices / 10)
    own = sample_video(FakeReader(), 3, sampler=lambda total, count: [total - 1] * count)
    assert own.indices.tolist() == [[19, 19, 19]]
    assert own.seconds == pytest.approx(np.full((1, 3), 1.9))
    kept = FrameSample(np.array([[1, 2]]))
    assert sample_video(FakeReader(), 2, sampler=lambda *_: kept).seconds is not None
    with pytest.raises(SamplingError, match="strides"):
        sample_video(FakeReader(), 4, sampler="dense", strides=2)
    for wrong in ([20], [-1], [0.5], [], [[[1]]]):
        with pytest.raises(SamplingError, match="0 to 19"):
            sample_video(FakeReader(), 1, sampler=lambda *_, w=wrong: w)
