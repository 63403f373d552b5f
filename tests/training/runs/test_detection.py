"""Training of detectors: from features or videos to a folder that finds events; what can't work is refused before."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hf_video import cli
from hf_video.clips.grid import FeatureGrid
from hf_video.data.sources.event_files import Event
from hf_video.data.sources.events import EventRow
from hf_video.errors import CheckpointError, ConfigError, DataError, HFVideoError
from hf_video.evaluation.detection.run import evaluate_detector, load_detector
from hf_video.features.events import find_events
from hf_video.features.sequences import FeatureSequence
from hf_video.models.actionformer.configuration_actionformer import ActionFormerConfig
from hf_video.training.detection_sizes import fit_grid, fit_to_events
from hf_video.training.runs.detection import train_detector
from hf_video.training.segments import Crop, SegmentCollator, SegmentDataset

CLASSES = ("jump", "run")
FAST = (
    *(
        "training.num_train_epochs=30",
        "training.min_train_steps=0",
        "training.learning_rate=4e-3",
        "model.hidden_size=32",
    ),
    *("model.neck_size=32", "model.head_size=32", "model.window_size=5", "training.eval_steps=0.5"),
    *("training.save_steps=0.5", "training.use_cpu=true", "training.report_to=none"),
)

SHORT = {"minutes": (0.1, 0.15), "size": 32, "test": 1, "lengths": (0.5, 2), "pauses": (0.5, 1)}


def write_features(folder, videos=10, *, scale=1.0, subsets=True, seed=0):
    """Features at one a second (stride 30 of 30 frames a second) that tell what happens, of any scale."""
    rng = np.random.default_rng(seed)
    (folder / "features").mkdir(parents=True, exist_ok=True)
    kinds = rng.normal(size=(3, 8))
    database = {}
    for number in range(videos):
        steps, events, place = 96, [], int(rng.integers(2, 6))
        what = np.full(steps, 2)
        while place + 14 < steps:
            label, length = int(rng.integers(2)), int(rng.integers(4, 12))
            events.append({"label": CLASSES[label], "segment": [place, place + length]})
            what[place : place + length] = label
            place += length + int(rng.integers(3, 8))
        vectors = (kinds[what] + 0.2 * rng.normal(size=(steps, 8))) * scale + 5 * scale
        np.save(folder / "features" / f"v{number}.npy", vectors.astype(np.float32))
        about = {"duration": float(steps), "fps": 30, "annotations": events}
        part = "validation" if number >= videos - 3 else "training"
        database[f"v{number}"] = {**about, **({"subset": part} if subsets else {})}
    path = folder / "events.json"
    path.write_text(json.dumps({"database": database}))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector")
    annotations = write_features(folder, scale=1000.0)
    summary = train_detector(
        folder / "features", annotations, grid="30/30", output=folder / "out", settings=FAST, yes=True
    )
    return folder, annotations, summary


def test_a_detector_learns_from_features_of_any_scale(trained):
    folder, annotations, summary = trained
    found = summary["evaluation"]["validation"]
    assert found["mAP@0.5"] > 0.85
    assert found["mean_average_precision"] == pytest.approx(found["mAP"])
    report = evaluate_detector(folder / "out", folder / "features", annotations)
    assert report.measures()["mAP@0.5"] == pytest.approx(found["mAP@0.5"], abs=1e-6)
    assert (report.found, report.total) == (3, 3)


def test_the_folder_is_a_whole_run(trained):
    folder, _, summary = trained
    files = (
        "config.json",
        "model.safetensors",
        "training_summary.json",
        "training_curve.png",
        "processor_config.json",
        "run.json",
        "split.json",
    )
    reports = ("report.json", "precision_recall.png")
    for name in (*files, *(f"evaluation/validation/{one}" for one in reports)):
        assert (folder / "out" / name).exists(), name
    assert not (folder / "out" / "UNFINISHED").exists()
    card = (folder / "out" / "README.md").read_text()
    for words in (
        'pipeline("temporal-action-detection", model="out")',
        "finds events in videos",
        "a vector for 30 frames, a new one every 30",
        "type: temporal-action-detection",
        "| run |",
        "precision_recall.png",
    ):
        assert words in card, words
    model = load_detector(folder / "out")
    assert list(model.config.id2label.values()) == list(CLASSES)
    assert (model.config.feature_stride, model.config.feature_frames, model.config.feature_fps) == (30, 30, 30)
    assert summary["task"] == "detection"
    best = json.loads((folder / "out" / "training_summary.json").read_text())["evaluation"]["validation"]["mAP"]
    states = [json.loads(path.read_text()) for path in (folder / "out").glob("checkpoint-*/trainer_state.json")]
    assert best == pytest.approx(max(state["best_metric"] for state in states), abs=1e-6)


@pytest.mark.slow
def test_a_run_that_broke_off_goes_on_to_the_same_weights(tmp_path):
    annotations = write_features(tmp_path, videos=6)
    settings = [*FAST[1:], "training.num_train_epochs=6", "training.save_total_limit=5"]
    data, out = (tmp_path / "features", annotations), tmp_path / "out"
    train_detector(*data, grid="30/30", output=out, settings=settings, yes=True)
    whole = load_file(out / "model.safetensors")
    last = sorted(out.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))[-1]
    shutil.rmtree(last)
    (out / "model.safetensors").unlink()
    (out / "UNFINISHED").write_text("killed")
    train_detector(*data, grid="30/30", output=out, settings=settings, yes=True, resume=True)
    again = load_file(out / "model.safetensors")
    assert all(torch.equal(again[name], value) for name, value in whole.items())
    with pytest.raises(ConfigError, match="was begun with grid='30/30'"):
        train_detector(*data, grid="30/15", output=out, settings=settings, yes=True, resume=True)


def test_events_beyond_the_video_write_nothing(tmp_path):
    annotations = write_features(tmp_path, videos=4)
    given = json.loads(annotations.read_text())
    given["database"]["v1"]["annotations"][0]["segment"] = [90, 99.5]
    annotations.write_text(json.dumps(given))
    with pytest.raises(DataError, match=r"v1, annotation 1: .*from 90 to 99.5 s, and the video ends at 96 s"):
        train_detector(tmp_path / "features", annotations, grid="30/30", output=tmp_path / "out", settings=FAST)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "fault", "words"),
    [
        ({"encoder": "videomae"}, ConfigError, "ready-made features"),
        ({}, DataError, "give the grid"),
        ({"grid": "30/30", "detector": "actionformr"}, CheckpointError, "Did you mean 'actionformer'"),
        ({"grid": "30/30", "recipe": "tiny"}, ConfigError, "is for classification"),
        ({"grid": "30/30", "settings": ["data.crop_rato=1"]}, ConfigError, "Did you mean 'crop_ratio'"),
        ({"grid": "30/30", "settings": ["data.crop_ratio=[0.5]"]}, ConfigError, "two shares"),
        ({"grid": "30/30", "settings": ["model.hidden_sizes=3"]}, ConfigError, "hidden_size"),
        ({"grid": "30/30", "settings": ["model.max_length=7"]}, ConfigError, "multiple"),
        ({"grid": "a/b"}, HFVideoError, "is no grid"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(options, fault, words, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    annotations = write_features(tmp_path, videos=4)
    settings = [*FAST, *options.pop("settings", ())]
    with pytest.raises(fault, match=words):
        train_detector(tmp_path / "features", annotations, output=tmp_path / "out", settings=settings, **options)
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").glob("*.safetensors"))


def test_features_of_several_encoders_are_refused(tmp_path):
    annotations = write_features(tmp_path, videos=4)
    np.save(tmp_path / "features" / "v2.npy", np.zeros((96, 5), np.float32))
    with pytest.raises(DataError, match="5 and 8 columns"):
        train_detector(tmp_path / "features", annotations, grid="30/30", output=tmp_path / "out", settings=FAST)


def test_an_unknown_encoder_of_videos_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    from hf_video.data.untrimmed_glyphs import write_untrimmed_glyphs

    annotations = write_untrimmed_glyphs(
        tmp_path / "v", 3, minutes=(0.1, 0.15), size=32, test=1, lengths=(0.5, 2), pauses=(0.5, 1)
    )
    with pytest.raises(CheckpointError, match="Did you mean 'videomae'"):
        train_detector(tmp_path / "v", annotations, "videomea", output=tmp_path / "out", settings=FAST)
    with pytest.raises(ConfigError, match="give the encoder"):
        train_detector(tmp_path / "v", annotations, output=tmp_path / "out", settings=FAST)


def test_from_videos_to_a_folder_with_its_encoder(tmp_path):
    """A fresh encoder is enough to see that its features, grid and weights stay together."""
    from hf_video.data.untrimmed_glyphs import write_untrimmed_glyphs

    annotations = write_untrimmed_glyphs(
        tmp_path / "v", 4, minutes=(0.1, 0.15), size=32, test=1, lengths=(0.5, 2), pauses=(0.5, 1)
    )
    config = tmp_path / "encoder.json"
    small = {"image_size": 16, "patch_size": 8, "num_frames": 4, "hidden_size": 16, "num_hidden_layers": 1}
    small |= {"num_attention_heads": 2, "intermediate_size": 32, "model_type": "videomae"}
    config.write_text(json.dumps(small))
    settings = ("training.num_train_epochs=1", "training.min_train_steps=0", *FAST[3:])
    command = ["train", tmp_path / "v", "--task", "detection", "--annotations", annotations, "--model", config]
    command += ["--output", tmp_path / "out", "--yes", *(word for one in settings for word in ("--set", one))]
    assert cli.main([str(word) for word in command]) == 0
    detector = load_detector(tmp_path / "out")
    assert detector.config.encoder["digest"]
    report = evaluate_detector(tmp_path / "out", tmp_path / "v", annotations, features=tmp_path / "out" / "features")
    assert (report.found, report.total) == (1, 1)
    other = FeatureSequence(np.zeros((20, 16), np.float32), FeatureGrid(1, 4), np.array([[0, 0], [23, 2.3]]), "another")
    with pytest.raises(DataError, match="another encoder"):
        find_events(detector, other)


# -- parts ----------------------------------------------------------------------------------------------------------


def rows(*events, fps=30.0):
    return [EventRow("v.npy", (0,), "v", None, tuple(Event("run", *one) for one in events), 100.0, fps)]


def test_a_crop_keeps_what_lies_in_it_by_the_threshold():
    """200 steps in crops of 40: an event counts where half of it is inside, and is cut to half a clip beyond."""
    segments = torch.tensor([[10.0, 30.0], [100.0, 110.0], [150.0, 190.0]])
    crop = Crop(40, kept=0.5, ratio=None, margin=2.0)
    for seed in range(30):
        first, last, cut, kept = crop.choose(200, segments, torch.Generator().manual_seed(seed))
        assert last - first == 40
        assert kept.any()
        low, high = (segments[:, 0].clamp(first - 2), segments[:, 1].clamp(max=last + 2))
        inside = (high - low).clamp(0) / (segments[:, 1] - segments[:, 0])
        assert torch.equal(kept, inside >= 0.5)
        torch.testing.assert_close(cut, torch.stack((low, high), 1)[kept] - first)


def test_short_videos_are_cut_by_the_ratio_or_left_whole():
    segments, draw = torch.tensor([[2.0, 8.0]]), torch.Generator().manual_seed(0)
    assert Crop(100, ratio=None).choose(50, segments, draw)[:2] == (0, 50)
    lengths = {last - first for first, last, *_ in (Crop(100).choose(50, segments, draw) for _ in range(100))}
    assert lengths == set(range(45, 51))


def test_samples_change_with_the_epoch_and_come_back_with_the_seed():
    made = rows((10, 20), (40, 60))
    sequence = FeatureSequence.from_array(np.arange(200, dtype=np.float32)[:, None], "15/15", 30.0, 100.0)
    config = ActionFormerConfig(input_size=1, max_length=128, window_size=5, branch_layers=2, num_labels=1)
    one, other = (SegmentDataset(made, [sequence], config, {"run": 0}, Crop(64), seed=3) for _ in range(2))
    firsts, whole = [], False
    for epoch in range(8):
        one.set_epoch(epoch)
        other.set_epoch(epoch)
        sample = one[0]
        assert torch.equal(sample["features"], other[0]["features"])
        begin = float(sample["features"][0, 0])  # the features are numbered
        firsts.append(begin)
        # Position g stands for second (15 g + 7.5) / 30.
        seconds = ((sample["segments"] + begin) * 15 + 7.5) / 30
        whole |= any(pair in ([10.0, 20.0], [40.0, 60.0]) for pair in seconds.round(decimals=4).tolist())
    assert len(set(firsts)) > 1
    assert whole
    batch = SegmentCollator()([sample, {**sample, "features": sample["features"][:10]}])
    assert batch["mask"].sum(1).tolist() == [64, 10]


def test_the_grid_is_fine_enough_for_short_events():
    """Half a second of 10 frames a second: steps of a frame or two, clips no longer than the encoder must have."""
    short = rows(*((n, n + 0.5) for n in range(20)), fps=10.0)
    grid = fit_grid(FeatureGrid(16, 64), 8, short)
    assert (grid.num_frames, grid.stride) == (10, 1)
    long = rows((0, 30), (40, 80))
    assert fit_grid(FeatureGrid(16, 64), 8, long) == FeatureGrid(16, 64)


def test_levels_and_length_suit_the_events():
    sequence = FeatureSequence.from_array(np.zeros((300, 4), np.float32), "10/10", 30.0, 100.0)
    config = fit_to_events(ActionFormerConfig, {"input_size": 4, "window_size": 9}, [sequence], rows((10, 30)))
    assert config.branch_layers == 4  # 60 steps: 4 · 2^4 covers them
    assert config.max_length >= 300
    assert config.max_length % 128 == 0
    typed = fit_to_events(ActionFormerConfig, {"input_size": 4, "max_length": 2304}, [sequence], rows((10, 30)))
    assert typed.max_length == 2304
