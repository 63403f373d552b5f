"""Flower's SuperLink and SuperNode as processes of their own, closed where Flower leaves them open.

Whoever reaches a SuperLink's port may register sites and start programs, which its SuperNodes then run: Flower knows no
accounts outside its commercial edition. Here the SuperLink answers other machines under `/v1/fleet/` alone, where every
request is signed by a registered key; and a SuperNode runs no program but the one that is installed beside it.

Everything that leans on what is not public in Flower stands here and in `local_grid.py`.
"""

from __future__ import annotations

import hashlib
import io
import ipaddress
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from hf_video.errors import BackendError, FederatedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from flwr.supercore.control import ControlHttpClient

OFFLINE = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_OFFLINE": "1",
}
REFUSED_PROGRAM = 90  # exit code of a SuperNode that was sent another program
_FLEET = "/v1/fleet/"
_GRACE = 5.0  # seconds for an orderly end
# Importing the package registers every model, which takes seconds: what trains none does without.
_WITHOUT_MODELS = "import hf_video_command; hf_video_command.running = True; "
_START = "from hf_video.federated.deployment.flower_processes import {name}; {name}()"
# The program of every federation: no code, but the name of what is installed. What a run needs comes with its start.
_PROGRAM = """\
[project]
name = "hf-video"
version = "1.0.0"
description = "Names the installed package; holds no code."
license = "Apache-2.0"
dependencies = ["flwr>=1.41"]

[tool.flwr.app]
publisher = "hf-video"

[tool.flwr.app.components]
serverapp = "hf_video.federated.apps:server_app"
clientapp = "hf_video.federated.apps:client_app"

[tool.flwr.app.config]
config = ""
output = ""
nodes = ""
wait = 0.0
resume = false
"""


def import_flower() -> None:
    """Raises BackendError where Flower is not installed, with the reason where it can't be."""
    try:
        import flwr  # noqa: F401
    except ImportError as error:
        old = sys.version_info < (3, 11)
        why = f"Flower needs Python 3.11 or later, and this is {sys.version.split()[0]}." if old else ""
        raise BackendError(
            f'Federated learning needs Flower, which is not installed: pip install "hf_video[federated]". {why}'.strip()
        ) from error


def start_process(name: str, arguments: Sequence[str], home: Path, log: IO[str]) -> subprocess.Popen[str]:
    """Starts one of Flower's processes, which ends when this one does.

    Args:
        name: Of the function here: superlink, supernode or executor.
        arguments: Of Flower's command.
        home: Flower's folder.
        log: Where its output goes.
    """
    home.mkdir(parents=True, exist_ok=True)
    # Flower starts its own commands by name, also where nobody activated the environment.
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    environment = {**OFFLINE, "FLWR_HOME": str(home), "PYTHONUNBUFFERED": "1", **os.environ, "PATH": path}
    code = ("" if name == "executor" else _WITHOUT_MODELS) + _START.format(name=name)
    words = [sys.executable, "-c", code, str(os.getpid()), *arguments]
    return subprocess.Popen(words, env=environment, stdout=log, stderr=subprocess.STDOUT, text=True, cwd=home)


def _with_parent(command: str) -> None:
    """Makes the process end with the one that started it, and Flower's parser see its own arguments."""
    parent = int(sys.argv[1])
    sys.argv = [command, *sys.argv[2:]]

    def end_with_parent() -> None:
        # Asking for the parent's id also notices one that was killed and that nobody has waited for.
        while os.getppid() == parent:
            time.sleep(0.2)
        signal.raise_signal(signal.SIGINT)
        time.sleep(_GRACE)
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


# -- server ------------------------------------------------------------------------------------------------------------


class OnlySites:
    """ASGI middleware: other machines reach nothing but what sites need, and that once a run was started here, when all
    keys are registered."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app
        self.is_open = False

    async def __call__(self, scope: Mapping[str, Any], receive: object, send: Callable[..., Awaitable[None]]) -> None:
        path = scope.get("path", "")
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif path.startswith(_FLEET):
            await (self.app if self.is_open else _refusal(503, b"The run has not begun."))(scope, receive, send)
        elif is_this_machine(scope.get("client"), scope.get("server")):
            await self.app(scope, receive, send)
            self.is_open |= path.endswith("/start-run")
        else:
            await _refusal(403, b"Only sites of the federation are answered here.")(scope, receive, send)


def _refusal(status: int, text: bytes) -> Callable[..., Awaitable[None]]:
    async def answer(scope: object, receive: object, send: Callable[..., Awaitable[None]]) -> None:
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": text})

    return answer


def is_this_machine(client: Sequence[Any] | None, server: Sequence[Any] | None) -> bool:
    """Whether a request's sender (host and port) is on the loopback interface, or has the address that it asked."""
    try:
        address = ipaddress.ip_address(client[0]) if client else None
    except ValueError:
        return False
    if address is None:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_loopback or bool(server and client and client[0] == server[0])


