"""Personal rules against numbers computed in float64 from the papers' equations."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PretrainedConfig, PreTrainedModel

from hf_video.errors import FederatedError
from hf_video.federated.arrays import to_arrays, to_tensors
from hf_video.federated.keys import KeyPolicy
from hf_video.federated.rules import personal
from hf_video.federated.rules.server_optimizers import ReptileServer
from hf_video.federated.rules.strategies import AggregationStrategy, ClientResult, ServerState

FACTS = json.loads((Path(__file__).parent.parent / "golden_federated" / "golden_federated.json").read_text())
CASES = {case["name"]: case for case in FACTS["personalised"]["cases"]}
INPUTS = FACTS["personalised"]["inputs"]
LR = INPUTS["lr"]


def matrix(values):
    return torch.nn.Parameter(torch.tensor(np.array(values), dtype=torch.float64))


class Regression(torch.nn.Module):
    """Softmax regression; the last row of the weight is the bias."""

    def __init__(self, weight):
        super().__init__()
        self.weight = matrix(weight)

    def forward(self, x, labels):
        return {"loss": torch.nn.functional.cross_entropy(x @ self.weight[:-1] + self.weight[-1], labels)}


class Backbone(torch.nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = matrix(weight)


class TwoLayers(PreTrainedModel):
    """x · body · head."""

    config_class, base_model_prefix = PretrainedConfig, "body"

    def __init__(self, body, head):
        super().__init__(PretrainedConfig())
        self.body = Backbone(body)
        self.head = matrix(head)

    def forward(self, x, labels):
        return {"loss": torch.nn.functional.cross_entropy(x @ self.body.weight @ self.head, labels)}


class Client:
    """Full-batch SGD on the rows of a client, the `Train` of the rules."""

    def __init__(self, number, steps, rate=LR):
        self.x = torch.tensor(INPUTS["clients"][number]["x"], dtype=torch.float64)
        self.y = torch.tensor(INPUTS["clients"][number]["y"])
        self.steps, self.rate, self.own, self.kept = steps, rate, {}, {}

    def __call__(self, module, *, steps=None, term=None, learning_rate=None, own=False):
        optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], learning_rate or self.rate)
        for _ in range(steps or self.steps):
            optimizer.zero_grad()
            module(x=self.x, labels=self.y)["loss"].backward()
            if term is not None:
                term.add()
            optimizer.step()


def run(rule, clients, model, rounds, strategy):
    """Yields the server's arrays after each round; what the clients keep is in `own` and `kept` of each."""
    state = ServerState(to_arrays(model.state_dict(), KeyPolicy(rule.travels).names(model)))
    for _ in range(rounds):
        results = {}
        for number, client in enumerate(clients):
            personal.load_tensors(model, {**to_tensors(state.arrays), **client.own})
            client.kept = rule.local_round(model, client.kept, client)
            client.own = personal.copied_tensors(model, [n for n in model.state_dict() if n not in state.arrays])
            results[str(number)] = ClientResult(to_arrays(model.state_dict(), state.arrays), len(client.y))
        state = strategy.aggregate(state, results)
        yield state.arrays


def close(value, expected, tolerance=1e-9):
    np.testing.assert_allclose(np.asarray(value), np.array(expected), atol=tolerance, rtol=0)


def two_clients(steps, rate=LR):
    return [Client(number, steps, rate) for number in range(2)]


def test_ditto():
    case = CASES["ditto"]
    rule = personal.Ditto(case["lam"], case["personal_steps"])
    clients = two_clients(case["global_steps"])
    rounds = run(rule, clients, Regression(INPUTS["w0"]), 2, AggregationStrategy())
    for arrays, expected in zip(rounds, case["expected"], strict=True):
        close(arrays["weight"], expected["w"])
        for client, value in zip(clients, expected["v"], strict=True):
            close(client.kept["weight"], value)


def test_apfl():
    case = CASES["apfl"]
    rule = personal.APFL(case["alpha"][0], alpha_rate=0)
    clients = two_clients(case["local_steps"])
    for client, value in zip(clients, case["v0"], strict=True):
        client.kept = {"weight": matrix(value).detach()}
    model = Regression(INPUTS["w0"])
    for arrays, expected in zip(
        run(rule, clients, model, 2, AggregationStrategy("uniform")), case["expected"], strict=True
    ):
        close(arrays["weight"], expected["w"])
        for client, own, mixed in zip(clients, expected["v"], expected["mixed"], strict=True):
            close(client.kept["weight"], own)
            server = Regression(arrays["weight"])
            rule.make_personal(server, client.kept, client)
            close(server.weight.detach(), mixed)


@pytest.mark.parametrize(("rate", "expected"), [(1.0, None), (100.0, 1.0), (-100.0, 0.0), (0.0, 0.5)])
def test_apfl_moves_alpha_once_a_round_within_its_bounds(rate, expected):
    case = CASES["apfl"]
    client, after = Client(0, case["local_steps"]), case["expected"][-1]
    mixture = personal.MixedModel(Regression(after["w"]), {"weight": matrix(after["v"][0]).detach()}, 0.5)
    term = personal.AlphaStep(mixture, abs(rate))
    term.rate = rate  # against its gradient, or, to reach the lower bound, along it
    client(mixture, term=term)
    close(mixture.alpha, 0.5 - rate * case["alpha_gradient_client_0"] if expected is None else expected)


