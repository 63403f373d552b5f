"""Federations of which the server sees sums alone: the same models as without, drop-outs, bytes."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

pytest.importorskip("flwr", reason="the extra [federated] is not installed")
pytest.importorskip("cryptography")

from small_federations import SETTINGS, VIDEOMAE

from hf_video.data.moving_glyphs import write_moving_glyphs
from hf_video.errors import FederatedError
from hf_video.federated.client import ClientRuntime, Site, task_payload
from hf_video.federated.config import FederatedConfig
from hf_video.federated.deployment.limits import SiteLimits
from hf_video.federated.messages.exchange import Exchange
from hf_video.federated.messages.local_grid import Fault, LocalGrid
from hf_video.federated.messages.payload import Payload
from hf_video.federated.rounds import load_state
from hf_video.federated.rules.strategies import ClientResult
from hf_video.federated.secure.homomorphic import HomomorphicKeys
from hf_video.federated.secure.protocol import CONFIRM, KEYS, KINDS, MASKED, SHARES, UNMASK
from hf_video.federated.secure.runs import make_run
from hf_video.federated.simulation import make_site_keys, simulate
from hf_video.federated.trainers import ClientTask, LocalTrainer

NAMES = ("amber", "birch", "cedar", "delta")
START = {
    "head.weight": np.linspace(-1, 1, 2100, dtype=np.float32).reshape(3, 700),
    "head.bias": np.zeros(3, np.float64),
    "norm.count": np.array(2, np.int64),
}


class Descent(LocalTrainer):
    """Goes a part of the way to a point of its own, by as many steps as FedProx lets it."""

    def __init__(self, name):
        self.number = NAMES.index(name)
        rng = np.random.default_rng(self.number)
        self.target = {key: rng.normal(size=one.shape) for key, one in START.items() if key != "norm.count"}

    def fit(self, task: ClientTask) -> ClientResult:
        pace = 0.1 / (1 + task.settings.get("proximal_mu", 0))
        after = {
            name: (one + pace * (self.target[name] - one)).astype(one.dtype)
            if name in self.target
            else np.asarray(one + 3)
            for name, one in task.arrays.items()
        }
        return ClientResult(after, 5 + 17 * self.number, 3, metrics={"loss": self.loss(task), "seconds": 1.0})

    def evaluate(self, task: ClientTask) -> dict[str, float]:
        if self.number == 3:  # has nothing to measure with
            return {}
        return {"num_examples": 4.0 + self.number, "loss": self.loss(task), "accuracy": 0.25 * self.number}

    def loss(self, task: ClientTask) -> float:
        return float(np.mean((task.arrays["head.weight"] - self.target["head.weight"]) ** 2))


def describe(name):
    return lambda payload: Payload({"name": name, "num_examples": 5 + 17 * NAMES.index(name), "labels": ["a", "b"]})


def run_of(folder, faults=(), *, resume=False, names=NAMES, limits=None, measure=None, **fields):
    """A run that has ended; `keys` are its sites'."""
    config = FederatedConfig("videomae", **{"rounds": 3, "labels": ("a", "b"), "evaluate_every": 9, **fields})
    keys = make_site_keys(config, names, folder / "shared.key")
    handlers = {}
    for name in names:
        site = Site(name, None, folder / "clients" / name, limits or SiteLimits(), keys[name])
        runtime = ClientRuntime(site, make_trainer=lambda config, name=name: Descent(name))
        runtime.handlers["query.describe"] = describe(name)
        handlers[name] = runtime.handle
    exchange = Exchange(LocalGrid(handlers, faults))
    exchange.discover(len(names))
    run = make_run(config, exchange, folder / "run", START, measure=measure)
    run.keys = keys[names[0]]
    run.run(resume=resume)
    return run


def apart(one, other):
    assert {name: (array.dtype, array.shape) for name, array in one.items()} == {
        name: (array.dtype, array.shape) for name, array in other.items()
    }
    return max(float(np.abs(array.astype(float) - other[name]).max()) for name, array in one.items())


def audit(folder):
    return [json.loads(line) for line in (folder / "run" / "audit.jsonl").read_text().splitlines()]


