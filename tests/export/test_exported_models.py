"""Every model of the registry for every runtime: exported, loaded by its pipeline and compared, or refused."""

from __future__ import annotations

import evaluation_models
import numpy as np
import pytest
import tiny
import tiny_video_text
import torch
from contract import randomise
from tiny_text import tiny_tokenizer
from transformers import AutoImageProcessor, pipeline

import hf_video
from hf_video.base.saved_model import SavedVideoModel
from hf_video.errors import CheckpointError, ModelInputError
from hf_video.export import export_model
from hf_video.registry import DETECTORS

SIZES = {"size": {"height": 32, "width": 32}, "crop_size": {"height": 32, "width": 32}}
NEEDS = {"openvino": ("openvino",), "onnx": ("onnxscript", "onnxruntime")}
TASKS = {"s3d": "video-feature-extraction", "videoclip": "zero-shot-video-classification"}
TASKS["videoprism"] = TASKS["videoclip"]
DETECTOR = {
    **{"input_size": 12, "hidden_size": 32, "neck_size": 32, "head_size": 32, "max_length": 16, "branch_layers": 1},
    **{"num_labels": 3},
}
OF_EVENTS = {
    "actionformer": {**DETECTOR, "window_size": 5, "num_attention_heads": 4},
    "tridet": {**DETECTOR, "num_bins": 4, "intermediate_size": 48, "kernel_std": 0.3},
}
EXPORTED = [*evaluation_models.CONFIGS, *TASKS, *OF_EVENTS]
REFUSED = ("violet", "adatad", "mil_ranking", "moment_detr", "rtfm")
# Variants of types that are there; two with some hundred layers, the tracing of which takes half a minute; VideoMAE,
# which is test_export.py's; and VideoPrism's video tower, of which its pair of towers makes a graph too.
SLOW = {"mvit-large", "two_stream-rgb", "i3d", "s3d", "videomae", "videoprism_vision_model"}
# Another runtime's file is made of the same traced program: by default of one of each kind of layers.
ONNX = {"video_swin", "c3d", "actionformer"}


def save(name, folder):
    if name in evaluation_models.CONFIGS:
        model, processor = evaluation_models.make(name)
        model.float().save_pretrained(folder)
        processor.save_pretrained(folder)
    elif name == "videoclip":
        tiny_video_text.save_videoclip(folder)
    elif name == "videoprism":
        video = {"image_size": 32, **evaluation_models.CONFIGS["videoprism_vision_model"], "num_auxiliary_layers": 1}
        text = {"vocab_size": 60, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 16}
        text |= {"hidden_size": 24, "intermediate_size": 16}
        config = hf_video.VideoPrismConfig(vision_config=video, text_config=text)
        randomise(hf_video.VideoPrismClipModel(config)).save_pretrained(folder)
        hf_video.VideoPrismProcessor(hf_video.VideoPrismVideoProcessor(**SIZES), tiny_tokenizer()).save_pretrained(
            folder
        )
    elif name == "s3d":
        # OpenVINO has no pooling over maps that are smaller than its window.
        config = hf_video.S3DConfig(stem_channels=4, projection_dim=8, num_frames=32, image_size=96)
        randomise(hf_video.S3DModel(config)).save_pretrained(folder)
        size = {"height": 96, "width": 96}
        hf_video.S3DImageProcessor(size=size, crop_size=size, num_frames=32).save_pretrained(folder)
    else:
        row = DETECTORS[name]
        model = row.load(row.class_names[-1])(row.load(row.config)(**OF_EVENTS[name]))
        randomise(model).save_pretrained(folder)
    return folder


def cases():
    for name in EXPORTED:
        for to in NEEDS:
            slow = name in SLOW or (to == "onnx" and name not in ONNX)
            yield pytest.param(name, to, id=f"{name}-{to}", marks=[pytest.mark.slow] * slow)


