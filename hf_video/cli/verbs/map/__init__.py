"""Draw a map of embeddings: one HTML file, with pictures of the videos under the mouse.

  hf-video embed clips/ --model my-encoder --output features
  hf-video map features --videos clips/ --output map.html

FEATURES is a folder that `hf-video embed` wrote; --videos is what was embedded, for the pictures. Points that lie near
each other have similar embeddings, and colours are labels, where there are some. UMAP places them if umap-learn is
installed (pip install "hf_video[visual]"), else PCA. The page opens in any browser, without a server or a network.
"""

from __future__ import annotations

import argparse
import sys

from hf_video.cli import DONE, SOME_FAILED
from hf_video.cli.arguments import Parser, check_output, positive_int
from hf_video.cli.printing import error_line
from hf_video.errors import pluralize


def add_arguments(parser: Parser) -> None:
    add = parser.add_option
    add("features", metavar="FEATURES", help="a folder that `hf-video embed` wrote")
    add("--output", required=True, type=output_page, metavar="MAP.html", help="the page to write")
    add("--videos", help="the folder of the videos, for pictures (default: none)")
    add(
        "--method", choices=("auto", "umap", "pca"), default="auto", help="what places points (default: UMAP, else PCA)"
    )
    add("--points", type=positive_int, default=2000, metavar="N", help="most points (default 2000); a picture is ~5 KB")
    add("--title", help="of the page (default: the folder's name)")
    add("--seed")
    add("--quiet")


def output_page(path: str) -> str:
    from hf_video.base.written_files import check_output_file

    return check_output(path, lambda file: check_output_file(file, suffixes=(".html", ".htm")))


def run(options: argparse.Namespace) -> int:
    from transformers.utils import logging

    from hf_video.visual import embedding_map

    if options.quiet:
        logging.disable_progress_bar()
    made = embedding_map(
        options.features,
        options.output,
        videos=options.videos,
        method=options.method,
        points=options.points,
        title=options.title,
        seed=options.seed,
    )
    if made.method == "pca" and options.method == "auto":
        print('hf-video: by PCA; pip install "hf_video[visual]" for UMAP', file=sys.stderr)
    if made.left_out:
        print(f"hf-video: {pluralize(made.left_out, 'vector')} left out; --points N draws more", file=sys.stderr)
    for name in made.without_picture:
        print(error_line(name, "can't be read: its points have no picture"), file=sys.stderr)
    print(f"{made.path}: {pluralize(made.points, 'point')}, {made.path.stat().st_size / 1e6:.1f} MB")
    return SOME_FAILED if made.without_picture else DONE
