"""Writes a traced program as the file of a runtime, by optimum's names."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch

from hf_video.base.exported import BACKENDS
from hf_video.errors import BackendError, check_choice
from hf_video.export.graphs import ModelGraph

NEEDS = {"openvino": ("openvino",), "onnx": ("onnx", "onnxscript", "onnxruntime")}
# The graph of the clips, and that of the texts beside it.
NAMES = {
    "openvino": {"forward": "openvino_model.xml", "get_text_features": "openvino_text_model.xml"},
    "onnx": {"forward": "model.onnx", "get_text_features": "text_model.onnx"},
}


def check_backend(backend: str, *, int8: bool = False) -> None:
    """Raises VideoOptionError for a runtime that there is not, BackendError for one that is not installed."""
    check_choice("to", backend, BACKENDS)
    for package in (*NEEDS[backend], *(("nncf",) if int8 and backend == "openvino" else ())):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise BackendError(
                f"Exporting to {backend} needs {package}, which can't be imported ({error}): "
                f'pip install "hf_video[{backend}]".'
            ) from error


def write_program(program: torch.export.ExportedProgram, graph: ModelGraph, folder: Path, backend: str) -> list[str]:
    """Writes a traced graph into a folder; names of its files, the one to open first."""
    path = folder / NAMES[backend][graph.name]
    {"openvino": _write_openvino, "onnx": _write_onnx}[backend](program, graph, path)
    return [path.name, *sorted(p.name for p in folder.glob(f"{path.stem}.*") if p != path)]


def _write_openvino(program: torch.export.ExportedProgram, graph: ModelGraph, path: Path) -> None:
    import openvino

    model = openvino.convert_model(program)
    for values, names in ((model.inputs, graph.inputs), (model.outputs, graph.outputs)):
        for one, name in zip(values, names, strict=True):
            one.get_tensor().set_names({name})
    openvino.save_model(model, path, compress_to_fp16=False)


def _write_onnx(program: torch.export.ExportedProgram, graph: ModelGraph, path: Path) -> None:
    # A detector's mask comes out as it went in, at another length.
    outputs = [f"{name}_out" if name in graph.inputs else name for name in graph.outputs]
    names: dict[str, Any] = {"input_names": list(graph.inputs), "output_names": outputs}
    made = torch.onnx.export(program, dynamo=True, opset_version=20, verbose=False, **names)
    assert made is not None  # it is None without dynamo
    made.save(path, external_data=True)
