"""A federation in one process bears what a deployed one meets: clients that vanish, and a server that is killed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hf_video.base.written_files import read_json
from hf_video.errors import FederatedError
from hf_video.federated.arrays import arrays_digest
from hf_video.federated.client import ClientRuntime, Site
from hf_video.federated.config import FederatedConfig
from hf_video.federated.messages.exchange import ClientFailure, Exchange
from hf_video.federated.messages.payload import Payload
from hf_video.federated.rounds import FederatedRun
from hf_video.federated.rules.strategies import ClientResult
from hf_video.federated.trainers import LocalTrainer, client_seed

pytest.importorskip("flwr")
from hf_video.federated.messages.local_grid import Fault, LocalGrid

CLIENTS = ("a", "b", "c")


class Halfway(LocalTrainer):
    """Goes half of the way to a point that client and round choose."""

    def __init__(self, client, seed):
        self.client, self.seed = client, seed

    def fit(self, task):
        rng = np.random.default_rng(client_seed(self.seed, self.client, task.round))
        arrays = {n: (a + rng.normal(size=a.shape).astype(a.dtype)) / 2 for n, a in task.arrays.items()}
        return ClientResult(arrays, 3 + len(self.client), 1)

    def evaluate(self, task):
        return {"num_examples": 1.0, "loss": float(np.abs(task.arrays["w"]).mean())}


class Killed(BaseException):
    """Ends a run as a signal does: nothing is told and nothing tidied up."""


def make_run(folder, faults=(), *, rounds=4, min_clients=2, strategy="fedavgm"):
    config = FederatedConfig("videomae", rounds=rounds, min_clients=min_clients, strategy=strategy, seed=5)
    handlers = {
        name: ClientRuntime(
            Site(name, None, folder / name), make_trainer=lambda config, name=name: Halfway(name, config.seed)
        ).handle
        for name in CLIENTS
    }
    exchange = Exchange(LocalGrid(handlers, faults))
    exchange.discover(len(handlers))
    return FederatedRun(config, exchange, folder, {"w": np.linspace(-1, 1, 6, dtype=np.float32)})


def kill(payload):
    raise Killed


@pytest.mark.parametrize("what", ["drop", "error"])
def test_a_killed_client_and_a_killed_server_change_nothing(tmp_path, what):
    """Client c is missing in round 2, the server dies in round 3 and resumes: as without its death."""
    missing = Fault("c", "train", 2, what)
    whole = make_run(tmp_path / "whole", [missing])
    whole.run()
    with pytest.raises(Killed):
        make_run(tmp_path / "killed", [missing, Fault("b", "train", 3, kill)]).run()
    again = make_run(tmp_path / "killed")
    history = again.run(resume=True)
    assert [row.clients for row in history] == [["a", "b", "c"], ["a", "b"], ["a", "b", "c"], ["a", "b", "c"]]
    assert list(history[1].failed) == ["c"]
    assert arrays_digest(again.state.arrays) == arrays_digest(whole.state.arrays)
    slots = [{slot: arrays_digest(one) for slot, one in run.state.slots.items()} for run in (again, whole)]
    assert slots[0] == slots[1] != {}


def test_a_client_that_died_is_named(tmp_path):
    """Flower lets the server's own node tell of a client's death: the question says whose it is."""
    for client in CLIENTS:
        run = make_run(tmp_path / client, [Fault(client, "train", 1, "error")], rounds=1)
        (row,) = run.run()
        assert row.failed == {client: "Node Unavailable (code 5)"}
        assert row.clients == [name for name in CLIENTS if name != client]


def test_nobody_answers(tmp_path):
    """A failure that names the absent, after which a resumed run does the round anew."""
    faults = [Fault(client, "train", 3, "drop") for client in CLIENTS]
    with pytest.raises(FederatedError, match=r"Round 3 has 0 answers, and min_clients=2 are needed\. a: no answer; b:"):
        make_run(tmp_path / "run", faults).run()
    rows = read_json(tmp_path / "run" / "history.json")["rounds"]
    assert [row["round"] for row in rows] == [1, 2]
    whole, again = make_run(tmp_path / "whole"), make_run(tmp_path / "run")
    whole.run()
    again.run(resume=True)
    assert arrays_digest(again.state.arrays) == arrays_digest(whole.state.arrays)


def test_a_client_under_a_name_that_is_not_its_keys_is_not_asked(tmp_path):
    """Site b's key under the name of a: neither a's part nor b's is taken from it."""
    exchange = make_run(tmp_path).exchange
    exchange.nodes.clear()
    exchange.registered = {1: "a", 2: "a2", 3: "c"}
    with pytest.raises(FederatedError, match="the key of 'a2' is used by a client named 'b'"):
        exchange.discover(3)
    assert sorted(exchange.nodes) == ["a", "c"]


def test_the_log_says_who_did_what(tmp_path):
    run = make_run(tmp_path, [Fault("c", "train", 2, "drop")], rounds=2)
    run.run()
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert all(line["time"].endswith("+00:00") for line in lines)
    sent = [(line["round"], line["client"]) for line in lines if line["event"] == "sent"]
    assert sent == [(number, client) for number in (1, 2) for client in CLIENTS]
    received = {(line["round"], line["client"]): line for line in lines if line["event"] == "received"}
    assert sorted(received) == [(1, "a"), (1, "b"), (1, "c"), (2, "a"), (2, "b")]
    trained = ClientRuntime(Site("a", None, tmp_path), make_trainer=lambda config: Halfway("a", 5))
    answer = trained.trainer(run.config).fit(_task(run, 1))
    assert received[1, "a"]["sha256"] == arrays_digest(answer.arrays)
    norm = np.linalg.norm(answer.arrays["w"].astype(float) - np.linspace(-1, 1, 6))
    assert received[1, "a"]["norm"] == pytest.approx(norm, rel=1e-6)


def _task(run, number):
    from hf_video.federated.trainers import ClientTask

    return ClientTask(number, {"w": np.linspace(-1, 1, 6, dtype=np.float32)}, run.client_settings())


def test_answers_come_back_to_those_who_were_asked(tmp_path):
    exchange = make_run(tmp_path, [Fault("b", "evaluate", 1, "error")]).exchange
    answers = exchange.ask("evaluate", {name: Payload({}) for name in CLIENTS})
    assert list(answers) == list(CLIENTS)
    assert isinstance(answers["b"], ClientFailure)
