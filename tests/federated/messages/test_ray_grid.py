"""Clients in processes of Ray give what clients in one process give, bit by bit."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import tiny

from hf_video.base.written_files import read_json
from hf_video.errors import FederatedError
from hf_video.federated.config import FederatedConfig
from hf_video.federated.server import SUMMARY
from hf_video.federated.simulation import simulate

pytest.importorskip("flwr")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips")
    tiny.save_tiny(root / "model")
    for number in range(12):
        path = root / "videos/train" / tiny.LABELS[number % 2] / f"{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        tiny.write_clip(path, 8, seed=number)
    return root


def config_of(data, **changes):
    settings = ("training.per_device_train_batch_size=2",)
    return replace(FederatedConfig(str(data / "model"), rounds=2, local_steps=2, settings=settings, seed=3), **changes)


def test_an_unknown_engine(data, tmp_path):
    with pytest.raises(FederatedError, match=r"engine='rya' must be one of 'local', 'ray'\. Did you mean 'ray'\?"):
        simulate(data / "videos", config_of(data), output=tmp_path, engine="rya")


@pytest.mark.slow
@pytest.mark.parametrize("personal", [None, "fedper"])
def test_ray_and_one_process_agree(data, tmp_path, personal):
    """Also where clients keep a part of the model, and where one of them is lost."""
    pytest.importorskip("ray")
    from hf_video.federated.messages.local_grid import Fault

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    config, faults = config_of(data, personal=personal), [Fault("client-1", "train", 2, "error")]
    digests = {}
    for engine in ("local", "ray"):
        simulate(data / "videos", config, output=tmp_path / engine, clients=3, engine=engine, faults=faults)
        digests[engine] = read_json(tmp_path / engine / SUMMARY)["sha256"]
        history = read_json(tmp_path / engine / "history.json")["rounds"]
        assert [row["clients"] for row in history] == [
            ["client-0", "client-1", "client-2"],
            ["client-0", "client-2"],
        ]
        assert history[1]["failed"] == {"client-1": "Node Unavailable (code 5)"}
    assert digests["local"] == digests["ray"]
