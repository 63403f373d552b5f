"""A process in which a user's calls of the Hub run, and the errors that come back from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

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
