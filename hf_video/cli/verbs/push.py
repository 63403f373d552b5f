"""Put a trained model on the Hub: weights, processor, evaluation, and a card made from them.

  hf-video push runs/my-model me/my-model
  hf-video push runs/my-model me/my-model --revision epoch-50 --license apache-2.0

A new repository is private. Nothing but safetensors is sent as weights; checkpoints and logs stay here. A push that
broke off is finished by the same command. Log in once with `hf auth login`, or set HF_TOKEN.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hf_video.cli import DONE
from hf_video.cli.arguments import Parser
from hf_video.errors import pluralize


def add_arguments(parser: Parser) -> None:
    add = parser.add_option
    add("folder", metavar="FOLDER", help="the folder that training wrote")
    add("repo", metavar="REPO", help="owner/name on the Hub, or a name of your own account")
    add(
        "--private",
        action=argparse.BooleanOptionalAction,
        help="private: refuse a public repository; no-private: make a new one public (default: new ones are private)",
    )
    add("--revision", metavar="BRANCH", help="a branch, made if it is not there (default main)")
    add("--message", metavar="TEXT", help="of the commit")
    add("--license", metavar="ID", help="for the card, such as apache-2.0 (default: that of the weights it began with)")


def run(options: argparse.Namespace) -> int:
    from hf_video.hub.publish import publishable_files, push

    commit = push(
        options.folder,
        options.repo,
        private=options.private,
        revision=options.revision,
        commit_message=options.message,
        license=options.license,
    )
    sizes = [(name, (Path(options.folder) / name).stat().st_size) for name in publishable_files(options.folder)]
    print(f"{pluralize(len(sizes), 'file')}, {sum(size for _, size in sizes) / 1e6:,.1f} MB", file=sys.stderr)
    print(commit.commit_url)
    return DONE
