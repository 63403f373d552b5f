"""One clip through every way to compute a model: `python benchmarks/backends.py [--prepare]`. See the README.

Exports and compiled graphs are made first and kept in `--cache`, so that a later run only measures. Every candidate's
answer is compared with ours in float32 before anything is timed; then all take turns.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also runs where hf_video isn't installed

import torch
import transformers

import hf_video
from benchmarks import clips, models
from benchmarks.measure import NotEqualError, Times, race, require_close
from benchmarks.peer_models import randomise
from benchmarks.setting import Setting, machine, why_absent
from hf_video.base.fast_numbers import channels_last, has_bf16
from hf_video.base.modeling_conv import ConvVideoPreTrainedModel
from hf_video.export import export_model

RESULTS = Path(__file__).resolve().parent / "results" / "backends.json"
UNIT = "hf_video bf16"
EXACT, HALF, EIGHT = 1e-3, 0.1, 0.3  # ‖answer - ours fp32‖ / ‖ours fp32‖ that is allowed, by the numbers of a candidate
EXPORTS = {"OpenVINO": {"to": "openvino"}, "OpenVINO int8": {"to": "openvino", "int8": True},
           "ONNX Runtime": {"to": "onnx"}, "ONNX Runtime int8": {"to": "onnx", "int8": True}}  # fmt: skip
PACKAGES = ("hf_video", "torch", "transformers", "openvino", "nncf", "onnxruntime", "onnx", "numpy")


@dataclass(frozen=True)
class Case:
    """A model: the class, its settings (or a published size), and stock's fastest attention, where stock has it."""

    cls: str
    settings: dict[str, Any]
    preset: str | None = None
    attention: str | None = None
    quick: dict[str, Any] = field(default_factory=dict)


