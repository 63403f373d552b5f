"""Recipes against the tables of the papers' code, written out by hand."""

from __future__ import annotations

from dataclasses import fields

import pytest

import hf_video
from hf_video.data.datasets.boxes import BoxAugmentation
from hf_video.errors import ConfigError
from hf_video.models.actionformer.configuration_actionformer import ActionFormerConfig
from hf_video.registry import DETECTORS
from hf_video.training.arguments import VideoTrainingArguments
from hf_video.training.recipes import load_recipe, override_recipe, recipe_names
from hf_video.training.runs.anomalies import AnomalyTraining
from hf_video.training.runs.detection import DetectorTraining
from hf_video.training.runs.end_to_end import EndToEndTraining
from hf_video.training.runs.moments import MomentTraining
from hf_video.training.runs.run import Task
from hf_video.training.runs.spatio_temporal import SpatioTemporal
from hf_video.video.augment.augmentation import Augmentation
from hf_video.video.augment.checks import from_options
from hf_video.video.augment.mixing import Mixing

TASKS = {task.name: task for task in (AnomalyTraining, DetectorTraining, MomentTraining, SpatioTemporal)}
ALL = [f"{name}:{variant}" for name, variants in recipe_names().items() for variant in variants]
# run: base rate, batch, epochs, repeats, layer decay, drop path, head dropout, min rate
FINETUNE = {
    "videomae_finetune_kinetics:S": (5e-4, 384, 150, 2, 0.75, 0.1, 0.0, 1e-6),
    "videomae_finetune_kinetics:B-800": (1e-3, 512, 100, 1, 0.75, 0.1, 0.0, 1e-6),
    "videomae_finetune_kinetics:B-1600": (5e-4, 384, 75, 2, 0.75, 0.1, 0.0, 1e-6),
    "videomae_finetune_kinetics:L": (2e-3, 128, 35, 2, 0.75, 0.1, 0.0, 1e-6),
    "videomae_finetune_kinetics:H": (1e-3, 512, 50, 2, 0.75, 0.2, 0.5, 1e-5),
    "videomae_finetune_ssv2:B-2400": (5e-4, 384, 30, 2, 0.75, 0.1, 0.0, 1e-6),
    "videomae_finetune_ssv2:B-800": (5e-4, 512, 50, 1, 0.75, 0.1, 0.0, 1e-6),
    "videomae_finetune_ssv2:S": (1e-3, 384, 40, 2, 0.7, 0.1, 0.0, 1e-6),
    "videomae_finetune_ucf101:B": (5e-4, 128, 100, 2, 0.7, 0.2, 0.5, 1e-5),
}
# base rate, batch, epochs, stride, masked share
PRETRAIN = {
    "videomae_pretrain:kinetics-B": (1.5e-4, 2048, 1600, 4, 0.9),
    "videomae_pretrain:kinetics-B-800": (1.5e-4, 2048, 800, 4, 0.9),
    "videomae_pretrain:kinetics-S": (1.5e-4, 1024, 1600, 4, 0.9),
    "videomae_pretrain:kinetics-L": (1.5e-4, 512, 1600, 4, 0.9),
    "videomae_pretrain:kinetics-H": (1.5e-4, 1024, 1600, 4, 0.9),
    "videomae_pretrain:ssv2-B": (1.5e-4, 2048, 2400, 2, 0.9),
    "videomae_pretrain:ssv2-B-800": (1.5e-4, 2048, 800, 2, 0.9),
    "videomae_pretrain:ucf101-B": (3e-4, 192, 3200, 4, 0.75),
}


@pytest.mark.parametrize(("name", "row"), FINETUNE.items(), ids=list(FINETUNE))
def test_videomae_finetuning(name, row):
    recipe = load_recipe(name)
    training = recipe["training"]
    assert row == (
        training["base_learning_rate"],
        training["effective_batch_size"],
        training["num_train_epochs"],
        recipe["data"]["repeats"],
        training["layer_decay"],
        recipe["model"]["drop_path_rate"],
        recipe["model"]["classifier_dropout"],
        training["min_learning_rate"],
    )
    assert training["base_batch_size"] == 256
    assert (training["adam_beta1"], training["adam_beta2"], training["adam_epsilon"]) == (0.9, 0.999, 1e-8)
    assert (training["weight_decay"], training["warmup_epochs"], training["max_grad_norm"]) == (0.05, 5, 0)
    assert "warmup_learning_rate" not in training  # from 0
    augmentation, mixing = recipe["augmentation"], recipe["mixing"]
    assert augmentation["rand_augment"] == "m7-n4-mstd0.5-inc1"
    assert (augmentation["scale"], augmentation["ratio"]) == ([0.08, 1.0], [0.75, 1.3333])
    assert augmentation["flip"] == (0.0 if "ssv2" in name else 0.5)
    assert (augmentation["erase_prob"], augmentation["erase_count"]) == (0.25, 1)
    assert (mixing["mixup"], mixing["cutmix"], mixing["prob"], mixing["switch_prob"]) == (0.8, 1.0, 1.0, 0.5)
    assert mixing["label_smoothing"] == 0.1
    assert recipe["data"]["num_frames"] == 16
    if "ssv2" in name:
        assert recipe["data"]["sampler"] == "random"  # a frame of each segment
    else:
        assert (recipe["data"]["sampler"], recipe["data"]["sampler_options"]) == ("dense", {"stride": 4})


