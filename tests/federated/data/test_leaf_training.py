"""Training on LEAF's Synthetic, by the example."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from hf_video.federated.data.leaf import synthetic
from hf_video.federated.rules.strategies import AggregationStrategy, FedProx

TESTS = Path(__file__).parent.parent.parent
FACTS = json.loads((TESTS / "golden_federated" / "golden_federated.json").read_text())["leaf_synthetic_training"]


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("leaf_benchmark", TESTS.parent / "examples" / "leaf_benchmark.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("name", "strategy"), [("fedavg", AggregationStrategy()), ("fedprox_mu_1", FedProx(1.0))])
def test_losses_of_rounds(example, name, strategy):
    given = FACTS["inputs"]
    users = synthetic(given["alpha"], given["beta"], given["users"], seed=given["seed"])
    users = [(x[: given["rows_per_user_at_most"]], y[: given["rows_per_user_at_most"]]) for x, y in users]
    found = example.train(strategy, users, 20, steps=given["full_batch_local_steps"], rate=given["lr"])
    for expected in FACTS["expected"][name]:
        loss, accuracy = found[expected["round"]]
        assert loss == pytest.approx(expected["loss"], abs=1e-8)
        assert accuracy == pytest.approx(expected["accuracy"], abs=1e-8)


def test_the_command(example, tmp_path, capsys, monkeypatch):
    users = synthetic(1, 1, 3, seed=1)
    data = {str(n): {"x": x[:20].tolist(), "y": y[:20].tolist()} for n, (x, y) in enumerate(users)}
    path = tmp_path / "all_data.json"
    path.write_text(json.dumps({"users": list(data), "num_samples": [20] * 3, "user_data": data}))
    monkeypatch.setattr(sys, "argv", ["leaf_benchmark.py", "--json", str(path), "--rounds", "5"])
    example.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all("%" in line for line in lines[1:])