def test_fedrep():
    case = CASES["fedrep"]
    rule = personal.FedRep(case["head_steps"], case["body_steps"])
    clients = two_clients(1)
    for client, head in zip(clients, case["heads0"], strict=True):
        client.own = {"head": matrix(head).detach()}
    model = TwoLayers(case["body0"], case["heads0"][0])
    rounds = run(rule, clients, model, 2, AggregationStrategy())
    for arrays, expected in zip(rounds, case["expected"], strict=True):
        assert list(arrays) == ["body.weight"]
        close(arrays["body.weight"], expected["body"])
        for client, head in zip(clients, expected["heads"], strict=True):
            close(client.own["head"], head)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_per_fedavg_first_order():
    case = CASES["per_fedavg_first_order"]
    rule = personal.PerFedAvg(case["alpha"])
    clients, expected = two_clients(1, case["beta"]), case["expected"]
    for client, value in zip(clients, expected["local"], strict=True):
        model = Regression(INPUTS["w0"])
        rule.local_round(model, {}, client)
        close(model.weight.detach(), value)
    (arrays,) = run(rule, clients, Regression(INPUTS["w0"]), 1, AggregationStrategy("uniform"))
    close(arrays["weight"], expected["w"])
    model = Regression(arrays["weight"])
    rule.make_personal(model, {}, clients[0])
    close(model.weight.detach(), expected["adapted_client_0"])


def test_per_fedavg_with_the_hessian():
    case = CASES["per_fedavg_hf"]
    rule = personal.PerFedAvg(case["alpha"], second_order=True)
    rounds = run(rule, two_clients(1, case["beta"]), Regression(INPUTS["w0"]), 1, AggregationStrategy("uniform"))
    close(next(rounds)["weight"], case["expected"]["w"], case["tolerance"])


def test_reptile():
    case = CASES["reptile"]
    clients = two_clients(case["inner_steps"])
    rounds = run(personal.Reptile(), clients, Regression(INPUTS["w0"]), 1, ReptileServer(case["eps"]))
    close(next(rounds)["weight"], case["expected"]["w"])


def test_adapted_model_of_one_video_and_of_parameters_without_gradient():
    model = TwoLayers(CASES["fedrep"]["body0"], CASES["fedrep"]["heads0"][0])
    model.unused = matrix([[1.0]])
    client = Client(0, 1)
    client.x, client.y = client.x[:1], client.y[:1]
    before = model.head.detach().clone()
    personal.PerFedAvg(0.1).local_round(model, {}, client)
    assert not torch.equal(model.head, before)
    close(model.unused.detach(), [[1.0]])


def test_fedbn_and_what_a_new_client_begins_with():
    case = FACTS["fedbn"]
    states = [
        {
            name: torch.tensor(value, dtype=torch.int64 if isinstance(value, int) else torch.float64)
            for name, value in one.items()
        }
        for one in case["inputs"]["states"]
    ]
    kept = {str(n): {name: one[name] for name in one if ".norm." in name} for n, one in enumerate(states)}
    new = personal.mean_of_kept(kept)
    close(new["stem.norm.running_var"], [(-0.034 + 0.95) / 2, (-0.441 + 0.966) / 2], 1e-7)
    assert new["stem.norm.num_batches_tracked"] == 5
    with pytest.raises(FederatedError, match="No client is known"):
        personal.mean_of_kept({})
    with pytest.raises(FederatedError, match="'b' kept other tensors"):
        personal.mean_of_kept({"a": {"x": torch.ones(1)}, "b": {}})


class Normed(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = torch.nn.Linear(3, 4, dtype=torch.float64), torch.nn.BatchNorm1d(4, dtype=torch.float64)
        self.last = torch.nn.Linear(4, 3, dtype=torch.float64)

    def forward(self, x, labels):
        return {"loss": torch.nn.functional.cross_entropy(self.last(self.norm(self.first(x))), labels)}


def test_batch_norms_stay_with_their_client():
    clients = [Client(0, 2), Client(1, 3)]
    clients[0].own = {"norm.weight": torch.full((4,), 7.0, dtype=torch.float64)}
    (arrays,) = run(personal.FedBN(), clients, Normed(), 1, AggregationStrategy())
    assert sorted(arrays) == ["first.bias", "first.weight", "last.bias", "last.weight"]
    for client in clients:
        assert set(client.own) == {f"norm.{name}" for name in Normed().norm.state_dict()}
        assert client.own["norm.num_batches_tracked"] >= client.steps
    assert clients[0].own["norm.weight"].mean() > 6


@pytest.mark.parametrize("rule", [personal.Ditto(), personal.APFL()])
def test_own_models_have_batch_norms_of_their_own(rule):
    model, client = Normed(), Client(0, 3)
    kept = rule.local_round(model, {}, client)
    sent = copy.deepcopy(model)
    assert kept["norm.num_batches_tracked"] == sent.norm.num_batches_tracked == 3
    rule.make_personal(model, kept, client)
    assert torch.equal(model.norm.running_mean, kept["norm.running_mean"])
    assert not torch.equal(model.norm.running_mean, sent.norm.running_mean)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: personal.Ditto(lam=-1), "lam"),
        (lambda: personal.FedRep(head_steps=0), "head_steps"),
        (lambda: personal.APFL(alpha=1.5), "alpha"),
        (lambda: personal.PerFedAvg(alpha=0), "rate"),
        (lambda: personal.PerFedAvg(second_order=7), "second_order"),
    ],
)
def test_options_that_mean_nothing(make, words):
    with pytest.raises(FederatedError, match=words):
        make()
