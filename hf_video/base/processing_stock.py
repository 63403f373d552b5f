"""Processors of transformers by their values: most do what ours do (resize, centre crop, rescale, normalise), and those
for videos need torchvision for it. A file that one of them wrote is read by one of ours of the same name, which makes
the same `pixel_values` whatever is installed, and whose own file transformers reads.

`Stock<name>` of this module is that class for any processor of transformers; a step that ours lack is refused.
"""

from __future__ import annotations

import functools
import os
from importlib import import_module
from typing import Any, ClassVar

import transformers
from transformers.image_processing_utils import BaseImageProcessor
from transformers.utils import is_torchvision_available
from transformers.video_processing_utils import VideoProcessorMixin

from hf_video.base.processing import ClipProcessing, VideoImageProcessor, VideoVideoProcessor
from hf_video.base.processing_config import hub_options
from hf_video.errors import CheckpointError, VideoOptionError
from hf_video.registry import MODELS

# What makes pixels, and where transformers has it for all: a class with one of its own does something else.
_STEPS = (
    "__call__", "_preprocess", "preprocess", "resize", "center_crop", "pad", "rescale", "normalize",
    "rescale_and_normalize", "convert_to_rgb", "process_image", "_prepare_input_videos",
)  # fmt: skip
_SHARED = (
    "transformers.image_processing_backends",
    "transformers.image_processing_utils",
    "transformers.video_processing_utils",
)
# Fields without a meaning for pixels; `do_pad` is not among them.
_HARMLESS = (
    "do_convert_rgb", "default_to_square", "pad_size", "disable_grouping", "image_seq_length", "return_metadata",
    "return_tensors", "data_format", "input_data_format", "device", "video_metadata", "processor_class", "auto_map",
    "image_processor_type", "video_processor_type", "feature_extractor_type",
)  # fmt: skip


def stock_class(name: str) -> type[BaseImageProcessor]:
    """transformers' processor of that name itself, also where transformers hides it because torchvision is missing: its
    values and their defaults need none. Raises CheckpointError where there is none, or its module needs more."""
    found = getattr(transformers, name, None)
    try:
        found = getattr(import_module(found.__module__), name, found) if isinstance(found, type) else None
    except (ImportError, NameError) as error:  # some modules use torchvision's names without importing it
        raise CheckpointError(
            f"{name} has steps of its own, and its module can't be imported: {error}. Install torchvision in the "
            "version that was made for your torch (https://pytorch.org)."
        ) from error
    if found is None or not issubclass(found, BaseImageProcessor):
        raise CheckpointError(f"transformers {transformers.__version__} has no image or video processor {name!r}.")
    return found


def values_of(stock: BaseImageProcessor) -> dict[str, Any]:
    """The settings that give one of our processors the steps of one of transformers'.

    Raises:
        CheckpointError: It has a step that ours lack; the message names the method or the field.
    """
    kind = type(stock)
    for step in _STEPS:
        owner = next((one for one in kind.__mro__ if step in vars(one)), None)
        if owner is not None and not owner.__module__.startswith(_SHARED):
            raise CheckpointError(f"{kind.__name__} has a step of its own, {step}, which hf_video doesn't have.")
    known = (*ClipProcessing._settings_names, *_HARMLESS)
    for name, value in stock.to_dict().items():
        if value and name not in known and not name.startswith("_"):
            raise CheckpointError(
                f"{kind.__name__} says {name}={value!r}, a step that hf_video doesn't have: its own are resize, centre "
                "crop, rescale and normalise."
            )
    values = {name: getattr(stock, name) for name in ClipProcessing._settings_names if hasattr(stock, name)}
    if values.get("do_resize") and not set(dict(values["size"] or {})) <= {"height", "width", "shortest_edge"}:
        raise CheckpointError(f"{kind.__name__} says size={dict(values['size'])}, which hf_video doesn't have.")
    if values.get("do_center_crop") and not values.get("crop_size"):
        raise CheckpointError(f"{kind.__name__} says do_center_crop=True and no crop_size: give it one.")
    # A switch that is None is off, and a size that nothing uses can be left to the default.
    return {name: bool(value) if name.startswith("do_") else value for name, value in values.items()}


class StockProcessing(ClipProcessing):
    """The part that the classes of this module share; `stock` is the class of transformers."""

    stock: ClassVar[type[BaseImageProcessor]]

    def __init__(self, **given: Any):
        own = {"sampler", "sampler_options", "num_crops", "do_flip_channel_order"}
        theirs = {name: value for name, value in given.items() if name not in own and not name.startswith("_")}
        super().__init__(**{**given, **values_of(self.stock(**theirs))})


@functools.cache
def like(name: str) -> type[ClipProcessing]:
    """Our processor class for transformers' of that name, with its name, input and defaults; where a model of ours has
    one of that name, that."""
    entry = next((one for one in MODELS.values() if name in (one.image_processor, one.video_processor)), None)
    if entry is not None:
        return entry.load(name)
    stock = stock_class(name)
    video = issubclass(stock, VideoProcessorMixin)
    base = VideoVideoProcessor if video else VideoImageProcessor
    attributes = {
        "stock": stock,
        "model_input_names": list(stock.model_input_names),
        "__module__": __name__,
        "__qualname__": f"Stock{name}",
        "__doc__": f"transformers' `{name}` without torchvision; see `hf_video.base.processing.ClipProcessing`.",
    }
    return type(name, (StockProcessing, base), attributes)


def saved(pretrained: str | os.PathLike[str], **hub: Any) -> ClipProcessing:
    """The processor that transformers saved beside a model, as one of ours.

    Args:
        pretrained: A folder or a name on the Hub.
        hub: `revision`, `token`, ….

    Raises:
        OSError: There is no file of a processor.
        CheckpointError: It names no processor of transformers, or one with steps that ours lack.
    """
    try:
        found, _ = VideoProcessorMixin.get_video_processor_dict(pretrained, **hub)
    except OSError:
        found, _ = BaseImageProcessor.get_image_processor_dict(pretrained, **hub)
    types = (found.get(f"{kind}_type") for kind in ("video_processor", "image_processor", "feature_extractor"))
    name = next((one for one in types if one), None)
    if name is None:
        raise CheckpointError(f"The processor's file in {os.fspath(pretrained)!r} doesn't say of which type it is.")
    return like(name.replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast")).from_pretrained(
        pretrained, **hub
    )


def ours_for(found: BaseImageProcessor) -> BaseImageProcessor:
    """One of ours with the values of one of transformers' own; what has other steps, or is somebody's, stays."""
    kind = type(found)
    if isinstance(found, ClipProcessing) or not kind.__module__.startswith("transformers."):
        return found
    try:
        return like(kind.__name__.removesuffix("Fast").removesuffix("Pil"))(**found.to_dict())
    except (CheckpointError, VideoOptionError):
        return found


class Door(VideoVideoProcessor):
    """What the Auto classes find under a name, the only thing that they know a processor by: for the model types of
    `model_types` ours, or `like(name)` where the type is none of ours; for others transformers' own, or `like(name)`
    where torchvision is missing, without which theirs can't be called."""

    model_types: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def from_pretrained(cls, pretrained: str | os.PathLike[str], *args: Any, **options: Any) -> Any:
        try:
            config, _ = transformers.PreTrainedConfig.get_config_dict(pretrained, **hub_options(options))
        except (OSError, ValueError):
            config = {}
        model_type = config.get("model_type")
        if model_type in MODELS and model_type in cls.model_types:
            chosen = MODELS[model_type].load(MODELS[model_type].video_processor)
        else:
            ours = model_type in cls.model_types or not is_torchvision_available()
            chosen = like(cls.__name__) if ours else stock_class(cls.__name__)
        return chosen.from_pretrained(pretrained, *args, **options)


def __getattr__(name: str) -> type[ClipProcessing]:
    """What pickle looks up in a process that decodes."""
    if not name.startswith("Stock"):
        raise AttributeError(name)
    return like(name.removeprefix("Stock"))
