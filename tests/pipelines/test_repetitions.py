"""`count_repetitions`: motions of known period, with pauses, other tempos and noise; and none in what has none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import hf_video
from hf_video.base.detection.repetitions import find_repetitions
from hf_video.cli import main
from hf_video.errors import MetricError, VideoError, VideoOptionError
from hf_video.evaluation import count_metrics
from hf_video.video import VideoReader

FPS = 15
# Real clips that lie beside the checkout, where there are some.
VIDEOS = next((one / "shared/videos" for one in Path(__file__).parents if (one / "shared/videos").is_dir()), None)


def picture(places: np.ndarray, side: int = 48, seed: int = 0) -> np.ndarray:
    """A bright spot at (T, 2) places from 0 to 1 over a pattern, with noise: uint8 (T, side, side, 3)."""
    rng, grid = np.random.default_rng(seed), np.arange(side)
    pattern = np.kron(rng.uniform(30, 120, (side // 8, side // 8)), np.ones((8, 8)))
    y, x = (np.exp(-0.5 * ((grid - side * one[:, None]) / (side / 8)) ** 2) for one in places.T)
    spot = y[:, :, None] * x[:, None]
    frames = pattern * (1 - spot) + 220 * spot + rng.normal(0, 2, spot.shape)
    return np.repeat(frames.clip(0, 255).astype(np.uint8)[..., None], 3, axis=3)


def motion(phase: np.ndarray, seed: int = 0) -> np.ndarray:
    """Places of a spot that goes round once in each whole phase, on a lopsided way."""
    turn = 2 * np.pi * np.asarray(phase)
    return 0.5 + 0.25 * np.stack([np.sin(turn) + 0.4 * np.sin(2 * turn + 1), 0.8 * np.cos(turn)], axis=1)


def turns(count: int, period: float) -> np.ndarray:
    return np.arange(0, count, 1 / (period * FPS))


def still(seconds: float, phase: float = 0.0) -> np.ndarray:
    return np.full(int(seconds * FPS), phase)


def count(phase: np.ndarray, **options):
    return hf_video.count_repetitions(picture(motion(phase)), fps=FPS, **options)


@pytest.mark.parametrize(("period", "number"), [(0.4, 25), (0.5, 3), (0.77, 9), (1.3, 8), (2.6, 5), (5.0, 3)])
def test_periods(period, number):
    found = count(turns(number, period))
    assert found.count == number
    assert found.period == pytest.approx(period, rel=0.03)
    assert found.confidence > 0.8


def test_it_finds_where_the_repetitions_are():
    found = count(np.concatenate([still(3), turns(6, 1.0), still(4)]))
    (span,) = found.spans
    assert (found.count, span.count) == (6, 6)
    assert (span.start, span.end) == (pytest.approx(3, abs=0.4), pytest.approx(9, abs=0.4))


def test_pauses_are_not_counted():
    found = count(np.concatenate([turns(5, 1.0), still(4), turns(3, 1.0), still(5), turns(2, 1.1)]))
    assert [span.count for span in found.spans] == [5, 3, 2]
    assert found.count == 10
    assert found.period == pytest.approx(1.02, abs=0.04)


@pytest.mark.parametrize("ratio", [0.5, 2.0])
def test_the_tempo_may_change(ratio):
    periods = [1.2 * ratio ** (number / 11) for number in range(12)]
    assert count(np.concatenate([number + turns(1, period) for number, period in enumerate(periods)])).count == 12


def wander(seed: int) -> np.ndarray:
    """Smooth ways between random places."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(0.15, 0.85, (16, 2))
    step = np.arange(15 * FPS) / FPS
    part = (step % 1)[:, None]
    part = part * part * (3 - 2 * part)
    return places[step.astype(int)] * (1 - part) + places[step.astype(int) + 1] * part


NONE = {
    "still": np.full((150, 2), 0.5),
    "one way": np.stack([np.linspace(0.2, 0.8, 150), np.linspace(0.3, 0.6, 150)], axis=1),
    "there and back": motion(np.concatenate([still(2), turns(1, 3.0), still(2)])),
    **{f"wandering {seed}": wander(seed) for seed in range(6)},
}


