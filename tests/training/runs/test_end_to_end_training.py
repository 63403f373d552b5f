"""AdaTAD from videos and annotations to a folder that finds events in files: what is trained, saved and refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import pipeline

import hf_video
from hf_video import cli
from hf_video.clips.frame_windows import FrameWindows
from hf_video.data.sources.event_files import Event
from hf_video.data.sources.events import EventRow, load_events
from hf_video.data.untrimmed_glyphs import EVENTS, write_untrimmed_glyphs
from hf_video.errors import ConfigError
from hf_video.evaluation.detection.run import evaluate_detector
from hf_video.models.videomae.configuration_videomae import VideoMAEConfig
from hf_video.training.detection_sizes import fit_windows
from hf_video.training.runs.detection import train_detector
from hf_video.training.segments import Crop, WindowCollator, WindowDataset
from hf_video.video import VideoReader
from hf_video.video.augment.augmentation import Augmentation

ENCODER = {
    **{"image_size": 32, "patch_size": 8, "num_frames": 8, "tubelet_size": 2, "hidden_size": 32},
    **{"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
}
FAST = (
    *(
        "training.max_steps=4",
        "training.logging_steps=1",
        "training.per_device_train_batch_size=2",
        "training.use_cpu=true",
    ),
    *("training.report_to=none", "training.dataloader_num_workers=0", "model.hidden_size=16", "model.neck_size=16"),
    *("model.head_size=16", "model.num_frames=32", "training.eval_steps=0.5", "training.save_steps=0.5"),
)
SHORT = {"minutes": (0.1, 0.15), "size": 32, "test": 1, "lengths": (0.5, 2), "pauses": (0.5, 1)}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("glyphs")
    annotations = write_untrimmed_glyphs(folder / "videos", 4, 3, **SHORT)
    torch.manual_seed(0)
    hf_video.VideoMAEModel(VideoMAEConfig(**ENCODER)).save_pretrained(folder / "encoder")
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    means = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
    hf_video.VideoMAEImageProcessor(**sizes, **means, num_frames=8).save_pretrained(folder / "encoder")
    return folder, annotations


@pytest.fixture(scope="module")
def trained(data):
    folder, annotations = data
    command = ["train", folder / "videos", "--task", "detection", "--annotations", annotations, "--yes"]
    command += ["--detector", "adatad", "--model", folder / "encoder", "--output", folder / "out"]
    assert cli.main([str(word) for word in command] + [word for one in FAST for word in ("--set", one)]) == 0
    return folder, annotations, json.loads((folder / "out" / "training_summary.json").read_text())


def test_adapters_and_detector_are_trained_and_the_encoder_is_the_given_one(trained):
    folder, _, summary = trained
    start = hf_video.VideoMAEModel.from_pretrained(folder / "encoder").state_dict()
    model = hf_video.AdaTADForTemporalActionDetection.from_pretrained(folder / "out")
    state = model.adatad.state_dict()
    for name, value in start.items():
        if not name.startswith("layernorm."):
            assert torch.equal(state[name], value), name
    assert all(bool(state[name].abs().sum()) for name in state if name.endswith("adapter.up_proj.weight"))
    assert summary["task"] == "detection"
    assert summary["model_type"] == "adatad"
    assert set(model.config.label2id) == set(EVENTS)


def test_the_folder_finds_events_in_files(trained):
    folder, annotations, summary = trained
    for name in (
        "config.json",
        "preprocessor_config.json",
        "run.json",
        "split.json",
        "training_curve.png",
        "README.md",
    ):
        assert (folder / "out" / name).exists(), name
    assert not (folder / "out" / "encoder").exists()
    processor = hf_video.AdaTADImageProcessor.from_pretrained(folder / "out")
    assert processor.image_mean == [0.4, 0.5, 0.6]
    assert (processor.num_frames, processor.crop_size["height"]) == (32, 32)
    detect = pipeline("temporal-action-detection", model=str(folder / "out"), device="cpu")
    assert len(detect(folder / "videos" / "0003.mp4")) > 0
    report = evaluate_detector(folder / "out", folder / "videos", annotations)
    found = summary["evaluation"]["validation"]
    assert (report.found, report.total) == (1, 1)
    assert report.measures()["mAP"] == pytest.approx(found["mAP"], abs=1e-6)
    card = (folder / "out" / "README.md").read_text()
    assert "type: temporal-action-detection" in card
    assert "every" in card


def test_training_goes_on_from_the_folder(trained, tmp_path):
    folder, annotations, _ = trained
    settings = [one for one in FAST if not one.startswith("model.")]
    train_detector(
        folder / "videos",
        annotations,
        detector=str(folder / "out"),
        output=tmp_path / "more",
        settings=[*settings, "model.window_overlap=0.25", "model.nms_sigma=0.3"],
        yes=True,
    )
    before = hf_video.AdaTADForTemporalActionDetection.from_pretrained(folder / "out")
    after = hf_video.AdaTADForTemporalActionDetection.from_pretrained(tmp_path / "more")
    assert (after.config.window_overlap, after.config.detector_config.nms_sigma) == (0.25, 0.3)
    assert after.config.detector_config.hidden_size == 16
    moved = [
        float((one - two).detach().abs().max())
        for one, two in zip(before.parameters(), after.parameters(), strict=True)
        if one.numel() > 1
    ]
    assert 0 < max(moved) < 0.5


def test_what_is_refused(data, tmp_path):
    folder, annotations = data
    common = {"detector": "adatad", "output": tmp_path / "out", "yes": True}

    def train(encoder=str(folder / "encoder"), **more):
        return train_detector(folder / "videos", annotations, encoder, **{**common, **more})

    with pytest.raises(ConfigError, match="give it \\(--model\\)"):
        train(None)
    with pytest.raises(ConfigError, match="is a slowfast"):
        train("slowfast")
    with pytest.raises(ConfigError, match="leave grid out"):
        train(grid="16/4")
    with pytest.raises(ConfigError, match="no field 'hiden_size'"):
        train(settings=["model.hiden_size=8"])
    with pytest.raises(ConfigError, match="num_frames=30 must be a multiple"):
        train(settings=["model.num_frames=30"])
    with pytest.raises(ConfigError, match="data has no"):
        train(settings=["data.grid=16/4"])
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def dataset(data):
    folder, annotations = data
    rows = load_events(folder / "videos", annotations)["train"]
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    processor = hf_video.AdaTADImageProcessor(**sizes, num_frames=16, do_normalize=False)

    def make(windows, crop=None, **options):
        numbers = {label: number for number, label in enumerate(rows.labels)}
        return WindowDataset(rows, processor, windows, numbers, crop or Crop(windows.steps, 0.5, None), **options)

    return make


def test_a_sample_is_a_piece_of_the_video_with_its_events(dataset):
    """Pixels, mask and events belong together, wherever the piece lies."""
    windows = FrameWindows(16, 2)
    samples = dataset(windows, seed=1)
    row = samples.rows[0]
    with VideoReader(row.source, shortest_edge=32) as reader:
        shown = torch.from_numpy(reader.get_frames(list(range(0, len(reader), 2))).data)
        rate = reader.metadata.fps
    seen = set()
    for epoch in range(4):
        samples.set_epoch(epoch)
        sample = samples[0]
        clip = (sample["pixel_values"].permute(0, 2, 3, 1) * 255).round()
        differences = [(shown[k : k + 16].float() - clip).abs().mean() for k in range(len(shown) - 15)]
        first = int(np.argmin(differences))
        assert differences[first] < 1
        seen.add(first)
        assert sample["mask"].all()
        assert len(sample["segments"]) > 0
        for (start, end), label in zip(sample["segments"].tolist(), sample["labels"].tolist(), strict=True):
            assert 0 <= start < end <= 16
            whole = [
                one
                for one in row.events
                if samples.rows.labels[label] == one.label
                and max(one.start * rate / 2 - first, 0) == pytest.approx(start, abs=1e-3)
                and min(one.end * rate / 2 - first, 16) == pytest.approx(end, abs=1e-3)
            ]
            assert len(whole) == 1
    assert len(seen) > 1
    again = dataset(windows, seed=1)
    again.set_epoch(3)
    assert torch.equal(again[0]["pixel_values"], sample["pixel_values"])


def test_short_videos_are_padded_and_whole_ones_resized(dataset):
    samples = dataset(FrameWindows(128, 1, frames_per_step=4))
    sample = samples[0]
    steps = int(sample["mask"].sum())
    assert 0 < steps < 32
    assert torch.equal(sample["pixel_values"][-1], sample["pixel_values"][4 * steps])
    whole = dataset(FrameWindows(16, whole=True))
    row, sample = whole.rows[0], whole[0]
    ends = [[one.start / row.duration * 16, one.end / row.duration * 16] for one in row.events]
    torch.testing.assert_close(sample["segments"], torch.tensor(ends), atol=1e-3, rtol=1e-3)
    assert len(sample["labels"]) == len(row.events)


def test_mirrored_clips_change_their_labels(dataset):
    """Each event keeps its place in the list and its times; left and right change where the picture is mirrored."""
    plain = dataset(FrameWindows(128, 1))
    labels = plain.rows.labels
    options = {
        "crop": "center",
        "flip": "swap",
        "rand_augment": None,
        "erase_prob": 0,
        "mirror_words": (("left", "right"),),
    }
    samples = dataset(FrameWindows(128, 1), augmentation=Augmentation(32, **options).for_labels(labels))
    mirror = torch.arange(len(labels))
    mirror[labels.index("left")], mirror[labels.index("right")] = labels.index("right"), labels.index("left")
    seen = set()
    for epoch in range(4):
        samples.set_epoch(epoch)
        for row in range(len(samples)):
            one, two = samples[row], plain[row]
            flipped = torch.equal(one["pixel_values"], two["pixel_values"].flip(-1))
            assert flipped != torch.equal(one["pixel_values"], two["pixel_values"])
            assert torch.equal(one["labels"], mirror[two["labels"]] if flipped else two["labels"])
            assert torch.equal(one["segments"], two["segments"])
            seen.add(flipped)
    assert seen == {True, False}


def test_batches(dataset):
    samples = dataset(FrameWindows(16, 2))
    batch = WindowCollator()([samples[0], samples[1]])
    assert batch["pixel_values"].shape == (2, 16, 3, 32, 32)
    assert batch["mask"].shape == (2, 16)
    assert [len(one) for one in batch["segments"]] == [len(one) for one in batch["labels"]]


@pytest.mark.parametrize(
    ("fps", "seconds", "events", "expected"),
    [
        # 30 and 300 frames, a short one is 43.5 (a twentieth of the way): every 7th; twice 42.9 is below 128
        (30, 600, (1, 10), {"num_frames": 128, "feature_stride": 7, "branch_layers": 4}),
        # 5 and 600 frames, a short one 34.75: every 5th; twice 120
        (10, 600, (0.5, 60), {"num_frames": 240, "feature_stride": 5, "branch_layers": 5}),
        # 40 frames: every 6th; the video has 20 of them
        (10, 12, (4,), {"num_frames": 32, "feature_stride": 6, "branch_layers": 2}),
    ],
)
def test_windows_that_suit_the_events(fps, seconds, events, expected):
    """Three of the encoder's time steps in a short event; twice the longest one, in whole chunks."""
    happened = tuple(Event("x", 0.0, float(length)) for length in events)
    rows = [EventRow("a", (0,), "a", None, happened, float(seconds), float(fps))]
    assert fit_windows(VideoMAEConfig(num_frames=16, tubelet_size=2), rows) == expected
