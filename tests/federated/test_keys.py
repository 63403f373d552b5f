"""Which tensors travel."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hf_video.errors import FederatedError
from hf_video.federated.arrays import to_arrays
from hf_video.federated.keys import KeyPolicy
from hf_video.federated.rules.strategies import AggregationStrategy, ClientResult, ServerState
from hf_video.layers.convolution import BatchNorm
from hf_video.models.videomae.configuration_videomae import VideoMAEConfig
from hf_video.models.videomae.modeling_videomae import VideoMAEForVideoClassification

FACTS = json.loads((Path(__file__).parent.parent / "golden_federated" / "golden_federated.json").read_text())


@pytest.fixture(scope="module")
def model():
    config = VideoMAEConfig(image_size=16, patch_size=8, num_frames=4, hidden_size=16, num_hidden_layers=1,
                            num_attention_heads=2, intermediate_size=16, num_labels=3)  # fmt: skip
    return VideoMAEForVideoClassification(config)


class Stem(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Linear(2, 2, bias=False)
        self.norm = BatchNorm(2)


def test_rules_divide_a_classifier(model):
    every = KeyPolicy().names(model)
    assert every == sorted(model.state_dict())
    head, body = KeyPolicy("head").names(model), KeyPolicy("body").names(model)
    assert sorted(head + body) == every
    assert {"classifier.weight", "classifier.bias"} <= set(head)
    assert KeyPolicy(r"^classifier\.").names(model) == ["classifier.bias", "classifier.weight"]
    without = KeyPolicy("without_layer_norms").names(model)
    assert not [name for name in without if "norm" in name]
    assert KeyPolicy("without_batch_norms").names(model) == every  # it has none: the same as FedAvg


def test_what_is_frozen_does_not_travel(model):
    for parameter in model.videomae.parameters():
        parameter.requires_grad_(False)
    names = KeyPolicy("trainable").names(model)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    assert names == KeyPolicy("head").names(model)


def test_batch_norms_of_subclasses_stay():
    net = torch.nn.ModuleDict({"stem": Stem(), "head": torch.nn.Linear(2, 2)})
    assert KeyPolicy("without_batch_norms").names(net) == ["head.bias", "head.weight", "stem.conv.weight"]


def test_fedbn_as_computed():
    """What stays with a client is not touched, and what travels is averaged by videos."""
    given, expected = FACTS["fedbn"]["inputs"], FACTS["fedbn"]["expected"]
    states = [{name: torch.tensor(value) for name, value in state.items()} for state in given["states"]]
    keys = [name for name in states[0] if not any(name.startswith(f"{norm}.") for norm in given["norm_modules"])]
    assert sorted(keys) == sorted(expected["keys_on_the_wire"])
    answers = {
        str(number): ClientResult(to_arrays(state, keys), count)
        for number, (state, count) in enumerate(zip(states, given["num_examples"], strict=True))
    }
    moved = AggregationStrategy().aggregate(ServerState(answers["0"].arrays), answers).arrays
    for name, value in expected["aggregated"].items():
        np.testing.assert_allclose(moved[name], value, atol=1e-6)


def test_adapters_alone_travel(model):
    peft = pytest.importorskip("peft")
    import copy

    adapted = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(r=2, target_modules=["query", "value"]))
    names = KeyPolicy("adapters").names(adapted)
    assert names
    assert all("lora_" in name for name in names)


@pytest.mark.parametrize(
    ("rule", "words"), [("al", "Did you mean 'all'"), ("(", "says nothing about"), (None, "says nothing about")]
)
def test_rules_that_mean_nothing(rule, words):
    with pytest.raises(FederatedError, match=words):
        KeyPolicy(rule)


@pytest.mark.parametrize(("rule", "words"), [("adapters", "no tensors that travel"), ("nothing_here", "no tensors")])
def test_rules_that_find_nothing(model, rule, words):
    with pytest.raises(FederatedError, match=words):
        KeyPolicy(rule).names(model)
    with pytest.raises(FederatedError, match="no backbone"):
        KeyPolicy("head").names(torch.nn.Linear(2, 2))