CASES = {
    "VideoMAE-B 16x224²": Case("VideoMAE", models.VIDEOMAE, attention="sdpa", quick=models.QUICK),
    "VideoMAE-S 16x224²": Case("VideoMAE", models.VIDEOMAE_SMALL, attention="sdpa", quick=models.QUICK),
    "TimeSformer-B 8x224²": Case("Timesformer", models.TIMESFORMER, attention="eager", quick=models.QUICK),
    "Video-Swin-T 32x224²": Case(
        "VideoSwin", {"num_frames": 32, "image_size": 224}, preset="tiny",
        quick={"image_size": 64, "num_frames": 8, "embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2]},
    ),
    "X3D-M 16x224²": Case(
        "X3D", {"num_frames": 16, "image_size": 224}, preset="m",
        quick={"image_size": 64, "num_frames": 4, "stem_channels": 8, "depth_factor": 0.5, "head_size": 32},
    ),
}  # fmt: skip


def make(case: Case, quick: bool) -> tuple[Any, Any, dict[str, Any]]:
    """(ours, stock or None, settings), with the same weights in every run."""
    settings = {**case.settings, **(case.quick if quick else {}), "num_labels": 400}
    name = f"{case.cls}ForVideoClassification"
    if case.attention:
        return *models.pair(name, settings, case.attention), settings
    torch.manual_seed(0)
    config = getattr(hf_video, f"{case.cls}Config")
    made = config(**settings) if quick or case.preset is None else config.preset(case.preset, num_labels=400)
    return randomise(getattr(hf_video, name)(made)), None, settings


def exported(name: str, case: Case, ours: Any, options: dict[str, Any], cache: Path, quick: bool) -> Path:
    """The folder of an export, made unless it is there."""
    home = cache / f"{name.replace(' ', '-')}{'-quick' if quick else ''}-{hf_video.__version__}"
    folder = home / f"{options['to']}{'-int8' if options.get('int8') else ''}"
    if (folder / "README.md").exists():
        return folder
    if not (home / "model" / "config.json").exists():
        ours.save_pretrained(home / "model")
        settings = {"num_frames": ours.config.num_frames}
        size = ours.config.image_size
        sizes = {"size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}}
        getattr(hf_video, f"{case.cls}ImageProcessor")(**sizes, **settings).save_pretrained(home / "model")
    if options.get("int8"):
        for height, width in ((120, 160), (160, 120)) if quick else ((240, 320), (256, 340), (320, 240), (288, 352)):
            clips.clip(clips.Recipe("calibration", height, width, frames=64), cache / "calibration")
        options = {**options, "calibration": cache / "calibration", "force": True}
    print(f"  exporting to {folder.name} …", flush=True)
    export_model(home / "model", folder, **options)
    return folder


def candidates(
    name: str, args: argparse.Namespace
) -> tuple[dict[str, tuple[Callable[[], Any], float]], dict[str, str], float]:
    """Jobs with their tolerances, reasons for those that can't run, and GFLOP of a clip in products."""
    case = CASES[name]
    ours, stock, settings = make(case, args.quick)
    convolutional = isinstance(ours, ConvVideoPreTrainedModel)
    clip = models.video(1, settings)
    half = copy.deepcopy(ours).to(torch.bfloat16)
    if convolutional:
        channels_last(ours)
        channels_last(half)
    work = flops(ours, clip)
    jobs: dict[str, tuple[Callable[[], Any], float]] = {}
    absent = {} if stock is not None else {"stock fp32": "transformers has no such model"}
    if stock is not None:
        jobs["stock fp32"] = (lambda: stock(clip).logits, EXACT)
    jobs["hf_video fp32"] = (lambda: ours(clip).logits, EXACT)
    jobs[UNIT] = (lambda: half(clip.bfloat16()).logits, HALF)
    if args.compile:
        torch.compiler.reset()
        compiled = torch.compile(half, dynamic=False)
        jobs["hf_video bf16, compiled"] = (lambda: compiled(clip.bfloat16()).logits, HALF)
    for label, options in EXPORTS.items():
        package = {"openvino": "openvino", "onnx": "onnxruntime"}[options["to"]]
        reason = why_absent(package)
        if reason is None and options.get("int8") and options["to"] == "openvino":
            reason = why_absent("nncf")
        if reason is None and options.get("int8") and options["to"] == "onnx" and convolutional:
            reason = "has no 3-D convolutions in 8 bits"
        if reason:
            absent[label] = reason
            continue
        folder = exported(name, case, ours, options, args.cache, args.quick)
        kinds = {"": None}
        if label == "OpenVINO":
            kinds = {" f32": "float32", **({" bf16": "bfloat16"} if has_bf16() else {})}
        for end, dtype in kinds.items():
            model = type(ours).from_pretrained(folder, dtype=dtype)
            tolerance = EIGHT if options.get("int8") else HALF if dtype == "bfloat16" else EXACT
            jobs[label + end] = (lambda model=model: model(clip).logits, tolerance)
    return jobs, absent, work


def flops(model: Any, clip: torch.Tensor) -> float:
    """GFLOP of products and convolutions for a clip; fused attention is not counted."""
    from torch.utils.flop_counter import FlopCounterMode

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the switch itself
        with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
            model(clip)
    return counter.get_total_flops() / 1e9


def products(quick: bool) -> dict[str, tuple[Callable[[], Any], float]]:
    """A product of matrices as large as a ViT-B's, and its GFLOP, by its numbers."""
    rows, width = (256, 256) if quick else (1568, 768)
    made = {}
    for label, dtype in (("product fp32", torch.float32), ("product bf16", torch.bfloat16)):
        x, w = torch.randn(rows, width).to(dtype), torch.randn(4 * width, width).to(dtype)
        made[label] = (
            lambda x=x, w=w: [torch.nn.functional.linear(x, w) for _ in range(8)],
            8 * 8 * rows * width**2 / 1e9,
        )
    return made


@torch.inference_mode()
def measure(name: str, threads: int, args: argparse.Namespace) -> dict[str, Any]:
    """The rows of a model with so many threads."""
    torch.set_num_threads(threads)
    jobs, absent, work = candidates(name, args)
    expected, far = jobs["hf_video fp32"][0]().float(), {}
    for label, (job, tolerance) in list(jobs.items()):
        try:
            found = job().float()
        except Exception as error:  # a compiler or a runtime that can't
            absent[label] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
            del jobs[label]
            continue
        far[label] = ((found - expected).norm() / expected.norm()).item()
        try:
            require_close(f"{name}, {label}", far[label], tolerance)
        except NotEqualError as error:
            absent[label] = str(error)
            del jobs[label]
    if args.prepare:
        return {}
    bare = products(args.quick)
    times = race({label: job for label, (job, _) in {**jobs, **bare}.items()}, args.rounds)
    rates = {label: amount / statistics.median(times[label].wall) * 1e3 for label, (_, amount) in bare.items()}
    rows = [row(label, times[label], times[UNIT], far[label]) for label in jobs]
    floor = {label.removeprefix("product "): work / rate * 1e3 for label, rate in rates.items()}
    return {
        "model": name,
        "threads": threads,
        "gflop": work,
        "gflops": rates,
        "floor": floor,
        "rows": rows,
        "absent": absent,
    }


def row(label: str, times: Times, unit: Times, difference: float) -> dict[str, Any]:
    """Medians in milliseconds, and medians of the rounds' ratios to our bfloat16."""
    ratios = {
        kind: statistics.median(a / b for a, b in zip(times.of(kind), unit.of(kind), strict=True))
        for kind in ("wall", "cpu")
    }
    return {
        "name": label,
        "difference": difference,
        **{kind: {"ms": statistics.median(times.of(kind)), "ratio": ratio} for kind, ratio in ratios.items()},
    }


def markdown(results: dict[str, Any]) -> str:
    """A table for each number of threads: models across, candidates down, wall times relative to our bfloat16."""
    told = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in told["versions"].items() if version)
    quick = "A quick run: the numbers mean nothing. " if told["quick"] else ""
    lines = [
        f"{quick}{told['date']}, {told['cpu']}, {told['cores']} cores; {versions}; medians of {told['rounds']} rounds."
    ]
    for threads in dict.fromkeys(one["threads"] for one in results["measured"]):
        measured = [one for one in results["measured"] if one["threads"] == threads]
        names = list(dict.fromkeys(row["name"] for one in measured for row in one["rows"]))
        lines += [
            "",
            f"{threads} thread{'s' * (threads > 1)}, wall time relative to {UNIT} (CPU time in brackets):",
            "",
            "| | " + " | ".join(one["model"] for one in measured) + " |",
            "|---" * (len(measured) + 1) + "|",
        ]
        for name in names:
            found = [next((row for row in one["rows"] if row["name"] == name), None) for one in measured]
            lines.append(f"| {name} | " + " | ".join("–" if r is None else _cell(r) for r in found) + " |")
        for kind in measured[0]["floor"]:
            units = [next(r["wall"]["ms"] for r in one["rows"] if r["name"] == UNIT) for one in measured]
            shares = [f"{one['floor'][kind] / unit:.2f}" for one, unit in zip(measured, units, strict=True)]
            lines.append(f"| floor: products in {kind} alone | " + " | ".join(shares) + " |")
        millis = [f"{next(r['wall']['ms'] for r in one['rows'] if r['name'] == UNIT):.0f} ms" for one in measured]
        lines.append(f"| {UNIT}, milliseconds | " + " | ".join(millis) + " |")
        rates = ", ".join(f"{kind.removeprefix('product ')} {rate:.0f}" for kind, rate in measured[0]["gflops"].items())
        lines += ["", f"A product of matrices ran at, in GFLOP/s: {rates}."]
    notes = {f"- {one['model']}, {name}: {why}" for one in results["measured"] for name, why in one["absent"].items()}
    lines += ["", *sorted(notes)]
    return "\n".join(lines)


def _cell(one: dict[str, Any]) -> str:
    return f"{one['wall']['ratio']:.2f} ({one['cpu']['ratio']:.2f})"


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    known = {name.partition(" ")[0]: name for name in CASES}
    parser.add_argument("--models", default=",".join(known), help=f"some of {','.join(known)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", default="1,2", help="numbers of torch's and the runtimes' threads (default 1,2)")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="without torch.compile")
    parser.add_argument("--prepare", action="store_true", help="make exports and compiled graphs, and measure nothing")
    parser.add_argument("--table", action="store_true", help="print the last results as a markdown table")
    parser.add_argument("--quick", action="store_true", help="tiny models: shows that all runs, measures nothing")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "hf_video_benchmarks")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    unknown = [name for name in args.models.split(",") if name not in known]
    if unknown or args.rounds < 1 or not all(one.isdigit() and int(one) for one in args.threads.split(",")):
        parser.error(f"--models takes {','.join(known)}; --rounds and --threads numbers from 1 up")
    args.models = [known[name] for name in args.models.split(",")]
    args.threads = [int(one) for one in args.threads.split(",")]
    return args


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    if args.table:
        print(markdown(json.loads(args.output.read_text())))
        return 0
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    args.cache = args.cache.resolve()
    results = {
        "machine": machine(Setting(args.rounds, max(args.threads), args.cache, quick=args.quick), PACKAGES),
        "measured": [],
    }
    for name in args.models:
        for threads in args.threads:
            begin = time.perf_counter()
            print(f"{name}, {threads} thread(s) …", flush=True)
            if found := measure(name, threads, args):
                results["measured"].append(found)
                args.output.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
            print(f"  {time.perf_counter() - begin:.0f} s", flush=True)
    if results["measured"]:
        print(f"\n{markdown(results)}\n\nWritten to {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
