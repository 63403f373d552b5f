"""Exports are made, loaded by pipelines, encoders and the command, and compared with the model."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from tiny import save_tiny, write_clip
from tiny_video_text import save_videoclip
from transformers import AutoModel, AutoModelForVideoClassification, pipeline

import hf_video
from hf_video.cli import main
from hf_video.errors import BackendError, CheckpointError, ModelInputError, OutputError
from hf_video.export import export_model
from hf_video.features.embed import ModelLoader
from hf_video.features.vectors import clip_vectors
from hf_video.retrieval.encoders import find_encoder

BACKENDS = ("onnx", "openvino")
NEEDS = {"openvino": "openvino", "onnx": "onnxruntime"}


def export(model, folder, to, **options):
    for package in {NEEDS[to], *({"onnxscript"} if to == "onnx" else ())}:
        pytest.importorskip(package, reason=f'needs pip install "hf_video[{to}]"')
    return export_model(model, folder, to=to, **options)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mkv")


@pytest.fixture(scope="module")
def exported(saved, tmp_path_factory):
    """For ONNX Runtime; tracing takes longer than anything else here."""
    return export(saved, tmp_path_factory.mktemp("exported") / "made", "onnx")


@pytest.mark.parametrize("to", BACKENDS)
def test_classifier(saved, exported, clip, tmp_path, to):
    report = exported if to == "onnx" else export(saved, tmp_path / "made", to)
    (agreement,) = report.agreements
    assert agreement.relative < 1e-4
    assert agreement.same_label == 1
    options = {"top_k": None, "views": "2x3"}
    expected = pipeline("video-classification", model=str(saved))(str(clip), **options)
    found = pipeline("video-classification", model=str(report.folder))(str(clip), **options)
    for a, b in zip(found, expected, strict=True):
        assert a["label"] == b["label"]
        assert a["score"] == pytest.approx(b["score"], abs=1e-5)
    pixels = torch.randn(5, 4, 3, 32, 32)
    vectors = [
        clip_vectors(ModelLoader(str(f), device="cpu")()[0], {"pixel_values": pixels}) for f in (saved, report.folder)
    ]
    torch.testing.assert_close(*vectors, atol=1e-4, rtol=0)
    assert "largest difference" in (report.folder / "README.md").read_text()


@pytest.mark.slow
def test_command_classifies_by_an_export(saved, clip, tmp_path, capsys):
    assert main(["export", str(saved), "--to", "onnx", "--output", str(tmp_path / "made")]) == 0
    assert "largest difference from torch" in capsys.readouterr().err
    answers = []
    for model in (saved, tmp_path / "made"):
        assert main(["classify", str(clip), "--model", str(model), "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    assert [one["label"] for one in answers[0][0]["predictions"]] == [
        one["label"] for one in answers[1][0]["predictions"]
    ]


@pytest.mark.parametrize("to", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_both_towers(clip, tmp_path, to):
    saved = save_videoclip(tmp_path / "saved")
    export(saved, tmp_path / "made", to)
    found = [find_encoder(str(tmp_path / name)) for name in ("saved", "made")]
    queries = [one.text_query("the ring moving left").vectors for one in found]
    np.testing.assert_allclose(queries[0], queries[1], atol=1e-5)
    videos = [one.embed(str(clip), hf_video.clips.request.parse_windows("1s/1s"))[0] for one in found]
    np.testing.assert_allclose(videos[0], videos[1], atol=1e-5)
    assert found[0].identity["weights"] != found[1].identity["weights"]


def test_what_an_export_can_not_do(exported, tmp_path):
    folder = shutil.copytree(exported.folder, tmp_path / "made")
    model = AutoModelForVideoClassification.from_pretrained(folder)
    with pytest.raises(ModelInputError, match=r"this export takes \(any, 4, 3, 32, 32\)"):
        model(torch.randn(1, 8, 3, 32, 32))
    with pytest.raises(ModelInputError, match="labels came"):
        model(pixel_values=torch.randn(1, 4, 3, 32, 32), labels=torch.tensor([1]))
    with pytest.raises(CheckpointError, match="can't be trained"):
        model.train()
    with pytest.raises(CheckpointError, match="takes float32"):
        model.to(torch.bfloat16)
    with pytest.raises(CheckpointError, match="dtype"):
        AutoModelForVideoClassification.from_pretrained(folder, dtype=torch.bfloat16)
    with pytest.raises(CheckpointError, match="exported as VideoMAEForVideoClassification"):
        AutoModel.from_pretrained(folder)
    with pytest.raises(CheckpointError, match="an export already"):
        export_model(folder, tmp_path / "again", to="onnx")
    model.save_pretrained(tmp_path / "copy")
    pixels = torch.randn(1, 4, 3, 32, 32)
    copy = AutoModelForVideoClassification.from_pretrained(tmp_path / "copy")
    assert torch.equal(copy(pixels).logits, model(pixels).logits)
    with (folder / "model.onnx.data").open("r+b") as file:
        file.seek(100)
        file.write(b"?")
    with pytest.raises(CheckpointError, match=r"model\.onnx\.data is damaged"):
        AutoModelForVideoClassification.from_pretrained(folder)


def test_errors_come_before_work(saved, tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    with pytest.raises(OutputError, match="not empty"):
        export_model(saved, tmp_path / "full", to="onnx")
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(BackendError, match=r'pip install "hf_video\[openvino\]"'):
        export_model("there-is-none", tmp_path / "new", to="openvino")
    other = shutil.copytree(saved, tmp_path / "other")
    config = json.loads((other / "config.json").read_text()) | {"architectures": ["VideoMAEForPreTraining"]}
    (other / "config.json").write_text(json.dumps(config))
    (other / "checksums.json").unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match="can't be exported"):
        export_model(other, tmp_path / "new", to="onnx")
    assert not (tmp_path / "new").exists()


def test_an_export_that_is_off_is_refused(saved, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_video.export.model_folder.BOUND", -1.0)
    monkeypatch.setattr("hf_video.export.model_folder.ROUNDS", 1)
    with pytest.raises(CheckpointError, match="Nothing was kept"):
        export_model(saved, tmp_path / "made", to="onnx")
    assert not (tmp_path / "made").exists()