# -- SecAgg ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "strategy",
    ["fedavg", "fedavg:weighting=uniform", "fedprox:mu=0.5", "fedavgm", "fedadam:learning_rate=0.01", "fedyogi"],
)
def test_secagg_makes_the_same_model(tmp_path, strategy):
    plain = run_of(tmp_path / "plain", strategy=strategy)
    secure = run_of(tmp_path / "secure", strategy=strategy, secure="secagg:max_examples=100")
    assert apart(secure.state.arrays, plain.state.arrays) < 1e-5
    assert apart(secure.state.arrays, START) > 0.01
    assert secure.state.arrays["norm.count"] == 11
    for one, other in zip(secure.history, plain.history, strict=True):
        assert one.clients == other.clients == list(NAMES)
        assert one.failed == {}
        assert one.metrics["clipped_share"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_drops_out(tmp_path, kind):
    run = run_of(tmp_path / "secure", [Fault("cedar", kind, 2)], secure="secagg")
    stays = kind in (CONFIRM, UNMASK)
    plain = run_of(tmp_path / "plain", [] if stays else [Fault("cedar", "train", 2)])
    assert [one.clients for one in run.history] == [one.clients for one in plain.history]
    assert list(run.history[1].failed) == ["cedar"]
    assert run.history[1].failed["cedar"].startswith(kind)
    assert apart(run.state.arrays, plain.state.arrays) < 1e-5


@pytest.mark.parametrize("kind", [KEYS, SHARES, MASKED, UNMASK])
def test_too_many_drop_out_and_a_server_goes_on_later(tmp_path, kind):
    gone = [Fault(client, kind, 2) for client in ("amber", "birch")]
    with pytest.raises(FederatedError, match=r"Round 2: .*birch.*The 1 rounds before are kept: --resume"):
        run_of(tmp_path, gone, secure="secagg", strategy="fedavgm")
    resumed = run_of(tmp_path, secure="secagg", strategy="fedavgm", resume=True)
    whole = run_of(tmp_path / "whole", strategy="fedavgm")
    assert [one.round for one in resumed.history] == [1, 2, 3]
    assert apart(resumed.state.arrays, whole.state.arrays) < 1e-5


def test_evaluation_is_a_secure_sum_too(tmp_path):
    plain = run_of(tmp_path / "plain", evaluate_every=1)
    secure = run_of(tmp_path / "secure", evaluate_every=1, secure="secagg:max_examples=100")
    for one, other in zip(secure.history, plain.history, strict=True):
        assert set(one.evaluation) == {"all clients"}
        found, weights = one.evaluation["all clients"], [row["num_examples"] for row in other.evaluation.values()]
        assert found["num_examples"] == sum(weights) == 15
        for name in ("accuracy", "loss"):
            mean = np.average([row[name] for row in other.evaluation.values()], weights=weights)
            assert found[name] == pytest.approx(mean, abs=1e-4)
    # Nowhere does the log have a client's own numbers.
    for line in audit(tmp_path / "secure"):
        assert not {"norm", "sha256", "num_examples"} & set(line) or line["event"] in ("summed", "round")


def test_a_client_that_can_t_evaluate_does_not_end_a_run(tmp_path):
    gone = [Fault(client, KEYS, 2) for client in ("amber", "birch")]
    run = run_of(tmp_path, gone, rounds=1, secure="secagg")
    assert run.history[0].clients == list(NAMES)
    assert run.history[0].evaluation == {}
    assert any("evaluation" in line.get("reason", "") for line in audit(tmp_path))


def test_what_a_client_does_not_answer_in_the_clear(tmp_path):
    runtime = ClientRuntime(Site("amber", None, tmp_path), make_trainer=lambda config: Descent("amber"))
    task = task_payload(FederatedConfig("videomae", secure="secagg"), ClientTask(1, START))
    for kind in ("train", "evaluate"):
        assert "secure sums alone" in runtime.handle(kind, task).values["error"]
    assert "no keys" in runtime.handle(KEYS, task).values["error"]
    encrypted = task_payload(FederatedConfig("videomae", secure="he"), ClientTask(1, START))
    assert "no key file" in runtime.handle("train", encrypted).values["error"]
    private = ClientRuntime(replace(runtime.site, limits=SiteLimits(secure=True)))
    for text in (None, "none"):
        plain = task_payload(FederatedConfig("videomae", secure=text), ClientTask(1, START))
        assert "only secure aggregation is agreed" in private.handle("train", plain).values["error"]


def test_a_site_s_limits_hold_in_a_secure_sum(tmp_path):
    with pytest.raises(FederatedError, match=r"Round 1: .*5 are needed"):
        run_of(tmp_path, secure="secagg", limits=SiteLimits(clients=5), min_clients=5)


@pytest.mark.parametrize(("names", "fields"), [(NAMES[:2], {}), (NAMES, {"fraction": 0.5})])
def test_rounds_of_two_are_refused(tmp_path, names, fields):
    with pytest.raises(FederatedError, match="secagg with 2 clients hides nothing"):
        run_of(tmp_path, names=names, secure="secagg", **fields)


@pytest.mark.parametrize(
    ("secure", "words"),
    [
        ("secagg:clip=0", "clip"),
        ("secagg:min_survivors=2", "min_survivors=2 must be 3"),
        ("secagg:clipp=1", "Did you mean 'clip'"),
        ("he:force=3", "force"),
        ("smpc", "There is no secure 'smpc'"),
    ],
)
def test_options_that_mean_nothing(secure, words):
    with pytest.raises(FederatedError, match=words):
        FederatedConfig("videomae", secure=secure)


def test_more_videos_than_were_declared(tmp_path):
    with pytest.raises(FederatedError, match="Raise max_examples"):
        run_of(tmp_path, secure="secagg:max_examples=30")


# -- homomorphic encryption --------------------------------------------------------------------------------------------

encryption = pytest.mark.skipif(
    find_spec("tenseal") is None,
    reason="TenSEAL is not installed (the extra federated-he)",
)


def opened(run):
    return run.opened(HomomorphicKeys(run.keys.shared))


@encryption
@pytest.mark.parametrize("strategy", ["fedavg", "fedavg:weighting=uniform", "fedprox:mu=0.5"])
def test_encryption_makes_the_same_model(tmp_path, strategy):
    plain = run_of(tmp_path / "plain", strategy=strategy, evaluate_every=1)
    run = run_of(tmp_path / "he", strategy=strategy, evaluate_every=1, secure="he")
    assert apart(opened(run), plain.state.arrays) < 1e-6
    for one, other in zip(run.history, plain.history, strict=True):
        assert one.clients == other.clients
        for name in ("amber", "birch", "cedar"):  # clients measure the model that they opened
            assert one.evaluation[name] == pytest.approx(other.evaluation[name], abs=1e-5)
    # The server has the first model, counts, and ciphertexts.
    assert apart({**run.state.arrays, "norm.count": START["norm.count"]}, START) == 0
    assert run.state.arrays["norm.count"] == 11
    assert set(run.state.slots) == {"encrypted", "encrypted_facts"}


@encryption
def test_a_client_drops_out_under_encryption(tmp_path):
    faults = [Fault("birch", "train", 2)]
    run = run_of(tmp_path / "he", faults, secure="he")
    assert apart(opened(run), run_of(tmp_path / "plain", faults).state.arrays) < 1e-6
    assert [len(one.clients) for one in run.history] == [4, 3, 4]


@encryption
def test_a_server_of_ciphertexts_resumes(tmp_path):
    gone = [Fault(name, "train", 2) for name in NAMES[:3]]
    with pytest.raises(FederatedError, match="Round 2"):
        run_of(tmp_path, gone, secure="he")
    run = run_of(tmp_path, secure="he", resume=True)
    assert apart(opened(run), run_of(tmp_path / "plain").state.arrays) < 1e-6


@encryption
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: Payload({**a.values, "encrypted.keys": "0" * 64}, a.arrays), "encrypted with other keys"),
        (lambda a: Payload(a.values, {**a.arrays, "encrypted": {}}), "sent no ciphertexts"),
        (lambda a: Payload(a.values, {"model": a.arrays["model"]}), "sent no ciphertexts"),
        (lambda a: Payload(a.values, {"encrypted": a.arrays["encrypted"]}), "left out 1 tensors"),
        (lambda a: Payload({**a.values, "num_examples": 0}, a.arrays), "trained on 0 videos"),
        (
            lambda a: Payload(a.values, {**a.arrays, "encrypted": {"000000": a.arrays["encrypted"]["000000"]}}),
            "1 ciphertexts, which is not the model",
        ),
        (
            lambda a: Payload(
                a.values, {**a.arrays, "encrypted": {n: one[:99] for n, one in a.arrays["encrypted"].items()}}
            ),
            "can't be added",
        ),
    ],
)
def test_an_answer_that_can_t_be_added_is_left_out(tmp_path, change, words):
    run = run_of(tmp_path, [Fault("amber", "train", 1, change)], rounds=1, secure="he")
    assert run.history[0].clients == list(NAMES[1:])
    assert words in run.history[0].failed["amber"]
    with pytest.raises(FederatedError, match=words):
        run_of(tmp_path / "s", [Fault("amber", "train", 1, change)], rounds=1, secure="he", on_bad_update="stop")


