"""The apps that Flower runs: the server's, and each site's.

A site's videos and folders stand in its node's configuration (`data`, `folder`, `name`), the federation's YAML and the
folder of the run in the run's configuration (`config`, `output`). The sites run what they have installed; no code
travels.
"""

from __future__ import annotations

from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from hf_video.errors import FederatedError
from hf_video.federated.client import ClientRuntime, Site
from hf_video.federated.config import FederatedConfig
from hf_video.federated.exchange import Exchange
from hf_video.federated.payload import from_record, to_record
from hf_video.federated.server import run_federation

client_app = ClientApp()
server_app = ServerApp()
_runtimes: dict[str, ClientRuntime] = {}  # by folder; Flower may send several messages to one process


def site_of(context: Context) -> Site:
    """The site that a node's configuration describes.

    Raises:
        FederatedError: It lacks something.
    """
    has = context.node_config
    if missing := [name for name in ("name", "data", "folder") if name not in has]:
        raise FederatedError(f"The node's configuration has no {missing[0]!r}; `hf-video federated client` sets it.")
    return Site(str(has["name"]), str(has["data"]), Path(str(has["folder"])))


def answer(message: Message, context: Context) -> Message:
    """Answers one message of the server."""
    site = site_of(context)
    runtime = _runtimes.setdefault(str(site.folder), ClientRuntime(site))
    payload = runtime.handle(message.metadata.message_type, from_record(message.content))
    return Message(to_record(payload), reply_to=message)


client_app.train()(answer)
client_app.evaluate()(answer)
client_app.query("describe")(answer)


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Runs the federation of the run's configuration."""
    has = context.run_config
    config = FederatedConfig.load(str(has["config"]))
    run_federation(
        config,
        Exchange(grid),
        str(has["output"]),
        wait=float(has.get("wait", 3600.0)),
        resume=bool(has.get("resume", False)),
    )
