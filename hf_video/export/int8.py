"""8-bit products in a graph that was written in float32: by NNCF for OpenVINO, by ONNX Runtime's own tool for ONNX."""

from __future__ import annotations

import contextlib
import logging
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hf_video.base.exported import Tensors
from hf_video.errors import CheckpointError

# Of the weights of products and convolutions; with fewer in 8 bits the name int8 would promise what isn't there.
LEAST_SHARE = 0.5
# Of OpenVINO, between a weight and its product.
ON_THE_WAY = ("Convert", "FakeQuantize", "Multiply", "Reshape", "Subtract", "Transpose")


def quantize_openvino(path: Path, clips: list[Tensors], *, convolutional: bool) -> float:
    """Replaces an OpenVINO graph by one whose products and convolutions are of 8 bits, weights and activations.

    Args:
        path: The .xml file.
        clips: Inputs of one row, to which the ranges of activations are fitted.
        convolutional: Whether the model has no attention.

    Returns:
        The share of the weights of products and convolutions that is in 8 bits.
    """
    import nncf
    import openvino
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, AdvancedSmoothQuantParameters
    from openvino.passes import ConstantFolding, Manager

    logging.getLogger("nncf").setLevel(logging.ERROR)
    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})  # the file is written over below
    model = core.read_model(path)
    # A weight that is computed of others is no constant yet: NNCF stops at the patches' of five dimensions, and leaves
    # joined queries, keys and values in float32 without a word.
    passes = Manager()
    passes.register_pass(ConstantFolding())
    passes.run_passes(model)
    with contextlib.redirect_stdout(sys.stderr):  # of its bars
        made = nncf.quantize(
            model,
            nncf.Dataset([{name: value.numpy() for name, value in one.items()} for one in clips]),
            preset=nncf.QuantizationPreset.MIXED,
            model_type=None if convolutional else nncf.ModelType.TRANSFORMER,
            subset_size=len(clips),
            advanced_parameters=AdvancedQuantizationParameters(
                smooth_quant_alphas=AdvancedSmoothQuantParameters(convolution=-1, matmul=-1)
            ),
        )
    openvino.save_model(made, path, compress_to_fp16=False)
    return _share(_openvino_weights(made))


def quantize_onnx(path: Path) -> float:
    """Replaces an ONNX graph by one whose linear maps have weights of 8 bits; activations are rounded as they come.

    Args:
        path: The .onnx file.

    Returns:
        The share of the weights of products and convolutions that is in 8 bits.
    """
    import onnx
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    data, folded, made = (path.with_name(name) for name in (f"{path.name}.data", "folded.onnx", "made.onnx"))
    # Weights that are computed of others become constants, which alone are quantised.
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    logging.getLogger().addFilter(_is_news)
    try:
        quantize_dynamic(onnx.load(folded), made, op_types_to_quantize=["MatMul", "Gemm"], weight_type=QuantType.QInt8)
    finally:
        logging.getLogger().removeFilter(_is_news)
    model = onnx.load(made)
    for one in (folded, made, data):
        one.unlink(missing_ok=True)
    onnx.save(model, path, save_as_external_data=True, location=data.name, size_threshold=1024)
    return _share(_onnx_weights(model))


def _is_news(record: logging.LogRecord) -> bool:
    """The tool asks for the folding that was done."""
    return "pre-processing before quantization" not in record.getMessage()


def _share(weights: Iterator[tuple[int, bool]]) -> float:
    """Of (numbers, whether they are in 8 bits); raises CheckpointError where too few are."""
    found = list(weights)
    share = sum(size for size, small in found if small) / max(sum(size for size, _ in found), 1)
    if share < LEAST_SHARE:
        raise CheckpointError(
            f"Only {share:.0%} of the weights could be put into 8 bits, so the export would be called int8 and be "
            "float32. Export it without --int8."
        )
    return share


def _openvino_weights(model: Any) -> Iterator[tuple[int, bool]]:
    for op in model.get_ops():
        if op.get_type_name() in ("MatMul", "Convolution", "GroupConvolution"):
            node = op.input_value(1).get_node()
            while node.get_type_name() in ON_THE_WAY:
                node = node.input_value(0).get_node()
            if node.get_type_name() == "Constant":
                kind = node.get_output_element_type(0).get_type_name()
                yield math.prod(node.get_output_shape(0)), kind in ("i8", "u8")


def _onnx_weights(model: Any) -> Iterator[tuple[int, bool]]:
    weights = {one.name: one for one in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("MatMul", "Gemm", "Conv", "MatMulInteger", "DynamicQuantizeMatMul"):
            small = "Integer" in node.op_type or "Quantize" in node.op_type
            yield from ((math.prod(weights[name].dims), small) for name in node.input[1:2] if name in weights)