@encryption
def test_a_server_does_not_measure_what_it_can_t_open(tmp_path):
    with pytest.raises(FederatedError, match="clients evaluate"):
        run_of(tmp_path, secure="he", measure=lambda arrays: {"accuracy": 1.0})


@encryption
def test_a_site_with_another_key_file_is_named(tmp_path):
    run = run_of(tmp_path, rounds=1, secure="he")
    other = make_site_keys(run.config, NAMES, tmp_path / "other.key")["amber"]
    late = ClientRuntime(
        Site("amber", None, tmp_path / "late", keys=other), make_trainer=lambda config: Descent("amber")
    )
    payload = run.outgoing(task_payload(run.config, ClientTask(2, run.state.arrays)))
    assert "give all sites the same key file" in late.handle("train", payload).values["error"]


# -- of videos ---------------------------------------------------------------------------------------------------------

WIDER = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128}
USUAL = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Simulates one round of three clients; gives its summary and its folder."""
    folder = tmp_path_factory.mktemp("secure")
    write_moving_glyphs(folder / "videos" / "train", 6, size=16, speed=2, num_frames=4)

    def simulated(name, model=None, test_size=0, **fields):
        (folder / f"{name}.json").write_text(json.dumps({**VIDEOMAE, **(model or {})}))
        fields = {"settings": SETTINGS, "local_steps": 1, "evaluate_every": 9, "rounds": 1, **fields}
        config = FederatedConfig(str(folder / f"{name}.json"), **fields)
        options = {"clients": 3, "test_size": test_size}
        return simulate(folder / "videos", config, output=folder / name, **options), folder / name

    return simulated


def weights_of(folder):
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def test_videos_under_secagg(simulated):
    """The same model for the bytes of float32."""
    plain, plain_folder = simulated("plain", WIDER, strategy="fedprox:mu=0.5")
    secure, folder = simulated("secagg", WIDER, strategy="fedprox:mu=0.5", secure="secagg:max_examples=100")
    assert apart(weights_of(folder), weights_of(plain_folder)) < 1e-6
    for direction in ("bytes_down", "bytes_up"):
        assert 1.0 <= secure[direction] / plain[direction] < 1.1


@encryption
def test_videos_under_encryption(simulated):
    _, plain_folder = simulated("plain-tiny", rounds=2)
    _, folder = simulated("he", rounds=2, secure="he")
    assert apart(weights_of(folder), weights_of(plain_folder)) < 1e-6
    for number in range(3):  # each client has kept it
        assert apart(weights_of(folder / "clients" / f"client-{number}" / "model"), weights_of(plain_folder)) < 1e-6
    saved = load_state(sorted((folder / "rounds").glob("??????"))[-1])
    assert apart(saved.arrays, load_state(sorted((folder / "rounds").glob("??????"))[0]).arrays) == 0


@encryption
def test_whole_models_are_too_large_to_encrypt(simulated):
    with pytest.raises(FederatedError, match="MB is the limit"):
        simulated("he-wide", {**USUAL, "num_hidden_layers": 2}, secure="he")


@pytest.mark.parametrize("personal", ["ditto:lam=0.5", "fedper"])
def test_personal_models_under_secagg(simulated, personal):
    """What clients keep is theirs as before, and the rest is the same sum."""
    name = personal.partition(":")[0]
    _, plain = simulated(f"plain-{name}", personal=personal)
    _, folder = simulated(f"secagg-{name}", personal=personal, secure="secagg:max_examples=100")
    found, wanted = (load_state(one / "rounds" / "000001").arrays for one in (folder, plain))
    assert apart(found, wanted) < 1e-6


def test_privacy_of_videos_under_secagg(simulated):
    """Clients add the noise and hold to ε; the server can't see what each has spent, and states the bound."""
    pytest.importorskip("opacus", reason="the extra [federated-dp] is not installed")
    summary, _ = simulated("private", privacy="video:eps=50,delta=0.01,clip=1.0", secure="secagg:max_examples=100")
    assert "epsilon" not in summary["metrics"]
    assert summary["privacy"]["largest_epsilon"] is None
    assert "(ε, δ) = (50" in summary["privacy"]["statement"]


