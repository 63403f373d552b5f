"""Videos of several classes each, from the list to the card: targets of 0 and 1, sigmoid, mean average precision."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot
from transformers import AutoModelForVideoClassification, pipeline

import hf_video
from hf_video.cli import main
from hf_video.data import VideoCollator, VideoDataset, load_videos
from hf_video.data.moving_glyphs import write_moving_glyphs
from hf_video.errors import ConfigError, DataError, VideoOptionError
from hf_video.evaluation import metrics
from hf_video.evaluation.classification import evaluate_videos
from hf_video.training.runs.classification import finetune
from hf_video.video.augment.augmentation import Augmentation
from hf_video.video.augment.mixing import Mixing

LABELS = ["across", "down", "left", "right", "up", "upright"]
TINY = {
    "model_type": "videomae", "image_size": 32, "patch_size": 16, "num_frames": 4, "hidden_size": 16,
    "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
}  # fmt: skip
FAST = (
    "training.min_train_steps=0", "training.num_train_epochs=2", "training.per_device_train_batch_size=8",
    "training.dataloader_num_workers=0", "training.report_to=none", "training.use_cpu=true",
)  # fmt: skip


def labels_of(direction):
    return [direction, "across" if direction in ("left", "right") else "upright"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """32 clips in a list with three splits, each with its direction and the axis; one of them without any label."""
    root = tmp_path_factory.mktemp("several")
    write_moving_glyphs(root / "videos", 32, size=32, speed=4)
    rows = []
    for number, path in enumerate(sorted((root / "videos").rglob("*.mp4"))):
        split = ("train", "train", "validation", "test")[number % 4]
        rows.append({"video": str(path), "split": split, "labels": labels_of(path.parent.name)})
    rows.append({**rows[0], "labels": []})
    (root / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (root / "tiny.json").write_text(json.dumps(TINY))
    return root


@pytest.fixture(scope="module")
def trained(folder):
    summary = finetune(folder / "list.jsonl", folder / "tiny.json", output=folder / "model", settings=FAST)
    return folder / "model", summary


def test_training(folder, trained, capsys):
    output, summary = trained
    model = AutoModelForVideoClassification.from_pretrained(output)
    assert model.config.problem_type == "multi_label_classification"
    assert list(model.config.id2label.values()) == LABELS
    assert len(model.config.label_thresholds) == len(LABELS)
    assert set(summary["evaluation"]) == {"validation", "test"}
    report = json.loads((output / "evaluation" / "test" / "report.json").read_text())
    assert report["mean_average_precision"] == summary["evaluation"]["test"]["mean_average_precision"]
    assert [row["threshold"] for row in report["per_class"]] == model.config.label_thresholds
    with open(output / "evaluation" / "test" / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    truth = np.array([[label in row["labels"].split("|") for label in LABELS] for row in rows])
    scores = np.array([[float(row[label]) for label in LABELS] for row in rows])
    assert truth.sum(1).tolist() == [2] * 8
    assert ((scores > 0) & (scores < 1)).all()
    assert report["mean_average_precision"] == pytest.approx(metrics.mean_average_precision(scores, truth), abs=1e-6)
    log = next((output).glob("checkpoint-*/trainer_state.json")).read_text()
    assert "eval_mean_average_precision" in log
    card = (output / "README.md").read_text()
    assert "mean_average_precision" in card
    assert "any number of 6 labels" in card
    assert 'threshold="model"' in card
    assert "op-1" not in card


def test_evaluate_and_classify(folder, trained, capsys):
    output, _ = trained
    assert main(["evaluate", str(folder / "list.jsonl"), "--model", str(output), "--quiet"]) == 0
    assert "mAP" in capsys.readouterr().out
    clip = next((folder / "videos").rglob("*.mp4"))
    classify = pipeline("video-classification", model=str(output))
    every = classify(clip, top_k=None)
    model = classify.model
    pixels = classify.image_processor(str(clip), return_tensors="pt")["pixel_values"]
    expected = model(pixels).logits[0].sigmoid()
    assert {one["label"]: one["score"] for one in every} == pytest.approx(
        dict(zip(LABELS, expected.tolist(), strict=True)), abs=1e-5
    )
    limits = dict(zip(LABELS, model.config.label_thresholds, strict=True))
    assert classify(clip, top_k=None, threshold="model") == [e for e in every if e["score"] >= limits[e["label"]]]
    middle = every[2]["score"]
    assert classify(clip, top_k=None, threshold=middle) == every[:3]
    with pytest.raises(VideoOptionError, match="threshold='x'"):
        classify(clip, threshold="x")


def test_loss_is_binary_cross_entropy_of_every_class(folder):
    rows = load_videos(folder / "list.jsonl", inspect=None)["train"]
    processor = hf_video.VideoMAEImageProcessor(size={"shortest_edge": 32}, crop_size=32, num_frames=4)
    batch = VideoCollator()([VideoDataset(rows, processor)[i] for i in (0, 1, len(rows) - 1)])
    names = [labels_of(rows[i].name.split("/")[-2]) for i in (0, 1)]
    expected = torch.tensor([[float(label in some) for label in LABELS] for some in (*names, [])])
    assert (batch["labels"] == expected).all()
    assert batch["labels"].dtype == torch.float32
    config = hf_video.VideoMAEConfig(**TINY, num_labels=6, problem_type="multi_label_classification")
    output = hf_video.VideoMAEForVideoClassification(config).eval()(batch["pixel_values"], labels=batch["labels"])
    assert output.loss.item() == pytest.approx(binary_cross_entropy_with_logits(output.logits, expected).item())


class TestTargets:
    def test_mixing_shares_what_both_show(self):
        several = torch.tensor([[1.0, 1, 0], [0, 0, 0], [0, 1, 1], [1, 0, 0]])
        mixture = Mixing(label_smoothing=0.0).draw(4, 8, 8, generator=torch.Generator().manual_seed(0))
        share = torch.tensor(mixture.shares, dtype=torch.float32)[:, None]
        assert torch.allclose(mixture.targets(several, 3), share * several + (1 - share) * several.flip(0))
        numbers = torch.tensor([0, 2, 1, 1])
        smoothed = Mixing(label_smoothing=0.3).draw(4, 8, 8, generator=torch.Generator().manual_seed(0))
        assert torch.equal(smoothed.targets(one_hot(numbers, 3).float(), 3), smoothed.targets(numbers, 3))

    def test_smoothing(self):
        several = torch.tensor([1.0, 1, 0, 0])
        batch = VideoCollator(num_labels=4, label_smoothing=0.2)([{"pixel_values": torch.zeros(1), "labels": several}])
        assert torch.allclose(batch["labels"], torch.tensor([[0.85, 0.85, 0.05, 0.05]]))

    def test_a_mirror_exchanges_each_of_the_labels(self):
        augmentation = Augmentation(8, flip="swap", crop="center").for_labels(["left", "right", "fast"])
        clip = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
        found = {
            augmentation.with_label(clip, (0, 2), generator=torch.Generator().manual_seed(seed))[1] for seed in range(9)
        }
        assert found == {(0, 2), (1, 2)}


class TestMetrics:
    def test_best_threshold(self):
        rng = np.random.default_rng(0)
        scores, truth = rng.random(60).round(2), rng.random(60) < 0.4

        def f1(threshold):
            taken = scores >= threshold
            return 2 * (taken & truth).sum() / (taken.sum() + truth.sum())

        found = metrics.best_threshold(scores, truth)
        assert f1(found) == max(f1(one) for one in scores)
        assert metrics.best_threshold([0.2, 0.8, 0.6], [0, 1, 1]) == pytest.approx(0.4)
        assert np.isnan(metrics.best_threshold([0.2, 0.8], [0, 0]))


def test_refusals(folder, trained):
    rows = load_videos(folder / "list.jsonl", split="test", inspect=None)["test"]
    single = hf_video.VideoMAEForVideoClassification(hf_video.VideoMAEConfig(**TINY, num_labels=6))
    processor = hf_video.VideoMAEImageProcessor(size={"shortest_edge": 32}, crop_size=32, num_frames=4)
    with pytest.raises(DataError, match="several labels each"):
        evaluate_videos(single, processor, rows)
    with pytest.raises(ConfigError, match="label_smoothing_factor is for one class"):
        finetune(
            folder / "list.jsonl",
            folder / "tiny.json",
            output=folder / "never",
            settings=(*FAST, "training.label_smoothing_factor=0.1"),
        )
    assert main(["probe", str(folder / "list.jsonl"), "--model", str(trained[0])]) == 2
