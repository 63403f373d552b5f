"""Recipes of detectors against the tables of the authors' configurations, written out by hand."""

from __future__ import annotations

import pytest

from hf_video.clips.grid import FeatureGrid, parse_grid
from hf_video.models.actionformer.configuration_actionformer import ActionFormerConfig
from hf_video.models.tridet.configuration_tridet import TriDetConfig
from hf_video.training.recipes import load_recipe, recipe_names

CONFIGS = {"actionformer": ActionFormerConfig, "tridet": TriDetConfig}
# frames, stride, fps; length, window, width; rate, epochs and warm-up, batch, decay; smoothing, weight of regression;
# candidates, detections, sigma, shortest; one class
ACTIONFORMER = {
    "thumos14": ((16, 4, None), (2304, 19, 512), (1e-4, 35, 5, 2, 0.05), (0, 1), (2000, 200, 0.5, 0.05), False),
    "activitynet": ((16, 16, 15), (192, 7, 256), (1e-3, 15, 5, 16, 0.05), (0.1, 2), (2000, 100, 0.75, 0.001), True),
    "activitynet_i3d": ((16, 16, 25), (192, 7, 256), (1e-3, 15, 5, 16, 0.05), (0.1, 2), (2000, 100, 0.75, 0.001), True),
    "epic_kitchens_verb": (
        (32, 16, 30),
        (2304, 9, 512),
        (1e-4, 21, 5, 2, 0.05),
        (0, 1),
        (5000, 2000, 0.4, 0.05),
        False,
    ),
    "epic_kitchens_noun": (
        *((32, 16, 30), (2304, 9, 512), (1e-4, 21, 5, 2, 0.05), (0.1, 1), (5000, 2000, 0.4, 0.05), False),
    ),
    "ego4d": ((32, 16, 30), (1024, 9, 768), (1e-4, 15, 5, 2, 0.05), (0, 1), (5000, 2000, 0.9, 0.05), False),
    "hacs": ((32, 8, 15), (960, 13, 256), (1e-3, 15, 5, 16, 0.03), (0.1, 1), (2000, 100, 0.75, 0.05), True),
    "fineaction": ((16, 16, None), (192, 7, 256), (1e-3, 20, 5, 16, 0.05), (0.1, 2), (2000, 100, 0.75, 0.05), True),
    "fineaction_g": ((16, 16, None), (192, 7, 256), (1e-3, 15, 5, 16, 0.05), (0.1, 2), (2000, 100, 0.75, 0.05), True),
}
# frames, stride, fps; length, window, k, bins, power; width, head, MLP, kernels; noise, deviation, smoothing;
# rate, its end, epochs, warm-up, batch, decay; normaliser, clip; detections, sigma
TRIDET = {
    "thumos14": (
        *((16, 4, None), (2304, 1, 5, 16, 0.2), (512, 512, 768, 3, 3), (5e-4, 0, 0)),
        *((1e-4, 1e-8, 40, 20, 2, 0.025), (100, 1), (2000, 0.5)),
    ),
    "activitynet": (
        *((16, 16, 15), (768, 15, 1.3, 12, 1), (256, 512, 2048, 3, 3), (0.5, 0.2, 0.1)),
        *((1e-3, 5e-5, 15, 10, 16, 0.04), (400, 0.4), (200, 0.7)),
    ),
    "epic_kitchens_verb": (
        *((32, 16, 30), (2304, 5, 2, 16, 0.25), (512, 512, 1024, 3, 3), (0, 0, 0)),
        *((1e-4, 5e-5, 27, 5, 2, 0.05), (250, 1), (2000, 0.4)),
    ),
    "epic_kitchens_noun": (
        *((32, 16, 30), (2304, 1, 4, 16, 0.25), (512, 512, 1024, 3, 3), (0, 0, 0.1)),
        *((1e-4, 1e-8, 19, 5, 2, 0.05), (250, 1), (2000, 0.4)),
    ),
    "hacs": (
        *((32, 8, 15), (960, 3, 1.2, 14, 1), (1024, 1024, 1024, 5, 1), (0.2, 0.1, 0.1)),
        *((1e-3, 5e-4, 11, 7, 16, 0.03), (400, 0.5), (250, 0.75)),
    ),
    "hacs_i3d": (
        *((1, 1, 2), (512, 15, 1.2, 12, 1), (1024, 1024, 1024, 5, 1), (0, 0.1, 0.1)),
        *((1e-3, 2e-4, 13, 10, 16, 0.03), (400, 1), (250, 0.75)),
    ),
}


