"""The apps that Flower runs: the server's, and each site's.

A site's videos and folders stand in its node's configuration (`data`, `folder`, `name`), the federation's YAML and the
folder of the run in the run's configuration (`config`, `output`). The sites run what they have installed; no code
travels.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from hf_video.base.written_files import write_json
from hf_video.errors import FederatedError, HFVideoError
from hf_video.federated.client import ClientRuntime, Site
from hf_video.federated.config import FederatedConfig
from hf_video.federated.deployment.limits import SiteLimits
from hf_video.federated.messages.exchange import Exchange
from hf_video.federated.messages.payload import from_record, to_record
from hf_video.federated.rounds import RoundReport
from hf_video.federated.secure.options import SiteKeys
from hf_video.federated.secure.protocol import KINDS
from hf_video.federated.server import ENDED, run_federation

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

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
    limits = SiteLimits(**json.loads(str(has.get("limits", "{}"))))
    keys = SiteKeys.beside(Path(str(has["key"]))) if "key" in has else SiteKeys()
    return Site(str(has["name"]), str(has["data"]), Path(str(has["folder"])), limits, keys)


def answer(message: Message, context: Context) -> Message:
    """Answers one message of the server."""
    site = site_of(context)
    runtime = _runtimes.setdefault(str(site.folder), ClientRuntime(site))
    payload = runtime.handle(message.metadata.message_type, from_record(message.content))
    return Message(to_record(payload), reply_to=message)


client_app.train()(answer)
client_app.evaluate()(answer)
client_app.query("describe")(answer)
for kind in KINDS:  # of secure sums: "query.keys", "train.masked", …
    action, _, name = kind.partition(".")
    getattr(client_app, action)(name)(answer)


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Runs the federation of the run's configuration, and leaves in `ended.json` why it ended."""
    has = context.run_config
    output, wait, resume = Path(str(has["output"])), float(has.get("wait", 0)), bool(has.get("resume"))
    names = json.loads(str(has.get("nodes") or "{}"))
    exchange = Exchange(grid, registered={node: name for name, node in names.items()})
    try:
        config = FederatedConfig.load(str(has["config"]))
        try:
            exchange.discover(max(len(names), config.min_clients), wait)
        except FederatedError:
            exchange.discover(config.min_clients)  # the time for the others is up
        with RoundBoard(output) as board:
            run_federation(config, exchange, output, on_round=board, resume=resume)
    except HFVideoError as error:
        write_json(output / ENDED, {"error": f"{error}"})
        raise
    write_json(output / ENDED, {"error": None})


class RoundBoard:
    """Writes what rounds report as TensorBoard's events.

    Args:
        folder: Of the run; events go to `tensorboard/` in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "tensorboard"
        self.writer: SummaryWriter | None = None

    def __enter__(self) -> RoundBoard:
        return self

    def __exit__(self, *error: object) -> None:
        if self.writer is not None:
            self.writer.close()

    def __call__(self, report: RoundReport) -> None:
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.folder))
        facts = {"clients": len(report.clients), "failed": len(report.failed), "seconds": report.seconds}
        facts |= {"bytes_down": report.bytes_down, "bytes_up": report.bytes_up, **report.metrics}
        for client, measured in report.evaluation.items():
            facts |= {f"{name}/{client}": value for name, value in measured.items()}
        for name, value in facts.items():
            self.writer.add_scalar(name, value, report.round)
        self.writer.flush()
