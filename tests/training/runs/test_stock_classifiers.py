"""Fine-tuning of a video classifier that a new version of transformers could bring."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from stock_models import NewForVideoClassification, save_new
from torch.nn import functional as F

from hf_video.data.moving_glyphs import write_moving_glyphs
from hf_video.errors import ConfigError
from hf_video.training.runs.classification import finetune
from hf_video.training.runs.model_loading import find_source, load_model
from hf_video.training.runs.stock_classifiers import stock_entry

FAST = (
    "training.min_train_steps=0", "training.num_train_epochs=3", "training.per_device_train_batch_size=8",
    "training.dataloader_num_workers=0", "training.report_to=none", "training.use_cpu=true",
)  # fmt: skip


def test_the_loss_is_ours(tmp_path, monkeypatch):
    """Exact under accumulation, for soft labels too, whatever shape the logits have."""
    save_new(tmp_path, monkeypatch)
    loaded = load_model(find_source(tmp_path), labels=["a", "b", "c"], settings={"num_frames": 6})
    model, clips = loaded.model.eval(), torch.randn(4, 4, 3, 16, 16)
    assert loaded.processor.num_frames == 6
    assert model.config.frames_per_clip == 4
    assert model.accepts_loss_kwargs
    labels, soft = torch.tensor([0, 1, 2, 0]), torch.rand(4, 3).softmax(-1)
    output = model(pixel_values_videos=clips, labels=labels)
    assert output.logits.shape == (4, 3)
    torch.testing.assert_close(output.loss, F.cross_entropy(output.logits, labels))
    parts = [model(pixel_values_videos=clips[i], labels=labels[i], num_items_in_batch=4).loss for i in ([0], [1, 2, 3])]
    torch.testing.assert_close(sum(parts), output.loss)
    torch.testing.assert_close(model(pixel_values_videos=clips, labels=soft).loss, F.cross_entropy(output.logits, soft))
    model.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["architectures"] == [
        "NewForVideoClassification"
    ]
    with pytest.raises(ConfigError, match="no field 'no_such'"):
        load_model(find_source(tmp_path), labels=["a"], settings={"no_such": 1})


def test_a_run(tmp_path, monkeypatch, white_figures):
    save_new(tmp_path / "model", monkeypatch)
    write_moving_glyphs(tmp_path / "videos", 12, size=32, speed=4)
    finetune(tmp_path / "videos", tmp_path / "model", output=tmp_path / "out", settings=FAST)
    found = transformers.AutoModelForVideoClassification.from_pretrained(tmp_path / "out")
    assert type(found) is NewForVideoClassification
    classify = transformers.pipeline("video-classification", model=str(tmp_path / "out"))
    video = next((tmp_path / "videos").rglob("*.mp4"))
    assert {one["label"] for one in classify(video)} == {path.name for path in (tmp_path / "videos").iterdir()}


def test_only_classifiers():
    assert stock_entry("bert") is None
    assert stock_entry(None) is None
    assert stock_entry("no_such_type") is None
