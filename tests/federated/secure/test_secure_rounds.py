"""Federations of which the server sees sums alone: the same models as without, drop-outs, bytes."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("flwr", reason="the extra [federated] is not installed")
pytest.importorskip("cryptography")

from hf_video.data.moving_glyphs import write_moving_glyphs
from hf_video.errors import FederatedError
from hf_video.federated.config import FederatedConfig
from hf_video.federated.local_grid import Fault
from hf_video.federated.rounds import load_state
from hf_video.federated.secure.protocol import CONFIRM, KEYS, KINDS, MASKED, SHARES, UNMASK
from hf_video.federated.simulation import simulate

VIDEOMAE = {
    **{"model_type": "videomae", "image_size": 16, "patch_size": 8, "num_frames": 2, "tubelet_size": 2},
    **{"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
}
WIDER = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128}
SETTINGS = (
    "training.optim=sgd",
    "training.learning_rate=0.05",
    "training.max_grad_norm=0",
    "training.dataloader_num_workers=0",
    "data.sampler=uniform",
    "augmentation.crop=center",
    "augmentation.short_side=16",
    "augmentation.flip=0",
    "mixing=null",
)
MAX = "max_examples=100"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs a federation of four clients, or gives the one of that name again; gives its summary and its folder."""
    folder = tmp_path_factory.mktemp("secure")
    write_moving_glyphs(folder / "videos" / "train", 20, size=16, speed=2, num_frames=4)
    done = {}

    def run(name, clients=4, resume=False, faults=(), test_size=0, model=None, **fields):
        if name in done and not resume:
            return done[name]
        fields = {"settings": SETTINGS, "local_steps": 1, "evaluate_every": 9, "rounds": 2, **fields}
        path = folder / f"{name}.json"
        path.write_text(json.dumps({**VIDEOMAE, **(model or {})}))
        config = FederatedConfig(str(path), **fields)
        options = {"clients": clients, "test_size": test_size, "resume": resume, "faults": faults}
        done[name] = simulate(folder / "videos", config, output=folder / name, **options), folder / name
        return done[name]

    return run


def arrays_of(folder):
    return load_state(sorted((folder / "rounds").glob("??????"))[-1]).arrays


def weights_of(folder):
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def apart(one, other):
    assert set(one) == set(other)
    return max(float(np.abs(array.astype(float) - other[name]).max()) for name, array in one.items())


def history(folder):
    return json.loads((folder / "history.json").read_text())["rounds"]


def audit(folder):
    return [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]


# -- SecAgg ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "strategy", ["fedavg", "fedavg:weighting=uniform", "fedprox:mu=0.5", "fedadam:learning_rate=0.01"]
)
def test_secagg_makes_the_same_model(run, strategy):
    name = strategy.replace(":", "-")
    plain, plain_folder = run(f"plain-{name}", strategy=strategy)
    secure, folder = run(f"secagg-{name}", strategy=strategy, secure=f"secagg:{MAX}")
    # FedAdam divides changes that are near 0 by their size: there a rounding is worth more.
    assert apart(arrays_of(folder), arrays_of(plain_folder)) < (1e-3 if "adam" in strategy else 1e-6)
    assert secure["clients"] == plain["clients"]
    assert secure["metrics"]["clipped_share"] == pytest.approx(0, abs=1e-6)
    initial = run(f"before-{name}", strategy=strategy, rounds=1)[1]
    assert apart(arrays_of(initial), arrays_of(folder)) > 1e-4  # and it moved


def test_bytes_of_secagg_are_those_of_float32(run):
    plain, _ = run("plain-wider", model=WIDER, rounds=1)
    secure, _ = run("secagg-wider", model=WIDER, rounds=1, secure=f"secagg:{MAX}")
    for direction in ("bytes_down", "bytes_up"):
        assert 1.0 <= secure[direction] / plain[direction] < 1.1


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_drops_out(run, kind):
    faults = [Fault("client-2", kind, 1)]
    _, folder = run(f"drop-{kind}", rounds=1, secure=f"secagg:{MAX}", faults=faults)
    row = history(folder)[0]
    stays = kind in (CONFIRM, UNMASK)
    assert row["clients"] == [f"client-{number}" for number in range(4) if stays or number != 2]
    assert list(row["failed"]) == ["client-2"]
    assert row["failed"]["client-2"].startswith(kind)
    if stays:
        _, expected = run("plain-one", rounds=1)
    else:
        _, expected = run("plain-without", rounds=1, faults=[Fault("client-2", "train", 1)])
    assert apart(arrays_of(folder), arrays_of(expected)) < 1e-6


@pytest.mark.parametrize("kind", [KEYS, SHARES, MASKED])
def test_too_many_drop_out_and_a_server_goes_on_later(run, kind):
    name = f"stopped-{kind}"
    gone = [Fault(client, kind, 2) for client in ("client-0", "client-1")]
    options = {"secure": f"secagg:{MAX}", "strategy": "fedavgm"}
    with pytest.raises(FederatedError, match=r"Round 2: .*client-1.*The 1 rounds before are kept: --resume"):
        run(name, faults=gone, **options)
    _, folder = run(name, resume=True, **options)
    _, whole = run("whole", **options)
    assert [row["round"] for row in history(folder)] == [1, 2]
    assert apart(arrays_of(folder), arrays_of(whole)) < 1e-6


