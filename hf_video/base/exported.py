"""Models that another runtime computes: a folder of `hf-video export`, loaded as the class that was exported.

The folder's `export.json` says which graphs there are. Each stands for a method of the class, whose weights stay
without memory; configuration, processor and everything that a pipeline asks of a model are the class's own.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import is_offline_mode, snapshot_download
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig
from transformers.utils import has_file

from hf_video.base.fast_numbers import has_bf16
from hf_video.base.outputs import TextFeatures, VideoClassifierOutput, VideoFeatures, VideoModelOutput
from hf_video.base.written_files import CHECKSUMS, file_crc32
from hf_video.errors import BackendError, CheckpointError, ModelInputError

MANIFEST = "export.json"
# Not "torch": reading a .pt2 file of `torch.export` unpickles, which can run whatever a file says.
BACKENDS = ("openvino", "onnx")
PACKAGES = {"openvino": "openvino", "onnx": "onnxruntime"}

Tensors = dict[str, torch.Tensor]
Graph = Callable[[Tensors], list[torch.Tensor]]


def is_exported(folder: str | os.PathLike[str]) -> bool:
    return os.path.isfile(os.path.join(folder, MANIFEST))


def refuse_exported(model: str | os.PathLike[str], deed: str) -> None:
    """Raises CheckpointError where `model` is the folder of an export, with which `deed` can't be done."""
    if is_exported(model):
        raise CheckpointError(
            f"{model} is an exported model, whose weights are in a runtime's file: it can't be {deed}. Take the model "
            "that it was made of."
        )


def exported_on_hub(name: str | os.PathLike[str], **options: Any) -> str | None:
    """The folder in the cache of a repository that holds an export, all of whose files are fetched; None for another.

    Args:
        name: Of the repository.
        options: Of `from_pretrained`, of which those are used that say where to look.
    """
    where = {key: options[key] for key in ("revision", "token", "cache_dir", "local_files_only") if key in options}
    where["local_files_only"] = where.get("local_files_only", False) or is_offline_mode()
    return snapshot_download(os.fspath(name), **where) if has_file(name, MANIFEST, **where) else None


# -- the runtimes -----------------------------------------------------------------------------------------------------


def open_graph(backend: str, path: Path, *, precision: str = "f32") -> Graph:
    """Loads a graph on the CPU, with as many threads as torch has now.

    Args:
        backend: One of `BACKENDS`.
        path: The file.
        precision: "f32", "bf16", or "auto": what OpenVINO takes for the processor, bfloat16 where that is fast. ONNX
            Runtime computes in what the file says.

    Returns:
        Named tensors to the list of its outputs.

    Raises:
        BackendError: The runtime is not installed.
    """
    try:
        return {"openvino": _open_openvino, "onnx": _open_onnx}[backend](path, precision)
    except ImportError as error:
        package = PACKAGES.get(backend, backend)
        raise BackendError(
            f"{path.parent} is computed by {package}, which can't be imported ({error}): "
            f'pip install "hf_video[{backend}]".'
        ) from error


