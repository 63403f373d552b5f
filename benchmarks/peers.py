"""Every full-size model of ours beside the one that others publish: `python benchmarks/peers.py`. See the README.

Each model has processes of its own, forked from one that has imported torch and hf_video: one that converts the
weights, checks that answers are equal and lets the candidates take turns, and one per candidate for its peak memory.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also runs where hf_video isn't installed

import torch
import transformers

from benchmarks import report
from benchmarks.measure import Row, absent, compare, race, require_close
from benchmarks.memory import peak
from benchmarks.peer_models import PAIRS, Pair, prepare, randomise
from benchmarks.setting import Setting, machine

AREA = "peers"
OURS, LAST, HALF = "hf_video fp32", "hf_video fp32, channels last", "hf_video bf16"
TOLERANCE = 1e-4  # of the largest number of an answer
RESULTS = Path(__file__).resolve().parent / "results" / "peers.json"
ROUNDS = (3, 15)


@dataclass(frozen=True)
class Measured:
    """What a model's first process hands back; `config` is enough for another process to build ours anew."""

    rows: list[Row]
    cls: type
    config: Any


def job(name: str) -> str:
    return f"{name} {PAIRS[name].frames}x{PAIRS[name].size}²"


def clip_of(pair: Pair) -> torch.Tensor:
    shape = (1, pair.frames, 3, pair.size, pair.size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def variants(pair: Pair) -> list[str]:
    """Our candidates. bf16 has channels last as well where there are convolutions: PyTorch's kernels want it so."""
    return [OURS, LAST, HALF] if pair.convolutions else [OURS, HALF]


def as_variant(model: torch.nn.Module, variant: str, pair: Pair) -> torch.nn.Module:
    """The same object, or what a user would turn it into with one line."""
    if variant == HALF:
        model = model.to(torch.bfloat16)
    if variant == LAST or (variant == HALF and pair.convolutions):
        model = model.to(memory_format=torch.channels_last_3d)
    return model.eval()


def forward(model: torch.nn.Module, pair: Pair) -> Callable[[], torch.Tensor]:
    clip = clip_of(pair).to(next(model.parameters()).dtype)
    return lambda: pair.ours(model(clip))


def peer_forward(model: torch.nn.Module, pair: Pair) -> Callable[[], torch.Tensor]:
    clip = clip_of(pair)
    return lambda: pair.theirs(model(pair.feed(clip)))


@torch.inference_mode()
def measure(name: str, threads: int, seconds: float) -> Measured | str:
    """Checks and times one model; the reason where its peer is not there. Rounds fill `seconds`, within `ROUNDS`;
    with 0 seconds there is one, which judges nothing."""
    torch.set_num_threads(threads)
    pair = PAIRS[name]
    if reason := prepare(pair.library):
        return reason
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    theirs = randomise(pair.build())
    ours = pair.convert(theirs)
    candidates = {v: forward(as_variant(copy.deepcopy(ours), v, pair), pair) for v in variants(pair)}
    peer = f"{pair.library} fp32"
    candidates[peer] = peer_forward(theirs, pair)

    begin = time.perf_counter()
    answers = {candidate: run() for candidate, run in candidates.items()}  # also the round that isn't counted
    rounds = int(seconds / (time.perf_counter() - begin))
    rounds = min(max(rounds, ROUNDS[0]), ROUNDS[1]) if seconds else 1
    differences = {v: distance(answers[v], answers[peer]) for v in variants(pair)}
    for variant in differences.keys() - {HALF}:
        require_close(f"{name}, {variant}", differences[variant], TOLERANCE)
    times = race(candidates, rounds, warmup=0)
    rows = []
    for variant in variants(pair):
        note = f"max |Δ| {differences[variant]:.1e} of the largest number"
        target = 1.0 if variant == OURS and seconds else None
        rows.append(compare(times, variant, peer, area=AREA, job=job(name), target=target, note=note))
    return Measured(rows, type(ours), ours.config)


def distance(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference, as a share of the largest number of the peer's answer."""
    return ((ours.float() - theirs).abs().max() / theirs.abs().max()).item()


@torch.inference_mode()
def memory(name: str, threads: int, variant: str | None, cls: type, config: Any) -> float:
    """MB that weights and one forward add to the process's peak: of our `variant`, or of the peer where it is None."""
    torch.set_num_threads(threads)
    pair = PAIRS[name]
    prepare(pair.library)
    gc.collect()
    before = peak()
    if variant is None:
        run = peer_forward(pair.build().eval(), pair)
    else:
        torch.set_default_dtype(torch.bfloat16 if variant == HALF else torch.float32)
        model = cls(config)
        torch.set_default_dtype(torch.float32)
        run = forward(as_variant(model, variant, pair), pair)
    run()
    return peak() - before


def memory_rows(name: str, threads: int, measured: Measured, apart: Callable) -> list[Row]:
    pair = PAIRS[name]
    peer = apart(memory, name, threads, None, None, None)
    rows = []
    for variant in variants(pair):
        ours = apart(memory, name, threads, variant, measured.cls, measured.config)
        row = Row(AREA, f"memory, {job(name)}", variant, ours, f"{pair.library} fp32", peer, ours / peer, kind="memory")
        rows.append(row)
    return rows


def run(names: list[str], threads: int, seconds: float, with_memory: bool = True) -> list[Row]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.peer_models"])
    rows = []

    def apart(function: Callable, *values: Any) -> Any:
        """What the function answers in a process that ends after it."""
        with context.Pool(1) as pool:
            return pool.apply(function, values)

    for name in names:
        begin = time.perf_counter()
        measured = apart(measure, name, threads, seconds)
        if isinstance(measured, str):
            new = [absent(OURS, None, f"{PAIRS[name].library} fp32", measured, area=AREA, job=job(name), kind="wall")]
        else:
            new = measured.rows + (memory_rows(name, threads, measured, apart) if with_memory else [])
        rows += new
        table = report.table([row.as_dict() for row in new])
        print(f"{table}\n({time.perf_counter() - begin:.0f} s)\n", flush=True)
    return rows


def summary(rows: list[Row]) -> str:
    """Slowest first: our float32 time as a share of the peer's, by wall and by CPU time."""
    timed = sorted((r for r in rows if r.name == OURS and r.kind == "wall" and r.ratio), key=lambda r: -r.ratio)
    lines = [f"{row.ratio:.2f} (CPU {row.other_ratio:.2f})  {row.job}" for row in timed]
    if timed:
        lines.append(f"{statistics.geometric_mean(row.ratio for row in timed):.2f}  geometric mean")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Full-size models side by side with those of other libraries.")
    parser.add_argument("--only", default=",".join(PAIRS), help=f"comma-separated: {','.join(PAIRS)}")
    parser.add_argument("--seconds", type=float, default=25.0, help="for the rounds of one model (default 25; 0: one)")
    parser.add_argument("--threads", type=int, default=2, help="of torch (default 2)")
    parser.add_argument("--no-memory", action="store_true", help="times only")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    names = [name.strip() for name in args.only.split(",")]
    if unknown := [name for name in names if name not in PAIRS]:
        parser.error(f"--only {', '.join(unknown)}: choose from {', '.join(PAIRS)}")
    rows = run(names, args.threads, args.seconds, not args.no_memory)
    setting = Setting(ROUNDS[0], args.threads, Path(), quick=not args.seconds)
    versions = ("hf_video", "torch", "transformers", "torchvision", "pytorchvideo", "mmaction2")
    results = {"machine": machine(setting, versions), "rows": [row.as_dict() for row in rows]}
    args.output.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    print(f"{report.markdown(results)}\n\n{summary(rows)}\n\nWritten to {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