def test_evaluation_is_a_secure_sum_too(run):
    fields = {"rounds": 1, "evaluate_every": 1, "test_size": 0.5}
    plain = history(run("evaluated", **fields)[1])[0]["evaluation"]
    summary, folder = run("evaluated-secagg", secure=f"secagg:{MAX}", **fields)
    found = history(folder)[0]["evaluation"]
    weights = [one["num_examples"] for one in plain.values()]
    assert set(found) == {"all clients"}
    assert found["all clients"]["num_examples"] == sum(weights)
    for name in ("accuracy", "loss"):
        mean = np.average([one[name] for one in plain.values()], weights=weights)
        assert found["all clients"][name] == pytest.approx(mean, abs=1e-4)
    assert set(summary["evaluation"]["accuracy"]) >= {"mean"}
    # Nowhere does the log have a client's own numbers.
    for line in audit(folder):
        assert not {"norm", "sha256", "num_examples"} & set(line) or line["event"] in ("summed", "round")


def test_what_a_client_does_not_answer_in_the_clear(run, tmp_path):
    from hf_video.federated.client import ClientRuntime, Site, task_payload
    from hf_video.federated.trainers import ClientTask

    runtime = ClientRuntime(Site("a", tmp_path, tmp_path))
    config = FederatedConfig("videomae", secure="secagg")
    for kind in ("train", "evaluate"):
        answer = runtime.handle(kind, task_payload(config, ClientTask(1, {})))
        assert "secure sums alone" in answer.values["error"]
    assert "no keys" in runtime.handle(KEYS, task_payload(config, ClientTask(1, {}))).values["error"]
    encrypted = FederatedConfig("videomae", secure="he")
    assert "no key file" in runtime.handle("train", task_payload(encrypted, ClientTask(1, {}))).values["error"]


@pytest.mark.parametrize(("clients", "fields"), [(2, {}), (4, {"fraction": 0.5})])
def test_rounds_of_two_are_refused(run, clients, fields):
    with pytest.raises(FederatedError, match="secagg with 2 clients hides nothing"):
        run(f"two-{len(fields)}", clients=clients, secure="secagg", **fields)


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


def test_more_videos_than_were_declared(run):
    with pytest.raises(FederatedError, match="Raise max_examples"):
        run("too-many", secure="secagg:max_examples=3")


# -- homomorphic encryption --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encrypted(run):
    pytest.importorskip("tenseal", reason="TenSEAL is not installed (the extra federated-he)")
    return run


@pytest.mark.parametrize("strategy", ["fedavg", "fedprox:mu=0.5"])
def test_encryption_makes_the_same_model(encrypted, strategy):
    _, plain = encrypted(f"plain-{strategy.replace(':', '-')}", strategy=strategy)
    _, folder = encrypted(f"he-{strategy.replace(':', '-')}", strategy=strategy, secure="he")
    assert apart(weights_of(folder), weights_of(plain)) < 1e-6
    for number in range(4):  # and each client has kept it
        assert apart(weights_of(folder / "clients" / f"client-{number}" / "model"), weights_of(plain)) < 1e-6


def test_the_server_never_has_a_model_after_the_first(encrypted):
    _, folder = encrypted("he-fedavg", strategy="fedavg", secure="he")
    state = load_state(sorted((folder / "rounds").glob("??????"))[-1])
    initial = load_state(sorted((folder / "rounds").glob("??????"))[0])
    assert apart(state.arrays, initial.arrays) == 0
    assert set(state.slots) == {"encrypted", "encrypted_facts"}


def test_a_client_drops_out_under_encryption(encrypted):
    faults = [Fault("client-1", "train", 2)]
    _, folder = encrypted("he-drop", rounds=3, secure="he", faults=faults)
    _, plain = encrypted("plain-drop", rounds=3, faults=faults)
    assert apart(weights_of(folder), weights_of(plain)) < 1e-6
    assert [len(row["clients"]) for row in history(folder)] == [4, 3, 4]


def test_a_server_of_ciphertexts_resumes(encrypted):
    gone = [Fault(f"client-{number}", "train", 2) for number in range(3)]
    with pytest.raises(FederatedError, match="Round 2"):
        encrypted("he-stopped", secure="he", faults=gone)
    _, folder = encrypted("he-stopped", secure="he", resume=True)
    _, plain = encrypted("plain-fedavg", strategy="fedavg")
    assert apart(weights_of(folder), weights_of(plain)) < 1e-6


def test_a_client_of_other_keys_is_left_out(encrypted):
    from hf_video.federated.secure.encrypted import FINGERPRINT

    def other(answer):
        return type(answer)({**answer.values, FINGERPRINT: "0" * 64}, answer.arrays)

    _, folder = encrypted("he-keys", rounds=1, secure="he", faults=[Fault("client-0", "train", 1, other)])
    row = history(folder)[0]
    assert row["clients"] == ["client-1", "client-2", "client-3"]
    assert "encrypted with other keys" in row["failed"]["client-0"]


def test_whole_models_are_too_large(encrypted):
    wide = {"hidden_size": 384, "num_attention_heads": 4, "intermediate_size": 1536}
    with pytest.raises(FederatedError, match="MB is the limit"):
        encrypted("he-wide", model=wide, secure="he")
