"""Parameter groups and schedules against the papers' own formulas, written out by hand."""

from __future__ import annotations

import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from models.configs import TIMESFORMER, VIDEOMAE

import hf_video
from hf_video.errors import ConfigError
from hf_video.training.optim import (
    cosine,
    layer_scales,
    make_schedule,
    multistep,
    parameter_groups,
    parameters_without_decay,
    with_warmup,
)


def classifier(**changes):
    config = hf_video.VideoMAEConfig(**{**VIDEOMAE, "num_hidden_layers": 12, "use_mean_pooling": True, **changes})
    return hf_video.VideoMAEForVideoClassification(config)


def official_layer(name: str, layers: int) -> int:
    """BEiT's get_num_layer_for_vit, for our names."""
    if name.startswith(("videomae.embeddings.", "timesformer.embeddings.", "vivit.embeddings.")):
        return 0
    block = re.search(r"encoder\.layer\.(\d+)\.", name)
    return int(block.group(1)) + 1 if block else layers + 1


def rates(groups, model):
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {names[p]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}


class TestLayerDecay:
    @pytest.mark.parametrize("decay", [0.75, 0.7])
    def test_is_the_official_formula(self, decay):
        model = classifier()
        for name, scale in layer_scales(model, decay).items():
            assert scale == decay ** (13 - official_layer(name, 12)), name

    def test_by_hand(self):
        scales = layer_scales(classifier(), 0.75)
        assert scales["videomae.embeddings.patch_embeddings.projection.weight"] == 0.75**13
        assert scales["classifier.weight"] == 1
        blocks = {scales[n] for n in scales if "encoder.layer.11." in n}
        assert blocks == {0.75}

    @pytest.mark.parametrize("make", ["TimesformerForVideoClassification", "VivitForVideoClassification"])
    def test_other_models(self, make):
        small = {"num_hidden_layers": 3}
        config = (
            hf_video.TimesformerConfig(**{**TIMESFORMER, **small})
            if make.startswith("T")
            else hf_video.VivitConfig(
                image_size=32, num_frames=4, hidden_size=24, num_attention_heads=4, intermediate_size=40, **small
            )
        )
        model = getattr(hf_video, make)(config)
        for name, scale in layer_scales(model, 0.5).items():
            assert scale == 0.5 ** (4 - official_layer(name, 3)), name

    def test_every_parameter_once(self):
        model = classifier()
        groups = parameter_groups(model, learning_rate=1e-3, weight_decay=0.05, layer_decay=0.75)
        listed = [p for group in groups for p in group["params"]]
        assert len(listed) == len(set(listed)) == len(list(model.parameters()))

    def test_a_foreign_model_is_refused(self):
        with pytest.raises(ConfigError, match="layer_groups"):
            layer_scales(torch.nn.Linear(2, 2), 0.75)


class TestWeightDecay:
    def test_none_on_vectors_and_tokens(self):
        model = hf_video.TimesformerForVideoClassification(hf_video.TimesformerConfig(**TIMESFORMER))
        found = rates(parameter_groups(model, learning_rate=1e-3, weight_decay=0.05), model)
        for name, parameter in model.named_parameters():
            token = name.endswith(("cls_token", "position_embeddings", "time_embeddings"))
            assert found[name][1] == (0.0 if parameter.ndim == 1 or token else 0.05), name
        assert parameters_without_decay(torch.nn.Linear(2, 2)) == {"bias"}

    def test_timesformer_decays_everything(self):
        model = classifier(num_hidden_layers=1)
        groups = parameter_groups(model, learning_rate=5e-3, weight_decay=1e-4, decay_all=True)
        assert len(groups) == 1
        assert groups[0]["weight_decay"] == 1e-4

    def test_backbone_rate(self):
        model = classifier(num_hidden_layers=1)
        found = rates(parameter_groups(model, learning_rate=1e-3, weight_decay=0, backbone_rate=0.1), model)
        assert found["classifier.weight"][0] == 1e-3
        assert found["videomae.encoder.layer.0.output.dense.weight"][0] == pytest.approx(1e-4)

    def test_frozen_parameters_are_left_out(self):
        model = classifier(num_hidden_layers=1).requires_grad_(False)
        with pytest.raises(ConfigError, match="requires_grad"):
            parameter_groups(model, learning_rate=1, weight_decay=0)
        model.classifier.requires_grad_(True)
        groups = parameter_groups(model, learning_rate=1, weight_decay=0)
        assert sum(len(group["params"]) for group in groups) == 2


def beit_schedule(base, final, epochs, per_epoch, warmup_epochs, start):
    """utils.cosine_scheduler of BEiT and VideoMAE."""
    warmup_steps = warmup_epochs * per_epoch
    warmup = np.linspace(start, base, warmup_steps)
    steps = np.arange(epochs * per_epoch - warmup_steps)
    rest = [final + 0.5 * (base - final) * (1 + math.cos(math.pi * i / len(steps))) for i in steps]
    return np.concatenate([warmup, rest])


class TestSchedule:
    def test_cosine_is_the_official_one(self):
        expected = beit_schedule(1e-3, 1e-6, 10, 7, 2, 1e-5)
        after = cosine(warmup_steps=14, total_steps=70, end=1e-3)
        factor = with_warmup(after, warmup_steps=14, start=1e-2)
        np.testing.assert_allclose([1e-3 * factor(i) for i in range(70)], expected, rtol=1e-12)

    def test_milestones(self):
        factor = multistep(milestones=[22, 28], gamma=0.1)
        assert [factor(i) for i in (0, 21, 22, 27, 28, 29)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])

    def test_groups_keep_their_scale(self):
        parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
        groups = [{"params": [p], "lr": lr} for p, lr in zip(parameters, (1e-3, 1e-4), strict=True)]
        optimizer = torch.optim.AdamW(groups)
        schedule = make_schedule(optimizer, arguments(schedule="cosine"), total_steps=10, steps_per_epoch=5)
        for _ in range(5):
            optimizer.step()
            schedule.step()
        low, high = sorted(schedule.get_last_lr())
        assert high == pytest.approx(10 * low)
        assert 1e-5 < high < 1e-3

    def test_timesformer(self):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=5e-3)
        settings = arguments(schedule="multistep", milestone_epochs=[11, 14], learning_rate=5e-3)
        schedule = make_schedule(optimizer, settings, total_steps=30, steps_per_epoch=2)
        seen = []
        for _ in range(30):
            seen.append(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
        assert seen == pytest.approx([5e-3] * 22 + [5e-4] * 6 + [5e-5] * 2)

    def test_epochs_of_a_stream_are_unknown(self):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1)
        with pytest.raises(ConfigError, match="warmup_steps"):
            make_schedule(optimizer, arguments(schedule="cosine", warmup_epochs=2), total_steps=9, steps_per_epoch=None)


def arguments(**changes):
    values = {
        "learning_rate": 1e-3,
        "scaled_min_learning_rate": 0.0,
        "scaled_warmup_learning_rate": 0.0,
        "warmup_epochs": None,
        "milestone_steps": None,
        "milestone_epochs": None,
        "milestone_factor": 0.1,
        "get_warmup_steps": lambda total: 0,
    }
    return SimpleNamespace(**{**values, **changes})
