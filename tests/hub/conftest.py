"""A loopback Hub and a client process that talks to it, for the whole session; each test begins with empty records."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from server import LoopbackHub

HERE = Path(__file__).parent


class FlowError(Exception):
    """What a flow raised; `kind` is the name of its class."""

    def __init__(self, kind: str, message: str):
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class Client:
    """`client("push_folder", folder, "owner/name")` runs that function of `flows.py` in a process of its own."""

    def __init__(self, hub: LoopbackHub, home: Path):
        self.environment = {**os.environ, **hub.environment(home)}
        self._process = subprocess.Popen(
            [sys.executable, HERE / "flows.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self.environment,
        )

    def __call__(self, flow: str, *positional: Any, **arguments: Any) -> Any:
        asked = {"flow": flow, "positional": positional, "arguments": arguments}
        self._process.stdin.write(json.dumps(asked, default=str) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise FlowError(answer["error"], answer["message"])
        return answer["result"]

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(30)


@pytest.fixture(scope="session")
def _hub():
    with LoopbackHub(multipart_from=2**16, part_size=2**15, page_size=5) as hub:
        yield hub


@pytest.fixture(scope="session")
def client(_hub, tmp_path_factory):
    client = Client(_hub, tmp_path_factory.mktemp("hf_home"))
    yield client
    client.close()


@pytest.fixture
def hub(_hub):
    _hub.forget()
    return _hub


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A tiny VideoMAE classifier and its processor: 118 kB, so four parts of an upload."""
    return tiny.save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture
def shards(model, tmp_path):
    """The same model in shards of at most 50 kB, with its processor."""
    import shutil

    from transformers import AutoModelForVideoClassification

    folder = tmp_path / "shards"
    AutoModelForVideoClassification.from_pretrained(model).save_pretrained(folder, max_shard_size="50KB")
    shutil.copy(model / "preprocessor_config.json", folder)
    return folder
