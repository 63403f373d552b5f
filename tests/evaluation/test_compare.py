"""`compare_models` and `hf-video compare`: one reading for all models, the figures of separate evaluations, and tests
of the difference."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import tiny
import torch
from evaluation_models import LABELS, make, write_rows

import hf_video
from hf_video.cli import main
from hf_video.clips import read as clips_read
from hf_video.data.rows import VideoRow, VideoRows
from hf_video.errors import DataError, MetricError, VideoOptionError
from hf_video.evaluation.classification import evaluate_videos
from hf_video.evaluation.compare import compare_models, model_folders
from hf_video.evaluation.model_cost import MeasuredModel
from hf_video.evaluation.significance import holm, mcnemar
from hf_video.video import write_video


@pytest.fixture(scope="module")
def models():
    """Three that differ in frames, sampling, views and the size at which frames are decoded."""
    made = {name: make(name) for name in ("videomae", "timesformer", "mvit")}
    made["timesformer"][1].size = {"shortest_edge": 36}
    made["mvit"][1].resample = 3  # bicubic: frames are read as they are
    return made


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("clips"), 40, frames=24, fps=10)


@pytest.fixture
def opened(monkeypatch):
    """The sources that were opened."""
    sources = []

    class Counted(hf_video.VideoReader):
        def __init__(self, source, **options):
            sources.append(str(source))
            super().__init__(source, **options)

    monkeypatch.setattr(clips_read, "VideoReader", Counted)
    return sources


def test_each_file_is_opened_once_and_figures_are_those_of_separate_evaluations(models, rows, opened):
    comparison = compare_models(models, rows, protocol="paper")
    assert opened == [row.source for row in rows]
    for name, (model, processor) in models.items():
        alone = evaluate_videos(model, processor, rows, protocol="paper")
        together = comparison.reports[name]
        assert np.array_equal(together.scores, alone.scores), name
        assert (together.top1, together.top1_interval) == (alone.top1, alone.top1_interval)
        assert together.names == alone.names
        assert comparison.parameters[name] == model.num_parameters()
        assert comparison.clips_per_second[name] > 0
    right = {name: one.predicted == one.truth for name, one in comparison.reports.items()}
    assert [(pair.first, pair.second) for pair in comparison.pairs] == [
        *(("videomae", "timesformer"), ("videomae", "mvit"), ("timesformer", "mvit")),
    ]
    for pair in comparison.pairs:
        a, b = right[pair.first], right[pair.second]
        assert (pair.only_first, pair.only_second) == (int((a & ~b).sum()), int((b & ~a).sum()))
        same = comparison.reports[pair.first].predicted == comparison.reports[pair.second].predicted
        assert pair.agreement == same.mean()
        assert pair.p_value == mcnemar(pair.only_first, pair.only_second)
    assert [pair.p_adjusted for pair in comparison.pairs] == holm([pair.p_value for pair in comparison.pairs])


def test_frames_beyond_the_budget_come_in_parts(models, rows, opened, monkeypatch):
    """A budget of five frames: several parts a file, and the same scores."""
    whole = compare_models(models, rows[:3], protocol="paper")
    opened.clear()
    monkeypatch.setattr("hf_video.clips.shared_read.FRAME_BUDGET", 5 * 48 * 80 * 3)
    parts = compare_models(models, rows[:3], protocol="paper", num_workers=0)
    assert len(opened) == 3
    for name, report in parts.reports.items():
        assert np.array_equal(report.scores, whole.reports[name].scores)
    workers = compare_models(models, rows[:3], protocol="paper", num_workers=2, batch_size=4)
    for name, report in workers.reports.items():
        np.testing.assert_allclose(report.scores, whole.reports[name].scores, atol=1e-6)


def test_damaged_frames_concern_the_models_that_see_them(models, rows, tmp_path):
    """Frames 20 to 23 are damaged: who looks at the middle scores the video, who looks everywhere does not."""
    frames = tiny.moving_frames(24, seed=1)
    path = write_video(tmp_path / "late.mkv", frames, fps=10, codec="h264", options={"g": "1"})
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as file:
        packets = [bytes(packet) for packet in file.demux(video=0) if packet.size]
    for packet in packets[20:]:
        begin = data.index(packet)
        data[begin : begin + len(packet)] = bytes(len(packet))
    path.write_bytes(data)
    early = {"middle": make("videomae"), "all": make("videomae")}
    early["middle"][1].sampler, early["middle"][1].sampler_options = "center", {"stride": 1}
    mixed = VideoRows([*rows[:2], VideoRow(str(path), 0, "late.mkv")], LABELS)
    comparison = compare_models(early, mixed)
    for name, (model, processor) in early.items():
        alone = evaluate_videos(model, processor, mixed)
        together = comparison.reports[name]
        assert np.array_equal(together.scores, alone.scores)
        assert [(one.name, one.kind) for one in together.skipped] == [(one.name, one.kind) for one in alone.skipped]
    assert [report.found for report in comparison.reports.values()] == [3, 2]
    assert comparison.pairs[0].videos == 2
    assert "pairs are compared on the videos that both scored" in str(comparison)
    repeated = compare_models(early, mixed, on_error="repeat")
    assert [report.found for report in repeated.reports.values()] == [3, 3]


def test_a_file_that_cannot_be_read_is_nobodys(models, rows, tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    mixed = VideoRows([*rows[:2], VideoRow(str(tmp_path / "empty.mp4"), 0, "empty.mp4")], LABELS)
    for report in compare_models(models, mixed).reports.values():
        assert (report.found, report.total) == (2, 3)
        assert [one.kind for one in report.skipped] == ["empty"]


def test_classes_in_another_order_and_of_another_number(rows):
    """The same weights under turned labels answer the same; a class more is told."""
    model, processor = make("videomae")
    turned, _ = make("videomae")
    turned.load_state_dict(model.state_dict())
    order = [3, 1, 0, 5, 4, 2]
    with torch.no_grad():
        turned.classifier.weight.copy_(model.classifier.weight[order])
        turned.classifier.bias.copy_(model.classifier.bias[order])
    turned.config.id2label = {i: LABELS[number].upper() for i, number in enumerate(order)}
    pairs = {"one": (model, processor), "turned": (turned, processor)}
    comparison = compare_models(pairs, rows[:8])
    assert comparison.pairs[0].agreement == 1
    assert not comparison.notes
    wide = make("videomae")
    wide[0].classifier = torch.nn.Linear(24, 7).double()
    wide[0].config.id2label = dict(enumerate([*LABELS, "juggling"]))
    assert "one 6, wide 7; the data have 6" in str(compare_models({"one": (model, processor), "wide": wide}, rows[:2]))
    wide[0].config.id2label = {i: f"LABEL_{i}" for i in range(7)}
    with pytest.raises(DataError, match=r"^wide: 6 of the data's 6 classes are none of the model's 7"):
        compare_models({"one": (model, processor), "wide": wide}, rows[:2])
    with pytest.raises(VideoOptionError, match="two models or more; 1 came"):
        compare_models({"one": (model, processor)}, rows)
    model.config.problem_type = "multi_label_classification"
    with pytest.raises(VideoOptionError, match="one gives several labels for a video"):
        compare_models(pairs, rows)


def test_memory_is_what_the_profiler_sees(models):
    """The tensors of a forward at their most, and the weights."""
    model, _ = models["videomae"]
    clips = {"pixel_values": torch.randn(2, 4, 3, 32, 32)}
    measured = MeasuredModel(model, compute=lambda model, inputs: model(**inputs).logits)
    assert (measured.memory, measured.clips_per_second) == (None, None)
    with measured:
        rows = measured(clips)
        activities = [torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
            assert torch.equal(measured(clips), rows)
    events = [one for one in profiler.profiler.kineto_results.events() if one.name() == "[memory]"]
    alive = np.cumsum([one.nbytes() for one in sorted(events, key=lambda one: one.start_ns())])
    weights = sum(one.nbytes for one in (*model.parameters(), *model.buffers()))
    assert measured.memory == weights + alive.max()
    assert measured.clips_per_second > 0


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (5, 5), (2, 9), (40, 17), (700, 800)])
def test_mcnemar_is_the_exact_binomial_test(first, second):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(first, first + second).pvalue if first + second else 1
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(second, first) == mcnemar(first, second)
    with pytest.raises(MetricError, match="only_first=-1"):
        mcnemar(-1, 2)


def test_holm():
    """The example of p.adjust in R: p.adjust(c(0.01, 0.02, 0.03, 0.005), "holm")."""
    assert holm([0.01, 0.02, 0.03, 0.005]) == pytest.approx([0.03, 0.04, 0.04, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_folders_of_models():
    assert model_folders(["me/a", "me-a", "../b", "."]) == ["me-a", "me-a-2", "b", "model"]


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Two saved models, and <split>/<label>/<clip>."""
    folder = tmp_path_factory.mktemp("saved")
    for kind in ("videomae", "timesformer"):
        tiny.save_tiny(folder / kind, kind)
    for i, label in enumerate(tiny.LABELS[:3]):
        for split in ("train", "test"):
            (folder / "videos" / split / label).mkdir(parents=True)
        for n in range(2):
            tiny.write_clip(folder / "videos/test" / label / f"{n}.mp4", seed=10 * i + n)
    tiny.write_clip(folder / "videos/train" / tiny.LABELS[0] / "a.mp4")
    return folder


