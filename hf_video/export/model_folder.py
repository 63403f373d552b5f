"""Exports a saved model into a folder that another runtime computes, and compares the two."""

from __future__ import annotations

import copy
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
from transformers import AutoProcessor

from hf_video.base.exported import MANIFEST, Graph, Tensors, is_exported, open_graph
from hf_video.base.loading import check_model_path, find_processors, loading, processor_size
from hf_video.base.modeling_conv import ConvVideoPreTrainedModel
from hf_video.base.processing_config import frames_per_clip
from hf_video.base.saved_model import SavedVideoModel
from hf_video.base.written_files import check_output_folder, writing_model_folder
from hf_video.errors import CheckpointError, HFVideoError, OutputError, VideoOptionError
from hf_video.export.backends import check_backend, write_program
from hf_video.export.calibration import calibration_clips, calibration_rows
from hf_video.export.graphs import ModelGraph, graphs_of, kind_of
from hf_video.export.int8 import quantize_onnx, quantize_openvino

# Weights and what belongs to them are left behind, everything else that a model folder holds comes along.
WEIGHTS = ("*.safetensors*", "*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.msgpack", "*.h5", "*.onnx*")
NOT_COPIED = (*WEIGHTS, "README.md", "checksums.json", "checkpoint-*", "runs", ".git*", ".cache", "training_*")
# Of ‖exported - torch‖ / ‖torch‖ over every output: beyond it an export is refused.
BOUND = 1e-3
# The same of 8 bits, and the least share of calibration clips with torch's label.
INT8_BOUND, INT8_SAME = 0.2, 0.9
ROWS = 3  # of the comparison; the example that was traced has another number
ROUNDS = 5


@dataclass
class Agreement:
    """How an exported graph compares with torch on the same clips.

    Attributes:
        graph: Its name.
        rows: How many clips or texts.
        largest: The largest difference of any number of any output.
        relative: The largest relative difference ‖exported - torch‖ / ‖torch‖ of an output.
        same_label: The fraction of clips with the same best label, of a classifier.
        seconds: Medians of seconds for one row: torch's, and the exported graph's.
        int8_share: The share of the weights that is in 8 bits; None of a graph in float32.
    """

    graph: str
    rows: int
    largest: float
    relative: float
    same_label: float | None
    seconds: tuple[float, float]
    int8_share: float | None = None

    @property
    def within(self) -> bool:
        if self.int8_share is None:
            return self.relative <= BOUND
        return self.relative <= INT8_BOUND and (self.same_label is None or self.same_label >= INT8_SAME)

    @property
    def shortfall(self) -> str:
        """What is beyond the bounds, in words."""
        if self.int8_share is None:
            return f"is off by {self.relative:.1e} of what torch gives ({self.graph}); at most {BOUND:.0e} is allowed"
        same = "" if self.same_label is None else f", and has the same best label for {self.same_label:.0%}"
        least = "" if self.same_label is None else f" and at least {INT8_SAME:.0%}"
        return (
            f"in 8 bits is off by {self.relative:.1%} of what torch gives on the {self.rows} calibration clips{same}; "
            f"at most {INT8_BOUND:.0%}{least} are allowed"
        )


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
    int8: bool = False,
    calibration: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    force: bool = False,
) -> ExportReport:
    """Exports a saved model: `pipeline(task, model=output)` and the verbs of `hf-video` then load the folder.

    The batch may have any size; frames and their size are fixed. Numbers stay float32 unless `int8` is given. After
    writing, the folder is loaded and compared with torch, on generated inputs or on the calibration clips.

    Args:
        model: A folder or a name on the Hub: a video classifier, an encoder, a model of video and text with a tower for
            each, or a detector on features.
        output: The folder to write; it must be new or empty.
        to: "openvino" or "onnx" (ONNX Runtime).
        num_frames: Frames of a clip; default those of the model's processor, else of its configuration.
        size: (height, width) of a frame; default as of frames.
        int8: Products in 8 bits: for OpenVINO weights and activations, by NNCF; for ONNX Runtime the weights of linear
            maps, activations as they come. The tower of texts stays float32.
        calibration: A folder or list of videos like those that the model will see, of which at most 32 are read: the
            ranges of 8-bit activations are fitted to them, and what 8 bits change is measured on them.
        revision: Of a model on the Hub.
        force: Keep an export that is further from torch than `BOUND`, or in 8 bits than `INT8_BOUND` and `INT8_SAME`.

    Returns:
        What was written and how it agrees.

    Raises:
        VideoOptionError: An unknown runtime, or only one of `int8` and `calibration`.
        BackendError: The runtime's packages are not installed.
        OutputError: The folder is not empty or can't be written.
        DataError: There are no videos to calibrate with, or one of them can't be read.
        CheckpointError: The model can't be loaded or exported, or the export does not agree with it.
    """
    check_backend(to, int8=int8)
    if int8 != (calibration is not None):
        raise VideoOptionError(
            "int8 (--int8) and calibration (--calibration DIR) go together: 8-bit numbers are fitted to, and compared "
            "on, a folder of videos like those that the model will see."
        )
    output = Path(output)
    check_output_folder(output)
    if output.is_dir() and os.listdir(output):
        raise OutputError(f"The folder {output} is not empty: choose another, or empty it.")
    rows = [] if calibration is None else calibration_rows(calibration)
    check_model_path(model)
    with loading(model):
        loaded = SavedVideoModel.from_pretrained(os.fspath(model), revision=revision, dtype=torch.float32).eval()
    if hasattr(loaded, "graphs"):
        raise CheckpointError(f"{model} is an export already: export the model that it was made of.")
    kind = kind_of(loaded)
    if int8 and kind == "events":
        raise CheckpointError("A detector on features is exported in float32 alone: leave --int8 out.")
    if int8 and to == "onnx" and isinstance(loaded, ConvVideoPreTrainedModel):
        raise CheckpointError("ONNX Runtime has no 3-D convolutions in 8 bits. Take --to openvino --int8.")
    processor = None if kind == "events" else _processor(loaded)
    graphs = graphs_of(
        loaded,
        num_frames=frames_per_clip(processor, loaded.config, num_frames),
        size=size or processor_size(processor),
    )
    try:
        with writing_model_folder(output) as folder:
            _copy_files(model, folder, revision)
            fitted = _fit(folder, loaded.config, num_frames, size) if num_frames or size else None
            clips = calibration_clips(loaded, rows, graphs[0], num_frames, fitted) if rows else None
            report = _write(loaded, graphs, folder, kind, to, clips)
            (folder / "README.md").write_text(_card(loaded, report, to, graphs), encoding="utf-8")
            far = [one for one in report.agreements if not one.within]
            if far and not force:
                raise CheckpointError(
                    f"The {to} export of {type(loaded).__name__} {far[0].shortfall}. Nothing was kept; force=True "
                    "(--force) keeps it."
                )
    except BaseException:
        shutil.rmtree(output, ignore_errors=True)
        raise
    return report


