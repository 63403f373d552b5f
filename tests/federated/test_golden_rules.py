"""Rules of server and clients against numbers computed in float64 from the papers' equations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hf_video.federated.rules import robust, server_optimizers, strategies
from hf_video.federated.rules.corrections import ControlTerm, DynamicTerm, ProximalTerm
from hf_video.federated.rules.strategies import AggregationStrategy, ClientResult, ServerState

FACTS = json.loads((Path(__file__).parent.parent / "golden_federated" / "golden_federated.json").read_text())
CASES = {case["name"]: case for case in FACTS["optimisation"]["cases"]}
INPUTS = FACTS["optimisation"]["inputs"]
LR = INPUTS["lr"]


class Regression(torch.nn.Module):
    """Softmax regression; the last row of the weight is the bias."""

    def __init__(self, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(np.array(weight), dtype=torch.float64))

    def loss(self, client):
        x = torch.tensor(client["x"], dtype=torch.float64)
        x = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], dim=1)
        return torch.nn.functional.cross_entropy(x @ self.weight, torch.tensor(client["y"]))


def local(arrays, client, steps, make_term=None):
    """SGD from the arrays sent: the model, its loss before, and the term."""
    model = Regression(arrays["weight"])
    term = make_term(dict(model.named_parameters())) if make_term else None
    before = model.loss(client).item()
    for _ in range(steps):
        model.zero_grad()
        model.loss(client).backward()
        if term is not None:
            term.add()
        with torch.no_grad():
            model.weight -= LR * model.weight.grad
    return model, before, term


def run(strategy, rounds, steps, make_term=None):
    """Models after each round; `steps` is a number or one for each client."""
    state, seen = ServerState({"weight": np.array(INPUTS["w0"])}), []
    for _ in range(rounds):
        results = {}
        for number, client in enumerate(INPUTS["clients"]):
            count = steps if isinstance(steps, int) else steps[number]
            model, before, _ = local(state.arrays, client, count, make_term)
            arrays = {"weight": model.weight.detach().numpy()}
            results[f"client{number}"] = ClientResult(arrays, len(client["y"]), steps=count, loss=before)
        state = strategy.aggregate(state, results)
        seen.append(state.arrays["weight"])
    return seen


def close(value, expected, tolerance=1e-9):
    np.testing.assert_allclose(value, np.array(expected), atol=tolerance, rtol=0)


def test_fedavg_of_one_step_is_a_central_step():
    expected = CASES["fedavg_one_step"]["expected"]
    (found,) = run(AggregationStrategy(), 1, 1)
    close(found, expected["w"])
    close(found, expected["centralised_w"])


def test_fedavg_of_rounds():
    expected = CASES["fedavg_3_rounds_4_local_steps"]["expected"]
    for found, value in zip(run(AggregationStrategy(), 3, 4), expected, strict=True):
        close(found, value["w"])


def test_fedprox():
    case = CASES["fedprox"]
    strategy = strategies.FedProx(case["mu"])
    term = lambda parameters: ProximalTerm(parameters, strategy.client_settings(None)["proximal_mu"])  # noqa: E731
    for client, value in zip(INPUTS["clients"], case["expected"]["local"], strict=True):
        model, _, _ = local({"weight": INPUTS["w0"]}, client, case["local_steps"], term)
        close(model.weight.detach(), value)
    close(run(strategy, 1, case["local_steps"], term)[0], case["expected"]["w"])
    first, _, _ = local({"weight": INPUTS["w0"]}, INPUTS["clients"][0], 1, term)
    close(first.weight.detach(), case["expected"]["first_step_client_0"])


def test_fedprox_keeps_partial_work():
    case = CASES["fedprox_heterogeneous_work"]
    term = lambda parameters: ProximalTerm(parameters, case["mu"])  # noqa: E731
    close(run(strategies.FedProx(case["mu"]), 1, case["local_steps"], term)[0], case["expected"]["w"])


def test_fednova():
    case = CASES["fednova"]
    close(run(strategies.FedNova(), 1, case["local_steps"])[0], case["expected"]["w"])
    close(run(AggregationStrategy(), 1, case["local_steps"])[0], case["expected"]["fedavg_w"])


def test_scaffold():
    case = CASES["scaffold"]
    strategy = strategies.Scaffold(len(INPUTS["clients"]), case["server_lr"])
    state, controls = ServerState({"weight": np.array(INPUTS["w0"])}), {}
    for expected in case["expected"]:
        results = {}
        server = {name: torch.tensor(value) for name, value in strategy.client_arrays(state).items()}
        for number, client in enumerate(INPUTS["clients"]):
            make = lambda parameters, n=number: ControlTerm(parameters, server, controls.get(n))  # noqa: B023, E731
            model, _, term = local(state.arrays, client, case["local_steps"], make)
            controls[number], change = term.finish(case["local_steps"], LR)
            results[str(number)] = ClientResult(
                {"weight": model.weight.detach().numpy()}, 1, control={k: v.numpy() for k, v in change.items()}
            )
        state = strategy.aggregate(state, results)
        close(state.arrays["weight"], expected["w"])
        close(state.slots["control"]["weight"], expected["c"])


def test_q_fedavg():
    case = CASES["q_fedavg"]
    strategy = strategies.QFedAvg(case["q"], case["lipschitz"])
    close(run(strategy, 1, case["local_steps"])[0], case["expected"]["w"], 1e-8)


def test_feddyn():
    case = CASES["feddyn"]
    strategy = strategies.FedDyn(len(INPUTS["clients"]), case["alpha"])
    state, gathered = ServerState({"weight": np.array(INPUTS["w0"])}), {}
    for expected in case["expected"]:
        results = {}
        for number, client in enumerate(INPUTS["clients"]):
            make = lambda parameters, n=number: DynamicTerm(parameters, case["alpha"], gathered.get(n))  # noqa: E731
            model, _, term = local(state.arrays, client, case["local_steps"], make)
            gathered[number] = term.finish()
            results[str(number)] = ClientResult({"weight": model.weight.detach().numpy()}, 1)
        state = strategy.aggregate(state, results)
        close(state.arrays["weight"], expected["w"])


SERVER = FACTS["server_optimisers"]
RULES = {
    "fedadagrad": server_optimizers.FedAdagrad,
    "fedadam": server_optimizers.FedAdam,
    "fedyogi": server_optimizers.FedYogi,
}


@pytest.mark.parametrize("case", SERVER["cases"], ids=lambda case: case["name"])
def test_server_optimizers(case):
    given = SERVER["inputs"]
    word, _, variant = case["name"].partition("_")
    if word == "fedavgm":
        strategy = server_optimizers.FedAvgM(case["server_lr"], case["momentum"])
    else:
        strategy = RULES[word](given["eta"], given["beta_1"], beta_2=given["beta_2"], tau=given["tau"],
                               flower=variant.startswith("flwr"))  # fmt: skip
    state = ServerState({"w": np.array(given["w0"])})
    for delta, expected in zip(given["deltas"], case["expected"], strict=True):
        answer = {"w": state.arrays["w"] + np.array(delta)}
        state = strategy.aggregate(state, {"a": ClientResult(answer, 3), "b": ClientResult(dict(answer), 5)})
        close(state.arrays["w"], expected, 1e-9)


def test_a_saved_state_goes_on_alike():
    """Slots are arrays: what was saved after a round gives the rounds after it."""
    strategy, state = server_optimizers.FedAdam(), ServerState({"w": np.array([1.0, 2.0])})
    states = [state]
    for number in range(3):
        answer = {"w": state.arrays["w"] + 0.1 * (number + 1)}
        state = strategy.aggregate(state, {"a": ClientResult(answer, 1)})
        states.append(state)
    again = strategy.aggregate(states[2], {"a": ClientResult({"w": states[2].arrays["w"] + 0.1 * 3}, 1)})
    close(again.arrays["w"], states[3].arrays["w"], 0)


def answers(rows):
    return {name: ClientResult({"w": np.array(row, dtype=np.float32)}, 1) for name, row in rows.items()}


def test_robust_rules_pass_by_a_wrong_client():
    state = ServerState({"w": np.zeros(2, np.float32)})
    rows = {"a": [1, 1], "b": [1.1, 0.9], "c": [0.9, 1.1], "d": [1.05, 1], "wrong": [1e6, -1e6]}
    for rule in (robust.CoordinateMedian(), robust.TrimmedMean(0.2), robust.Krum(1), robust.Krum(1, keep=2)):
        moved = rule.aggregate(state, answers(rows)).arrays["w"]
        assert np.abs(moved - 1).max() < 0.11, rule.name
    assert robust.TrimmedMean(0.2).aggregate(state, answers(rows)).arrays["w"] == pytest.approx([1.05, 2.9 / 3])


def test_krum_chooses_by_the_nearest_neighbours():
    """Scores by hand: with 5 answers and one wrong client the 2 nearest of each count."""
    rows = {"a": [0.0, 0], "b": [1.0, 0], "c": [0.0, 2], "d": [5.0, 5], "e": [0.5, 0]}
    # a: .25 + 1 = 1.25, b: .25 + 1, e: .25 + .25 = .5
    moved = robust.Krum(1).aggregate(ServerState({"w": np.zeros(2, np.float32)}), answers(rows))
    assert moved.arrays["w"].tolist() == [0.5, 0]
