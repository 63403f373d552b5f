"""Models whose encoder of clips torch compiles: what that costs and what it saves is measured and said.

    compile_model(pipeline.model)           # or pipeline(task, model=name, compile=True), hf-video classify --compile

Compiling happens with the first batch of clips, once for each size of clips. That batch is computed both ways, so that
a compiler that makes another model of it is found out, and that one learns whether it pays.
"""

from __future__ import annotations

import importlib.util
import inspect
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from transformers.utils import ModelOutput, logging

from hf_video.base.modeling import CLIP_NAMES
from hf_video.errors import BackendError, CheckpointError, pluralize
from hf_video.layers.linear import is_untouched

logger = logging.get_logger(__name__)

Model = TypeVar("Model", bound=nn.Module)

MOST_SIZES = 4  # of clips that are compiled for; torch itself would give up after 8
EXACT, HALF = 1e-3, 0.1  # ‖compiled - plain‖ / ‖plain‖ that is allowed, and in 16 bits


def compile_model(
    model: Model, *, backend: str | Callable[..., Any] = "inductor", say: Callable[[str], Any] | None = None
) -> Model:
    """Has torch compile a model's encoder of clips when the first batch of them comes, in place; heads and towers of
    texts stay as they are, and so do the names of the weights.

    A batch may have any size: of one clip and of several are compiled apart. For more than `MOST_SIZES` sizes, with
    gradients, and while a layer has a hook, the encoder computes as it did before.

    Args:
        model: One that takes clips, as `from_pretrained` or a pipeline has it.
        backend: Of `torch.compile`.
        say: Takes a line before compiling, and one after it with the seconds that it took and what is saved; default a
            warning of the log.

    Returns:
        The model.

    Raises:
        BackendError: There is no C++ compiler, or what else compiling needs.
        CheckpointError: An exported model, one that sees no clips, or whose layers do more than compute.
    """
    encoder = clip_encoder(model)
    if not is_plain_throughout(encoder):
        raise CheckpointError(
            f"{type(model).__name__} can't be compiled: hooks are attached to its layers, as those of parts that were "
            "offloaded are. Leave compile out."
        )
    if backend == "inductor":
        check_compiler(encoder.device)
    encoder.compile(backend=backend, dynamic=False)
    # Where `Module.compile` puts what is called in the place of the module; copies of a module are made without it.
    encoder._compiled_call_impl = CompiledCall(encoder, say or logger.warning)
    return model


def clip_encoder(model: Any) -> Any:
    """The part that a clip's pixels go through, in whatever way the model is asked. Raises CheckpointError for models
    without one, or with one that can't be compiled."""
    name = type(model).__name__
    if hasattr(model, "graphs"):
        raise CheckpointError(f"{model.folder} is an export, which its runtime has compiled. Leave compile out.")
    if model.can_generate():
        raise CheckpointError(
            f"{name} writes texts word by word, and each word would be a size to compile for. Leave compile out."
        )
    towers = [part for path, part in model.named_modules() if path.rpartition(".")[2] == "vision_model"]
    encoder = towers[0] if towers else model.base_model
    takes = set(inspect.signature(encoder.forward).parameters)
    if not towers and (takes & {"input_ids", "flow_values"} or not takes & set(CLIP_NAMES)):
        raise CheckpointError(
            f"{name} has no encoder that sees clips alone, which is what can be compiled. Leave compile out."
        )
    if getattr(encoder.config, "static_patches", "keep") == "drop":
        raise CheckpointError(
            f'{name} leaves out patches that don\'t change (static_patches="drop"), so that each clip has a size of '
            "its own to compile for. Leave one of the two out."
        )
    return encoder