@pytest.mark.parametrize(("name", "row"), PRETRAIN.items(), ids=list(PRETRAIN))
def test_videomae_pretraining(name, row):
    recipe = load_recipe(name)
    training = recipe["training"]
    assert row == (
        training["base_learning_rate"],
        training["effective_batch_size"],
        training["num_train_epochs"],
        recipe["data"]["sampler_options"]["stride"],
        recipe["masking"]["mask_ratio"],
    )
    assert (training["adam_beta1"], training["adam_beta2"]) == (0.9, 0.95)
    assert (training["warmup_epochs"], training["min_learning_rate"], training["weight_decay"]) == (40, 1e-5, 0.05)
    assert training["max_grad_norm"] == recipe["model"]["drop_path_rate"] == 0
    assert recipe["masking"]["mask"] == "tube"
    augmentation = recipe["augmentation"]
    assert (augmentation["crop"], augmentation["scales"]) == ("multi_scale", [1, 0.875, 0.75, 0.66])
    assert augmentation["flip"] == augmentation["erase_prob"] == 0
    assert augmentation["rand_augment"] is recipe["mixing"] is None


def test_timesformer():
    recipe = load_recipe("timesformer")
    training, data = recipe["training"], recipe["data"]
    assert (training["optim"], training["optim_args"]) == ("sgd", "momentum=0.9,nesterov=true")
    assert (training["learning_rate"], training["effective_batch_size"]) == (0.005, 8)
    assert (training["num_train_epochs"], training["milestone_epochs"]) == (15, [11, 14])
    assert (training["milestone_factor"], training["weight_decay"], training["decay_all"]) == (0.1, 1e-4, True)
    assert recipe["augmentation"]["short_side"] == [256, 320]
    assert recipe["mixing"] is None
    assert (data["num_frames"], data["sampler_options"]["rate"]) == (8, 32)
    high = load_recipe("timesformer:HR")
    assert (high["model"]["image_size"], high["augmentation"]["short_side"]) == (448, [448, 512])
    assert (high["data"]["num_frames"], high["data"]["sampler_options"]["rate"]) == (16, 16)
    long = load_recipe("timesformer:L")["data"]
    assert (long["num_frames"], long["sampler_options"]["rate"]) == (96, 4)
    something = load_recipe("timesformer:ssv2")["augmentation"]
    assert (something["flip"], something["short_side_sampling"]) == (0, "inverse")


def test_mvit():
    training = load_recipe("mvit:v2-S")["training"]
    assert (training["base_learning_rate"], training["base_batch_size"]) == (1e-4, 16)
    assert training["base_learning_rate"] * training["effective_batch_size"] / 16 == pytest.approx(1.6e-3)
    assert (training["num_train_epochs"], training["warmup_epochs"], training["max_grad_norm"]) == (200, 30, 1.0)
    assert training["warmup_learning_rate"] == training["min_learning_rate"] == 1e-6
    drop = {v: load_recipe(f"mvit:{v}")["model"]["drop_path_rate"] for v in recipe_names()["mvit"]}
    assert drop == {
        "v1-B": 0.2, "v2-S": 0.2, "v2-B": 0.3, "v1-B-32x3": 0.3, "ssv2-S": 0.4, "ssv2-B": 0.4, "ssv2-L": 0.75,
    }  # fmt: skip
    rows = {"ssv2-S": (2.5e-3, 100), "ssv2-B": (1.5e-3, 100), "ssv2-L": (1.25e-3, 40)}
    for variant, (rate, epochs) in rows.items():
        recipe = load_recipe(f"mvit:{variant}")
        assert (recipe["training"]["base_learning_rate"], recipe["training"]["num_train_epochs"]) == (rate, epochs)
        assert (recipe["training"]["optim"], recipe["training"]["weight_decay"]) == ("sgd", 1e-4)
        assert (recipe["data"]["repeats"], recipe["augmentation"]["flip"]) == (1, 0)
    assert load_recipe("mvit")["data"]["repeats"] == 2


