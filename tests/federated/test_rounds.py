"""Rounds over Flower's messages in one process: a run that is disturbed ends as it should."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("flwr", reason="the extra [federated] is not installed")

from hf_video.errors import FederatedError, OutputError
from hf_video.federated.client import client_task, result_payload
from hf_video.federated.config import FederatedConfig
from hf_video.federated.messages.exchange import ClientFailure, Exchange
from hf_video.federated.messages.local_grid import Fault, LocalGrid
from hf_video.federated.messages.payload import Payload, from_record, to_record
from hf_video.federated.rounds import AUDIT, FederatedRun
from hf_video.federated.rules.strategies import ClientResult

NAMES = ("amber", "birch", "cedar", "delta")
START = {"weight": np.zeros(3, np.float32), "count": np.zeros((), np.int64)}


def least_squares(number: int):
    """A client that takes three steps down |w - target|²."""
    target = np.arange(3) + number

    def handle(kind: str, payload: Payload) -> Payload:
        if kind == "query.describe":
            return Payload({"name": NAMES[number], "labels": ["a", "b"]})
        task = client_task(payload)
        weight = task.arrays["weight"].astype(np.float64)
        if kind == "evaluate":
            return Payload({"num_examples": 1.0, "loss": float(((weight - target) ** 2).sum())})
        for _ in range(3):
            weight -= 0.1 * (weight - target)
        arrays = {"weight": weight.astype(np.float32), "count": task.arrays["count"] + 3}
        return result_payload(ClientResult(arrays, 5 + number, 3, metrics={"loss": float(number)}))

    return handle


def federation(faults=(), names=NAMES):
    exchange = Exchange(LocalGrid({name: least_squares(NAMES.index(name)) for name in names}, faults))
    exchange.discover(len(names))
    return exchange


def run_of(folder, faults=(), *, resume=False, names=NAMES, **fields):
    config = FederatedConfig("videomae", **{"rounds": 4, "labels": ("a", "b"), **fields})
    run = FederatedRun(config, federation(faults, names), folder, START, num_clients=len(NAMES))
    run.run(resume=resume)
    return run


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int64", "bool", "uint8"])
def test_payloads_cross_flower_unchanged(dtype):
    values = {"text": "ä", "whole": 3, "real": 0.1, "yes": True, "bytes": b"\0\1", "list": [1.5, 2.5], "none": []}
    array = np.arange(6).reshape(2, 3).astype(dtype)
    sent = Payload(values, {"model": {"a.b": array, "scalar": array[0, 0].reshape(())}, "empty": {}})
    came = from_record(to_record(sent))
    assert dict(came.values) == values
    assert came.arrays["model"]["a.b"].dtype == array.dtype
    assert (came.arrays["model"]["a.b"] == array).all()
    assert came.arrays["model"]["scalar"].shape == ()
    assert sent.nbytes == came.nbytes


def test_rounds_equal_the_rule_by_hand(tmp_path):
    run = run_of(tmp_path / "run")
    weight = np.zeros(3)
    for _ in range(4):
        after = [weight + (1 - 0.9**3) * (np.arange(3) + n - weight) for n in range(4)]
        weight = np.average(after, axis=0, weights=[5, 6, 7, 8])
    assert run.state.arrays["weight"] == pytest.approx(weight, abs=1e-6)
    assert run.state.arrays["count"] == 12  # counts are not averaged
    assert [one.clients for one in run.history] == [list(NAMES)] * 4
    assert run.history[-1].evaluation["delta"]["loss"] > run.history[-1].evaluation["cedar"]["loss"]
    assert run.history[0].metrics["loss"] == 1.5


@pytest.mark.parametrize("strategy", ["fedavg", "fedavgm", "fedadam:learning_rate=0.3", "fedyogi", "feddyn:alpha=0.5"])
@pytest.mark.parametrize("stopped", [1, 3])
def test_a_stopped_run_goes_on_as_if_nothing_had_been(tmp_path, strategy, stopped):
    whole = run_of(tmp_path / "whole", strategy=strategy, fraction=0.5)
    run_of(tmp_path / "run", strategy=strategy, fraction=0.5, rounds=stopped)
    resumed = run_of(tmp_path / "run", strategy=strategy, fraction=0.5, resume=True)
    assert resumed.digest() == whole.digest()
    assert [one.clients for one in resumed.history] == [one.clients for one in whole.history]


@pytest.mark.parametrize("what", ["drop", "error"])
def test_a_client_that_is_gone_for_a_round_is_named_and_left_out(tmp_path, what):
    run = run_of(tmp_path / "run", [Fault("birch", "train", 2, what)])
    assert [len(one.clients) for one in run.history] == [4, 3, 4, 4]
    assert list(run.history[1].failed) == ["birch"]
    events = [json.loads(line) for line in (tmp_path / "run" / AUDIT).read_text().splitlines()]
    assert [(e["event"], e["round"]) for e in events if e.get("client") == "birch" and e["event"] == "failed"] == [
        ("failed", 2)
    ]


def spoil(change):
    """A fault that changes the arrays of an answer."""

    def what(payload: Payload) -> Payload:
        arrays = {name: array.copy() for name, array in payload.arrays["model"].items()}
        change(arrays)
        return Payload(payload.values, {"model": arrays})

    return what


BAD = {
    "finite": spoil(lambda a: a.update(weight=np.full(3, np.nan, np.float32))),
    "infinite": spoil(lambda a: a["weight"].__setitem__(0, np.inf)),
    "shape": spoil(lambda a: a.update(weight=np.zeros(2, np.float32))),
    "dtype": spoil(lambda a: a.update(weight=np.zeros(3))),
    "left out": spoil(lambda a: a.pop("weight")),
    "nobody asked": spoil(lambda a: a.update(more=np.zeros(1))),
    "more than": spoil(lambda a: a["weight"].__iadd__(1e4)),
    "0 videos": lambda payload: Payload({**payload.values, "num_examples": 0}, payload.arrays),
    "finite number": lambda payload: Payload({**payload.values, "num_examples": float("nan")}, payload.arrays),
    "without a model": lambda payload: Payload(payload.values),
}


@pytest.mark.parametrize("why", BAD)
def test_a_bad_update_is_left_out_or_stops_the_run_and_nothing_of_it_is_kept(tmp_path, why):
    faults = [Fault("cedar", "train", 2, BAD[why])]
    skipped = run_of(tmp_path / "skip", faults, max_update_norm=100.0)
    absent = run_of(tmp_path / "absent", [Fault("cedar", "train", 2)], max_update_norm=100.0)
    assert skipped.digest() == absent.digest()
    assert "cedar" in skipped.history[1].failed["cedar"]
    with pytest.raises(FederatedError, match="cedar"):
        run_of(tmp_path / "stop", faults, max_update_norm=100.0, on_bad_update="stop")
    assert sorted(path.name for path in (tmp_path / "stop" / "rounds").iterdir()) == ["000001"]


def test_too_few_answers_end_the_run_which_goes_on_later(tmp_path):
    gone = [Fault(name, "train", 3) for name in NAMES[:3]]
    with pytest.raises(FederatedError, match=r"Round 3 has 1 answers, and min_clients=2.*amber.*2 rounds before"):
        run_of(tmp_path / "run", gone)
    assert run_of(tmp_path / "run", resume=True).digest() == run_of(tmp_path / "whole").digest()


def test_a_folder_that_holds_a_run_is_not_written_over(tmp_path):
    run_of(tmp_path / "run", rounds=1)
    with pytest.raises(OutputError, match="--resume"):
        run_of(tmp_path / "run")
    with pytest.raises(FederatedError, match="strategy"):
        run_of(tmp_path / "run", strategy="fedavgm", resume=True)
    with pytest.raises(OutputError, match="no federated run"):
        run_of(tmp_path / "other", resume=True)


def test_a_damaged_state_is_named(tmp_path):
    run_of(tmp_path / "run", rounds=2)
    (tmp_path / "run" / "rounds" / "000002" / "arrays.safetensors").write_bytes(b"short")
    with pytest.raises(FederatedError, match=r"000002 can't be read"):
        run_of(tmp_path / "run", resume=True)


def test_answers_do_not_depend_on_names_order_of_tensors(tmp_path):
    turned = spoil(lambda a: a.update({name: a.pop(name) for name in list(a)[::-1]}))
    faults = [Fault(name, "train", n, turned) for name in NAMES for n in (1, 2, 3, 4)]
    assert run_of(tmp_path / "a", faults).digest() == run_of(tmp_path / "b").digest()


def test_too_few_clients_and_double_names_are_refused():
    with pytest.raises(FederatedError, match=r"1 clients are there \(amber\), and 2 are needed"):
        Exchange(LocalGrid({"amber": least_squares(0)})).discover(2)
    with pytest.raises(FederatedError, match="Two clients call themselves 'amber'"):
        Exchange(LocalGrid({"amber": least_squares(0), "birch": least_squares(0)})).discover(2)


def test_an_error_at_a_client_is_told():
    exchange = federation()
    exchange.grid.handlers["amber"] = lambda kind, payload: Payload({"error": "DataError: no videos"})
    answers = exchange.ask(
        "train", {"amber": Payload(), "birch": Payload({"round": 1, "config": ""}, {"model": START})}
    )
    assert answers["amber"] == ClientFailure("DataError: no videos")
    assert isinstance(answers["birch"], Payload)
