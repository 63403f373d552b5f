"""The log on the screen, and the picture of it."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from hf_video.training.callbacks import evaluation
from hf_video.training.runs.summary import training_curve
from tests.training.small import Rows, trainer

LINE = re.compile(
    r"step (\d+)/(\d+)  epoch \d+\.\d\d  loss \d\.\d{4}  lr \d\.\d\de[-+]\d\d  [\d.]+ clips/s(  [\d.]+ (s|min|h) left)?"
)


@pytest.fixture(scope="module", autouse=True)
def quick_figures():
    """They are drawn here."""


@pytest.fixture
def printed(tmp_path, capsys):
    def run(**changes):
        made = trainer(tmp_path, eval_rows=Rows(6), **changes)
        made.train()
        return made, capsys.readouterr().out.splitlines()

    return run


def test_a_line_for_each_log_and_for_each_evaluation(printed):
    _, lines = printed(max_steps=6, logging_steps=2, eval_strategy="steps", eval_steps=3)
    steps = [LINE.fullmatch(line) for line in lines if "loss" in line and "held out" not in line]
    assert [match[1] for match in steps] == ["2", "4", "6"]
    assert all(match[2] == "6" for match in steps)
    assert [bool(match[3]) for match in steps] == [True, True, False]
    held_out = [line for line in lines if "held out" in line]
    assert len(held_out) == 2
    assert re.fullmatch(r"step 3/6  held out: loss [\d.]+", held_out[0])
    assert not [line for line in lines if "{" in line]


def test_a_long_training_prints_few_lines_and_logs_all(printed):
    made, lines = printed(max_steps=30, logging_steps=1, log_lines=5)
    steps = [int(LINE.fullmatch(line)[1]) for line in lines if line.startswith("step")]
    assert steps == [6, 12, 18, 24, 30]
    assert len([row for row in made.state.log_history if "loss" in row]) == 30


def test_a_progress_bar_keeps_the_lines(printed):
    _, lines = printed(max_steps=4, logging_steps=2, disable_tqdm=False)
    assert [LINE.fullmatch(line)[1] for line in lines if line.startswith("step")] == ["2", "4"]


def test_the_numbers_of_an_evaluation():
    logs = {"eval_loss": 0.5, "eval_accuracy": 0.25, "eval_runtime": 3.0, "eval_samples_per_second": 9, "epoch": 1.0}
    assert evaluation(logs) == "held out: loss 0.5, accuracy 0.25"
    assert evaluation({"test_text_to_video_R1": 0.5}) == "test: text_to_video_R1 0.5"
    assert evaluation({"probe_top1": 0.5}) == "measured: probe_top1 0.5"


def test_the_curve_shows_what_was_logged(tmp_path):
    history = [{"step": step, "loss": 2 - step / 10, "learning_rate": 1e-3} for step in range(1, 11)]
    plain = np.asarray(Image.open(training_curve(history, tmp_path)))
    history += [{"step": 5, "eval_loss": 1.8, "eval_accuracy": 0.5}, {"step": 10, "eval_loss": 1.5, "eval_accuracy": 1}]
    full = np.asarray(Image.open(training_curve(history, tmp_path)))
    assert full.shape[0] > plain.shape[0]  # a panel for the accuracy
    blue = (full[..., 2].astype(int) - full[..., 0] > 150).sum()
    assert blue > 500
    assert not (plain[..., 2].astype(int) - plain[..., 0] > 150).any()
    assert training_curve([{"step": 1, "train_runtime": 1.0}], tmp_path / "none") is None
