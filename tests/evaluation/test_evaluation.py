"""`evaluate_videos`: decoded once, resumable, honest about what was not found; and the report."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_models import LABELS, make, write_rows
from PIL import Image

import hf_video
from hf_video.clips import read as sources
from hf_video.data.rows import Skipped, VideoRow, VideoRows
from hf_video.errors import CheckpointError, DataError, SamplingError, VideoOptionError
from hf_video.evaluation.classification import evaluate_videos, match_labels, normalize_label
from hf_video.evaluation.protocol import Protocol
from hf_video.evaluation.protocols import find_protocol
from hf_video.evaluation.report import Report


@pytest.fixture(scope="module", autouse=True)
def quick_figures():
    """They are drawn here."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("clips"), 8, frames=24, fps=10)


@pytest.fixture(scope="module")
def videomae():
    return make("videomae")


@pytest.fixture
def opened(monkeypatch):
    """The readers that were opened, each with the frames that it was asked for."""
    readers = []

    class Counted(hf_video.VideoReader):
        def __init__(self, source, **options):
            super().__init__(source, **options)
            self.asked = []
            readers.append((str(source), self.asked))

        def get_frames(self, indices):
            self.asked.append(np.asarray(indices).tolist())
            return super().get_frames(indices)

    monkeypatch.setattr(sources, "VideoReader", Counted)
    return readers


@pytest.mark.parametrize("protocol", ["paper", "paper:ssv2", "5x3", "center"])
def test_every_video_is_opened_and_decoded_once(videomae, rows, opened, protocol):
    report = evaluate_videos(*videomae, rows, protocol=protocol, batch_size=4)
    assert [source for source, _ in opened] == [row.source for row in rows]
    for _, asked in opened:
        assert len(asked) == 1  # one pass for all clips and crops
        assert asked[0] == sorted(set(asked[0]))  # and no frame twice
    assert report.found == len(rows)


def test_batches_and_workers_change_nothing(videomae, rows):
    model, processor = videomae
    alone = evaluate_videos(model, processor, rows, protocol="2x3")
    for options in ({"batch_size": 5}, {"batch_size": 1}, {"num_workers": 2}):
        report = evaluate_videos(model, processor, rows, protocol="2x3", **options)
        np.testing.assert_allclose(report.scores, alone.scores, atol=1e-6)
        assert report.names == alone.names


def test_the_model_is_left_as_it_was(videomae, rows):
    model, processor = videomae
    model.train()
    before = evaluate_videos(model, processor, rows[:2])
    assert model.training
    model.eval()
    assert np.array_equal(evaluate_videos(model, processor, rows[:2]).scores, before.scores)
    assert not model.training
    half = evaluate_videos(make("videomae")[0], processor, rows[:2], dtype=torch.bfloat16, device="cpu")
    np.testing.assert_allclose(half.scores, before.scores, atol=0.05)


# -- going on ----------------------------------------------------------------------------------------------------------


class StopAfter:
    """Interrupts a model's forward after so many calls."""

    def __init__(self, model, calls):
        self.left = calls
        self.handle = model.register_forward_pre_hook(self)

    def __call__(self, *_):
        self.left -= 1
        if self.left < 0:
            self.handle.remove()
            raise KeyboardInterrupt


def test_a_stopped_evaluation_goes_on(videomae, rows, tmp_path, opened):
    model, processor = videomae
    whole = evaluate_videos(model, processor, rows, protocol="2x3")
    StopAfter(model, 3)
    with pytest.raises(KeyboardInterrupt):
        evaluate_videos(model, processor, rows, protocol="2x3", output=tmp_path)
    with open(tmp_path / "predictions.jsonl", "a") as file:
        file.write('{"video": "3.mkv", "scor')  # killed while writing
    opened.clear()
    report = evaluate_videos(model, processor, rows, protocol="2x3", output=tmp_path)
    assert report.resumed == 3
    assert [source for source, _ in opened] == [row.source for row in rows[3:]]
    assert np.array_equal(report.scores, whole.scores)
    opened.clear()
    again = evaluate_videos(model, processor, rows, protocol="2x3", output=tmp_path)
    assert not opened
    assert np.array_equal(again.scores, whole.scores)
    assert len((tmp_path / "predictions.jsonl").read_text().splitlines()) == 1 + len(rows)


