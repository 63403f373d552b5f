"""Events of videos: the files they are written to, and scores of windows made into events."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from hf_video.base.detection.types import (
    Detection,
    Hysteresis,
    detection_frame,
    merge_windows,
    webvtt,
    write_detections,
)
from hf_video.errors import DataError, OutputError, VideoOptionError
from hf_video.evaluation.detection.temporal import temporal_map

EVENTS = [Detection("long jump, run-up", 0.75, 3661.5, 3662.25), Detection("jump", 0.5, 0.125, 2.0)]


def test_json_is_what_evaluators_read(tmp_path):
    write_detections(tmp_path / "events.json", {"a": EVENTS, "b": []}, {"a": 4000.0})
    about = json.loads((tmp_path / "events.json").read_text())
    assert about["results"]["a"][0] == {"label": "long jump, run-up", "score": 0.75, "segment": [3661.5, 3662.25]}
    assert about["durations"] == {"a": 4000.0}
    truth = {"a": [{"label": one.label, "segment": (one.start, one.end)} for one in EVENTS]}
    assert temporal_map(truth, about["results"]).average == 1.0


def test_csv_and_pandas(tmp_path):
    write_detections(tmp_path / "events.csv", {"a,b": EVENTS})
    with (tmp_path / "events.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "video": "a,b", "start": "3661.5", "end": "3662.25", "label": "long jump, run-up", "score": "0.75"
    }  # fmt: skip
    pytest.importorskip("pandas")
    table = detection_frame({"a": EVENTS})
    assert table["end"].tolist() == [3662.25, 2.0]
    assert detection_frame({}).columns.tolist() == ["video", "label", "score", "start", "end", "boxes"]


def test_chapters_are_in_order_and_one_line_each(tmp_path):
    text = webvtt([*EVENTS, Detection("a\n--> b", 1.0, 5.0, 6.0)])
    assert text.startswith("WEBVTT\n\n00:00:00.125 --> 00:00:02.000\njump\n\n00:00:05.000 --> 00:00:06.000\na -> b\n")
    assert text.endswith("01:01:01.500 --> 01:01:02.250\nlong jump, run-up\n")
    write_detections(tmp_path / "chapters.vtt", {"a": EVENTS})
    assert (tmp_path / "chapters.vtt").read_text() == webvtt(EVENTS)
    assert "\nR&amp;B &lt;i> text\n" in webvtt([Detection("R&B <i> text", 1.0, 0.0, 1.0)])


def test_subtitles_are_numbered_and_never_empty(tmp_path):
    """A cue without text would be an empty line, which ends a cue."""
    events = [Detection("b\n\n--> <i>", 1.0, 5.0, 3605.9996), Detection(" \n", 1.0, 0.0, 5.0)]
    text = "1\n00:00:00,000 --> 00:00:05,000\n-\n\n2\n00:00:05,000 --> 01:00:06,000\nb -> <i>\n"
    write_detections(tmp_path / "a.srt", {"a": events})
    assert (tmp_path / "a.srt").read_text() == text


def test_what_can_not_be_written(tmp_path):
    with pytest.raises(VideoOptionError, match=r"\.csv"):
        write_detections(tmp_path / "events.txt", {"a": EVENTS})
    with pytest.raises(VideoOptionError, match="2 came"):
        write_detections(tmp_path / "events.vtt", {"a": EVENTS, "b": EVENTS})
    with pytest.raises(OutputError, match="nowhere"):
        write_detections(tmp_path / "nowhere" / "events.csv", {"a": EVENTS})
    with pytest.raises(DataError, match="before its start"):
        Detection("jump", 1.0, 2.0, 1.0)


class TestWindows:
    times = np.arange(8) + 0.5

    def events(self, line, **options):
        return merge_windows(np.array(line)[:, None], self.times, ["jump"], **options)

    def test_an_event_begins_at_on_and_ends_below_off(self):
        (event,) = self.events([0.0, 0.4, 0.6, 0.4, 0.4, 0.3, 0.0, 0.0], on=0.5, off=0.35)
        assert (event.start, event.end, event.score) == (2.0, 5.0, 0.6)

    def test_a_score_that_swings_between_makes_no_second_event(self):
        assert len(self.events([0.6, 0.4, 0.6, 0.4, 0.6, 0.0, 0.6, 0.0], on=0.5, off=0.35)) == 2

    def test_what_never_reaches_on_is_no_event(self):
        assert self.events([0.4] * 8, on=0.5, off=0.3) == []

    def test_the_whole_video(self):
        (event,) = self.events([0.9] * 8, bounds=(0.0, 9.0))
        assert (event.start, event.end) == (0.0, 9.0)

    def test_short_events_are_left_out(self):
        line = [0.9, 0.0, 0.9, 0.9, 0.9, 0.0, 0.0, 0.0]
        assert [(one.start, one.end) for one in self.events(line, min_length=2)] == [(2.0, 5.0)]

    def test_each_class_has_its_own_events(self):
        scores = np.stack(([0.9] * 4 + [0.0] * 4, [0.0] * 2 + [0.4] * 6), axis=1)
        found = merge_windows(scores, self.times, ["jump", "run"], on=np.array([0.5, 0.3]))
        assert [(one.label, one.start, one.end) for one in found] == [("jump", 0.0, 4.0), ("run", 2.0, 8.0)]

    def test_no_window_and_wrong_thresholds(self):
        assert merge_windows(np.zeros((0, 1)), np.zeros(0), ["jump"]) == []
        with pytest.raises(VideoOptionError, match="end at most the beginning"):
            self.events([0.0] * 8, on=0.3, off=0.5)

    def test_scores_are_smoothed_over_neighbours(self):
        line = np.random.default_rng(0).random(40) ** 2
        padded = np.concatenate(([np.nan] * 2, line, [np.nan] * 2))
        smooth = np.nanmean(np.lib.stride_tricks.sliding_window_view(padded, 5), axis=1)[:, None]
        times, options = np.arange(40) + 0.5, {"on": 0.4, "off": 0.35}
        found = merge_windows(line[:, None], times, ["jump"], smoothing=5, **options)
        expected = merge_windows(smooth, times, ["jump"], **options)
        assert len(expected) > 1
        assert [(one.start, one.end) for one in found] == [(one.start, one.end) for one in expected]
        assert [one.score for one in found] == pytest.approx([one.score for one in expected], abs=1e-12)
        for count in range(1, 4):  # fewer windows than the mean is of
            (event,) = merge_windows(np.full((count, 1), 0.9), times[:count], ["jump"], smoothing=5, bounds=(0, count))
            assert (event.start, event.end, event.score) == (0, count, pytest.approx(0.9))
        with pytest.raises(VideoOptionError, match="odd"):
            merge_windows(line[:, None], times, ["jump"], smoothing=2)

    def test_events_end_as_windows_come_and_those_under_way_are_known(self):
        merged = Hysteresis(["jump"], on=0.5, off=0.35, begin=0.0)
        scores = [0.9, 0.4, 0.0, 0.6, 0.7]
        ended = [merged.update(np.array([score]), time) for score, time in zip(scores, self.times, strict=False)]
        assert ended == [[], [], [Detection("jump", 0.9, 0.0, 2.0)], [], []]
        assert merged.under_way == [Detection("jump", 0.7, 3.0, 4.5)]
        assert merged.close(5.5) == [Detection("jump", 0.7, 3.0, 5.5)]
        assert merged.under_way == []
