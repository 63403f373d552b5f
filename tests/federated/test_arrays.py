"""Tensors that travel: there and back, averaged in a fixed order, refused where they are not what was asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hf_video.errors import FederatedError
from hf_video.federated.arrays import arrays_digest, check_arrays, payload_bytes, to_arrays, to_tensors, weighted_mean
from hf_video.federated.rules.strategies import AggregationStrategy, ClientResult, QFedAvg, Scaffold, ServerState

STATE = {
    "b.weight": torch.tensor([[1.5, -2.25]], dtype=torch.bfloat16),
    "a.weight": torch.tensor([0.1, 0.2, 0.3]),
    "a.half": torch.tensor([0.5], dtype=torch.float16),
    "norm.num_batches_tracked": torch.tensor(7),
}


def test_there_and_back_sorted_by_name():
    arrays = to_arrays(STATE)
    assert list(arrays) == sorted(STATE)
    assert payload_bytes(arrays) == 4 + 12 + 2 + 8
    for name, tensor in to_tensors(arrays).items():
        assert tensor.dtype == STATE[name].dtype
        assert torch.equal(tensor, STATE[name])


def test_copies_are_no_views():
    state = {"w": torch.zeros(2)}
    arrays = to_arrays(state)
    state["w"] += 1
    assert arrays["w"].tolist() == [0, 0]
    to_tensors(arrays)["w"].add_(1)
    assert arrays["w"].tolist() == [0, 0]


def test_means_keep_dtypes_and_counts():
    other = {name: tensor + 2 for name, tensor in STATE.items()}
    mean = to_tensors(weighted_mean({"x": to_arrays(STATE), "y": to_arrays(other)}, {"x": 3, "y": 1}))
    for name, tensor in STATE.items():
        assert mean[name].dtype == tensor.dtype
    assert mean["a.weight"].tolist() == pytest.approx([0.6, 0.7, 0.8])
    assert mean["b.weight"].tolist() == [[2.0, -1.75]]
    assert mean["norm.num_batches_tracked"].item() == 9


def test_a_mean_does_not_depend_on_who_answers_first():
    generator = np.random.default_rng(0)
    answers = {f"c{n}": {"w": generator.normal(size=1000).astype(np.float32)} for n in range(7)}
    weights = {name: n + 1 for n, name in enumerate(answers)}
    digests = {
        arrays_digest(weighted_mean({name: answers[name] for name in order}, weights))
        for order in (list(answers), list(answers)[::-1], sorted(answers, key=lambda name: name[::-1]))
    }
    assert len(digests) == 1


GOOD = {"w": np.zeros((2, 3), np.float32), "n": np.array(3)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"w": None}, "left out 1 tensors, 'w'"),
        ({"other": np.zeros(1)}, "nobody asked for, such as 'other'"),
        ({"w": np.zeros((3, 2), np.float32)}, r"'w' as float32 \(3, 2\), not float32 \(2, 3\)"),
        ({"w": np.zeros((2, 3))}, "as float64"),
        ({"w": np.full((2, 3), np.nan, np.float32)}, "not finite"),
        ({"w": np.full((2, 3), np.inf, np.float32)}, "not finite"),
    ],
)
def test_an_answer_that_can_t_be_used_names_client_and_tensor(change, words):
    answer = {name: value for name, value in {**GOOD, **change}.items() if value is not None}
    with pytest.raises(FederatedError, match=words):
        check_arrays("clinic", answer, GOOD)
    with pytest.raises(FederatedError, match="clinic"):
        AggregationStrategy().aggregate(ServerState(GOOD), {"clinic": ClientResult(answer, 1)})


def test_tensors_in_another_order_are_matched_by_name():
    state = ServerState({"a": np.zeros(2, np.float32), "b": np.ones(2, np.float32)})
    answer = {"b": np.full(2, 5, np.float32), "a": np.full(2, 3, np.float32)}
    moved = AggregationStrategy().aggregate(state, {"x": ClientResult(answer, 1)}).arrays
    assert (moved["a"].tolist(), moved["b"].tolist()) == ([3, 3], [5, 5])


@pytest.mark.parametrize(
    ("results", "words"),
    [
        ({}, "No client answered in round 1"),
        ({"x": ClientResult({"w": np.zeros(1)}, 0)}, "trained on 0 videos"),
        ({"x": ClientResult({"w": np.zeros(1)}, -3)}, "trained on -3 videos"),
    ],
)
def test_rounds_that_give_nothing(results, words):
    with pytest.raises(FederatedError, match=words):
        AggregationStrategy().aggregate(ServerState({"w": np.zeros(1)}), results)


@pytest.mark.parametrize("rule", [QFedAvg(), Scaffold(3)], ids=lambda rule: rule.name)
def test_rules_say_what_they_lack(rule):
    with pytest.raises(FederatedError, match=f"{rule.name} needs"):
        rule.aggregate(ServerState({"w": np.zeros(1)}), {"x": ClientResult({"w": np.zeros(1)}, 1)})


def test_selection_is_by_seed_and_round():
    clients = [f"c{n}" for n in range(10)]
    rule = AggregationStrategy()
    drawn = rule.select(clients, 0.3, 1, seed=0)
    assert len(drawn) == 3
    assert drawn == rule.select(clients[::-1], 0.3, 1, seed=0)
    assert any(drawn != rule.select(clients, 0.3, n, seed=0) for n in range(2, 6))
    with pytest.raises(FederatedError, match="fraction"):
        rule.select(clients, 0, 1, seed=0)
    with pytest.raises(FederatedError, match="no clients"):
        rule.select([], 1, 1, seed=0)
