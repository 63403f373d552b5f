"""What a training costs is known before it begins: memory, time, disk; what is absurd is asked or refused."""

from __future__ import annotations

import json
import re

import pytest
import torch
from torch import nn

from hf_video.cli import main
from hf_video.data.moving_glyphs import write_moving_glyphs
from hf_video.errors import ConfigError
from hf_video.training import measurement, plan
from hf_video.training.measurement import measure_batch, weight_bytes
from hf_video.training.plan import TrainingPlan, confirm, warn_of_random_weights
from hf_video.training.runs.classification import finetune
from hf_video.training.runs.model_loading import find_source, load_model
from tests.training.small import classifier, trainer

TINY = {
    "model_type": "videomae", "image_size": 16, "patch_size": 8, "num_frames": 2, "hidden_size": 8,
    "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 16,
}  # fmt: skip
FAST = (
    "training.max_steps=2", "training.per_device_train_batch_size=4", "training.dataloader_num_workers=0",
    "training.report_to=none", "training.use_cpu=true",
)  # fmt: skip


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    write_moving_glyphs(folder, 12, num_frames=4, size=16)
    (folder / "tiny.json").write_text(json.dumps(TINY))
    return folder


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.wide, self.narrow, self.norm = nn.Linear(10, 100), nn.Linear(100, 5), nn.BatchNorm1d(5)

    def forward(self, x):
        return self.norm(torch.nn.functional.gelu(self.wide(x)) @ self.narrow.weight.T)


def test_what_a_backward_needs_is_counted_and_nothing_changes():
    model = Mlp().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    kept, _ = measurement._one_clip(model, {"x": torch.ones(6, 10)})
    # Of one row, in floats: its ten numbers, a hundred before and after the GELU, five that the norm sees.
    assert kept >= 4 * (10 + 100 + 100 + 5)
    assert kept < 1.5 * 4 * (10 + 100 + 100 + 5)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_memory_grows_with_the_batch_and_the_optimiser(tmp_path):
    small, large = (measure_batch(trainer(tmp_path, per_device_train_batch_size=size)) for size in (2, 16))
    averaged = measure_batch(trainer(tmp_path, per_device_train_batch_size=2, ema_decay=0.9))
    weights = 4 * sum(p.numel() for p in classifier().parameters())
    assert averaged.bytes_needed - small.bytes_needed == weights
    per_clip = (large.bytes_needed - small.bytes_needed) / 14
    assert small.bytes_needed == pytest.approx(3 * weights + 2 * per_clip, rel=0.01)
    assert per_clip > 4 * 3 * 4 * 16 * 16  # more than the pixels


def test_weights_are_counted_without_any_memory(clips):
    source = find_source("videomae:base")
    seen = []
    with pytest.raises(ZeroDivisionError):
        load_model(source, labels=["a", "b"], before=lambda *made: seen.append(weight_bytes(*made)) or 1 / 0)
    assert seen[0][0] == pytest.approx(86.2e6, rel=0.01)
    assert seen[0][1] == 4 * seen[0][0]


@pytest.fixture
def little_memory(monkeypatch):
    monkeypatch.setattr(measurement, "available_memory", lambda device: 10**6)


class TestRefusals:
    def refused(self, typed, capsys):
        assert main(typed) == 2
        captured = capsys.readouterr()
        assert "--yes" in captured.err
        return captured

    def typed(self, clips, tmp_path, *more, settings=FAST):
        model = ["train", str(clips), "--output", str(tmp_path / "run"), *more]
        return [*model, *[part for setting in settings for part in ("--set", setting)]]

    def test_a_model_that_does_not_fit_is_refused_before_it_is_made(
        self, clips, tmp_path, capsys, little_memory, monkeypatch
    ):
        monkeypatch.setattr(measurement, "training_bytes", lambda size, args: 4 * size)
        captured = self.refused(self.typed(clips, tmp_path, "--model", "videomae"), capsys)
        assert captured.out.startswith("The data\n  videos    8 train, 4 test\n")
        assert "Measuring" in captured.out
        assert "1.4 GB" in captured.err
        assert not (tmp_path / "run").exists()

    def test_a_batch_that_does_not_fit(self, clips, tmp_path, capsys, little_memory, monkeypatch):
        monkeypatch.setattr(measurement, "available_memory", lambda device: 80_000)
        captured = self.refused(self.typed(clips, tmp_path, "--model", str(clips / "tiny.json")), capsys)
        assert "per_device_train_batch_size, now 4" in captured.err
        assert not (tmp_path / "run" / "run.json").exists()

    def test_a_time_that_is_absurd_and_yes(self, clips, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(plan, "LONG", 1e-9)
        typed = self.typed(clips, tmp_path, "--model", str(clips / "tiny.json"))
        assert re.search(r"takes about \d s on cpu", self.refused(typed, capsys).err)
        assert main([*typed, "--yes"]) == 0

    def test_a_disk_without_room(self, clips, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(plan.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 100})())
        typed = self.typed(clips, tmp_path, "--model", str(clips / "tiny.json"))
        assert "save_total_limit=1" in self.refused(typed, capsys).err


def test_a_refused_plan_leaves_the_old_model_alone(clips, tmp_path, monkeypatch):
    output = tmp_path / "run"
    finetune(clips, clips / "tiny.json", output=output, settings=FAST)
    before = {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()}
    monkeypatch.setattr(plan, "LONG", 1e-9)
    with pytest.raises(ConfigError, match="--yes"):
        finetune(clips, clips / "tiny.json", output=output, settings=FAST, overwrite=True)
    assert {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()} == before


@pytest.mark.parametrize(("answer", "goes_on"), [("y", True), ("yes", True), ("", False), ("n", False)])
def test_at_a_terminal_it_is_asked(answer, goes_on, monkeypatch):
    monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": lambda self: True})())
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: answer)
    if goes_on:
        confirm(TrainingPlan(concerns=["Long."]), yes=False)
    else:
        with pytest.raises(ConfigError, match="Nothing was trained"):
            confirm(TrainingPlan(concerns=["Long."]), yes=False)


def test_random_weights_that_cannot_learn_from_so_few_videos():
    with torch.device("meta"):
        model = load_start_model("videomae")
    told = TrainingPlan()
    warn_of_random_weights(told, model, 53)
    assert "86 million random weights won't learn from 53 videos" in told.warnings[0]
    assert "MCG-NJU/videomae-base" in told.warnings[0]
    told = TrainingPlan()
    warn_of_random_weights(told, classifier(), 53)
    assert not told.warnings


def load_start_model(name):
    import hf_video

    return hf_video.VideoMAEForVideoClassification(hf_video.VideoMAEConfig())
