"""A site: what it offers and agrees to, and the process that connects it to the server until it is stopped.

The process only ever connects outwards. It starts anew whenever Flower's gives up: after a fault of the network, after
a server that came back, and in the minute in which a server still counts on a client that was killed.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from hf_video.errors import FederatedError, OutputError, near_path, unknown_name
from hf_video.federated.deployment.certificates import SITE_NAME
from hf_video.federated.deployment.flower_processes import REFUSED_PROGRAM, import_flower, start_process
from hf_video.federated.deployment.limits import SiteLimits

ACCEPTED, LOG, NODE = "accepted", "supernode.log", "node.toml"
# A server counts on a client for up to 60 s after it was killed, and refuses another with its key for so long. It says
# the same to a key that it does not know.
_LOCKED_OUT = 90.0
_UNKNOWN_AFTER = 10.0  # of a site that was not connected just before
_AGAIN_AFTER = 5.0
_WAITS_AFTER = 20.0  # a connection is worth a line
_LOOK = 0.3
_REFUSED = re.compile(r"\[code: 2004\]")
_UNTRUSTED = re.compile(r"CERTIFICATE_VERIFY_FAILED|certificate verify failed", re.IGNORECASE)
_CONNECTED = re.compile(r"SuperNode ID: (\d+)")


@dataclass(frozen=True)
class SiteFile:
    """A site's YAML. Paths in it are seen from its folder.

    Args:
        name: Of the site.
        server: HOST:PORT of the server.
        root: Certificate of the authority that vouches for the server.
        key: The site's private key.
        data: Folder or list of videos.
        folder: Where the site keeps what is its own.
        limits: What it agrees to.
    """

    name: str
    server: str
    root: Path
    key: Path
    data: str
    folder: Path
    limits: SiteLimits = field(default_factory=SiteLimits)

    def check(self) -> SiteFile:
        """Returns itself if a client can be started with it.

        Raises:
            FederatedError: A name, an address or a file that can't be.
        """
        if not SITE_NAME.fullmatch(self.name):
            raise FederatedError(f"The name {self.name!r} of a site must be of letters, digits, - and _.")
        host, _, port = self.server.rpartition(":")
        if not host or "/" in host or not port.isdigit() or not 0 < int(port) < 2**16:
            raise FederatedError(f"server={self.server!r} must be HOST:PORT, without https://.")
        for what, path in (("root", self.root), ("key", self.key)):
            if not path.is_file():
                raise FederatedError(f"{what}: there is no file {path}.{near_path(path)}")
        if self.key.stat().st_mode & 0o077:
            raise FederatedError(f"{self.key} can be read by others than its owner: chmod 600 {self.key}")
        if not os.path.exists(self.data):
            raise FederatedError(f"data: there is nothing at {self.data}.{near_path(self.data)}")
        return self


def read_site(path: str | os.PathLike[str], typed: Mapping[str, str | None] | None = None) -> SiteFile:
    """Reads a site's YAML.

    Args:
        path: Of the file.
        typed: Values that take the place of those in the file; None leaves them. Paths are seen from here.

    Raises:
        FederatedError: It can't be read, lacks something, or holds something else.
    """
    import yaml

    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise FederatedError(f"{path} can't be read: {error}{near_path(path)}") from error
    if not isinstance(values, dict):
        raise FederatedError(f"{path} holds no fields of a site, such as `server: fed.example.org:8443`.")
    known = [one.name for one in fields(SiteFile)]
    if unknown := [name for name in values if name not in known]:
        raise FederatedError(unknown_name("A site has no field", unknown[0], known))
    values = {"folder": "state", **values}
    for name in ("root", "key", "data", "folder"):
        if name in values:
            values[name] = os.path.join(path.parent, os.path.expanduser(str(values[name])))
    values |= {name: value for name, value in (typed or {}).items() if value is not None}
    if missing := [name for name in known if name not in values and name != "limits"]:
        raise FederatedError(f"{path} lacks {missing[0]!r}; a site needs {', '.join(known[:-2])}.")
    limits = values.pop("limits", None) or {}
    if not isinstance(limits, Mapping):
        raise FederatedError(f"limits must be fields with values, and {limits!r} came.")
    allowed = [one.name for one in fields(SiteLimits)]
    if unknown := [name for name in limits if name not in allowed]:
        raise FederatedError(unknown_name("A site's limits have no", unknown[0], allowed))
    paths = {name: Path(values[name]).absolute() for name in ("root", "key", "folder")}
    return SiteFile(
        name=str(values["name"]),
        server=str(values["server"]),
        data=os.path.abspath(values["data"]),
        limits=SiteLimits(**limits),
        **paths,
    )


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class SiteProcess:
    """Keeps a site connected.

    Args:
        site: What it offers.
        port: Of its own interface on the loopback address; a free one by default.
        patience: Seconds without a connection after which it gives up; None for never.
        tell: Takes a line for whoever runs it.
    """

    def __init__(
        self,
        site: SiteFile,
        *,
        port: int | None = None,
        patience: float | None = None,
        tell: Callable[[str], None] = print,
    ) -> None:
        self.site, self.patience, self.tell = site, patience, tell
        self.port = port or free_port()
        self.process: subprocess.Popen[str] | None = None
        self.executor: subprocess.Popen[str] | None = None

    def run(self) -> None:
        """Runs until it is interrupted.

        Raises:
            FederatedError: The server refuses the key, can't prove who it is, sent a program of its own, or was out of
                reach for `patience` seconds.
        """
        import_flower()
        self._prepare()
        last_connected = time.monotonic()
        refused_since: float | None = None
        try:
            while True:
                outcome, text = self._one_connection(self.patience and last_connected + self.patience)
                now = time.monotonic()
                if outcome == "connected":
                    last_connected, refused_since = now, None
                    self.tell("disconnected from the server; connecting again")
                elif outcome == "refused":
                    refused_since = refused_since or now
                    last_connected = now
                    self._wait_or_give_up(refused_since)
                elif outcome == "failed":
                    self.tell(f"the connection failed: {_last_line(text)}; trying again in {_AGAIN_AFTER:g} s")
                if self.patience is not None and now - last_connected > self.patience:
                    raise FederatedError(
                        f"The server {self.site.server} could not be reached for {self.patience:g} s. "
                        f"{self.site.folder / LOG} says more."
                    )
                time.sleep(1.0 if outcome == "connected" else _AGAIN_AFTER)
        finally:
            stop_process(self.process)
            stop_process(self.executor)

    def _prepare(self) -> None:
        """Writes what Flower's process is told, which holds nothing that leaves the site."""
        folder = self.site.folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            facts = {
                "name": self.site.name,
                "data": self.site.data,
                "folder": str(folder),
                "key": str(self.site.key),
                "limits": json.dumps(vars(self.site.limits)),
            }
            # A TOML string in double quotes is written as a JSON string.
            lines = [f"{name} = {json.dumps(value, ensure_ascii=True)}" for name, value in facts.items()]
            (folder / NODE).write_text("\n".join(lines) + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{folder} can't be written: {error.strerror or error}.") from error

    def _one_connection(self, until: float | None) -> tuple[str, str]:
        """Starts Flower's process and waits for its end; returns how that went, and what it wrote."""
        site, log = self.site, self.site.folder / LOG
        arguments = ["--root-certificates", str(site.root), "--superlink", site.server]
        arguments += ["--auth-supernode-private-key", str(site.key), "--node-config", str(site.folder / NODE)]
        arguments += ["--host", "127.0.0.1", "--port", str(self.port)]
        # Forks are safe on Linux; elsewhere Flower starts a new process for each message.
        forks = sys.platform == "linux"
        arguments += ["--isolation", "process" if forks else "subprocess"]
        begin = log.stat().st_size if log.exists() else 0
        with log.open("a", encoding="utf-8") as output:
            self.process = start_process("supernode", arguments, site.folder / "flower", output)
            if forks and (self.executor is None or self.executor.poll() is not None):
                where = ["--insecure", "--runtime-api-address", f"127.0.0.1:{self.port}"]
                self.executor = start_process("executor", where, site.folder / "flower", output)
        connected, waits_since, waits = False, time.monotonic(), False
        while self.process.poll() is None:
            time.sleep(_LOOK)
            text = _text_from(log, begin)
            if not connected and _CONNECTED.search(text):
                connected = True
                self.tell(f"connected to {site.server} as {site.name!r}")
            if connected:
                (site.folder / ACCEPTED).touch()
            elif _UNTRUSTED.search(text):
                stop_process(self.process)
            elif not waits and time.monotonic() - waits_since > _WAITS_AFTER:
                waits = True
                self.tell(f"waiting for {site.server}")
            elif until is not None and time.monotonic() > until:
                stop_process(self.process)
        text = _text_from(log, begin)
        if _UNTRUSTED.search(text) and not connected:
            raise FederatedError(
                f"{site.server} can't prove that it is the server: its certificate is not signed by {site.root}, names "
                f"other hosts, or has expired. {log} says more."
            )
        if self.process.returncode == REFUSED_PROGRAM:
            raise FederatedError(
                f"{site.server} sent a program of its own in place of the installed hf_video. Nothing of it was run. "
                "Ask who runs the server, and see that both sides have the same version of hf_video and flwr."
            )
        if not connected and _REFUSED.search(text):
            return "refused", text
        return ("connected" if connected else "failed"), text

    def _wait_or_give_up(self, since: float) -> None:
        """Whether a refusal can still be that of a client that was killed a minute ago."""
        accepted = self.site.folder / ACCEPTED
        lately = accepted.exists() and time.time() - accepted.stat().st_mtime < 2 * _LOCKED_OUT
        limit = _LOCKED_OUT if lately else _UNKNOWN_AFTER
        if time.monotonic() - since > limit:
            raise FederatedError(
                f"{self.site.server} refuses the key {self.site.key}: it is not registered there as "
                f"{self.site.name!r}, or another client with the same key is running. Give the server this "
                "site's public key (public_keys.json in its folder of --keys), or stop the other client."
            )
        why = "; it may count on the process that was killed for up to a minute" if lately else ""
        self.tell(f"the server refuses this site{why}; trying again in {_AGAIN_AFTER:g} s")


def stop_process(process: subprocess.Popen[str] | None, seconds: float = 10.0) -> None:
    """Ends a process: by SIGTERM, and after some seconds by SIGKILL."""
    if process is None or process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def run_site(site: SiteFile, *, port: int | None = None, patience: float | None = None) -> None:
    """Connects a site to its server until it is interrupted (also by SIGTERM); see `SiteProcess.run`."""

    def tell(line: str) -> None:
        print(f"{time.strftime('%H:%M:%S')}  {line}", file=sys.stderr, flush=True)

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt(f"{site.name!r} was stopped")

    signal.signal(signal.SIGTERM, interrupt)
    SiteProcess(site.check(), port=port, patience=patience, tell=tell).run()


def _text_from(log: Path, begin: int) -> str:
    with log.open("rb") as file:
        file.seek(begin)
        return file.read(100_000).decode("utf-8", "replace")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()]
    useful = [line for line in lines if line and "more information" not in line and not line.startswith("INFO")]
    return useful[-1] if useful else "no reason was given"
