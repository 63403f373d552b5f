"""A federation of processes over TLS on the loopback interface, with clients and the server killed in the middle.

What comes out is compared with the same federation in one process, bit by bit. Most of the time
goes into a minute in which Flower counts on a client that is dead, and into importing PyTorch in eight processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import psutil
import pytest
import tiny
import torch

from hf_video import cli
from hf_video.base.written_files import read_json
from hf_video.federated.arrays import arrays_digest
from hf_video.federated.client import ClientRuntime, Site
from hf_video.federated.config import FederatedConfig
from hf_video.federated.deployment.certificates import make_keys
from hf_video.federated.messages.exchange import Exchange
from hf_video.federated.rounds import load_state
from hf_video.federated.server import SUMMARY, run_federation

pytest.importorskip("flwr")
pytestmark = pytest.mark.slow

SITES = ("a", "b", "c")
ROUNDS = 4
CONFIG = """\
model: {model}
labels: [archery, bowling]
rounds: {rounds}
min_clients: 2
local_steps: 2
deadline: 400
settings: [training.per_device_train_batch_size=2]
seed: 7
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, videos of three sites, keys, and those of a site that the server does not know."""
    root = tmp_path_factory.mktemp("federation")
    tiny.save_tiny(root / "model")
    for number, (site, label, clip) in enumerate(product(SITES, tiny.LABELS[:2], range(2))):
        path = root / "videos" / site / "train" / label / f"{clip}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        tiny.write_clip(path, 12, seed=number)
    make_keys(root / "sites", SITES, ["localhost"])
    make_keys(root / "others", ["a"], ["localhost"])
    (root / "federation.yaml").write_text(CONFIG.format(model=root / "model", rounds=ROUNDS))
    return root


class Processes:
    """Commands that run, each with those below it in a group of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.running, self.logs = folder, {}, {}
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self.port = one.getsockname()[1]

    def start(self, name: str, *words: object) -> None:
        self.logs[name] = self.folder / f"{name}.txt"
        command = [sys.executable, "-m", "hf_video.cli", "federated", *map(str, words)]
        with self.logs[name].open("a") as log:
            environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
            self.running[name] = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=environment
            )

    def server(self, output: Path, *more: object) -> None:
        words = [self.folder / "federation.yaml", "--keys", self.folder / "sites/server", "--output", output]
        self.start("server", "server", *words, "--port", self.port, "--host", "127.0.0.1", *more)

    def client(self, site: str, **typed: object) -> None:
        options = {
            "server": f"localhost:{self.port}",
            "data": self.folder / "videos" / site,
            "folder": self.folder / "state" / site,
            **typed,
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        self.start(site, "client", self.folder / "sites" / site / "site.yaml", *words)

    def kill(self, name: str) -> None:
        os.killpg(self.running[name].pid, signal.SIGKILL)
        self.running.pop(name).wait()

    def kill_superlink(self) -> None:
        """Kills the process of Flower's that the server started."""
        below = psutil.Process(self.running["server"].pid).children(recursive=True)
        next(one for one in below if any("superlink" in word for word in one.cmdline())).kill()

    def wait(self, name: str, seconds: float) -> int:
        try:
            return self.running[name].wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{name} still runs: {self.logs[name].read_text()[-2000:]}") from None

    def stop(self) -> None:
        for process in self.running.values():
            if process.poll() is None:
                process.terminate()
        for process in self.running.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@pytest.fixture
def processes(folder):
    started = Processes(folder)
    yield started
    started.stop()
    shutil.rmtree(folder / "state", ignore_errors=True)


def await_event(output: Path, seconds: float = 600.0, **facts: object) -> None:
    """Waits for a line of the audit log."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        log = output / "audit.jsonl"
        lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        if any(facts.items() <= line.items() for line in lines):
            return
        time.sleep(0.1)
    raise AssertionError(f"no {facts} within {seconds:g} s")


def in_one_process(folder: Path, output: Path, rounds: int, faults=()) -> list[str]:
    """Digests of the server's model after each of the last rounds, of the same federation without processes."""
    from hf_video.federated.messages.local_grid import LocalGrid

    torch.set_num_threads(1)  # as in the processes: several threads round otherwise
    config = FederatedConfig.load(folder / "federation.yaml")
    config = FederatedConfig.from_dict({**config.to_dict(), "rounds": rounds})
    sites = {name: Site(name, str(folder / "videos" / name), output / name) for name in SITES}
    grid = LocalGrid({name: ClientRuntime(site).handle for name, site in sites.items()}, faults)
    run_federation(config, Exchange(grid), output)
    return digests(output)


def digests(output: Path) -> list[str]:
    return [arrays_digest(load_state(state).arrays) for state in sorted((output / "rounds").glob("??????"))]


def test_killed_clients_and_servers_change_nothing(folder, processes, tmp_path):
    """A client dies in round 2 and the server in round 3; both come back, the server's own process of Flower dies in
    round 4 and is started anew by it; and the model is that of a run in which the client missed round 2. A client with
    an unknown key is refused meanwhile, at once and for good."""
    from hf_video.federated.messages.local_grid import Fault

    output = tmp_path / "run"
    processes.server(output)
    for site in SITES:
        processes.client(site)
    await_event(output, event="sent", round=1, client="c")
    stranger = folder / "others/a"
    processes.start(
        "stranger",
        *("client", stranger / "site.yaml", "--server", f"localhost:{processes.port}"),
        *("--root", folder / "sites/a/ca.crt", "--data", folder / "videos/a", "--folder", folder / "state/stranger"),
    )
    await_event(output, event="sent", round=2, client="c")
    processes.kill("c")
    processes.client("c")
    await_event(output, event="failed", round=2, client="c")
    await_event(output, event="sent", round=3)
    processes.kill("server")
    processes.server(output, "--resume", "--restarts", 1)
    await_event(output, event="sent", round=4)
    processes.kill_superlink()
    assert processes.wait("server", 900) == cli.DONE, processes.logs["server"].read_text()
    assert processes.wait("stranger", 300) == cli.WRONG
    assert "refuses the key" in processes.logs["stranger"].read_text()

    history = read_json(output / "history.json")["rounds"]
    assert [row["clients"] for row in history] == [["a", "b", "c"], ["a", "b"], ["a", "b", "c"], ["a", "b", "c"]]
    assert "Node Unavailable" in history[1]["failed"]["c"]
    expected = in_one_process(folder, tmp_path / "same", ROUNDS, [Fault("c", "train", 2, "drop")])
    assert digests(output) == expected
    assert read_json(output / SUMMARY)["rounds"] == ROUNDS
    told = processes.logs["server"].read_text()
    assert "goes on after round 2" in told
    assert "It is started anew" in told
    assert "goes on after round 3" in told
    assert list((output / "tensorboard").iterdir())


@pytest.mark.parametrize("secure", ["secagg:max_examples=100", "he"])
def test_sums_that_the_server_can_t_look_into(folder, processes, tmp_path, secure):
    """Over TLS, each message in a process of its own, the model is that of plain rounds."""
    import numpy as np
    from safetensors.numpy import load_file

    if secure == "he":
        pytest.importorskip("tenseal", reason="TenSEAL is not installed (the extra federated-he)")
        from hf_video.federated.secure.homomorphic import new_keys

        content = new_keys()
        for site in SITES:
            (folder / "sites" / site / "shared.key").write_bytes(content)
    rounds = 2 if secure == "he" else 1
    plain = folder / "federation.yaml"
    text = plain.read_text()
    in_one_process(folder, tmp_path / "plain", rounds)
    try:
        plain.write_text(text.replace(f"rounds: {ROUNDS}", f"rounds: {rounds}") + f"secure: {secure}\n")
        processes.server(tmp_path / "run")
        for site in SITES:
            processes.client(site)
        assert processes.wait("server", 420) == cli.DONE, processes.logs["server"].read_text()
    finally:
        plain.write_text(text)
    history = read_json(tmp_path / "run" / "history.json")["rounds"]
    assert [row["clients"] for row in history] == [list(SITES)] * rounds
    assert [row["failed"] for row in history] == [{}] * rounds
    expected = load_file(tmp_path / "plain" / "model.safetensors")
    kept = [tmp_path / "run"] if secure != "he" else [folder / "state" / site / "model" for site in SITES]
    for where in kept:
        found = load_file(where / "model.safetensors")
        assert max(float(np.abs(found[name] - one).max()) for name, one in expected.items()) < 1e-5
    assert (tmp_path / "run" / "model.safetensors").exists() == (secure != "he")
