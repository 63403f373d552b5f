"""Messages for errors that are no bugs: a full disk, no permission, no memory, a missing package."""

from __future__ import annotations

import errno
import re

from hf_video.errors import HFVideoError

# Packages of pyproject's extras, by the name under which they are imported.
EXTRAS = {
    **dict.fromkeys(("accelerate", "datasets", "evaluate", "matplotlib", "yaml", "tensorboard"), "train"),
    **dict.fromkeys(("faiss", "pyarrow"), "retrieval"),
    **{"cv2": "flow", "ray": "ray", "torchcodec": "torchcodec"},
    **{"openvino": "openvino", **dict.fromkeys(("onnx", "onnxscript", "onnxruntime"), "onnx")},
}
NO_MEMORY = re.compile(r"out of memory|can't allocate memory|cannot allocate memory|not enough memory", re.IGNORECASE)
KILLED = re.compile(r"DataLoader worker .*(exited unexpectedly|killed by signal)", re.DOTALL)


def error_message(error: BaseException, output: str | None = None) -> str | None:
    """One or two sentences for an error that isn't a bug of this package; None for a bug. `output` is where the command
    writes."""
    if isinstance(error, HFVideoError):
        return str(error)
    text = " ".join(str(error).split())
    if isinstance(error, RuntimeError) and KILLED.search(text):
        return "a process that reads videos was killed, mostly for want of memory: take fewer --num-workers"
    if isinstance(error, MemoryError) or (isinstance(error, (RuntimeError, OSError)) and NO_MEMORY.search(text)):
        return (
            "there is not enough memory: take a smaller --batch-size, fewer --num-workers or --processes, or a smaller "
            f"model ({text[:200] or 'MemoryError'})"
        )
    if isinstance(error, ImportError):
        return _missing_package(error, text)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = error.filename or output or "an output"
        return f"{where} can't be written: no space is left on the disk. Free some, and run this again."
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.strerror and error.filename is not None else text
    if type(error).__module__.startswith("safetensors"):
        return f"a file of weights or vectors is damaged: {text}. Copy or make it again."
    return None


def _missing_package(error: ImportError, text: str) -> str | None:
    name = (error.name or "").partition(".")[0]
    if name == "hf_video":
        return None
    extra = EXTRAS.get(name) or next((extra for module, extra in EXTRAS.items() if f"`{module}" in text), None)
    install = f'pip install "hf_video[{extra}]"' if extra else f"pip install {name}" if name else "see hf-video info"
    return f"{text}: {install}"