def check_compiler(device: torch.device) -> None:
    """Raises BackendError where torch's compiler lacks what it needs besides torch."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except RuntimeError as error:
        raise BackendError(
            f"compile needs a C++ compiler, and there is none ({' '.join(str(error).split())}). Install one (Debian, "
            "Ubuntu: apt install g++; macOS: xcode-select --install; Windows: Visual Studio's build tools), name yours "
            "in the environment variable CXX, or leave compile out."
        ) from error
    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").exists():
        raise BackendError(
            f"compile needs Python's headers, and there is no {headers / 'Python.h'}. Install them (Debian and Ubuntu: "
            "apt install python3-dev), or leave compile out."
        )
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise BackendError("compile needs triton on a GPU: pip install triton, or leave compile out.")


def is_plain_throughout(module: nn.Module) -> bool:
    """Whether all layers do what their classes say: no hooks, nothing that was put around them."""
    return all(is_untouched(layer, type(layer)) for layer in module.modules())


class CompiledCall:
    """What is called in the place of an encoder."""

    def __init__(self, encoder: Any, say: Callable[[str], Any]) -> None:
        self.compiled: Callable[..., Any] = encoder._compiled_call_impl
        self.encoder, self.say = encoder, say
        self.signature = inspect.signature(encoder.forward)
        self.sizes: set[Any] = set()
        self.is_full = False

    def __call__(self, *args: Any, **inputs: Any) -> Any:
        given = self.signature.bind(*args, **inputs).arguments
        tensors = {name: value for name, value in given.items() if isinstance(value, torch.Tensor)}
        # A compiled graph doesn't see hooks that come later.
        if not tensors or torch.is_grad_enabled() or not is_plain_throughout(self.encoder):
            return self.encoder._call_impl(*args, **inputs)
        clips = next(iter(tensors.values()))
        flags = {name: str(value) for name, value in given.items() if value is not None and name not in tensors}
        shapes = {name: (value.dtype, value.device, value.shape[1:]) for name, value in tensors.items()}
        # All that a graph is made for.
        size = str((flags, shapes, len(clips) == 1, torch.is_inference_mode_enabled()))
        if size not in self.sizes and len(self.sizes) == MOST_SIZES:
            if not self.is_full:
                self.say(
                    f"Clips of more than {MOST_SIZES} sizes came; those {tuple(clips.shape)} and other new ones are "
                    "not compiled. Give the processor one size, or leave compile out."
                )
            self.is_full = True
            return self.encoder._call_impl(*args, **inputs)
        if len(clips) > 1:
            for value in tensors.values():
                torch._dynamo.maybe_mark_dynamic(value, 0)
        if size in self.sizes:
            return self.compiled(*args, **inputs)
        self.sizes.add(size)
        return self._first(
            clips, lambda: self.compiled(*args, **inputs), lambda: self.encoder._call_impl(*args, **inputs)
        )

    def _first(self, clips: torch.Tensor, compiled: Callable[[], Any], plain: Callable[[], Any]) -> Any:
        """The first batch of a size: it is compiled, and compared with what is not."""
        from torch._dynamo.exc import TorchDynamoException

        name = type(self.encoder).__name__
        self.say(f"Compiling {name} for clips {tuple(clips.shape)}; it takes from seconds to minutes …")
        try:
            found, seconds = _timed(compiled)
        except TorchDynamoException as error:
            reason = " ".join(str(error).partition("\n\n")[0].split())  # then follow torch's own hints
            raise CheckpointError(
                f"torch {torch.__version__} can't compile {name}: {reason}. Leave compile out."
            ) from error
        expected, slow = _timed(plain)
        fast = min(_timed(compiled)[1] for _ in range(2))
        slow = min(slow, _timed(plain)[1])
        one, other = _first_tensor(found).float(), _first_tensor(expected).float()
        far = ((one - other).norm() / other.norm().clamp(min=1e-6)).item()
        if not far <= (HALF if clips.dtype in (torch.bfloat16, torch.float16) else EXACT):
            raise CheckpointError(
                f"{name} compiled by torch {torch.__version__} is off by {far:.1e} of what it gives uncompiled. Leave "
                "compile out."
            )
        line = f"{name} was compiled in {seconds - fast:.0f} s; such a batch takes {fast / slow:.2f} of the time"
        if fast < slow:
            count = int((seconds - fast) / (slow - fast)) + 1
            self.say(f"{line}, which pays after {pluralize(count, 'batch', 'batches')}.")
        else:
            self.say(f"{line}: compiling doesn't pay for this model here. Leave compile out.")
        return found


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call gives, and its seconds."""
    begin = time.perf_counter()
    found = call()
    value = _first_tensor(found)
    if value.device.type != "cpu":
        torch.accelerator.synchronize(value.device)
    return found, time.perf_counter() - begin


def _first_tensor(output: Any) -> torch.Tensor:
    return next(iter(output.values())) if isinstance(output, ModelOutput) else output[0]