def superlink() -> None:
    """`flower-superlink` that is open for sites alone."""
    from flwr.superlink import extensions
    from flwr.superlink.cli import flower_superlink
    from starlette.middleware import Middleware

    _with_parent("flower-superlink")
    extensions.get_middleware = lambda: (Middleware(OnlySites),)
    flower_superlink()


def connect_control(address: str, root: Path) -> ControlHttpClient:
    """A connection to the SuperLink on this machine, to register sites and to start runs."""
    from flwr.supercore.control import ControlHttpClient
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

    return ControlHttpClient.from_server_address(
        server_address=address,
        insecure=False,
        root_certificates=str(root),
        interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
    )


def register_site(control: ControlHttpClient, name: str, public_key: str) -> int:
    """Lets a site in; returns the id of its node.

    Raises:
        FederatedError: The key is none, or another site's too.
    """
    import httpx
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key
    from flwr.proto.control_pb2 import RegisterNodeRequest
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes

    try:
        key = public_key_to_bytes(load_ssh_public_key(public_key.encode()))
        return int(control.RegisterNode(RegisterNodeRequest(public_key=key, name=name)).node_id)
    except (ValueError, httpx.HTTPStatusError) as error:
        raise FederatedError(f"The public key of the site {name!r} can't be registered: {error}") from error


def start_run(control: ControlHttpClient, settings: Mapping[str, str | float | bool]) -> int:
    """Starts the program of a federation; returns the run's id."""
    from flwr.common.serde import fab_to_proto, user_config_to_proto
    from flwr.proto.control_pb2 import StartRunRequest
    from flwr.supercore.fab import Fab

    program = build_program()
    fab = fab_to_proto(Fab(hashlib.sha256(program).hexdigest(), program, {}))
    request = StartRunRequest(fab=fab, override_config=user_config_to_proto(dict(settings)))
    return int(control.StartRun(request).run_id)


def run_status(control: ControlHttpClient, run_id: int) -> tuple[str, str]:
    """Status of a run ("starting", "running", "finished") and, in the end, how it ended."""
    from flwr.proto.control_pb2 import ListRunsRequest

    run = control.ListRuns(ListRunsRequest(run_id=run_id)).run_dict[run_id]
    return run.status.status, f"{run.status.sub_status} {run.status.details}".strip()


def build_program() -> bytes:
    """The bundle (FAB) that names the installed package: 1.3 kB, the same bytes everywhere."""
    from flwr.cli.build import build_fab_from_files

    return build_fab_from_files({"pyproject.toml": _PROGRAM.encode()})[0]


# -- site --------------------------------------------------------------------------------------------------------------


def is_program(bundle: bytes) -> bool:
    """Whether a bundle holds what `build_program` makes and nothing else."""
    return _files(bundle) == _files(build_program())


def _files(bundle: bytes) -> dict[str, bytes] | None:
    """Contents by name; None for what is no bundle."""
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            if len(archive.infolist()) > 10 or sum(one.file_size for one in archive.infolist()) > 100_000:
                return None
            return {one.filename: archive.read(one) for one in archive.infolist()}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, OSError):
        return None


def supernode() -> None:
    """`flower-supernode` that runs the installed package alone."""
    from flwr.supernode import fleet_http_connection
    from flwr.supernode.cli import flower_supernode

    _with_parent("flower-supernode")
    read = fleet_http_connection.fab_from_proto

    def read_program(message: Any) -> Any:
        fab = read(message)
        if not is_program(fab.content):
            print("The server sent a program of its own; it was not run.", flush=True)
            os._exit(REFUSED_PROGRAM)
        return fab

    fleet_http_connection.fab_from_proto = read_program
    flower_supernode()


def executor() -> None:
    """`flower-superexec` that has imported everything: forks of it answer messages, each of which Flower would start a
    process for that imports PyTorch first."""
    from flwr.supercore.cli.flower_superexec import flower_superexec
    from flwr.supercore.superexec.executor import LaunchResult
    from flwr.supercore.superexec.executor.subprocess_executor import SubprocessExecutor
    from flwr.supernode.runtime.run_clientapp import run_clientapp

    _with_parent("flower-superexec")
    import hf_video.federated.apps  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks

    def launch(self: SubprocessExecutor, spec: Any) -> LaunchResult:
        parent = os.getpid()
        if os.fork() == 0:
            code = 1
            try:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                run_clientapp(spec.runtime_api_address, spec.token, insecure=True, parent_pid=parent)
            except SystemExit as end:
                code = int(end.code or 0)
            finally:
                os._exit(code)
        return LaunchResult.accepted()

    SubprocessExecutor.launch = launch
    flower_superexec()
