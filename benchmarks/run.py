"""Runs the benchmarks: `python benchmarks/run.py [--only reading,forward] [--rounds 9] [--quick]`. See the README."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also runs where hf_video isn't installed

from benchmarks import report
from benchmarks.setting import Setting, machine

AREAS = {
    "reading": "benchmarks.reading",
    "processor": "benchmarks.processor",
    "forward": "benchmarks.forward",
    "pretraining": "benchmarks.training.pretraining",
    "finetuning": "benchmarks.training.finetuning",
    "label": "benchmarks.label",
    "folder": "benchmarks.archives.folder",
    "indexing": "benchmarks.archives.indexing",
    "loader": "benchmarks.loader",
    "import": "benchmarks.imports",
}


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="hf_video measured side by side with what one would use instead.")
    parser.add_argument("--only", type=_areas, default=list(AREAS), help=f"comma-separated: {','.join(AREAS)}")
    parser.add_argument(
        "--rounds", type=_positive, default=None, help="of short jobs (default 9); long ones take fewer"
    )
    parser.add_argument("--threads", type=_positive, default=2, help="of torch (default 2); decoders have one")
    parser.add_argument(
        "--clip", type=Path, action="append", default=[], help="a video file to read as well; repeatable"
    )
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "hf_video_benchmarks")
    parser.add_argument("--output", type=Path, default=report.RESULTS)
    parser.add_argument("--quick", action="store_true", help="tiny inputs: shows that all runs, measures nothing")
    args = parser.parse_args(argv)
    for clip in args.clip:
        if not clip.is_file():
            parser.error(f"--clip {clip} is no file")
    return args


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(args.threads)
    rounds = args.rounds or (1 if args.quick else 9)
    setting = Setting(rounds, args.threads, args.cache.resolve(), tuple(args.clip), args.quick)
    rows = []
    for area in args.only:
        begin = time.perf_counter()
        print(f"{area} …", flush=True)
        new = [row.as_dict() for row in importlib.import_module(AREAS[area]).run(setting)]
        print(f"{report.table(new)}\n({time.perf_counter() - begin:.0f} s)\n", flush=True)
        rows += new
    results = {"machine": machine(setting), "rows": rows}
    args.output.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    print(f"{report.markdown(results)}\n\nWritten to {args.output}")
    return 0


def _areas(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in AREAS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"{text!r}: choose from {', '.join(AREAS)}")
    return names


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