def test_vivit():
    training = load_recipe("vivit:B")["training"]
    assert (training["learning_rate"], training["effective_batch_size"], training["num_train_epochs"]) == (0.1, 64, 30)
    assert (training["warmup_epochs"], training["max_grad_norm"], training["weight_decay"]) == (2.5, 1.0, 0)
    assert load_recipe("vivit:B-FE")["training"]["learning_rate"] == 0.05
    large = load_recipe("vivit:ssv2-L-FE")
    assert (large["training"]["learning_rate"], large["training"]["num_train_epochs"]) == (0.4, 35)
    assert (large["mixing"]["mixup"], large["mixing"]["label_smoothing"]) == (0.3, 0.3)
    assert (large["model"]["drop_path_rate"], large["data"]["sampler_options"]["stride"]) == (0.3, 1)
    assert (large["augmentation"]["rand_augment"], large["augmentation"]["short_side"]) == ("m20-n2", 288)


def test_i3d_and_video_swin():
    training = load_recipe("i3d")["training"]
    assert (training["learning_rate"], training["effective_batch_size"], training["max_steps"]) == (0.1, 384, 115000)
    assert (training["milestone_steps"], training["weight_decay"]) == ([97000, 108000], 1e-7)
    drops = [load_recipe(f"video_swin:{size}")["model"]["drop_path_rate"] for size in "TSB"]
    assert drops == [0.1, 0.2, 0.3]
    training = load_recipe("video_swin")["training"]
    assert (training["learning_rate"], training["backbone_rate"], training["weight_decay"]) == (1e-3, 0.1, 0.05)
    assert (training["num_train_epochs"], training["warmup_epochs"]) == (30, 2.5)


@pytest.mark.parametrize("name", ALL)
def test_every_field_exists(name, tmp_path):
    """A recipe that nothing can be built from would be found by its first user."""
    recipe = load_recipe(name)
    settings = {**recipe["training"], "use_cpu": True}
    arguments = VideoTrainingArguments(str(tmp_path), report_to="none", **settings)
    end_to_end = recipe.get("model_type") == "adatad"
    task = EndToEndTraining if end_to_end else TASKS.get(recipe.get("task"), Task)
    assert set(recipe["data"]) <= set(task.data_fields)
    if recipe.get("task") == "spatio-temporal-detection":
        from_options(BoxAugmentation, recipe["augmentation"])
    else:
        from_options(Augmentation, recipe["augmentation"], size=224)
    if recipe["mixing"] is not None:
        from_options(Mixing, recipe["mixing"])
    if "effective_batch_size" in recipe["training"]:
        assert arguments.rows_per_step == recipe["training"]["effective_batch_size"]
    if "model_type" in recipe:
        row = (hf_video.MODELS | DETECTORS)[recipe["model_type"]]
        known = {"classifier_dropout", *(field.name for field in fields(row.load(row.config)))}
        if end_to_end:  # of its detector too
            known |= {field.name for field in fields(ActionFormerConfig)}
        assert set(recipe["model"]) <= known


class TestLoading:
    def test_the_scaled_rate(self, tmp_path):
        recipe = load_recipe("videomae_finetune_kinetics:B-1600")
        arguments = VideoTrainingArguments(str(tmp_path), use_cpu=True, **recipe["training"])
        assert arguments.learning_rate == pytest.approx(5e-4 * 384 / 256)
        assert arguments.scaled_min_learning_rate == pytest.approx(1e-6 * 384 / 256)
        assert arguments.gradient_accumulation_steps == 48

    def test_settings(self):
        recipe = override_recipe(
            load_recipe("small_data"),
            [
                "training.learning_rate=1e-3",
                "augmentation.short_side=[256, 320]",
                "mixing.mixup=.2",
                "data.sampler=dense",
            ],
        )
        assert recipe["training"]["learning_rate"] == 1e-3
        assert recipe["augmentation"]["short_side"] == [256, 320]
        assert recipe["mixing"] == {"mixup": 0.2}
        assert override_recipe(recipe, ["mixing=null"])["mixing"] is None

    def test_a_file_with_variants(self, tmp_path):
        path = tmp_path / "mine.yaml"
        path.write_text("training: {learning_rate: 1.0e-4}\nvariants:\n  hot: {training: {learning_rate: 1.0e-2}}\n")
        assert load_recipe(path)["training"]["learning_rate"] == 1e-4
        assert load_recipe(f"{path}:hot")["training"]["learning_rate"] == 1e-2
        assert load_recipe(path)["augmentation"] == {}

    @pytest.mark.parametrize(
        ("name", "words"),
        [("small_dta", "small_data"), ("mvit:v3", "v2-S"), ("nothing", "videomae_pretrain"), ("no.yaml", "no.yaml")],
    )
    def test_unknown_ones_are_named(self, name, words):
        with pytest.raises(ConfigError, match=words):
            load_recipe(name)

    @pytest.mark.parametrize("setting", ["learning_rate=1", "training.learning_rate", "optimizer.lr=1", "training=1"])
    def test_wrong_settings(self, setting):
        with pytest.raises(ConfigError, match=r"section\.name=value"):
            override_recipe(load_recipe("small_data"), [setting])