def test_other_weights_or_protocols_are_another_run(rows, tmp_path):
    model, processor = make("videomae")
    first = evaluate_videos(model, processor, rows[:2], output=tmp_path)
    with torch.no_grad():
        model.classifier.bias += torch.arange(6)
    changed = evaluate_videos(model, processor, rows[:2], output=tmp_path)
    assert changed.resumed == 0
    assert not np.allclose(changed.scores, first.scores)
    assert (tmp_path / "predictions.previous.jsonl").exists()
    assert evaluate_videos(model, processor, rows[:2], protocol="1x3", output=tmp_path).resumed == 0
    assert evaluate_videos(model, processor, rows[:3], protocol="1x3", output=tmp_path).resumed == 2


def test_a_failed_video_is_tried_again(videomae, rows, tmp_path):
    path = tmp_path / "late.mkv"
    path.write_bytes(b"")
    both = VideoRows([*rows[:2], VideoRow(str(path), 2, "late.mkv")], LABELS)
    assert evaluate_videos(*videomae, both, output=tmp_path / "out").found == 2
    path.write_bytes(Path(rows[2].source).read_bytes())
    report = evaluate_videos(*videomae, both, output=tmp_path / "out")
    assert (report.found, report.resumed, report.skipped) == (3, 2, [])


# -- what is not found -------------------------------------------------------------------------------------------------