def _processor(model: Any) -> Any:
    """That which lies beside a model, or None: the model alone then says what its clips are."""
    try:
        return next(one for one in find_processors(model, None, None) if one is not None)
    except CheckpointError:
        return None


def _copy_files(model: str | os.PathLike[str], folder: Path, revision: str | None) -> None:
    """Configuration, processor, tokenizer, a detector's encoder."""
    source = Path(model)
    if not source.is_dir():
        source = Path(snapshot_download(os.fspath(model), revision=revision, ignore_patterns=list(WEIGHTS)))
        if (source / "encoder").is_dir():  # its weights match the patterns too
            snapshot_download(os.fspath(model), revision=source.name, allow_patterns="encoder/*")
    by_name = shutil.ignore_patterns(*NOT_COPIED)

    def left_behind(where: str, names: list[str]) -> set[str]:
        """Besides those: exports that lie in the model's folder, the one that is being written too."""
        inside = {name for name in names if Path(where, name).resolve() == folder.resolve()}
        return inside | {name for name in names if is_exported(Path(where, name))} | by_name(where, names)

    shutil.copytree(source, folder, dirs_exist_ok=True, ignore=left_behind)
    if (source / "encoder").is_dir():  # computed by torch, with its weights
        shutil.copytree(source / "encoder", folder / "encoder", dirs_exist_ok=True)


def _fit(folder: Path, config: Any, num_frames: int | None, size: tuple[int, int] | None) -> Any:
    """Clips of another length or size than the model's: the export's configuration says so, and its processor, which is
    returned if there is one, makes them, from as much of a frame as before."""
    config = copy.deepcopy(config)
    towers = [tower for name in ("video_config", "vision_config") if (tower := getattr(config, name, None))]
    image_size = size and (size[0] if size[0] == size[1] else list(size))
    for name, value in (("num_frames", num_frames), ("image_size", image_size)):
        having = [tower for tower in towers if hasattr(tower, name)]
        if name in vars(config) or not having:  # else it answers for its tower
            having.append(config)
        for part in having:
            if value and getattr(part, name, None):
                setattr(part, name, value)
    config.save_pretrained(folder)
    if not list(folder.glob("*processor_config.json")):
        return None  # nothing but tensors is given to this model
    whole = AutoProcessor.from_pretrained(folder)
    processor = getattr(whole, "video_processor", None) or getattr(whole, "image_processor", whole)
    if num_frames:
        processor.num_frames = num_frames
    if size:
        sides = {"height": size[0], "width": size[1]}
        if processor.do_center_crop:
            share = max(sides[side] / processor.crop_size[side] for side in sides)
            processor.size = {name: round(pixels * share) for name, pixels in processor.size.items()}
            processor.crop_size = sides
        else:
            processor.size = sides
    whole.save_pretrained(folder)
    return processor


