"""Train one model together with other sites; nobody's videos leave their site.

  hf-video federated keys sites/ --names a,b,c --hosts fed.example.org

`keys` makes certificates for the server and a key pair for each site. Needs pip install "hf_video[federated]".
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from hf_video.cli import DONE
from hf_video.cli.arguments import Parser, name_list, positive_int


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


# -- keys --------------------------------------------------------------------------------------------------------------


def _keys_arguments(parser: Parser) -> None:
    add = parser.add_option
    add("folder", metavar="DIR", help="where the folders for the server and the sites are made")
    add("--names", type=name_list, required=True, metavar="A,B,C", help="of the sites")
    add("--hosts", type=name_list, required=True, metavar="HOST,IP", help="under which the sites reach the server")
    add("--days", type=positive_int, default=825, metavar="N", help="the server's certificate is valid (default 825)")


def _run_keys(options: argparse.Namespace) -> int:
    from hf_video.federated.deployment.certificates import make_keys

    made = make_keys(options.folder, options.names, options.hosts, days=options.days)
    print("\n".join(made.lines()))
    return DONE


COMMANDS = {
    "keys": Command("certificates and keys for the server and each site", _keys_arguments, _run_keys),
}
