"""Count what is repeated in videos: push-ups, turns, strokes. No training, and no model unless one is named.

  hf-video count workout.mp4
  hf-video count clips/ --json > counts.json
  hf-video count swing.mp4 --periods 0.5 4

Prints how often something was repeated, how many seconds one took, and the stretches; 0 where nothing is. A folder
means the videos in it. Files that can't be read are named on stderr, the others go on, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import Any

from hf_video.cli import DONE, SOME_FAILED
from hf_video.cli.arguments import Parser, finite_float
from hf_video.cli.files import expand_paths
from hf_video.cli.printing import error_line
from hf_video.errors import VideoError, VideoOptionError, error_entry, pluralize


def add_arguments(parser: Parser) -> None:
    add = parser.add_option
    add("files", nargs="+", metavar="FILE", help="video files, http(s) URLs, or folders")
    add("--model", help="compare the vectors of a model instead of small grey pictures")
    add("--grid", metavar="0.4s/0.1s", help="length and step of the model's clips (default 0.4s/0.1s)")
    add("--periods", type=finite_float, nargs=2, default=(0.2, 30.0), metavar=("SHORTEST", "LONGEST"),
        help="seconds that one repetition may take (default 0.2 to 30)")  # fmt: skip
    add("--backend")
    add("--device")
    add("--json", action="store_true", help="a JSON array on stdout")


def run(options: argparse.Namespace) -> int:
    from hf_video.features.sequence_encoder import SequenceEncoder
    from hf_video.pipelines.repetitions import GRID, count_repetitions

    model = processor = None
    if options.model is not None:
        encoder = SequenceEncoder(options.model, grid=options.grid or GRID, device=options.device)
        model, processor = encoder.model, encoder.processor
    elif options.grid is not None:
        raise VideoOptionError("--grid is of a model's clips; name one with --model, or leave it out")
    results: list[dict[str, Any]] = []
    failed = False
    for file in expand_paths(options.files):
        try:
            found = count_repetitions(
                file,
                model,
                processor,
                grid=options.grid or GRID,
                periods=tuple(options.periods),
                backend=options.backend or "auto",
            )
        except VideoOptionError:
            raise
        except VideoError as error:
            failed = True
            results.append({"file": file, **error_entry(error)})
            print(error_line(file, str(error)), file=sys.stderr)
            continue
        results.append({"file": file, **asdict(found), "confidence": found.confidence})
        if not options.json:
            every = "" if found.period is None else f", {found.period:.2f} s each, confidence {found.confidence:.2f}"
            print(f"{file}  {pluralize(found.count, 'repetition')}{every}")
            for span in found.spans:
                print(f"  {span.start:.2f}-{span.end:.2f} s  {span.count} of {span.period:.2f} s")
    if options.json:
        print(json.dumps(results, ensure_ascii=False, indent=2))
    return SOME_FAILED if failed else DONE