def test_the_command_says_what_evaluate_says(saved, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(saved)
    command = ["compare", "videomae", "timesformer", "--data", "videos", "--protocol", "paper", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "hf_video.cli", *command, "--output", str(tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": str(Path(hf_video.__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    names = ("comparison.txt", "comparison.md", "comparison.html", "comparison.json", "predictions.csv")
    texts = {name: (tmp_path / "out" / name).read_text() for name in names}
    assert texts["comparison.txt"] == done.stdout
    found = json.loads(texts["comparison.json"])
    for name in ("videomae", "timesformer"):
        assert main(["evaluate", "videos", "--model", name, "--protocol", "paper", "--json", "--quiet"]) == 0
        alone = json.loads(capsys.readouterr().out)
        for key, value in alone.items():
            if key != "seconds":
                # The last bit of a logit may differ from process to process.
                expected = pytest.approx(value, rel=1e-6) if isinstance(value, float) else value
                assert found["models"][name][key] == expected, key
        row = f"{name} | {alone['top1']:.1%} | "
        assert row in texts["comparison.md"]
        assert f"<td>{alone['top1']:.1%}</td>" in texts["comparison.html"]
        assert (tmp_path / "out" / name / "report.json").exists()
    assert texts["predictions.csv"].startswith("video,videomae,timesformer\ntest/archery/0.mp4,")
    # The same command goes on from what is there, as `evaluate` does from the same folder.
    assert main([*command, "--output", str(tmp_path / "out"), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)["models"]["videomae"]
    assert (again["resumed"], again["top1"], again["clips_per_second"]) == (
        6,
        found["models"]["videomae"]["top1"],
        None,
    )


def test_a_stopped_comparison_goes_on(models, rows, tmp_path, opened):
    whole = compare_models(models, rows[:6])
    for name, stop in (("mvit", 3), ("videomae", 2)):
        left = iter(range(stop))

        def interrupt(*_, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt

        handle = models[name][0].register_forward_pre_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            compare_models(models, rows[:6], output=tmp_path)
        handle.remove()
    lines = [len(path.read_text().splitlines()) - 1 for path in sorted(tmp_path.rglob("predictions.jsonl"))]
    with open(tmp_path / "mvit/predictions.jsonl", "a") as file:
        file.write('{"video": "5.mkv", "sco')
    opened.clear()
    comparison = compare_models(models, rows[:6], output=tmp_path)
    assert min(lines) > 0
    assert len(opened) == 6 - min(lines)
    for name, report in comparison.reports.items():
        assert np.array_equal(report.scores, whole.reports[name].scores)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["videomae"], "two different models or more; videomae came"),
        (["videomae", "videomae"], "two different models"),
        (["videomae", "timesformer", "--protocol", "9x9"], "no protocol"),
        (["videomae", "gone/"], "gone"),
        (["videomae", "timesformer", "--split", "dev"], "no split 'dev'"),
    ],
)
def test_wrong_usage(saved, monkeypatch, capsys, words, message):
    monkeypatch.chdir(saved)
    assert main(["compare", *words, "--data", "videos"]) == 2
    assert message in capsys.readouterr().err


def test_models_trained_on_what_is_compared(saved, monkeypatch, capsys):
    from hf_video.data.sources.division import Division, digest

    monkeypatch.chdir(saved)
    division = Division("videos", {digest("test/archery/0.mp4"): "train"})
    division.save("timesformer")
    try:
        assert main(["compare", "videomae", "timesformer", "--data", "videos"]) == 2
        assert "1 of the 6 videos are ones that timesformer was trained on" in capsys.readouterr().err
    finally:
        Path("timesformer/split.json").unlink()
