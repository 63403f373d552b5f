"""What the benchmark in the examples is there to show."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="the extra [federated] is not installed")

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.slow
def test_batch_norms_of_their_own_help_clients_that_look_different(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    import federated_benchmark

    names = ("public-i3d", "shift-fedavg", "shift-fedbn")
    found = {name: federated_benchmark.run(name, federated_benchmark.ROWS[name], tmp_path) for name in names}
    assert found["shift-fedbn"]["accuracy"] >= found["shift-fedavg"]["accuracy"] + 0.15
    assert found["shift-fedbn"]["worst"] > found["shift-fedavg"]["worst"]
