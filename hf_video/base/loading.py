"""Finding and loading a saved model: what is said where there is none, and models that no Auto class stands for."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hf_video.base.model_folder import check_finished
from hf_video.errors import CheckpointError, HFVideoError, VideoOptionError, did_you_mean, near_path, unknown_name
from hf_video.registry import DETECTORS, MODELS, ModelEntry


def model_entry(model_type: str) -> ModelEntry:
    """Returns the table's row of a model type; raises CheckpointError with the known types."""
    known = MODELS | DETECTORS
    if model_type not in known:
        raise CheckpointError(unknown_name("Unknown model type", model_type, sorted(known)))
    return known[model_type]


@contextmanager
def loading(model: str | os.PathLike[str], *, words: tuple[str, ...] = ()) -> Iterator[None]:
    """Around everything that loads a model: what transformers, the Hub, safetensors and the disk raise becomes a
    CheckpointError that says in a sentence or two what is wrong with `model`, a folder or a name on the Hub. `words`
    are what could have been meant besides."""
    check_model_path(model)
    try:
        yield
    except HFVideoError:
        raise
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # of what is written meanwhile; the model is all right
        raise CheckpointError(explain_load_failure(model, error) + did_you_mean(model, words)) from error


def check_model_path(model: str | os.PathLike[str]) -> None:
    """Raises CheckpointError for a folder that is no saved model or not finished, and for a path where nothing is."""
    name = os.fspath(model)
    check_finished(name)
    if os.path.isdir(name):
        if not os.path.exists(os.path.join(name, "config.json")):
            inside = [one for one in os.listdir(name) if os.path.exists(os.path.join(name, one, "config.json"))]
            hint = f" Is it {os.path.join(name, sorted(inside)[-1])!r}?" if inside else ""
            raise CheckpointError(f"The folder {name!r} has no config.json: it is no saved model.{hint}")
    elif os.path.exists(name):
        raise CheckpointError(f"{name!r} is a file; a model is a folder with config.json, or a name on the Hub.")
    elif name.startswith((".", "/", "~", os.sep)) or name.count("/") > 1 or "\\" in name or not name.strip():
        raise CheckpointError(
            f"There is no folder {name!r}.{near_path(name, folders=True)} Give a folder with config.json, or a name on "
            "the Hub."
        )


def explain_load_failure(model: str | os.PathLike[str], error: Exception) -> str:
    """Why a model can't be loaded. What is no folder here was taken for a name on the Hub: both are said."""
    name = os.fspath(model)
    # A pipeline puts the tracebacks of all classes that it tried into the message; the first one's end says why.
    inner = re.search(r"^(?:\w+\.)*\w*(?:Error|Exception): (.+)", str(error), re.MULTILINE)
    reason = " ".join((inner.group(1) if inner else str(error)).split()) or type(error).__name__
    other = re.match(r"Unrecognized configuration class <class '[\w.]*?(\w+)Config'> for .*?: (\w+)\.?$", reason[:400])
    if other:
        return (
            f"{name!r} is a {other[1]} model, and that type has no {other[2].removeprefix('AutoModelFor')} model. What "
            "gives vectors, but no classes, is for hf-video embed, index and search."
        )
    if os.path.isdir(name):
        if type(error).__module__.startswith("safetensors"):
            reason = f"its weights are damaged ({reason}). Copy or make them again."
        return f"The model {name!r} can't be loaded: {_shortened(reason)}"
    if isinstance(error, OSError) and re.search(r"connect|offline|cached|reach", reason, re.IGNORECASE):
        reason = "the Hub can't be reached, and nothing of that name is in its cache"
    elif isinstance(error, OSError) and re.search(r"not a valid model identifier|404|Repository Not Found", reason):
        reason = "the Hub has none either (a private one needs hf auth login)"
    return (
        f"There is no folder {name!r} here.{near_path(name, folders=True)} It was taken for the name of a model on the "
        f"Hub: {_shortened(reason).rstrip('.')}."
    )


def _shortened(reason: str, length: int = 300) -> str:
    return reason if len(reason) <= length else reason[:length].rsplit(" ", 1)[0] + " …"


def check_device(device: str) -> None:
    """Raises VideoOptionError for a device that torch does not know, or that isn't there."""
    import torch

    try:
        place = torch.device(device)
    except (RuntimeError, TypeError):
        raise VideoOptionError(f"There is no device {device!r}. Devices are cpu, cuda, cuda:1, mps.") from None
    kind = place.type
    if kind == "cpu":
        return
    if kind == "cuda" and not torch.cuda.is_available():
        why = "no usable GPU or driver was found"
        if torch.version.cuda is None and torch.version.hip is None:
            why = f"torch {torch.__version__} is a CPU build; install one for your GPU (https://pytorch.org)"
    elif kind == "mps" and not torch.backends.mps.is_available():
        why = "this is no Mac with Metal, or torch is built without it"
    elif kind not in ("cuda", "mps") and not getattr(getattr(torch, kind, None), "is_available", bool)():
        why = f"torch finds no {kind} here"
    elif kind == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        why = f"there are {torch.cuda.device_count()}, counted from cuda:0"
    else:
        return
    raise VideoOptionError(f"The device {device!r} can't be used: {why}. Without --device one that works is taken.")


class SavedVideoModel:
    """`from_pretrained` gives a model of the very class that was saved, where that is one of ours (its `config.json`
    names it), and what `AutoModel` gives for all others."""

    @classmethod
    def from_pretrained(cls, name: str, **options: Any) -> Any:
        from transformers import AutoConfig

        where = ("revision", "token", "cache_dir", "subfolder", "local_files_only", "trust_remote_code")
        config = AutoConfig.from_pretrained(name, **{key: options[key] for key in where if key in options})
        model = (MODELS | DETECTORS).get(config.model_type)
        saved = (config.architectures or [""])[0]
        chosen = model.load(saved) if model is not None and saved in model.class_names else cls.auto_class(saved)
        return chosen.from_pretrained(name, **options)

    @classmethod
    def auto_class(cls, saved: str) -> Any:
        """The Auto class for a model that is none of ours; `saved` is the class that `config.json` names."""
        from transformers import AutoModel

        return AutoModel


class SavedScorer(SavedVideoModel):
    """As `SavedVideoModel`, with the classifier of models that are none of ours."""

    @classmethod
    def auto_class(cls, saved: str) -> Any:
        from transformers import AutoModelForVideoClassification

        return AutoModelForVideoClassification if "ForVideoClassification" in saved else super().auto_class(saved)
