"""What training reports, and to whom."""

from __future__ import annotations

import importlib.util
import mmap

import pytest
import tiny
import torch

from hf_video.data import VideoDataset, VideoRows
from hf_video.data.rows import VideoRow
from hf_video.errors import ConfigError
from hf_video.training.measurement import default_report_to, memory_figures, reporters

BLOCK = 256 * 2**20  # bytes


class TestMemory:
    def test_what_is_held_is_counted_and_the_peak_stays(self):
        before = memory_figures()
        # Pages asked of the system itself: malloc may serve a tensor from a hole that an earlier test left.
        with mmap.mmap(-1, BLOCK) as held:
            for page in range(0, BLOCK, mmap.PAGESIZE):
                held[page] = 1
            during = memory_figures()
        after = memory_figures()
        assert during["memory_gb"] - before["memory_gb"] == pytest.approx(0.25, abs=0.05)
        assert during["memory_gb"] - after["memory_gb"] == pytest.approx(0.25, abs=0.05)
        assert after["memory_peak_gb"] >= during["memory_gb"] - 0.01

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    def test_gpu(self):
        before = memory_figures()["gpu_memory_gb"]
        held = torch.ones(BLOCK, dtype=torch.uint8, device="cuda")
        during = memory_figures()
        assert during["gpu_memory_gb"] - before == pytest.approx(BLOCK / 2**30, abs=0.01)
        del held
        assert memory_figures()["gpu_memory_peak_gb"] >= during["gpu_memory_gb"]


class TestReporters:
    def test_default_is_tensorboard_where_it_is_installed(self, monkeypatch):
        assert default_report_to() == reporters(None) == ["tensorboard"]
        find = importlib.util.find_spec
        hidden = ("tensorboard", "tensorboardX")
        monkeypatch.setattr(
            "hf_video.training.measurement.find_spec", lambda name: None if name in hidden else find(name)
        )
        assert default_report_to() == reporters(None) == []
        with pytest.raises(ConfigError, match="pip install tensorboard"):
            reporters("tensorboard")

    def test_names(self):
        assert reporters("none") == []
        assert reporters(["tensorboard"]) == ["tensorboard"]
        assert "tensorboard" in reporters("all")
        with pytest.raises(ConfigError, match=r"'wandbb' is not known.*trackio, wandb"):
            reporters("wandbb")

    @pytest.mark.parametrize("name", ["wandb", "trackio"])
    def test_a_missing_package_is_told_before_training(self, name):
        if importlib.util.find_spec(name):
            assert reporters(name) == [name]
        else:
            with pytest.raises(ConfigError, match=f"pip install {name}"):
                reporters(["tensorboard", name])


def test_tensorboard_has_speed_waiting_and_memory(model, tmp_path):
    """What `VideoTrainer` logs is really in the event file."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from transformers import AutoImageProcessor, AutoModelForVideoClassification

    from hf_video.training import VideoTrainer, VideoTrainingArguments

    clips = [tiny.write_clip(tmp_path / f"{i}.mp4", seed=i) for i in range(4)]
    processor = AutoImageProcessor.from_pretrained(model)
    rows = VideoRows([VideoRow(str(clip), i % 2, clip.name) for i, clip in enumerate(clips)], tiny.LABELS)
    arguments = VideoTrainingArguments(
        str(tmp_path / "run"),
        max_steps=2,
        logging_steps=1,
        per_device_train_batch_size=2,
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
    )
    network = AutoModelForVideoClassification.from_pretrained(model)
    trainer = VideoTrainer(network, arguments, train_dataset=VideoDataset(rows, processor), processing_class=processor)
    trainer.train()
    (file,) = (tmp_path / "run/runs").rglob("events.out.tfevents.*")
    events = EventAccumulator(str(file)).Reload()
    for name in ("loss", "clips_per_second", "decode_wait", "memory_gb", "memory_peak_gb"):
        values = [event.value for event in events.Scalars(f"train/{name}")]
        assert len(values) >= 2, name
        assert all(value > 0 for value in values), name
        logged = [row[name] for row in trainer.state.log_history if name in row]
        assert values == pytest.approx(logged[: len(values)], rel=1e-5), name
    assert all(0 <= event.value <= 1 for event in events.Scalars("train/decode_wait"))