def test_adapters_are_a_small_part_of_the_bytes(simulated):
    """LoRA and the head of a model of usual proportions: 3 % of the bytes of the whole, under SecAgg as without."""
    lora = {"lora": {"r": 4, "target_modules": ["query", "value"]}}
    fields = {"full": {}, "lora": lora, "secagg-lora": {**lora, "secure": "secagg:max_examples=100"}}
    found = {name: simulated(name, USUAL, **more)[0] for name, more in fields.items()}
    for direction in ("bytes_down", "bytes_up"):
        assert found["lora"][direction] / found["full"][direction] <= 0.03
        assert found["secagg-lora"][direction] / found["full"][direction] <= 0.03


def test_a_sum_in_a_report(tmp_path):
    """There is a mean and no worst client; who is in the sum and failed after it was asked once."""
    from hf_video.federated.report import format_round
    from hf_video.federated.server import summarize_evaluation

    run = run_of(tmp_path, [Fault("amber", UNMASK, 1)], rounds=1, secure="secagg:max_examples=100")
    mean = run.history[0].evaluation["all clients"]["accuracy"]
    found = summarize_evaluation(run.history[0])
    assert set(found) == {"accuracy", "loss"}
    assert found["accuracy"] == {"mean": mean}
    line = format_round(run.history[0]).splitlines()[0]
    assert "4/4" in line
    assert line.count("%") == 1
