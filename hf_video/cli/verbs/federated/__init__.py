"""Train one model together with other sites; nobody's videos leave their site.

  hf-video federated partition videos/ --clients 8 --partition dirichlet:0.3 --output split.json
  hf-video federated simulate videos/ --model videomae:small --clients 8 --partition dirichlet:0.3 --rounds 20
  hf-video federated simulate federation.yaml --output run
  hf-video federated report run
  hf-video federated keys sites/ --names a,b,c --hosts fed.example.org
  hf-video federated server federation.yaml --keys sites/server --output run/
  hf-video federated client sites/a/site.yaml

`partition` says who would have which videos of a data set in a simulation, as a table, a file and a picture.
`simulate` divides one data set among clients in this process: to try rules, partitions and privacy before there are
sites. A YAML file holds the fields of the federation, and under `simulation:` data, clients, partition, test_size and
output; what is typed wins. `report` shows a run's rounds and draws them.
`keys` makes certificates for the server and a key pair for each site. `server` lets the sites in and runs the rounds;
`client` connects a site to it until it is stopped, and only ever connects outwards; with --dry-run it shows what would
leave the site. Needs pip install "hf_video[federated]" and Python 3.11 or later.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hf_video.base.written_files import check_output_file
from hf_video.cli import DONE, SOME_FAILED
from hf_video.cli.arguments import (
    Parser,
    check_output,
    finite_float,
    fraction,
    name_list,
    non_negative_float,
    non_negative_int,
    output_picture,
    port,
    positive_int,
)
from hf_video.errors import FederatedError, pluralize

if TYPE_CHECKING:
    from hf_video.federated.deployment.site import SiteFile


def add_arguments(parser: Parser) -> None:
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        below = commands.add_parser(name, help=command.summary, description=command.summary)
        below.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")
        command.add_arguments(below)


def run(options: argparse.Namespace) -> int:
    return COMMANDS[options.command].run(options)


@dataclass(frozen=True)
class Command:
    """What stands behind `hf-video federated`: a line for help, its arguments, and what it does."""

    summary: str
    add_arguments: Callable[[Parser], None]
    run: Callable[[argparse.Namespace], int]


# -- partition ---------------------------------------------------------------------------------------------------------


def _partition_arguments(parser: Parser) -> None:
    add = parser.add_option
    add("data", metavar="DIR", help="a folder of videos, or a CSV or JSON list; its training split is divided")
    add("--clients", type=positive_int, metavar="N", help="how many (default: as many as natural ones)")
    add("--partition", default="natural",
        help="iid, dirichlet:A, labels:N, quantity:A, recording, natural (default: by whose they are)")  # fmt: skip
    add("--output", type=output_split, metavar="SPLIT.json", help="file to write, for simulate --partition SPLIT.json")
    add("--figure", type=output_picture, metavar="FILE.png", help="picture of who holds what")
    add("--seed")
    add("--group-pattern")
    add("--format")
    add("--videos")


def output_split(path: str) -> str:
    return check_output(path, lambda file: check_output_file(file, suffixes=(".json",)))


def _run_partition(options: argparse.Namespace) -> int:
    from hf_video.data import load_videos
    from hf_video.federated.data.split import ClientSplit

    where = {"data_format": options.format, "videos": options.videos, "group_pattern": options.group_pattern}
    rows = load_videos(options.data, test_size=0, **where)["train"]
    split = ClientSplit.of(rows, options.partition, options.clients, seed=options.seed)
    print(split.table(rows))
    if options.output:
        split.save(options.output)
        print(f"Written to {options.output}.")
    if options.figure:
        from hf_video.evaluation.figures import holdings_figure

        print(f"Drawn in {holdings_figure(split.counts(rows), list(split.clients), rows.labels, options.figure)}.")
    return DONE


# -- keys --------------------------------------------------------------------------------------------------------------


def _keys_arguments(parser: Parser) -> None:
    add = parser.add_option
    add("folder", metavar="DIR", help="where the folders for the server and the sites are made")
    add("--names", type=name_list, required=True, metavar="A,B,C", help="of the sites")
    add("--hosts", type=name_list, required=True, metavar="HOST,IP", help="under which the sites reach the server")
    add("--encryption", action="store_true", help="also a key that sites share, for `secure: he`")
    add("--days", type=positive_int, default=825, metavar="N", help="the server's certificate is valid (default 825)")


def _run_keys(options: argparse.Namespace) -> int:
    from hf_video.federated.deployment.certificates import make_keys

    made = make_keys(options.folder, options.names, options.hosts, days=options.days, encryption=options.encryption)
    print("\n".join(made.lines()))
    return DONE


# -- simulate ----------------------------------------------------------------------------------------------------------

# Options of `simulate` and the fields of a federation that they set.
_FIELDS = {
    "--strategy": "fedavg, fedprox:mu=0.01, fedadam, scaffold, median, … (default fedavg)",
    "--keys": "which tensors travel: all, head, adapters, without_batch_norms, … or a regular expression",
    "--personal": "what clients keep for themselves: fedbn, fedper, ditto, …",
    "--privacy": "video:eps=8,delta=1e-5,clip=1.0 or client:…",
    "--secure": "secagg or he: the server sees sums alone",
    "--compression": "of what clients send: int8, fp16, topk:0.01",
}
_SIMULATION = ("data", "clients", "partition", "test_size", "shift", "engine", "output")


def _simulate_arguments(parser: Parser) -> None:
    add = parser.add_option
    add("data", metavar="DATA", help="videos, as for hf-video train, or a federation's YAML file")
    add("--model", help="a folder, a name on the Hub, or a model type such as videomae:small")
    add("--recipe", help="as for hf-video train")
    add("--output", help="folder of the run (default: federated-run)")
    add("--clients", type=positive_int, metavar="N", help="how many sites there are (default 8)")
    add("--partition", metavar="HOW", help="iid, recording, dirichlet:0.3, …, or a SPLIT.json (default iid)")
    add("--test-size", type=fraction, metavar="SHARE", help="of each client's videos to evaluate on (default 0.2)")
    add("--shift", metavar="S", help="how unlike each other their videos look: 2, camera:2, greys:3 (default 0)")
    add("--engine", choices=("local", "ray"), help="clients in this process, or in Ray's (default local)")
    add("--rounds", type=positive_int, metavar="N", help="(default 20)")
    add("--fraction", type=finite_float, metavar="SHARE", help="of the clients that a round asks (default 1)")
    add("--min-clients", type=positive_int, metavar="N", help="answers that a round needs (default 2)")
    add("--local-epochs", type=finite_float, metavar="N", help="passes over a client's videos in a round (default 1)")
    add("--local-steps", type=positive_int, metavar="N", help="steps of the optimiser instead")
    for name, text in _FIELDS.items():
        add(name, metavar="HOW", help=text)
    add("--lora", metavar="R", type=positive_int, help="train adapters of this rank on all linear layers, and the head")
    add("--evaluate-every", type=positive_int, metavar="N", help="rounds (default 1)")
    add("--seed", default=None)
    add("--set")
    add("--resume")
    add("--overwrite")


def _run_simulate(options: argparse.Namespace) -> int:
    from hf_video.federated.config import FederatedConfig, read_federation
    from hf_video.federated.report import format_clients, format_round, header, read_history
    from hf_video.federated.simulation import simulate

    is_file = options.data.lower().endswith((".yaml", ".yml"))
    fields, simulation = read_federation(options.data) if is_file else ({}, {"data": options.data})
    known = {one.name for one in dataclasses.fields(FederatedConfig)}
    typed = {name: value for name, value in vars(options).items() if name in known and value is not None}
    typed["settings"] = [*fields.get("settings", ()), *options.settings]
    if options.lora is not None:
        typed["lora"] = {"r": options.lora, "target_modules": "all-linear"}
    simulation |= {n: v for n in _SIMULATION if n != "data" and (v := getattr(options, n)) is not None}
    if "data" not in simulation:
        raise FederatedError(f"{options.data} has no `data` under `simulation:`: where are the videos?")
    config = FederatedConfig.from_dict({**fields, **typed})
    output = simulation.pop("output", "federated-run")
    print(header())
    summary = simulate(
        simulation.pop("data"),
        config,
        output=output,
        on_round=lambda report: print(format_round(report), flush=True),
        resume=options.resume,
        overwrite=options.overwrite,
        **simulation,
    )
    print(f"\n{format_clients(read_history(output))}\n")
    print(f"{pluralize(summary['rounds'], 'round')} in {summary['seconds']:.0f} s. The model: {output}")
    return DONE


# -- report ------------------------------------------------------------------------------------------------------------


def _report_arguments(parser: Parser) -> None:
    parser.add_option("folder", metavar="RUN", help="folder of a run")


def _run_report(options: argparse.Namespace) -> int:
    from hf_video.federated.report import FIGURE, format_report, read_history, rounds_figure

    print(format_report(options.folder))
    if any(row.evaluation for row in read_history(options.folder)):
        print(f"drawn: {rounds_figure(read_history(options.folder), Path(options.folder) / FIGURE)}")
    return DONE


# -- server ------------------------------------------------------------------------------------------------------------


def _server_arguments(parser: Parser) -> None:
    add = parser.add_option
    add("federation", metavar="FILE.yaml", help="the model, the rounds, the strategy")
    add("--keys", required=True, metavar="DIR", help="the folder for the server that `keys` made")
    add("--output", required=True, help="the run's folder, in the end also the model's")
    add("--resume")
    add("--host", default="0.0.0.0", help="address to listen on (default: all)")
    add("--port", type=port, default=8443, help="of the only interface, HTTPS (default 8443)")
    add("--wait", type=non_negative_float, default=300.0, metavar="SECONDS", help="for all sites (default 300)")
    add("--restarts", type=non_negative_int, default=0, metavar="N", help="of a server that crashed (default 0)")


def _run_server(options: argparse.Namespace) -> int:
    from hf_video.federated.deployment.server import Deployment, RunFailedError, ServerKeys

    deployment = Deployment(
        options.federation,
        ServerKeys.read(options.keys),
        options.output,
        host=options.host,
        port=options.port,
        wait=options.wait,
        tell=lambda line: print(line, flush=True),
    )
    try:
        deployment.run(resume=options.resume, restarts=options.restarts)
    except RunFailedError as error:
        print(f"hf-video: {error}", file=sys.stderr)
        return SOME_FAILED
    return DONE


# -- client ------------------------------------------------------------------------------------------------------------

SITE_VALUES = ("server", "root", "key", "name", "data", "folder")


def _client_arguments(parser: Parser) -> None:
    add = parser.add_option
    add("site", metavar="SITE.yaml", help="what the site offers and agrees to; what is typed here wins")
    add("--server", metavar="HOST:PORT", help="where the server listens")
    add("--root", metavar="FILE", help="certificate by which the server proves who it is")
    add("--key", metavar="FILE", help="private key by which the site proves who it is")
    add("--name", help="of the site")
    add("--data", metavar="DIR", help="folder or list of the site's videos")
    add("--folder", metavar="DIR", help="where the site keeps what is its own")
    add("--port", type=port, default=None, help="of the site's interface to itself (default: a free one)")
    add("--dry-run", metavar="FILE.yaml", help="show what would leave the site in this federation; connect to nobody")
    add("--patience", type=non_negative_float, metavar="SECONDS", help="without a server, then end (default: for ever)")


def _run_client(options: argparse.Namespace) -> int:
    from hf_video.federated.deployment.site import read_site, run_site

    site = read_site(options.site, {name: getattr(options, name) for name in SITE_VALUES})
    if options.dry_run:
        return _show_what_leaves(site, options.dry_run)
    run_site(site, port=options.port, patience=options.patience)
    return DONE


def _show_what_leaves(site: SiteFile, federation: str) -> int:
    from hf_video.auto import register_auto_classes
    from hf_video.federated.client import ClientRuntime, Site, with_labels
    from hf_video.federated.config import FederatedConfig
    from hf_video.federated.deployment.traffic import Traffic, told_besides
    from hf_video.federated.messages.payload import Payload
    from hf_video.federated.trainers import FederatedModel

    register_auto_classes()
    config = FederatedConfig.load(federation)
    client = ClientRuntime(Site(site.name, site.data, site.folder))
    config = with_labels(config, {site.name: client.describe(Payload({"config": json.dumps(config.to_dict())}))})
    traffic = Traffic.of(config, FederatedModel(config, client.task(config)).arrays())
    print("\n".join([*traffic.table(), *told_besides(config), *traffic.lines()]))
    site.limits.check(config, 0)
    return DONE


COMMANDS = {
    "partition": Command("who has which videos in a simulation", _partition_arguments, _run_partition),
    "simulate": Command("clients of one data set in this process", _simulate_arguments, _run_simulate),
    "report": Command("the rounds of a run, in a table and a picture", _report_arguments, _run_report),
    "keys": Command("certificates and keys for the server and each site", _keys_arguments, _run_keys),
    "server": Command("let the sites in and run the rounds", _server_arguments, _run_server),
    "client": Command("connect a site to the server until it is stopped", _client_arguments, _run_client),
}