@pytest.mark.parametrize("places", NONE.values(), ids=NONE)
def test_what_repeats_nothing(places):
    found = hf_video.count_repetitions(picture(places), fps=FPS)
    assert (found.count, found.period, found.spans, found.confidence) == (0, None, [], 0.0)


def test_cuts_between_still_pictures_repeat_nothing():
    shots = [picture(np.full((30 + 7 * number, 2), 0.1 * number + 0.1), seed=number) for number in range(6)]
    assert hf_video.count_repetitions(np.concatenate(shots), fps=FPS).count == 0


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_hardly_a_video(frames):
    assert hf_video.count_repetitions(picture(np.full((frames, 2), 0.5))).count == 0


def test_vectors_of_any_scale():
    """The answer does not depend on the unit of the vectors, nor on a constant that all share."""
    way = motion(turns(7, 1.2))
    for vectors in (way, 1000 * way, way / 1000, way + 50):
        (span,) = find_repetitions(vectors, FPS)
        assert span.count == 7
    assert not find_repetitions(np.zeros((90, 3)), FPS)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "turns.mp4"
    hf_video.write_video(path, picture(motion(turns(8, 1.0))), FPS)
    return path


def test_files_models_and_the_command(clip, capsys, tmp_path):
    """A file, alone and with a model of random weights, and several by the command."""
    import tiny

    assert hf_video.count_repetitions(clip).count == 8
    folder = tiny.save_tiny(tmp_path / "model")
    found = hf_video.count_repetitions(clip, folder, grid="0.2s/0.1s")
    assert found.count == 8
    assert found.period == pytest.approx(1.0, rel=0.05)
    (tmp_path / "empty.mp4").write_bytes(b"")
    assert main(["count", str(clip), str(tmp_path / "empty.mp4"), "--json"]) == 1
    first, second = json.loads(capsys.readouterr().out)
    assert (first["count"], len(first["spans"]), second["kind"]) == (8, 1, "empty")
    assert main(["count", str(clip)]) == 0
    assert "8 repetitions, 1.00 s each" in capsys.readouterr().out


@pytest.mark.skipif(VIDEOS is None, reason="real clips are not here")
@pytest.mark.parametrize("name", ["basketball.mp4", "cleaning_pool.mp4", "cricket_shot.gif", "msrvtt_7012.mp4"])
def test_real_clips_without_repetition(name):
    assert hf_video.count_repetitions(VIDEOS / name).count == 0


@pytest.mark.skipif(VIDEOS is None, reason="real clips are not here")
@pytest.mark.parametrize(("name", "begin"), [("basketball.mp4", 60), ("cricket_shot.gif", 20)])
def test_a_real_movement_there_and_back_again(name, begin):
    """20 frames forwards and backwards, five times over."""
    with VideoReader(VIDEOS / name, shortest_edge=96) as reader:
        frames = reader.get_frames(range(begin, begin + 20)).data
    again = np.concatenate([frames, frames[::-1]] * 5)
    found = hf_video.count_repetitions(again, fps=25)
    assert found.count == 5
    assert found.period == pytest.approx(40 / 25, rel=0.03)


def test_metrics():
    """MAE is relative to the number, OBO counts what is off by at most one."""
    got = count_metrics([4.4, 10, 0], [4, 8, 1])
    assert got.mae == pytest.approx((0 + 2 / 8.1 + 1 / 1.1) / 3)
    assert got.obo == pytest.approx(2 / 3)
    for found, true in (([1], [1, 2]), ([], []), ([np.nan], [1]), ([1], [-1])):
        with pytest.raises(MetricError):
            count_metrics(found, true)


@pytest.mark.parametrize(
    "options", [{"periods": (2, 1)}, {"periods": 3}, {"periods": (0, 1)}, {"processor": object()}, {"backend": "vlc"}]
)
def test_options_that_mean_nothing(options, clip):
    with pytest.raises(VideoOptionError):
        hf_video.count_repetitions(clip, **options)
    with pytest.raises(VideoError):
        hf_video.count_repetitions("nowhere.mp4")