def _open_openvino(path: Path, precision: str) -> Graph:
    import openvino

    options: dict[str, Any] = {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
    if precision != "auto":  # unasked, it computes in bfloat16 wherever the processor can
        options["INFERENCE_PRECISION_HINT"] = precision
    compiled = openvino.Core().compile_model(str(path), "CPU", options)

    def run(inputs: Tensors) -> list[torch.Tensor]:
        found = compiled({name: value.numpy() for name, value in inputs.items()})
        return [torch.from_numpy(found[i].copy()) for i in range(len(compiled.outputs))]

    return run


def _open_onnx(path: Path, precision: str) -> Graph:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(inputs: Tensors) -> list[torch.Tensor]:
        return [torch.from_numpy(one) for one in session.run(None, {n: v.numpy() for n, v in inputs.items()})]

    return run


# -- the model --------------------------------------------------------------------------------------------------------


class ExportedModel:
    """Mixed in before the class that was exported, whose methods then ask graphs: on the CPU, float32 in and out,
    untrained."""

    facts: dict[str, Any]
    graphs: dict[str, Graph]
    precisions: dict[str, str]  # what each graph is computed in
    folder: Path
    # Of whole clips alone: what lies between encoder and head is inside the graph.
    frames_per_state = None
    keeps_past = False

    def compute(self, graph: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The named outputs of a graph. Raises ModelInputError for inputs that it has not, or of another shape."""
        if graph not in self.graphs:
            raise CheckpointError(
                f"{self.folder} was exported without what {graph} gives; it has {', '.join(self.graphs)}. Use the "
                "model that was exported."
            )
        facts = self.facts["graphs"][graph]
        given = {name: value for name, value in inputs.items() if value is not None and value is not False}
        given.pop("return_dict", None)
        wanted = facts["inputs"]
        if unknown := [name for name in given if name not in wanted]:
            raise ModelInputError(
                f"An exported model takes {', '.join(wanted)} alone; {', '.join(unknown)} came. Use the model that was "
                "exported for labels, states, attentions and masks."
            )
        tensors = {}
        for name, shape in wanted.items():
            if name not in given:
                raise ModelInputError(f"{name} is missing. This export takes {', '.join(wanted)}.")
            value = torch.as_tensor(given[name])
            sizes = list(value.shape)
            if len(sizes) != len(shape) or any(b is not None and a != b for a, b in zip(sizes, shape, strict=True)):
                expected = ", ".join("any" if size is None else str(size) for size in shape)
                raise ModelInputError(
                    f"{name} has shape {tuple(sizes)}; this export takes ({expected}). Give the processor those sizes, "
                    "or export the model for others: hf-video export --num-frames, --size."
                )
            value = value.detach().cpu()
            tensors[name] = (value.float() if value.is_floating_point() else value).contiguous()
        return dict(zip(facts["outputs"], self.graphs[graph](tensors), strict=True))

    def _named(self, args: tuple[Any, ...], inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Inputs that may have come without names. Raises ModelInputError for more than there are."""
        names = list(self.facts["graphs"]["forward"]["inputs"])
        if len(args) > len(names):
            raise ModelInputError(
                f"An exported model takes {', '.join(names)} alone; {len(args)} inputs came. Use the model that was "
                "exported for labels, states, attentions and masks."
            )
        return {**dict(zip(names, args, strict=False)), **inputs}

    def forward(self, *args: Any, **inputs: Any) -> Any:
        found = self.compute("forward", self._named(args, inputs))
        kind = VideoClassifierOutput if "logits" in found else VideoModelOutput
        return self._output(kind(**{n: v for n, v in found.items() if n in kind.__annotations__}), inputs)

    def get_video_features(self, *args: Any, **inputs: Any) -> Any:
        inputs = self._named(args, inputs)
        if "pixel_values" in self.facts["graphs"]["forward"]["inputs"] and "pixel_values_videos" in inputs:
            inputs["pixel_values"] = inputs.pop("pixel_values_videos")
        found = self.compute("forward", inputs)
        kept = VideoFeatures.__annotations__
        return self._output(VideoFeatures(**{n: v for n, v in found.items() if n in kept}), inputs)

    def _output(self, output: Any, inputs: Mapping[str, Any]) -> Any:
        wanted = inputs.get("return_dict")
        return output if wanted or (wanted is None and self.config.return_dict) else output.to_tuple()  # type: ignore[attr-defined]

    # -- what holds for all models, whose weights these have not

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        moved = fn(torch.zeros(1))
        if moved.device.type != "cpu" or moved.dtype != torch.float32:
            raise CheckpointError(
                f"{self.folder} was exported for the CPU and takes float32: it can't be put on {moved.device} in "
                f"{moved.dtype}. Use the model that was exported."
            )
        return self

    def train(self, mode: bool = True) -> Any:
        if mode:
            raise CheckpointError(
                f"{self.folder} is an exported model, which can't be trained. Train the model itself."
            )
        return super().train(mode)  # type: ignore[misc]

    def state_dict(self, *args: Any, **options: Any) -> Tensors:
        """The checksums of the graphs' files, by which their vectors are told from those of others; under another name
        where a graph is computed in other numbers than the folder says."""
        found = {}
        for graph, facts in self.facts["graphs"].items():
            own = self.precisions[graph] == facts.get("precision", "f32")
            for name in facts["files"]:
                found[name if own else f"{name} in {self.precisions[graph]}"] = file_crc32(self.folder / name)
        return {name: torch.tensor([found[name]]) for name in sorted(found)}

    def __reduce__(self) -> tuple[Any, ...]:
        """For another process, which loads the folder itself: a runtime's graph is nothing to be copied."""
        # Of "auto" nothing was asked.
        dtype = {"f32": "float32", "bf16": "bfloat16"}.get(self.precisions["forward"])
        kind = type(self).__bases__[1]
        return partial(load_exported, kind, self.folder, config=self.config, dtype=dtype), ()  # type: ignore[attr-defined]

    def save_pretrained(self, save_directory: str | os.PathLike[str], **options: Any) -> None:
        """Copies the folder's files."""
        shutil.copytree(
            self.folder, save_directory, dirs_exist_ok=True, ignore=shutil.ignore_patterns("UNFINISHED", CHECKSUMS)
        )


class ExportedDualEncoder(ExportedModel):
    """Of video and text: a graph for each tower."""

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: Any = None, **inputs: Any) -> Any:
        if attention_mask is None and self.config.model_type == "videoprism":  # type: ignore[attr-defined]
            raise ModelInputError(
                "attention_mask is missing: without one VideoPrism's tokens all see each other, and this export can't "
                "compute that. Pass the tokenizer's attention_mask."
            )
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        texts = {"input_ids": input_ids.long(), "attention_mask": mask.long()}
        found = self.compute("get_text_features", {**texts, **inputs})
        return self._output(TextFeatures(**found), inputs)

    def forward(self, *args: Any, **inputs: Any) -> Any:
        raise CheckpointError(
            f"{self.folder} was exported as two towers, which are called apart: get_video_features, get_text_features."
        )


class ExportedDetector(ExportedModel):
    """Of sequences of features, padded to the one length that the graph has."""

    def forward(self, features: torch.Tensor, mask: torch.Tensor | None = None, **inputs: Any) -> Any:
        length = self.facts["graphs"]["forward"]["inputs"]["features"][1]
        steps = features.shape[1]
        if steps > length:
            raise ModelInputError(
                f"{steps} steps came; this export takes at most {length} (the model's max_length). Give shorter "
                "sequences, a longer grid, or use the model that was exported."
            )
        mask = torch.ones(features.shape[:2], dtype=torch.bool) if mask is None else mask.bool()
        padded = {"features": F.pad(features, (0, 0, 0, length - steps)), "mask": F.pad(mask, (0, length - steps))}
        found = self.compute("forward", {**padded, **inputs})
        return self._output(self.output_class(**found), inputs)  # type: ignore[attr-defined]


def load_exported(cls: type, folder: str | os.PathLike[str], **options: Any) -> Any:
    """An exported model as the class `cls`, in eval mode.

    Args:
        cls: The class that was exported.
        folder: Of `hf-video export`.
        options: Of `from_pretrained`. `dtype` is what OpenVINO computes in, float32 or bfloat16 (inputs and outputs
            stay float32); "auto" or None is what the folder says: float32, and for 8 bits what suits the processor.

    Raises:
        CheckpointError: The folder is damaged, was exported as another class or with another configuration, or a dtype
            or device is asked for that the runtime or the processor has not.
        BackendError: The runtime is not installed.
    """
    folder = Path(folder)
    try:
        facts = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        architecture, backend, graphs = facts["architecture"], facts["backend"], facts["graphs"]
        mixin = {"dual": ExportedDualEncoder, "events": ExportedDetector}.get(facts["kind"], ExportedModel)
        scalars = facts["scalars"].items()
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / MANIFEST} is damaged ({error}): export the model again.") from error
    if backend not in BACKENDS:
        raise CheckpointError(
            f"{folder} was exported for {backend!r}, and models for {' and '.join(BACKENDS)} are loaded here. Export "
            "the model again, or update hf_video if a newer version wrote the folder."
        )
    if cls.__name__ != architecture:
        raise CheckpointError(
            f"{folder} was exported as {architecture}, and {cls.__name__} was asked for. Export the model that you "
            "want from one that was saved as it."
        )
    saved = AutoConfig.from_pretrained(folder)
    own = (*type(saved).__annotations__, "num_labels")
    given = {name: options[name] for name in own if name in options}
    config = options.get("config") or AutoConfig.from_pretrained(folder, **given)
    if changed := [name for name in own if getattr(config, name, None) != getattr(saved, name, None)]:
        raise CheckpointError(
            f"{folder} is an exported model, in which {', '.join(changed)} can't be changed any more. Export the model "
            "with it, or use the model itself."
        )
    if options.get("quantization_config") is not None or str(options.get("device_map")) not in ("None", "auto", "cpu"):
        raise CheckpointError(
            f"{folder} is an exported model, which is computed on the CPU in the numbers that it was exported in. "
            "Leave quantization_config and device_map out; hf-video export --int8 makes one in 8 bits."
        )
    precision = _precision(folder, facts, options.get("dtype", options.get("torch_dtype")))
    kind = type(cls.__name__, (mixin, cls), {"__module__": cls.__module__})
    with torch.device("meta"):
        model = kind(config)
    # Values beside the towers, such as the temperature; and one of the dtype and on the device that the model has.
    for name, value in scalars:
        setattr(model, name, nn.Parameter(torch.tensor(value), requires_grad=False))
    first = {"exported": nn.Parameter(torch.zeros(()), requires_grad=False)}
    model._parameters = {**first, **model._parameters}
    model.facts, model.folder, model.name_or_path = facts, folder, str(folder)
    model.precisions = {name: precision or graph.get("precision", "f32") for name, graph in graphs.items()}
    try:
        model.graphs = {
            name: open_graph(backend, folder / graph["files"][0], precision=model.precisions[name])
            for name, graph in graphs.items()
        }
    except BackendError:
        raise
    except Exception as error:  # whatever a runtime makes of a damaged file
        raise CheckpointError(
            f"{PACKAGES[backend]} can't load what is in {folder}: {' '.join(str(error).split())}. Copy the folder "
            "again, or export the model again."
        ) from error
    return model.eval()


def _precision(folder: Path, facts: Mapping[str, Any], dtype: Any) -> str | None:
    """What the graphs are computed in, where `dtype` was asked for; None for what the folder says of each."""
    wanted = str(dtype).removeprefix("torch.")
    if wanted in ("None", "auto"):
        return None
    if wanted == "float32":
        return "f32"
    if wanted != "bfloat16" or facts["backend"] != "openvino":
        raise CheckpointError(
            f"{folder} is an export for {PACKAGES[facts['backend']]}, and dtype={dtype} came. Leave it out; an export "
            "for OpenVINO takes float32 and bfloat16."
        )
    if not has_bf16():
        raise CheckpointError(
            f"dtype={dtype} was asked for, and this processor has no instructions for it: OpenVINO would be many times "
            "slower than in float32. Leave dtype out."
        )
    if facts.get("int8") and facts["graphs"]["forward"].get("precision", "f32") == "f32":
        raise CheckpointError(f"OpenVINO can't compute what is float32 in {folder} in {dtype}. Leave dtype out.")
    return "bf16"