def test_what_could_not_be_scored_is_named(videomae, rows, tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("no video " * 99)
    extra = [
        VideoRow(str(tmp_path / "empty.mp4"), 0, "empty.mp4"),
        VideoRow(rows[0].source, None, "nameless.mkv"),
        VideoRow(str(tmp_path / "text.mp4"), 0, "text.mp4"),
        VideoRow(str(tmp_path / "gone.mp4"), 0, "gone.mp4"),
    ]
    before = [
        Skipped("missing.mp4", "not there", "missing"),
        Skipped("notes.txt", "a .txt file", "format"),
        Skipped("short.mp4", "2 frames", "short", used=True),
    ]
    report = evaluate_videos(*videomae, VideoRows([extra[0], *rows, *extra[1:]], LABELS, before), num_workers=2)
    assert (report.found, report.total) == (8, 13)
    assert {entry.name: entry.kind for entry in report.skipped} == {
        "missing.mp4": "missing",
        "notes.txt": "format",
        "nameless.mkv": "unlabelled",
        "empty.mp4": "empty",
        "text.mp4": "not a video",
        "gone.mp4": "missing",
    }
    text = str(report)
    assert "found 8 of 13 videos" in text
    assert all(name in text for name in ("missing.mp4", "empty.mp4", "nameless.mkv"))
    assert json.loads(json.dumps(report.to_dict()))["total"] == 13


def test_two_videos_of_one_name_are_two(videomae, rows, tmp_path):
    same = VideoRows([VideoRow(rows[i].source, i, "a.mkv") for i in range(3)], LABELS)
    report = evaluate_videos(*videomae, same, output=tmp_path)
    again = evaluate_videos(*videomae, same, output=tmp_path)
    assert again.resumed == 3
    assert np.array_equal(report.scores, again.scores)
    assert report.truth.tolist() == [0, 1, 2]


def test_wrong_calls(videomae, rows, tmp_path):
    model, processor = videomae
    with pytest.raises(DataError, match="no videos"):
        evaluate_videos(model, processor, VideoRows([], LABELS))
    with pytest.raises(DataError, match=r"None of the 1 videos could be scored. x.mp4"):
        evaluate_videos(model, processor, VideoRows([VideoRow(str(tmp_path / "x.mp4"), 0, "x.mp4")], LABELS))
    with pytest.raises(VideoOptionError, match="no protocol"):
        evaluate_videos(model, processor, rows, protocol="7x7")
    with pytest.raises(SamplingError, match="gives one clip"):
        evaluate_videos(model, processor, rows, protocol=Protocol("mine", clips=2, sampler="center"))
    with pytest.raises(DataError, match=r"1 of the data's 2 classes .* 'bowlin' \(is it 'bowling'\?\)"):
        evaluate_videos(model, processor, VideoRows(rows[:1].rows, ["archery", "bowlin"]))
    headless = model.videomae
    headless.config = model.config
    with pytest.raises(CheckpointError, match="no logits"):
        evaluate_videos(headless, processor, rows[:1])


# -- labels ------------------------------------------------------------------------------------------------------------


def test_names_are_matched():
    model = {0: "petting animal (not cat)", 1: "riding or walking with horse", 2: "Crêpes & more", 3: "tai chi"}
    assert match_labels(["Tai-Chi", "petting_animal_(not_cat)", "crepes and more"], model) == [3, 0, 2]
    assert match_labels(["3", "0"], model) == [3, 0]
    assert match_labels(["left", "right"], {0: "LABEL_0", 1: "LABEL_1"}) == [0, 1]
    assert match_labels(["LABEL_1", "LABEL_0"], {0: "LABEL_0", 1: "LABEL_1"}) == [1, 0]
    assert match_labels(["a b", "a-b"], {0: "a-b", 1: "a b"}) == [1, 0]
    assert normalize_label('Someone\'s  "big"_dog') == "someones big dog"
    with pytest.raises(DataError, match="2 of the data's 3"):
        match_labels(["tai chi", "a_b", "x"], {0: "tai chi", 1: "a b", 2: "a-b"})


def test_labels_of_the_data_find_the_models(videomae, rows):
    model, processor = videomae
    order = [4, 2, 0, 5, 1, 3]
    relabelled = [VideoRow(row.source, order.index(row.label), row.name) for row in rows]
    report = evaluate_videos(model, processor, VideoRows(relabelled, [LABELS[i].upper() for i in order]))
    assert report.truth.tolist() == [row.label for row in rows]
    assert report.labels == list(LABELS)


# -- report ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def report():
    scores = np.array(
        [[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.2, 0.5, 0.3], [0.9, 0.1, 0.0]],
        dtype=np.float32,
    )
    return Report(
        model="m",
        protocol=find_protocol("5x3", None),
        labels=["up", "do,wn", "left"],
        names=["a.mp4", "b.mp4", "c.mp4", "d.mp4"],
        truth=np.array([0, 1, 1, 1]),
        scores=scores,
        skipped=[Skipped("e.mp4", "is empty", "empty")],
    )


def test_numbers_by_hand(report):
    assert (report.found, report.total, report.top1, report.top5) == (4, 5, 0.5, 1.0)
    assert report.confusion.tolist() == [[1, 0, 0], [1, 1, 1], [0, 0, 0]]
    assert report.mean_class_accuracy == pytest.approx((1 + 1 / 3) / 2)
    assert [m["video"] for m in report.mistakes()] == ["d.mp4", "b.mp4"]
    assert report.mistakes()[0] == {
        "video": "d.mp4",
        "label": "do,wn",
        "predicted": "up",
        "confidence": pytest.approx(0.9),
    }
    by_label = {row["label"]: row for row in report.per_class}
    assert by_label["do,wn"]["accuracy"] == pytest.approx(1 / 3)
    assert by_label["left"]["accuracy"] is None
    assert by_label["left"]["answered"] == 1
    assert report.log_loss == pytest.approx(-np.log([0.7, 0.3, 0.5, 0.1]).mean(), rel=1e-5)


def test_sums_of_logits_are_no_more_certain_than_their_mean(report):
    report.protocol = Protocol("paper", clips=2, crops=3, average="sum")
    report.scores = report.scores * 12
    expected = torch.from_numpy(report.scores / 6).double().softmax(-1)
    np.testing.assert_allclose(report.probabilities, expected, atol=1e-7)


def test_saved_files(report, tmp_path):
    pytest.importorskip("matplotlib")
    report.save(tmp_path / "new")
    folder = tmp_path / "new"
    saved = json.loads((folder / "report.json").read_text())
    assert (saved["top1"], saved["found"], saved["total"]) == (0.5, 4, 5)
    assert saved["protocol"]["name"] == "5x3"
    assert saved["skipped"] == [{"name": "e.mp4", "reason": "is empty", "kind": "empty", "used": False}]
    confusion = list(csv.reader((folder / "confusion.csv").read_text().splitlines()))
    assert confusion[0] == ["truth \\ predicted", "up", "do,wn", "left"]
    assert confusion[2] == ["do,wn", "1", "1", "1"]
    predictions = list(csv.DictReader((folder / "predictions.csv").read_text().splitlines()))
    assert predictions[1]["video"] == "b.mp4"
    assert predictions[1]["rank"] == "2"
    assert [predictions[1][f"top{i}"] for i in range(1, 6)] == ["left", "do,wn", "up", "", ""]
    assert len((folder / "per_class.csv").read_text().splitlines()) == 4
    for name in ("confusion.png", "calibration.png"):
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 300


def test_without_matplotlib_the_rest_is_saved(report, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    report.save(tmp_path)
    assert (tmp_path / "report.json").exists()
    assert not (tmp_path / "confusion.png").exists()


def test_the_report_as_text(report):
    lines = str(report).splitlines()
    assert lines[0] == "m: found 4 of 5 videos"
    assert max(map(len, lines)) <= 120
    assert any("top-1" in line and "50.00%" in line for line in lines)
    assert "    e.mp4: is empty" in lines
    assert not any("top-5" in line for line in lines)  # of 3 classes
