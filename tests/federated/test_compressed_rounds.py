"""Rounds whose answers are compressed: what arrives, what it costs, what stays."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("flwr", reason="the extra [federated] is not installed")

from small_federations import SETTINGS, VIDEOMAE

from hf_video.data.moving_glyphs import write_moving_glyphs
from hf_video.errors import FederatedError
from hf_video.federated.config import FederatedConfig
from hf_video.federated.rounds import load_state
from hf_video.federated.simulation import simulate
from hf_video.federated.store import PersonalStore


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs a federation of three clients; gives its summary and its folder."""
    folder = tmp_path_factory.mktemp("compressed")
    write_moving_glyphs(folder / "videos" / "train", 6, size=16, speed=2, num_frames=4)
    (folder / "config.json").write_text(json.dumps({**VIDEOMAE, "hidden_size": 32, "intermediate_size": 64}))

    def run(name, rounds=2, resume=False, **fields):
        fields = {"settings": SETTINGS, "local_steps": 1, "evaluate_every": 9, "rounds": rounds, **fields}
        config = FederatedConfig(str(folder / "config.json"), **fields)
        output = folder / name
        summary = simulate(folder / "videos", config, output=output, clients=3, test_size=0, resume=resume)
        return summary, output

    return run


@pytest.fixture(scope="module")
def plain(run):
    return run("plain")


def arrays_of(folder):
    return load_state(sorted((folder / "rounds").glob("??????"))[-1]).arrays


@pytest.mark.parametrize(
    ("text", "share", "error"), [("fp16", 0.5, 1e-4), ("int8", 0.25, 1e-3), ("topk:0.1", 0.2, 0.2), ("none", 1, 0)]
)
def test_the_model_is_near_and_the_bytes_are_fewer(run, plain, text, share, error):
    summary, folder = run(text.replace(":", "-"), compression=text)
    assert summary["bytes_up"] / plain[0]["bytes_up"] == pytest.approx(share, rel=0.12)
    assert summary["bytes_down"] == pytest.approx(plain[0]["bytes_down"], rel=0.01)
    wanted = arrays_of(plain[1])
    apart = max(float(np.abs(one - wanted[name]).max()) for name, one in arrays_of(folder).items())
    assert apart <= error
    assert (apart > 0) == (text != "none")


def test_what_was_not_sent_is_the_client_s_own(run):
    _, folder = run("resumed", rounds=1, compression="topk:0.05")
    left = PersonalStore(folder / "clients" / "client-0").load("residual", 2)
    assert max(float(one.abs().max()) for one in left.values()) > 0
    # A server that goes on finds it, as one that was never stopped.
    resumed, _ = run("resumed", rounds=3, resume=True, compression="topk:0.05")
    whole, _ = run("whole", rounds=3, compression="topk:0.05")
    assert resumed["sha256"] == whole["sha256"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"compression": "int7"}, "Did you mean 'int8'"),
        ({"compression": "topk"}, "lacks the share"),
        ({"compression": "int8", "secure": "secagg"}, "no place in a secure sum"),
        ({"secure": "secag"}, "Did you mean 'secagg'"),
        ({"secure": "secagg", "strategy": "krum"}, "their sum alone"),
        ({"secure": "he", "strategy": "fedadam"}, "more of the clients' answers"),
        ({"secure": "secagg", "max_update_norm": 1.0}, "max_update_norm"),
        ({"secure": "he", "privacy": {"unit": "client", "epsilon": 8}}, "at the server"),
        ({"secure": "secagg", "privacy": "client:eps=8"}, "at the server"),
    ],
)
def test_federations_that_can_t_be(fields, words):
    with pytest.raises(FederatedError, match=words):
        FederatedConfig("videomae", **fields)
