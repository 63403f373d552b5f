"""Exports a saved model into a folder that another runtime computes, and compares the two."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download

from hf_video.base.exported import MANIFEST, open_graph
from hf_video.base.loading import check_model_path, loading
from hf_video.base.saved_model import SavedVideoModel
from hf_video.base.written_files import check_output_folder, writing_model_folder
from hf_video.errors import CheckpointError, OutputError
from hf_video.export.backends import check_backend, write_program
from hf_video.export.graphs import ModelGraph, graphs_of, kind_of

# Weights and what belongs to them are left behind, everything else that a model folder holds comes along.
WEIGHTS = ("*.safetensors*", "*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.msgpack", "*.h5", "*.onnx*")
NOT_COPIED = (*WEIGHTS, "README.md", "checksums.json", "checkpoint-*", "runs", ".git*", ".cache", "training_*")
# Of ‖exported - torch‖ / ‖torch‖ over every output: beyond it an export is refused.
BOUND = 1e-3
ROWS = 3  # of the comparison; the example that was traced has another number
ROUNDS = 5


@dataclass
class Agreement:
    """How an exported graph compares with torch on the same clips.

    Attributes:
        graph: Its name.
        largest: The largest difference of any number of any output.
        relative: The largest relative difference ‖exported - torch‖ / ‖torch‖ of an output.
        same_label: The fraction of clips with the same best label, of a classifier.
        seconds: Medians of seconds for one row: torch's, and the exported graph's.
    """

    graph: str
    largest: float
    relative: float
    same_label: float | None
    seconds: tuple[float, float]

    @property
    def within(self) -> bool:
        return self.relative <= BOUND


@dataclass
class ExportReport:
    """What `export_model` wrote: its folder, bytes of the graphs' files, and one `Agreement` for each graph."""

    folder: Path
    bytes: int
    agreements: list[Agreement]


def export_model(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    to: str = "openvino",
    num_frames: int | None = None,
    size: tuple[int, int] | None = None,
    revision: str | None = None,
    force: bool = False,
) -> ExportReport:
    """Exports a saved model: `pipeline(task, model=output)` and every verb of `hf-video` then load the folder.

    The batch may have any size; frames and their size are fixed. Numbers stay float32. After writing, the folder is
    loaded and compared with torch on generated inputs.

    Args:
        model: A folder or a name on the Hub: a video classifier, an encoder, a model of video and text with a tower for
            each, or a detector on features.
        output: The folder to write; it must be new or empty.
        to: "openvino" or "onnx" (ONNX Runtime).
        num_frames: Frames of a clip; default the model's.
        size: (height, width) of a frame; default the model's.
        revision: Of a model on the Hub.
        force: Keep an export whose relative difference is beyond `BOUND`.

    Returns:
        What was written and how it agrees.

    Raises:
        VideoOptionError: An unknown runtime.
        BackendError: The runtime's packages are not installed.
        OutputError: The folder is not empty or can't be written.
        CheckpointError: The model can't be loaded or exported, or the export does not agree with it.
    """
    check_backend(to)
    output = Path(output)
    check_output_folder(output)
    if output.is_dir() and os.listdir(output):
        raise OutputError(f"The folder {output} is not empty: choose another.")
    check_model_path(model)
    with loading(model):
        loaded = SavedVideoModel.from_pretrained(os.fspath(model), revision=revision, dtype=torch.float32).eval()
    if hasattr(loaded, "graphs"):
        raise CheckpointError(f"{model} is an export already: export the model that it was made of.")
    kind = kind_of(loaded)
    graphs = graphs_of(loaded, num_frames=num_frames, size=size)
    try:
        with writing_model_folder(output) as folder:
            _copy_files(model, folder, revision)
            report = _write(loaded, graphs, folder, kind, to)
            (folder / "README.md").write_text(_card(loaded, report, to, graphs), encoding="utf-8")
            far = [one for one in report.agreements if not one.within]
            if far and not force:
                raise CheckpointError(
                    f"The {to} export of {type(loaded).__name__} is off by {far[0].relative:.1e} of what torch gives "
                    f"({far[0].graph}); at most {BOUND:.0e} is allowed. Nothing was kept; force=True "
                    "(--force) keeps it."
                )
    except BaseException:
        shutil.rmtree(output, ignore_errors=True)
        raise
    return report


