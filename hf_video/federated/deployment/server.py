"""The server of a federation: Flower's SuperLink, the sites' keys, and the run, watched until it ends."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hf_video.base.written_files import check_output_folder, read_json
from hf_video.errors import FederatedError, OutputError, near_path, pluralize
from hf_video.federated.config import FederatedConfig
from hf_video.federated.deployment.certificates import PUBLIC_KEYS
from hf_video.federated.deployment.flower_processes import (
    connect_control,
    import_flower,
    register_site,
    run_status,
    start_process,
    start_run,
)
from hf_video.federated.deployment.progress import RoundTable
from hf_video.federated.deployment.site import stop_process
from hf_video.federated.server import ENDED

if TYPE_CHECKING:
    from flwr.supercore.control import ControlHttpClient

LOG = "superlink.log"
_STARTS_WITHIN = 180.0  # seconds; imports are slow on a busy machine
_PORT_FREE_WITHIN = 20.0  # of a server that was killed a moment ago
_LOOK = 1.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}


class RunFailedError(FederatedError):
    """A run that began and did not reach its end; what was done is kept, and `resume` goes on with it."""


class CrashError(RunFailedError):
    """A server's process ended without having said why."""


@dataclass(frozen=True)
class ServerKeys:
    """The server's folder of `make_keys`.

    Args:
        root: Certificate of the authority.
        certificate, key: The server's own.
        sites: Public key of each site, by name.
    """

    root: Path
    certificate: Path
    key: Path
    sites: dict[str, str]

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> ServerKeys:
        """Raises FederatedError where a file is missing or holds something else."""
        folder = Path(folder)
        files = [folder / name for name in ("ca.crt", "server.crt", "server.key", PUBLIC_KEYS)]
        for path in files:
            if not path.is_file():
                raise FederatedError(f"There is no {path}: `hf-video federated keys` makes it.{near_path(path)}")
        try:
            sites = json.loads(files[3].read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FederatedError(f"{files[3]} can't be read: {error}") from error
        if not isinstance(sites, dict) or not sites or not all(isinstance(one, str) for one in sites.values()):
            raise FederatedError(f"{files[3]} must hold public keys by name of the site.")
        return cls(files[0].absolute(), files[1].absolute(), files[2].absolute(), sites)


class Deployment:
    """A federation's server.

    Args:
        config: File of the federation.
        keys: Of the server and the sites.
        output: Folder of the run.
        host, port: Where sites connect to.
        wait: Seconds to wait for all sites before the first round; then those who are there begin, if they are
            `min_clients`.
        tell: Takes a line for whoever runs it.
    """

    def __init__(
        self,
        config: str | os.PathLike[str],
        keys: ServerKeys,
        output: str | os.PathLike[str],
        *,
        host: str = "0.0.0.0",
        port: int = 8443,
        wait: float = 300.0,
        tell: Callable[[str], None] = print,
    ) -> None:
        self.path, self.keys, self.output = Path(config).absolute(), keys, Path(output).absolute()
        self.host, self.port, self.wait, self.tell = host, port, wait, tell
        self.config = FederatedConfig.load(config)
        if len(keys.sites) < self.config.min_clients:
            raise FederatedError(
                f"min_clients={self.config.min_clients}, and keys are there of {pluralize(len(keys.sites), 'site')} "
                f"({', '.join(keys.sites)})."
            )
        self.process: subprocess.Popen[str] | None = None

    def run(self, *, resume: bool = False, restarts: int = 0) -> None:
        """Runs the federation to its end.

        Args:
            resume: Go on with the run in `output`.
            restarts: How often a crashed server is started anew, each time after the last finished round.

        Raises:
            RunFailedError: The run failed, or crashed more often than `restarts`.
            FederatedError: The port is taken, or a key is none.
            OutputError: `output` can't be written, or holds a run already or none.
        """
        import_flower()
        check_output_folder(self.output)
        begun = (self.output / "federation.json").exists()
        if begun and not resume:
            raise OutputError(f"{self.output} holds a federated run already: go on with --resume, or name another.")
        if resume and not (self.output / LOG).exists():
            raise OutputError(f"{self.output} holds no federated run to resume.")
        self.output.mkdir(parents=True, exist_ok=True)
        for left in range(restarts, -1, -1):
            try:
                # A run that was killed before its first round has nothing to go on with, and begins.
                self._run_once(resume=(self.output / "federation.json").exists())
                return
            except CrashError as crash:
                if not left:
                    raise
                self.tell(f"{crash} It is started anew.")
            finally:
                stop_process(self.process)

    def _run_once(self, *, resume: bool) -> None:
        (self.output / ENDED).unlink(missing_ok=True)
        table = RoundTable(self.output, self.config.rounds)
        self._start()
        control = connect_control(f"{_EVERYWHERE.get(self.host, self.host)}:{self.port}", self.keys.root)
        try:
            nodes = {name: register_site(control, name, key) for name, key in self.keys.sites.items()}
            folders = {"config": str(self.path), "output": str(self.output), "nodes": json.dumps(nodes)}
            run_id = start_run(control, {**folders, "wait": self.wait, "resume": resume})
            self.tell(f"{self.host}:{self.port} is open for {', '.join(nodes)}; the model comes to {self.output}")
            self._watch(control, run_id, table)
        finally:
            control.close()

    def _start(self) -> None:
        """Starts the SuperLink and waits until it answers."""
        self._await_port()
        log = self.output / LOG
        keys = self.keys
        arguments = ["--ssl-ca-certfile", keys.root, "--ssl-certfile", keys.certificate, "--ssl-keyfile", keys.key]
        arguments += ["--enable-supernode-auth", "--disable-runtime-dependency-installation"]
        arguments += ["--host", self.host, "--port", self.port]
        with log.open("a", encoding="utf-8") as output:
            self.process = start_process("superlink", list(map(str, arguments)), self.output / "flower", output)
        end = time.monotonic() + _STARTS_WITHIN
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > end:
                raise CrashError(f"The server did not start; {log} says why.")
            time.sleep(0.2)

    def _answers(self) -> bool:
        try:
            socket.create_connection((_EVERYWHERE.get(self.host, self.host).strip("[]"), self.port), 1.0).close()
        except OSError:
            return False
        return True

    def _await_port(self) -> None:
        """Raises FederatedError where another program keeps the port."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        end = time.monotonic() + _PORT_FREE_WITHIN
        while True:
            try:
                with socket.socket(family) as one:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    one.bind((self.host, self.port))
                    return
            except OSError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() > end:
                    why = error.strerror or error
                    raise FederatedError(f"{self.host}:{self.port} can't be listened on: {why}.") from error
            time.sleep(0.5)

    def _watch(self, control: ControlHttpClient, run_id: int, table: RoundTable) -> None:
        """Tells of rounds until the run ends."""
        import httpx

        status, how = "", ""
        while status != "finished":
            time.sleep(_LOOK)
            for line in table.lines():
                self.tell(line)
            if self.process is None or self.process.poll() is not None:
                how = "its SuperLink ended"
                break
            try:
                status, how = run_status(control, run_id)
            except httpx.HTTPError:
                continue  # the process is looked at again
        for line in table.lines():
            self.tell(line)
        # Flower calls a run completed also where nothing came of it: only what the app itself wrote counts.
        if not (self.output / ENDED).exists():
            raise CrashError(f"The server crashed ({how.strip() or status}); {self.output / LOG} says more.")
        if error := read_json(self.output / ENDED)["error"]:
            raise RunFailedError(error)