def loaded(name):
    recipe = load_recipe(name)
    config = CONFIGS[recipe["model_type"]](**recipe["model"])
    assert recipe["task"] == "detection"
    assert (recipe["training"]["schedule"], recipe["training"]["ema_decay"]) == ("cosine", 0.999)
    assert recipe["training"]["warmup_learning_rate"] == 1e-8
    assert (recipe["data"]["crop_ratio"], config.loss_normalizer_momentum) == ([0.9, 1.0], 0.9)
    assert (config.score_threshold, config.nms_min_score, config.center_radius) == (0.001, 0.001, 1.5)
    kept = 0.3 if recipe["data"]["thresholds"] == "epic" else 0.5
    assert recipe["data"]["truncation_threshold"] == kept
    return recipe, config


@pytest.mark.parametrize(("variant", "row"), ACTIONFORMER.items(), ids=list(ACTIONFORMER))
def test_actionformer(variant, row):
    recipe, config = loaded(f"actionformer:{variant}")
    training, (frames, stride, fps) = recipe["training"], row[0]
    assert parse_grid(recipe["data"]["grid"]) == FeatureGrid(stride, frames, fps)
    assert (config.max_length, config.window_sizes[0], config.hidden_size) == row[1]
    assert config.neck_size == config.head_size == config.hidden_size
    assert row[2] == (
        *(training["learning_rate"], training["num_train_epochs"], training["warmup_epochs"]),
        *(training["per_device_train_batch_size"], training["weight_decay"]),
    )
    assert (config.label_smoothing, config.regression_loss_weight) == row[3]
    assert (config.candidates_per_level, config.max_detections, config.nms_sigma, config.min_length) == row[4]
    assert recipe["data"].get("class_agnostic", False) is row[5]
    assert (training["min_learning_rate"], training["max_grad_norm"]) == (1e-8, 1.0)


@pytest.mark.parametrize(("variant", "row"), TRIDET.items(), ids=list(TRIDET))
def test_tridet(variant, row):
    recipe, config = loaded(f"tridet:{variant}")
    training, (frames, stride, fps) = recipe["training"], row[0]
    assert parse_grid(recipe["data"]["grid"]) == FeatureGrid(stride, frames, fps)
    assert row[1] == (
        *(config.max_length, config.window_sizes[0], config.window_scale, config.num_bins, config.iou_weight_power),
    )
    assert row[2] == (
        *(config.hidden_size, config.head_size, config.intermediate_size),
        *(config.head_kernel_size, config.boundary_kernel_size),
    )
    assert (config.input_noise, config.kernel_std, config.label_smoothing) == row[3]
    assert row[4] == (
        *(training["learning_rate"], training["min_learning_rate"], training["num_train_epochs"]),
        *(training["warmup_epochs"], training["per_device_train_batch_size"], training["weight_decay"]),
    )
    assert (config.loss_normalizer, training["max_grad_norm"]) == row[5]
    assert (config.max_detections, config.nms_sigma) == row[6]


def test_every_variant_is_in_the_tables():
    names = recipe_names()
    assert (set(names["actionformer"]), set(names["tridet"])) == (set(ACTIONFORMER), set(TRIDET))


@pytest.mark.parametrize("name", ["actionformer:activitynet", "actionformer:fineaction"])
def test_proposals_of_activitynet_are_stretched(name):
    _, config = loaded(name)
    assert config.fixed_length
    assert config.class_agnostic_nms
    assert config.window_sizes == [7, 7, 7, 7, 7, -1]
    assert (config.voting_threshold, config.use_absolute_positions, config.loss_normalizer) == (0.9, True, 200)
