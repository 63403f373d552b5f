"""A web page on an index: type a sentence or give an example, see the moments along each video, play them.

  hf-video serve library.index
  hf-video serve library.index --port 8080 --host 0.0.0.0

Only this machine can open the page unless --host says otherwise; there are no passwords then.
"""

from __future__ import annotations

import argparse

from hf_video.cli.arguments import Parser, port


def add_arguments(parser: Parser) -> None:
    add = parser.add_option
    add("index", metavar="INDEX", help="folder of the index")
    add("--model", help="the model of the index, if it lies elsewhere by now")
    add("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    add("--port", type=port, default=7860, help="default 7860; 0 takes a free one")
    add("--device")


def run(options: argparse.Namespace) -> int:
    from hf_video.cli import DONE
    from hf_video.retrieval import VideoIndex
    from hf_video.retrieval.page import serve

    index = VideoIndex.open(options.index, options.model, device=options.device)
    serve(index, host=options.host, port=options.port)
    return DONE