def _write(
    model: Any, graphs: list[ModelGraph], folder: Path, kind: str, to: str, clips: list[Tensors] | None
) -> ExportReport:
    convolutional = isinstance(model, ConvVideoPreTrainedModel)
    described, agreements = {}, []
    for number, graph in enumerate(graphs):
        in_8_bits = clips is not None and number == 0  # a tower of texts stays float32
        # What 8 bits leave is computed in what OpenVINO takes for the processor. X3D's is compiled in float32 alone.
        precision = "auto" if in_8_bits and to == "openvino" and not convolutional else "f32"
        try:
            program = graph.trace(model)
        except HFVideoError:  # clips that the model itself does not take
            raise
        except Exception as error:  # whatever tracing meets
            raise _refusal(f"torch {torch.__version__} can't trace", model, graph, error) from error
        try:
            files = write_program(program, graph, folder, to)
            batches, share = [graph.example(ROWS, seed=1)], None
            if clips is not None and in_8_bits:
                batches, path = clips, folder / files[0]
                if to == "openvino":
                    share = quantize_openvino(path, clips, convolutional=convolutional)
                else:
                    share = quantize_onnx(path)
            run = open_graph(to, folder / files[0], precision=precision)
            agreements.append(_compare(graph, run, batches, share))
        except (HFVideoError, OSError):
            raise
        except Exception as error:  # whatever the runtime meets
            raise _refusal(f"{to} can't compute", model, graph, error) from error
        shapes = {"inputs": graph.shapes(), "outputs": graph.outputs}
        described[graph.name] = {"files": files, **shapes, "precision": precision}
    scalars = {n: p.item() for n, p in model.named_parameters(recurse=False) if p.numel() == 1}
    facts = {"backend": to, "kind": kind, "architecture": type(model).__name__}
    manifest = {**facts, "int8": clips is not None, "graphs": described, "scalars": scalars}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    size = sum((folder / name).stat().st_size for one in described.values() for name in one["files"])
    return ExportReport(folder, size, agreements)


def _refusal(what: str, model: Any, graph: ModelGraph, error: Exception) -> CheckpointError:
    reasons = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return CheckpointError(f"{what} {type(model).__name__}.{graph.name} for clips of this size: {reasons[0]}")


@torch.inference_mode()
def _compare(graph: ModelGraph, run: Graph, batches: list[Tensors], share: float | None) -> Agreement:
    """Computes what torch does by what was written and loaded."""
    expected, found = ([compute(one) for one in batches] for compute in (lambda one: graph.compute(**one), run))
    pairs = [
        (torch.cat(a).float(), torch.cat(b).float())
        for a, b in zip(zip(*found, strict=True), zip(*expected, strict=True), strict=True)
    ]
    # A value that is no number in one of them makes the difference NaN, which is within no bound.
    largest = torch.stack([(a - b).abs().max() for a, b in pairs]).max().item()
    relative = torch.stack([(a - b).norm() / b.norm().clamp(min=1e-6) for a, b in pairs]).max().item()
    same = None
    if graph.outputs[0] == "logits":
        same = (pairs[0][0].argmax(-1) == pairs[0][1].argmax(-1)).float().mean().item()
    one = {name: value[:1] for name, value in batches[0].items()}
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for spent, compute in zip(times, (lambda: graph.compute(**one), lambda: run(one)), strict=True):
            start = time.perf_counter()
            compute()
            spent.append(time.perf_counter() - start)
    seconds = statistics.median(times[0]), statistics.median(times[1])
    return Agreement(graph.name, len(pairs[0][0]), largest, relative, same, seconds, share)


def _card(model: Any, report: ExportReport, to: str, graphs: list[ModelGraph]) -> str:
    rows = [
        f"| {one.graph} | {'float32' if one.int8_share is None else f'8 bits, {one.int8_share:.0%} of weights'} | "
        f"{one.rows} | {one.largest:.1e} | {one.relative:.1e} | "
        f"{'–' if one.same_label is None else f'{one.same_label:.0%}'} | {one.seconds[0]:.3g} | {one.seconds[1]:.3g} |"
        for one in report.agreements
    ]
    shapes = []
    for graph in graphs:
        sizes = {name: ", ".join("any" if n is None else str(n) for n in one) for name, one in graph.shapes().items()}
        shapes.append(f"- `{graph.name}`: " + ", ".join(f"`{name}` ({one})" for name, one in sizes.items()))
    int8 = report.agreements[0].int8_share is not None
    return "\n".join(
        [
            "---\nlibrary_name: hf_video\n---\n",
            f"# {type(model).__name__}, exported to {to}{' in 8 bits' if int8 else ''}\n",
            f"Made by `hf-video export --to {to}{' --int8' if int8 else ''}` with torch {torch.__version__}; "
            f"{report.bytes / 1e6:.1f} MB, for the CPU.",
            "`pipeline(task, model=folder)` and the verbs of `hf-video` load it.\n",
            "Inputs:\n",
            *shapes,
            f"\nCompared with torch in float32 on {'videos read as a pipeline does' if int8 else 'generated inputs'}; "
            f"seconds are medians of {ROUNDS} for one row, with {torch.get_num_threads()} threads, on the machine that "
            "exported:\n",
            "| graph | numbers | rows | largest difference | relative | same best label | torch s | exported s |",
            "|---|---|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )
