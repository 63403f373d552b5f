"""Finding and loading a saved model with its processor: what is said where there is none, and whether the processor
makes what the model takes."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

import torch
from transformers.utils import logging

from hf_video.base.configuration import pair
from hf_video.base.modeling import VideoPreTrainedModel, clip_name
from hf_video.base.processing_config import frames_of_config, frames_of_file, frames_per_clip, pixel_processor
from hf_video.base.processing_stock import ours_for, saved
from hf_video.base.written_files import check_finished
from hf_video.errors import (
    CheckpointError,
    HFVideoError,
    ModelInputError,
    VideoOptionError,
    did_you_mean,
    near_path,
    unknown_name,
)
from hf_video.registry import DETECTORS, MODELS, ModelEntry

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin
    from transformers.image_processing_utils import BaseImageProcessor
    from transformers.video_processing_utils import BaseVideoProcessor

    from hf_video.base.processing import ClipProcessing

    Processor: TypeAlias = "ClipProcessing | BaseImageProcessor | BaseVideoProcessor | ProcessorMixin"


logger = logging.get_logger(__name__)


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
    if re.search(r"requires? the timm library", reason):
        return (
            f"The model {name!r} needs timm, which needs torchvision: pip install timm torchvision, in the version of "
            "torchvision that was made for your torch (https://pytorch.org)."
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


def check_pair(model: PreTrainedModel, processor: Processor | None, *, num_frames: int | None = None) -> None:
    """Compares a model with the processor that prepares its clips.

    Args:
        model: any video model, ours or stock.
        processor: its image or video processor, or a processor that holds one; None is passed over.
        num_frames: frames of a clip that somebody asked for; the two files' numbers then don't matter.

    Raises CheckpointError where the model can't take what the processor makes (channels, size). Warns where it can, but
    was made for other sizes, numbers of frames or statistics: both files are named, and what is used.
    """
    processor = pixel_processor(processor)
    if processor is None:
        return
    names = (
        f"{getattr(model, 'name_or_path', '') or type(model).__name__} (config.json)",
        f"{type(processor).__name__} (preprocessor_config.json)",
    )
    config, size, frames = model.config, processor_size(processor), frames_per_clip(processor, model.config, num_frames)
    _check_channels(config, names)
    if isinstance(model, VideoPreTrainedModel) and size is not None:
        _check_grid(model, size, frames, names)
    made_for = model_size(config)
    if size and made_for and size != made_for:
        logger.warning_once(
            f"{names[0]} was made for frames of {made_for[0]}x{made_for[1]} pixels and {names[1]} makes "
            f"{size[0]}x{size[1]}: the processor's are used. Give it the model's: size=, crop_size=."
        )
    counts = frames_of_config(config), frames_of_file(processor)
    if num_frames is None and None not in counts and counts[0] != counts[1]:
        logger.warning_once(
            f"{names[0]} says num_frames={counts[0]} and {names[1]} num_frames={counts[1]}: clips have {frames} frames "
            "here, as the processor's file decides. Pass num_frames=, or make the files agree."
        )
    for name in ("image_mean", "image_std") if getattr(model, "knows_statistics", False) else ():
        _check_statistics(name, config, processor, names)


def processor_size(processor: Processor) -> tuple[int, int] | None:
    """(height, width) of what a processor makes, or None where it depends on the video."""
    crops = getattr(processor, "do_center_crop", False)
    if not (crops or getattr(processor, "do_resize", False)):
        return None
    size = dict(getattr(processor, "crop_size" if crops else "size", None) or {})
    return (size["height"], size["width"]) if size.get("height") and size.get("width") else None


def model_size(config: PreTrainedConfig) -> tuple[int, int] | None:
    """(height, width) that a model's configuration, or that of its video tower, was made for; or None."""
    for part in (config, getattr(config, "video_config", None), getattr(config, "vision_config", None)):
        size = getattr(part, "image_size", None)
        if isinstance(size, (int, list, tuple)):
            return pair(size)
    return None


def _check_channels(config: PreTrainedConfig, names: tuple[str, str]) -> None:
    channels = getattr(config, "num_channels", 3)
    if isinstance(channels, int) and channels != 3:
        raise CheckpointError(
            f"{names[0]} takes {channels} channels and {names[1]} makes 3 (RGB) of a video. A model of optical flow is "
            "called with flow of your own, or is a stream of a two_stream model, whose processor computes it."
        )


def _check_grid(model: PreTrainedModel, size: tuple[int, int], frames: int | None, names: tuple[str, str]) -> None:
    """Asks the model itself, without a pixel."""
    base = model.base_model
    tower = getattr(base, "vision_model", base)
    grid = getattr(tower, "token_grid", None)
    frames = getattr(model.config, "segment_frames", None) or frames
    if grid is None or not frames:
        return
    try:
        grid(torch.empty(1, frames, 3, *size, device="meta"))
    except ModelInputError as error:
        raise CheckpointError(f"{names[1]} makes what {names[0]} can't take: {error}") from error


def _check_statistics(name: str, config: PreTrainedConfig, processor: Processor, names: tuple[str, str]) -> None:
    said, used = getattr(config, name, None), getattr(processor, name, None)
    if not said or not used or not getattr(processor, "do_normalize", False) or isinstance(said, Mapping):
        return
    if max(abs(a - b) for a, b in zip(said, used, strict=False)) > 1e-4:
        logger.warning_once(
            f"{names[0]} says {name}={list(said)} and {names[1]} {name}={list(used)}: the processor's is used. Give it "
            "the model's unless you trained on others."
        )


def find_processors(
    model: PreTrainedModel, image_processor: Processor | None, video_processor: Processor | None
) -> tuple[Processor | None, Processor | None]:
    """The processors that a pipeline got, or those that lie beside the model's weights.

    Those of transformers become ours with the same values, where ours have their steps (`processing_stock`). Raises
    CheckpointError where there are none, with what loading them said.
    """
    entry = MODELS.get(model.config.model_type)
    stock = entry is None or not entry.stock  # transformers' own stay where they were not to be replaced
    if image_processor is not None or video_processor is not None:
        given = (image_processor, video_processor)
        return tuple(ours_for(one) if stock and one is not None else one for one in given)  # type: ignore[return-value]
    from transformers import AutoImageProcessor, AutoVideoProcessor

    origin = getattr(model, "name_or_path", "")
    autos = [AutoImageProcessor, AutoVideoProcessor]
    reasons = []
    for auto in sorted(autos, key=autos.index, reverse=clip_name(model) == "pixel_values_videos") if origin else ():
        try:
            found = auto.from_pretrained(origin)
        except Exception as error:
            reasons.append(f"{auto.__name__}: {str(error).strip().splitlines()[0]}")
            continue
        found = ours_for(found) if stock else found
        return (found, None) if auto is AutoImageProcessor else (None, found)
    if origin:
        with contextlib.suppress(OSError):
            return None, saved(origin)
    where = f"beside the model in {origin!r}" if origin else "given, and the model was not loaded from a folder"
    raise CheckpointError(
        f"No image processor was found {where}. Save one there (preprocessor_config.json), or pass "
        "image_processor=, such as hf_video.VideoMAEImageProcessor()." + "".join(f"\n  {reason}" for reason in reasons)
    )
