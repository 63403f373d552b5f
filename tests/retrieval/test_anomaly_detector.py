"""What is unusual in a video: distances to normal moments, their threshold, events, folders, and what is refused."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import tiny
from drifting import FPS, drifting, write_drifting

from hf_video.base.detection.curve import AnomalyCurve, smooth_over_time
from hf_video.errors import DataError, OutputError, VideoIndexError, VideoOptionError
from hf_video.evaluation.detection.anomaly import anomaly_metrics
from hf_video.features import FeatureSequence, SequenceEncoder
from hf_video.retrieval import AnomalyDetector
from hf_video.retrieval.anomalies import parse_threshold
from hf_video.retrieval.normality import nearest_distances, without

pytest.importorskip("pyarrow")

JUMPS = {"a": [(3.0, 6.0)], "b": [(7.5, 10.0)], "c": []}


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """Folders `normal` (16 videos), `later` (5 more), and `today`, where some glyphs jump."""
    folder = tmp_path_factory.mktemp("scenes")
    for seed in range(16):
        write_drifting(folder / "normal" / f"{seed}.mp4", seed)
    for seed in range(5):
        write_drifting(folder / "later" / f"{seed}.mp4", 100 + seed)
    for number, (name, jumps) in enumerate(JUMPS.items()):
        write_drifting(folder / "today" / f"{name}.mp4", 200 + number, jumps=jumps)
    return folder


@pytest.fixture(scope="session")
def detector(scenes, tmp_path_factory):
    return AnomalyDetector.fit(scenes / "normal", folder=tmp_path_factory.mktemp("detectors") / "drifting")


def test_frames_of_another_motion_score_higher(detector, scenes):
    curves = {name: detector.score(scenes / "today" / f"{name}.mp4") for name in JUMPS}
    scores = {name: curve.frame_scores() for name, curve in curves.items()}
    truth = {name: [(round(a * FPS), round(b * FPS)) for a, b in jumps] for name, jumps in JUMPS.items()}
    found = anomaly_metrics(scores, truth, {name: len(line) for name, line in scores.items()})
    assert found.micro_auc > 0.9
    assert found.macro_auc > 0.9
    for name, jumps in JUMPS.items():
        events = curves[name].events
        assert len(events) == len(jumps)
        for event, (start, end) in zip(events, jumps, strict=True):
            assert (event.start, event.end) == pytest.approx((start, end), abs=1.3)


def test_few_false_alarms_in_normal_videos_that_it_has_not_seen(detector, scenes):
    alarms = [detector.detect(scenes / "later" / f"{number}.mp4") for number in range(5)]
    assert sum(map(len, alarms)) <= 1


def test_a_normal_video_is_never_compared_with_itself_nor_with_a_copy(scenes, tmp_path):
    """Else its distances would be 0, and the threshold with them."""
    normal = tmp_path / "normal"
    normal.mkdir()
    for number in range(4):
        shutil.copy(scenes / "normal" / f"{number}.mp4", normal / f"{number}.mp4")
    alone = AnomalyDetector.fit(normal, folder=tmp_path / "alone", smooth=0)
    shutil.copy(scenes / "normal" / "0.mp4", normal / "copy of 0.mp4")
    copied = AnomalyDetector.fit(normal, folder=tmp_path / "copied", smooth=0)
    assert min(alone.threshold.peaks.values()) > 0.1
    peaks = sorted(copied.threshold.peaks.values())
    assert len(peaks) == 4
    # That the copy is there twice for the others moves which moment is the k-th nearest of them, but only up to 0's.
    assert peaks[0] > 0.1
    vectors, _ = copied.index.encoder.embed(normal / "copy of 0.mp4", copied.grid)
    elsewhere = np.concatenate(
        [alone.index.encoder.embed(normal / f"{number}.mp4", alone.grid)[0] for number in range(1, 4)]
    )
    expected = np.sort(np.linalg.norm(vectors[:, None] - elsewhere[None], axis=2), axis=1)[:, 4]
    for source in (normal / "0.mp4", normal / "copy of 0.mp4"):
        np.testing.assert_allclose(copied.score(source).distances, expected, atol=1e-5)


def test_distances_are_to_the_kth_nearest_in_any_segment(tmp_path):
    from hf_video.retrieval import VideoIndex

    random = np.random.default_rng(0)
    index = VideoIndex.create(tmp_path / "index")
    vectors = random.normal(size=(5, 30, 6)).astype(np.float32)
    seconds = np.stack([np.arange(30.0), np.arange(30.0) + 1], axis=1)
    for number, one in enumerate(vectors):
        index.add(f"{number}.mp4", one, seconds)
    unit = (vectors / np.linalg.norm(vectors, axis=2, keepdims=True)).reshape(-1, 6)
    queries = unit[:7] + np.float32(1e-4)
    expected = np.sort(np.linalg.norm(queries[:, None] - unit[None], axis=2), axis=1)
    for k in (1, 4, 150):
        np.testing.assert_allclose(nearest_distances(index.segments, queries, k), expected[:, k - 1], atol=1e-6)
    with pytest.raises(DataError, match="150 normal moments"):
        nearest_distances(index.segments, queries, 151)
    assert sum(segment.live.sum() for segment in without(index.segments, None)) == 150


def test_smoothing_is_in_seconds_whatever_the_steps():
    times = np.sort(np.random.default_rng(0).uniform(0, 20, 40))
    values = np.random.default_rng(1).uniform(size=40)
    apart = (times[:, None] - times[None]) / 1.5
    weights = np.where(np.abs(apart) <= 4, np.exp(-0.5 * apart**2), 0)
    np.testing.assert_allclose(smooth_over_time(values, times, 1.5), weights @ values / weights.sum(1), rtol=1e-12)
    np.testing.assert_allclose(smooth_over_time(np.ones(40), times, 1.5), 1.0)  # no fall at the ends
    np.testing.assert_array_equal(smooth_over_time(values, times, 0), values)


def test_frame_scores_follow_the_times_of_frames():
    """Frames that are shown for long, as in files of variable rate, have the score of their own time."""
    seconds = np.array([[0.0, 2.0], [2.0, 4.0], [4.0, 6.0]])
    curve = AnomalyCurve(seconds, np.zeros(3), np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.5, 1.0, 5.0]), 6.0, (), None)
    np.testing.assert_allclose(curve.frame_scores(), [0.0, 0.0, 1.0, 0.0])


@pytest.mark.parametrize(("text", "value"), [("auto", "auto"), ("99.50%", "99.5%"), (" 0.7", 0.7), (0.7, 0.7)])
def test_thresholds(text, value):
    assert parse_threshold(text) == value


@pytest.mark.parametrize("text", ["high", "0", -1, "100%", "0%", "nan", "q99", float("inf")])
def test_thresholds_that_mean_nothing(text):
    with pytest.raises(VideoOptionError, match="quantile"):
        parse_threshold(text)


def test_thresholds_of_a_rule(detector):
    peaks = np.array(list(detector.threshold.peaks.values()))
    assert detector.threshold.value == pytest.approx(max(peaks.max(), peaks.mean() + 2 * peaks.std(ddof=1)))
    median = detector.with_threshold("50%").threshold
    assert (median.value, median.rule) == (pytest.approx(detector.threshold.usual), "50%")
    assert detector.with_threshold(0.25).threshold.value == 0.25


def test_again_and_from_a_folder(detector, scenes, tmp_path):
    folder = tmp_path / "detector"
    detector.save(folder)
    again = AnomalyDetector.fit(scenes / "normal", folder=folder, threshold="90%")
    assert (again.report.embedded, again.report.unchanged) == (0, 16)
    assert again.threshold.value < detector.threshold.value
    loaded = AnomalyDetector.load(folder)
    assert (loaded.threshold, loaded.k, loaded.smooth, loaded.grid) == (again.threshold, 5, 0.5, detector.grid)
    source = scenes / "today" / "a.mp4"
    assert loaded.score(source).scores.tolist() == detector.score(source).scores.tolist()


def test_a_model_is_kept_with_the_detector_and_its_features_are_known(scenes, tmp_path):
    model = tiny.save_tiny(tmp_path / "model")
    folder = tmp_path / "detector"
    made = AnomalyDetector.fit(scenes / "later", str(model), folder=folder, grid="8/4", k=2)
    shutil.rmtree(model)
    loaded = AnomalyDetector.load(folder)
    source = scenes / "today" / "a.mp4"
    curve = loaded.score(source)
    np.testing.assert_allclose(curve.scores, made.score(source).scores, atol=1e-6)
    encoder = SequenceEncoder(folder / "encoder", grid="8/4")
    np.testing.assert_allclose(loaded.score(encoder(source)).scores, curve.scores, atol=1e-6)
    other = tiny.save_tiny(tmp_path / "other", "timesformer")
    with pytest.raises(VideoIndexError, match="encoder"):
        loaded.score(SequenceEncoder(other, grid="8/4")(source))
    with pytest.raises(VideoIndexError, match="8/2"):
        loaded.score(SequenceEncoder(folder / "encoder", grid="8/2")(source))
    with pytest.raises(VideoIndexError, match="can't be compared"):
        AnomalyDetector.load(folder, str(other))
    with pytest.raises(VideoIndexError, match="can't be compared"):
        AnomalyDetector.fit(scenes / "later", "fingerprint", folder=folder)
    assert AnomalyDetector.load(folder).score(source).scores.tolist() == curve.scores.tolist()


def test_features_are_no_fingerprints(detector):
    with pytest.raises(VideoIndexError, match="fingerprints"):
        detector.score(FeatureSequence.from_array(np.ones((4, 3)), "2s/0.5s", fps=1))


@pytest.mark.parametrize(
    "broken", ["empty", "no videos", "one", "one and its copy", "unreadable", "few moments", "folder"]
)
def test_what_nothing_can_be_learnt_from(scenes, tmp_path, broken):
    normal, folder, options = tmp_path / "normal", tmp_path / "detector", {}
    normal.mkdir()
    if broken == "no videos":
        (normal / "notes.txt").write_text("none")
    elif broken == "unreadable":
        (normal / "a.mp4").write_text("no video")
    elif broken in ("one", "one and its copy"):
        for name in ("a.mp4", "b.mp4")[: 1 + (broken != "one")]:
            shutil.copy(scenes / "normal" / "0.mp4", normal / name)
    elif broken == "few moments":
        for number in range(2):
            shutil.copy(scenes / "normal" / f"{number}.mp4", normal)
        options["k"] = 30
    elif broken == "folder":
        shutil.copy(scenes / "normal" / "0.mp4", normal)
        folder.mkdir()
        (folder / "thesis.tex").write_text("years of work")
    error, words = {
        "one": (DataError, "cut a long one into several files"),
        "one and its copy": (DataError, "copies of one count once"),
        "unreadable": (DataError, "can be read"),
        "few moments": (DataError, "lower k"),
        "folder": (OutputError, "other things"),
    }.get(broken, (DataError, "no videos"))
    with pytest.raises(error, match=words):
        AnomalyDetector.fit(normal, folder=folder, **options)
    if broken == "folder":
        assert [path.name for path in folder.iterdir()] == ["thesis.tex"]
    elif broken in ("empty", "no videos"):
        assert not folder.exists()
    with pytest.raises(VideoIndexError, match="not a detector"):
        AnomalyDetector.load(folder)


def test_one_normal_video_is_enough_for_a_threshold_that_is_given(scenes, tmp_path):
    normal = tmp_path / "normal"
    normal.mkdir()
    shutil.copy(scenes / "normal" / "0.mp4", normal)
    detector = AnomalyDetector.fit(normal, folder=tmp_path / "detector", threshold=0.4)
    assert detector.detect(scenes / "today" / "a.mp4")
    assert AnomalyDetector.load(tmp_path / "detector").threshold.value == 0.4


def test_a_single_picture_and_a_video_in_memory(detector):
    assert len(detector.score(drifting(1, seconds=1 / FPS)).scores) == 1
    assert len(detector.score(drifting(1, seconds=6)).scores) == 1 + int((6 * FPS / 25 - 2) / 0.5)  # at 25 a second