@pytest.mark.parametrize(("name", "to"), cases())
def test_export_is_loaded_and_says_the_same(name, to, tmp_path, monkeypatch):
    for package in NEEDS[to]:
        pytest.importorskip(package, reason=f'needs pip install "hf_video[{to}]"')
    monkeypatch.setattr("hf_video.export.model_folder.ROUNDS", 1)
    saved = save(name, tmp_path / "saved")
    size = (32, 32) if name.startswith("two_stream") else None  # its configuration takes the processor's for granted
    report = export_model(saved, tmp_path / "made", to=to, size=size)
    assert all(one.relative < 1e-4 for one in report.agreements)
    folders = [str(saved), str(report.folder)]
    if name in OF_EVENTS:
        # Three sequences shorter than the graph's, of two lengths.
        features, mask = torch.randn(3, 12, 12), torch.arange(12) < torch.tensor([[12], [9], [12]])
        models = [SavedVideoModel.from_pretrained(folder).eval() for folder in folders]
        with torch.no_grad():
            expected, found = (model.find_segments(model(features, mask)) for model in models)
        for a, b in zip(found, expected, strict=True):
            assert len(a.scores)
            torch.testing.assert_close(a.scores, b.scores, atol=1e-4, rtol=0)
            torch.testing.assert_close(a.segments, b.segments, atol=1e-3, rtol=0)
        return
    clip = str(tiny.write_clip(tmp_path / "clip.mkv", 40))
    task = TASKS.get(name, "video-classification")
    labels = {"candidate_labels": ["moving left", "right"]} if task.startswith("zero") else {}
    if name == "videoprism":  # whose model then masks nothing, not even what comes later
        with pytest.raises(ModelInputError, match="attention_mask is missing"):
            SavedVideoModel.from_pretrained(report.folder).get_text_features(torch.ones(1, 16, dtype=torch.long))
    expected, found = (pipeline(task, model=folder)(clip, **labels) for folder in folders)
    if task == "video-feature-extraction":
        np.testing.assert_allclose(found, expected, atol=1e-5)
        return
    for a, b in zip(found, expected, strict=True):
        assert a["label"] == b["label"]
        assert a["score"] == pytest.approx(b["score"], abs=1e-5)


def test_clips_are_those_of_the_processor(tmp_path, monkeypatch):
    """As everywhere, also where the configuration says others."""
    for package in NEEDS["onnx"]:
        pytest.importorskip(package, reason='needs pip install "hf_video[onnx]"')
    monkeypatch.setattr("hf_video.export.model_folder.ROUNDS", 1)
    saved = save("videomae", tmp_path / "saved")
    processor = AutoImageProcessor.from_pretrained(saved)
    processor.num_frames, processor.crop_size = 6, {"height": 32, "width": 48}
    processor.save_pretrained(saved)
    report = export_model(saved, tmp_path / "made", to="onnx")
    clip = str(tiny.write_clip(tmp_path / "clip.mkv"))
    expected, found = (pipeline("video-classification", model=str(one))(clip) for one in (saved, report.folder))
    assert [one["label"] for one in found] == [one["label"] for one in expected]
    assert [one["score"] for one in found] == pytest.approx([one["score"] for one in expected], abs=1e-5)


@pytest.mark.parametrize("name", REFUSED)
def test_others_are_refused_before_work(name, tmp_path, monkeypatch):
    row = (hf_video.MODELS | DETECTORS)[name]
    monkeypatch.setattr("hf_video.export.model_folder.check_backend", lambda *_, **__: None)
    if name == "violet":
        tiny_video_text.save_violet(tmp_path / "saved")
    else:
        small = {"video_config": evaluation_models.CONFIGS["videomae"]} if name == "adatad" else {}
        row.load(row.class_names[-1] if name != "adatad" else row.class_names[1])(
            row.load(row.config)(**small)
        ).save_pretrained(tmp_path / "saved")
    with pytest.raises(CheckpointError, match=r"can't be exported\. These can:"):
        export_model(tmp_path / "saved", tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_every_model_is_here():
    assert {name.partition("-")[0] for name in EXPORTED} | set(REFUSED) == {*hf_video.MODELS, *DETECTORS}