def _copy_files(model: str | os.PathLike[str], folder: Path, revision: str | None) -> None:
    """Configuration, processor, tokenizer, a detector's encoder."""
    source = Path(model)
    if not source.is_dir():
        source = Path(snapshot_download(os.fspath(model), revision=revision, ignore_patterns=list(WEIGHTS)))
    shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*NOT_COPIED))
    if (source / "encoder").is_dir():  # computed by torch, with its weights
        shutil.copytree(source / "encoder", folder / "encoder", dirs_exist_ok=True)


def _write(model: Any, graphs: list[ModelGraph], folder: Path, kind: str, to: str) -> ExportReport:
    described, agreements = {}, []
    for graph in graphs:
        try:
            with torch.no_grad():
                program = graph.trace(model)
        except Exception as error:  # whatever tracing meets
            raise CheckpointError(
                f"torch {torch.__version__} can't trace {type(model).__name__}.{graph.name} with a free batch: "
                f"{str(error).strip().splitlines()[0]}"
            ) from error
        files = write_program(program, graph, folder, to)
        described[graph.name] = {"files": files, "inputs": graph.shapes(), "outputs": graph.outputs}
        agreements.append(_compare(graph, folder / files[0], to))
    scalars = {n: p.item() for n, p in model.named_parameters(recurse=False) if p.numel() == 1}
    facts = {"backend": to, "kind": kind, "architecture": type(model).__name__, "precision": "f32"}
    manifest = {**facts, "graphs": described, "scalars": scalars}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    size = sum((folder / name).stat().st_size for one in described.values() for name in one["files"])
    return ExportReport(folder, size, agreements)


@torch.inference_mode()
def _compare(graph: ModelGraph, path: Path, to: str) -> Agreement:
    """Loads what was written, and computes what torch does."""
    run = open_graph(to, path)
    inputs = graph.example(ROWS, seed=1)
    expected, found = graph.compute(**inputs), run(inputs)
    pairs = [(a.float(), b.float()) for a, b in zip(found, expected, strict=True)]
    # A value that is no number in one of them makes the difference NaN, which is within no bound.
    largest = torch.stack([(a - b).abs().max() for a, b in pairs]).max().item()
    relative = torch.stack([(a - b).norm() / b.norm().clamp(min=1e-6) for a, b in pairs]).max().item()
    same = None
    if graph.outputs[0] == "logits":
        same = (pairs[0][0].argmax(-1) == pairs[0][1].argmax(-1)).float().mean().item()
    one = {name: value[:1] for name, value in inputs.items()}
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for spent, compute in zip(times, (lambda: graph.compute(**one), lambda: run(one)), strict=True):
            start = time.perf_counter()
            compute()
            spent.append(time.perf_counter() - start)
    seconds = statistics.median(times[0]), statistics.median(times[1])
    return Agreement(graph.name, largest, relative, same, seconds)


def _card(model: Any, report: ExportReport, to: str, graphs: list[ModelGraph]) -> str:
    rows = [
        f"| {one.graph} | {one.largest:.1e} | {one.relative:.1e} | "
        f"{'–' if one.same_label is None else f'{one.same_label:.0%}'} | {one.seconds[0]:.3g} | {one.seconds[1]:.3g} |"
        for one in report.agreements
    ]
    shapes = []
    for graph in graphs:
        sizes = {name: ", ".join("any" if n is None else str(n) for n in one) for name, one in graph.shapes().items()}
        shapes.append(f"- `{graph.name}`: " + ", ".join(f"`{name}` ({one})" for name, one in sizes.items()))
    return "\n".join(
        [
            "---\nlibrary_name: hf_video\n---\n",
            f"# {type(model).__name__}, exported to {to}\n",
            f"Made by `hf-video export --to {to}` with torch {torch.__version__}; {report.bytes / 1e6:.1f} MB, "
            "float32, on the CPU.",
            "`pipeline(task, model=folder)` and the verbs of `hf-video` load it.\n",
            "Inputs:\n",
            *shapes,
            f"\nCompared with torch on {ROWS} generated rows; seconds are medians of {ROUNDS} for one row, with "
            f"{torch.get_num_threads()} threads, on the machine that exported:\n",
            "| graph | largest difference | relative | same best label | torch s | exported s |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )
