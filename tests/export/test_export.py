"""Exports are made, loaded by pipelines, encoders and the command, and compared with the model."""

from __future__ import annotations

import itertools
import json
import pickle
import re
import shutil
import sys

import forked
import numpy as np
import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from tiny import LABELS, save_tiny, write_clip
from tiny_video_text import save_videoclip
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForVideoClassification, pipeline

import hf_video
from hf_video.base.exported import ExportedModel
from hf_video.base.saved_model import SavedVideoModel
from hf_video.cli import main
from hf_video.data.rows import VideoRows
from hf_video.errors import BackendError, CheckpointError, DataError, ModelInputError, OutputError, VideoOptionError
from hf_video.evaluation.classification import evaluate_videos
from hf_video.evaluation.model_cost import MeasuredModel
from hf_video.evaluation.protocol import Protocol
from hf_video.export import export_model, model_folder
from hf_video.export.backends import check_backend
from hf_video.export.calibration import calibration_clips, calibration_rows
from hf_video.export.graphs import graphs_of
from hf_video.features.embed import ModelLoader, load_features
from hf_video.features.vectors import clip_vectors
from hf_video.retrieval.encoders import find_encoder
from hf_video.training.runs import probe
from hf_video.visual.relevance import attention_rollout, grad_cam

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
def exports(saved, tmp_path_factory):
    """The model's export for a runtime, made once: tracing takes longer than anything else here."""
    made = {}

    def made_for(to):
        if to not in made:
            made[to] = export(saved, tmp_path_factory.mktemp(to) / "made", to)
        return made[to]

    return made_for


@pytest.fixture(scope="module")
def exported(exports):
    return exports("onnx")


def test_clips_of_another_size_than_the_models(saved, clip, tmp_path, caplog):
    """The folder's own processor makes them."""
    report = export(saved, tmp_path / "made", "onnx", num_frames=8, size=(64, 48))
    config, processor = AutoConfig.from_pretrained(report.folder), AutoImageProcessor.from_pretrained(saved)
    assert (config.num_frames, config.image_size) == (8, [64, 48])
    processor.num_frames, processor.size = 8, {"shortest_edge": 64}
    processor.crop_size = {"height": 64, "width": 48}
    expected = pipeline("video-classification", model=str(saved), image_processor=processor)(clip, top_k=None)
    caplog.clear()
    found = pipeline("video-classification", model=str(report.folder))(clip, top_k=None)
    assert not caplog.records
    assert [one["label"] for one in found] == [one["label"] for one in expected]
    assert [one["score"] for one in found] == pytest.approx([one["score"] for one in expected], abs=1e-5)


@pytest.mark.parametrize("to", BACKENDS)
def test_classifier(saved, exports, clip, to):
    report = exports(to)
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


def test_every_verb_takes_an_export(saved, exported, clip, tmp_path, capsys):
    """And says what it says of the model; training is refused."""

    def told(*words):
        assert main(list(map(str, words))) == 0
        return capsys.readouterr().out

    videos = tmp_path / "videos"
    for number in range(12):
        label = LABELS[number % 2]
        (videos / label).mkdir(parents=True, exist_ok=True)
        write_clip(videos / label / f"{number}.mkv", seed=number)
    answers = []
    for model in (saved, exported.folder):
        out = tmp_path / model.name
        rows = json.loads(told("classify", clip, "--model", model, "--json", "--top-k", 2))
        report = json.loads(told("evaluate", videos, "--model", model, "--split", "all", "--json"))
        probe = json.loads(told("probe", videos, "--model", model, "--json"))
        told("embed", videos, "--model", model, "--output", out / "features")
        told("index", videos, "--model", model, "--output", out / "index")
        found = told("search", out / "index", "--video", clip, "--json")
        answers.append(
            {
                "classify": [row["label"] for row in rows[0]["predictions"]],
                "evaluate": report["top1"],
                "probe": (probe["test_top1"], probe["train_top1"]),
                "search": [row["path"] for row in json.loads(found)],
            }
        )
        vectors = load_features(out / "features").embeddings
        answers[-1]["embed"] = pytest.approx(vectors, abs=1e-4) if model == saved else vectors
    assert answers[1] == answers[0]
    for words in (
        ["train", videos, "--output", tmp_path / "run"],
        ["pretrain", videos, "--output", tmp_path / "run"],
        ["probe", videos, "--random"],
        ["probe", videos, "--output", tmp_path / "probed"],
    ):
        assert main([*map(str, words), "--model", str(exported.folder)]) == 2
        assert "is an exported model, whose weights are in a runtime's file: it can't be" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_damaged_folders_are_told(exported, tmp_path):
    facts = json.loads((exported.folder / "export.json").read_text())
    graph = facts["graphs"]["forward"]["files"][0]
    without = [{name: value for name, value in facts.items() if name != lost} for lost in facts if lost != "int8"]
    for number, (name, text, message) in enumerate(
        [
            *(("export.json", json.dumps(one), "export.json is damaged") for one in without),
            ("export.json", json.dumps([facts]), "export.json is damaged"),
            ("export.json", json.dumps({**facts, "backend": "tomorrow"}), "exported for 'tomorrow'"),
            (graph, (exported.folder / graph).read_bytes()[:900].decode("latin-1"), "onnxruntime can't load what"),
        ]
    ):
        folder = shutil.copytree(exported.folder, tmp_path / str(number))
        (folder / "checksums.json").unlink()
        (folder / name).write_text(text, encoding="latin-1")
        with pytest.raises(CheckpointError, match=message):
            AutoModelForVideoClassification.from_pretrained(folder)


def test_exports_lie_in_the_folder_of_their_model(exported, saved, tmp_path, monkeypatch):
    """The one that is written does not get what the others there have."""
    model = shutil.copytree(saved, tmp_path / "model")
    shutil.copytree(exported.folder, model / "earlier")
    (model / "extra").mkdir()
    (model / "extra" / "chat_template.jinja").touch()
    monkeypatch.setattr(model_folder, "ROUNDS", 1)
    export(model, model / "onnx", "onnx")
    assert {one.name for one in (model / "onnx").iterdir() if one.is_dir()} == {"extra"}


@pytest.mark.parametrize("to", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_both_towers(clip, tmp_path, to):
    saved = save_videoclip(tmp_path / "saved")
    export(saved, tmp_path / "made", to)
    found = [find_encoder(str(tmp_path / name)) for name in ("saved", "made")]
    queries = [one.text_query("the ring moving left").vectors for one in found]
    np.testing.assert_allclose(queries[0], queries[1], atol=1e-5)
    videos = [one.embed(str(clip), hf_video.clips.request.parse_windows("1s/1s"))[0] for one in found]
    np.testing.assert_allclose(videos[0], videos[1], atol=1e-5)
    ids, mask = torch.randint(1, 9, (2, 6)), torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
    towers = [SavedVideoModel.from_pretrained(tmp_path / name).eval() for name in ("saved", "made")]
    with torch.no_grad():
        for inputs in ((ids,), (ids, mask), (ids.int(), mask.bool())):
            vectors = [tower.get_text_features(*inputs).pooler_output for tower in towers]
            torch.testing.assert_close(*vectors, atol=1e-5, rtol=0)
    assert found[0].identity["weights"] != found[1].identity["weights"]


def test_what_an_export_can_not_do(exported, tmp_path):
    folder = shutil.copytree(exported.folder, tmp_path / "made")
    model = AutoModelForVideoClassification.from_pretrained(folder)
    with pytest.raises(ModelInputError, match=r"this export takes \(any, 4, 3, 32, 32\)"):
        model(torch.randn(1, 8, 3, 32, 32))
    for look in (attention_rollout, grad_cam):
        with pytest.raises(CheckpointError, match="it can't be asked for"):
            look(model, torch.randn(1, 4, 3, 32, 32))
    with pytest.raises(ModelInputError, match="labels came"):
        model(pixel_values=torch.randn(1, 4, 3, 32, 32), labels=torch.tensor([1]))
    with pytest.raises(CheckpointError, match="can't be trained"):
        model.train()
    for kind in (hf_video.X3DForVideoClassification, hf_video.TwoStreamForVideoClassification):
        # A stream sees whole clips of them.
        assert type("Exported", (ExportedModel, kind), {}).frames_per_state is None
    processor = hf_video.VideoMAEImageProcessor.from_pretrained(folder)
    with pytest.raises(VideoOptionError, match="and an exported VideoMAEForVideoClassification can't"):
        evaluate_videos(model, processor, VideoRows([]), protocol=Protocol("mine", clips=2, joined=True))
    with pytest.raises(CheckpointError, match="takes float32"):
        model.to(torch.bfloat16)
    with pytest.raises(CheckpointError, match="in which use_mean_pooling can't be changed"):
        AutoModelForVideoClassification.from_pretrained(folder, use_mean_pooling=False)
    with pytest.raises(ModelInputError, match="2 inputs came"):
        model(torch.randn(1, 4, 3, 32, 32), torch.tensor([1]))
    for options, message in (
        ({"use_mean_pooling": False}, "use_mean_pooling"),
        ({"num_labels": 7}, "num_labels"),
        ({"device_map": "cuda"}, "on the CPU"),
    ):
        with pytest.raises(CheckpointError, match=message):
            hf_video.VideoMAEForVideoClassification.from_pretrained(folder, **options)
    with pytest.raises(CheckpointError, match="dtype"):
        AutoModelForVideoClassification.from_pretrained(folder, dtype=torch.bfloat16)
    with pytest.raises(CheckpointError, match="exported as VideoMAEForVideoClassification"):
        AutoModel.from_pretrained(folder)
    with pytest.raises(CheckpointError, match="an export already"):
        export_model(folder, tmp_path / "again", to="onnx")
    again = pickle.loads(pickle.dumps(model))
    assert (type(again).__mro__[1:], again.precisions) == (type(model).__mro__[1:], model.precisions)
    model.save_pretrained(tmp_path / "copy")
    pixels = torch.randn(1, 4, 3, 32, 32)
    copy = AutoModelForVideoClassification.from_pretrained(tmp_path / "copy")
    assert torch.equal(copy(pixels).logits, model(pixels).logits)
    assert torch.equal(again(pixels).logits, model(pixels).logits)
    with (measured := MeasuredModel(model)):
        measured({"pixel_values": pixels})
    assert (measured.parameters, measured.memory) == (0, None)
    names = set(model.state_dict())
    model.precisions = {"forward": "bf16"}  # as with dtype=torch.bfloat16: other numbers, other vectors
    assert not names & set(model.state_dict())
    with (folder / "model.onnx.data").open("r+b") as file:
        file.seek(100)
        file.write(b"?")
    with pytest.raises(CheckpointError, match=r"model\.onnx\.data is damaged"):
        AutoModelForVideoClassification.from_pretrained(folder)


def test_a_probe_takes_an_export_on_the_hub(exported, clip, tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "exported_on_hub", lambda name, revision: str(exported.folder))
    assert probe.load_encoder("owner/export", ["other", "classes"]).folder == exported.folder
    for split, label in itertools.product(("train", "test"), LABELS):
        (tmp_path / split / label).mkdir(parents=True)
        shutil.copy(clip, tmp_path / split / label)
    with pytest.raises(CheckpointError, match="it can't be saved with a probe"):
        probe.probe_model(tmp_path, "owner/export", output=tmp_path / "probed")


def test_errors_come_before_work(saved, tmp_path, monkeypatch):
    pytest.importorskip("nncf", reason='needs pip install "hf_video[openvino]"')
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    with pytest.raises(OutputError, match="not empty"):
        export_model(saved, tmp_path / "full", to="onnx")
    for package, int8 in (("nncf", True), ("openvino", False)):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(BackendError, match=rf'needs {package}.*pip install "hf_video\[openvino\]"'):
            check_backend("openvino", int8=int8)
    with pytest.raises(BackendError, match=r'pip install "hf_video\[openvino\]"'):
        export_model("there-is-none", tmp_path / "new", to="openvino")
    with pytest.raises(VideoOptionError, match="go together"):
        export_model("there-is-none", tmp_path / "new", to="onnx", int8=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty"):
        export_model("there-is-none", tmp_path / "new", to="onnx", int8=True, calibration=tmp_path / "empty")
    other = shutil.copytree(saved, tmp_path / "other")
    config = json.loads((other / "config.json").read_text()) | {"architectures": ["VideoMAEForPreTraining"]}
    (other / "config.json").write_text(json.dumps(config))
    (other / "checksums.json").unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match="can't be exported"):
        export_model(other, tmp_path / "new", to="onnx")
    assert not (tmp_path / "new").exists()


def test_importing_leaves_runtimes_alone():
    heavy = {"openvino", "nncf", "onnx", "onnxruntime", "onnxscript", "torchao"}
    code = (
        "import sys; there = set(sys.modules); import hf_video, hf_video.export; hf_video.VideoMAEModel; "
        f"print(*(set(sys.modules) - there) & {heavy!r}, 'end')"
    )
    done = forked.run(code, "python")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "end\n"


def test_the_encoder_of_a_detector_on_the_hub_comes_with_its_weights(tmp_path, monkeypatch):
    files = [f"{folder}{name}" for folder in ("", "encoder/") for name in ("config.json", "model.safetensors")]

    def fetch(name, *, revision, **patterns):
        for file in filter_repo_objects(files, **patterns):
            path = tmp_path / "cache" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return str(tmp_path / "cache")

    monkeypatch.setattr(model_folder, "snapshot_download", fetch)
    model_folder._copy_files("owner/detector", tmp_path / "made", None)
    made = {path.relative_to(tmp_path / "made").as_posix() for path in (tmp_path / "made").rglob("*.*")}
    assert made == set(files) - {"model.safetensors"}


@pytest.fixture
def videos(tmp_path):
    (tmp_path / "videos").mkdir()
    for seed in range(4):
        write_clip(tmp_path / "videos" / f"{seed}.mkv", seed=seed)
    return tmp_path / "videos"


@pytest.mark.parametrize("to", BACKENDS)
def test_int8(saved, exports, videos, clip, tmp_path, monkeypatch, capsys, to):
    """Made by the command, used by the command; what it costs stands in the card, and too much is refused."""
    float32 = exports(to).folder
    options = ["--to", to, "--int8", "--calibration", str(videos), "--output"]
    assert main(["export", str(saved), *options, str(tmp_path / "made")]) == 0
    assert "100% of the weights in 8 bits" in capsys.readouterr().err
    weights = [sum(f.stat().st_size for f in d.glob("*model*.[bod]*")) for d in (float32, tmp_path / "made")]
    assert weights[1] < 0.6 * weights[0]
    card = (tmp_path / "made" / "README.md").read_text()
    assert "8 bits, 100% of weights | 4 |" in card
    answers = []
    for model in (saved, tmp_path / "made"):
        assert main(["classify", str(clip), "--model", str(model), "--json", "--top-k", "0"]) == 0
        rows = json.loads(capsys.readouterr().out)[0]["predictions"]
        answers.append({row["label"]: row["score"] for row in rows})
    assert max(abs(answers[1][label] - score) for label, score in answers[0].items()) < 0.2
    assert answers[0] != answers[1]
    if to == "openvino":
        return
    sizes = ["--num-frames", "6", "--size", "48x32"]
    assert main(["export", str(saved), *options, str(tmp_path / "others"), *sizes]) == 0
    assert main(["classify", str(clip), "--model", str(tmp_path / "others")]) == 0
    monkeypatch.setattr("hf_video.export.model_folder.INT8_BOUND", 0.0)
    assert main(["export", str(saved), *options, str(tmp_path / "more")]) == 2
    assert re.search(r"in 8 bits is off by \d+\.\d% .* on the 4 calibration clips", capsys.readouterr().err)
    assert not (tmp_path / "more").exists()


@pytest.mark.slow
def test_a_tower_of_texts_stays_in_float32(videos, tmp_path):
    """Also where OpenVINO takes bfloat16 for what 8 bits leave: it would be further off than float32 may be."""
    saved = save_videoclip(tmp_path / "saved")
    pytest.importorskip("nncf", reason='needs pip install "hf_video[openvino]"')
    report = export(saved, tmp_path / "made", "openvino", int8=True, calibration=videos)
    assert [one.int8_share is None for one in report.agreements] == [False, True]
    found = [find_encoder(str(tmp_path / name)) for name in ("saved", "made")]
    queries = [one.text_query("the ring moving left").vectors for one in found]
    np.testing.assert_allclose(queries[0], queries[1], atol=1e-5)


def test_calibration_reads_what_the_pipeline_reads(saved, videos):
    classify = pipeline("video-classification", model=str(saved))
    (graph,) = graphs_of(classify.model)
    rows = calibration_rows(videos)
    clips = calibration_clips(classify.model, rows, graph, None)
    for row, made in zip(rows, clips, strict=True):
        assert torch.equal(made["pixel_values"], classify.preprocess(row.source)["pixel_values"])
    assert [row.name for row in calibration_rows(videos, most=2)] == ["0.mkv", "2.mkv"]
    with pytest.raises(ModelInputError, match=r"processor makes pixel_values of shape \(1, 8, 3, 32"):
        calibration_clips(classify.model, rows, graph, 8)
    (videos / "9.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match=r"can't be read, take it out: .*9\.mp4"):
        calibration_clips(classify.model, calibration_rows(videos), graph, None)


def test_an_export_that_is_off_is_refused(saved, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_video.export.model_folder.BOUND", -1.0)
    monkeypatch.setattr("hf_video.export.model_folder.ROUNDS", 1)
    with pytest.raises(CheckpointError, match="Nothing was kept"):
        export_model(saved, tmp_path / "made", to="onnx")
    assert not (tmp_path / "made").exists()
