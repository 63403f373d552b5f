"""Writes docs/transformers_models.md: which of transformers' own video models go through our doors (`make pages`).

The tables are transformers': its Auto mappings of video classifiers, of models, and of video processors. A model of the
next version is listed too, and `tests/project/test_stock_models.py` runs it.
"""

from __future__ import annotations

import functools
import inspect
import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import transformers
from transformers.models.auto import auto_mappings, modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES, model_type_to_module_name
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES,
    MODEL_MAPPING_NAMES,
)

from hf_video.base.modeling import clip_name
from hf_video.base.processing_config import frames_of_config
from hf_video.base.processing_stock import stock_class, values_of
from hf_video.errors import CheckpointError
from hf_video.registry import MODELS

video_processing_auto = import_module("transformers.models.auto.video_processing_auto")
WRITERS = {
    model_type
    for table in ("IMAGE_TEXT_TO_TEXT", "MULTIMODAL_LM", "CAUSAL_LM", "TEXT_TO_WAVEFORM")
    for model_type in getattr(modeling_auto, f"MODEL_FOR_{table}_MAPPING_NAMES", ())
}
PAGE = Path(__file__).parent / "transformers_models.md"
OURS = {name for row in MODELS.values() for name in (row.image_processor, row.video_processor)}
HEAD = """# transformers' own video models

Written by `docs/list_stock_models.py` from the tables of transformers {version}. `import hf_video` and these go through
the pipelines and through `hf-video`, with or without torchvision, and get the same pixels.

"""
PIXELS = """
## Video processors

A processor of transformers whose steps are resize, centre crop, rescale, normalise and conversion to RGB is read by its
values, wherever a model's folder names it. To the bit the pixels are those of torch 2.14.1 with torchvision 0.29.1
(`tests/golden/stock_processors.safetensors`), as both resize uint8 by one kernel of torch's. Two differences remain:
processors for images differ by one level (of 255) where transformers resizes by PIL, which it does without torchvision;
and of frames that are smaller than the crop and not resized, an odd row or column of black lies above or left, which
torchvision has below or right. Frames of files are read and chosen by our reader and samplers: by default the middles
of equal parts, where transformers takes their beginnings (`sampler_options={"mode": "floor"}`).

"""


@dataclass(frozen=True)
class StockModel:
    """A row of the page."""

    model_type: str
    class_name: str
    kind: str
    clips: str = ""
    frames: str = ""
    refused: str = ""


def named(name: str) -> Any:
    """transformers' class of that name, or None where it can't be imported at all."""
    try:
        return getattr(transformers, name)
    except (AttributeError, ImportError):
        return None


def speaks_of_videos(model_type: str) -> bool:
    """Whether the file of a model has the word "video" in it: importing all of them takes ten seconds."""
    folder = Path(transformers.__file__).parent / "models" / model_type_to_module_name(model_type)
    return any("video" in file.read_text(encoding="utf-8") for file in folder.glob("modeling_*.py"))


def takes_videos(kind: Any) -> bool:
    """Whether a class has vectors of videos and of texts, or takes clips by the name that is theirs alone. Placeholders
    of what isn't installed raise."""
    try:
        embeds = all(hasattr(kind, f"get_{one}_features") for one in ("video", "text"))
        return embeds or "pixel_values_videos" in inspect.signature(kind.forward).parameters
    except (ImportError, AttributeError):
        return False


def first(names: Any) -> str:
    return names if isinstance(names, str) else names[0]


def fields_of(model_type: str) -> tuple[str, str]:
    """The field that says how many frames a clip has, with its default, and its place in the configuration."""
    config = named(CONFIG_MAPPING_NAMES[model_type])()
    for part, place in ((config, ""), (getattr(config, "vision_config", None), "vision_config.")):
        for field in ("num_frames", "frames_per_clip"):
            if isinstance(getattr(part, field, None), int):
                return f"{place}{field}", str(frames_of_config(config))
    return "", ""


def classifiers() -> list[StockModel]:
    """All of the Auto mapping of video classification."""
    rows = []
    for model_type, name in MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES.items():
        kind = named(name)
        field, frames = fields_of(model_type)
        rows.append(StockModel(model_type, name, "classifier", kind.main_input_name, f"{field} = {frames}"))
    return rows


def video_text() -> list[StockModel]:
    """What embeds videos, with texts or without, and writes no texts; encoders of classifiers are left out."""
    rows = []
    for model_type, names in MODEL_MAPPING_NAMES.items():
        if model_type in WRITERS or model_type in MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES:
            continue
        kind = named(first(names)) if speaks_of_videos(model_type) else None
        if not takes_videos(kind) or not kind.__module__.startswith("transformers."):
            continue
        field, frames = fields_of(model_type)
        what = "video and text" if field else "encoder"
        what += ", each pair together; ours for other numbers of frames" if model_type == "xclip" else ""
        count = f"{field} = {frames}" if field else ""
        rows.append(StockModel(model_type, first(names), what, clip_name(kind), count, why_refused(model_type)))
    return rows


def why_refused(model_type: str) -> str:
    """Why a model doesn't go through our doors; "" of one that does."""
    config = named(CONFIG_MAPPING_NAMES[model_type])()
    if "timm_wrapper" in str(config.to_dict()):
        return "its vision tower is timm's, and timm needs torchvision"
    name = next((name for kind, name in named_processors() if kind == model_type), "")
    return reasons().get(name, "")


def named_processors() -> list[tuple[str, str]]:
    """(model type, name of its video processor), of all."""
    source = inspect.getsource(auto_mappings) + inspect.getsource(video_processing_auto)
    # Without torchvision the tables themselves have lost the names.
    return re.findall(r'\("([\w-]+)", \{[^}]*"torchvision": "(\w+VideoProcessor)"', source)


@functools.cache
def reasons() -> dict[str, str]:
    """Names of all video processors, and why one can't be read by its values; "" of those that can."""
    found = {}
    for name in sorted({name for _, name in named_processors()}):
        found[name] = ""
        try:
            if name not in OURS:
                values_of(stock_class(name)())
        except CheckpointError as error:
            # Without torchvision the module can't be imported, with it a method is named.
            found[name] = f"{name} has steps of its own" if "of its own" in str(error) else str(error)
    return found


def page() -> str:
    lines = [HEAD.format(version=transformers.__version__)]
    lines.append("| model_type | class | what it is | clips | frames of a clip | |\n|---|---|---|---|---|---|")
    for row in [*classifiers(), *video_text()]:
        works = row.refused or ("ours" if row.model_type in MODELS else "works")
        cells = (f"`{row.model_type}`", f"`{row.class_name}`", row.kind, f"`{row.clips}`", row.frames, works)
        lines.append(f"| {' | '.join(cells)} |")
    lines.append(PIXELS)
    found = reasons()
    lines.append("Read by their values: " + ", ".join(f"`{name}`" for name, why in found.items() if not why) + ".\n")
    lines.append(
        "Refused, as they have steps of their own (patches, padding, splitting; models that write texts mostly): "
        + ", ".join(f"`{name}`" for name, why in found.items() if why)
        + ".\n"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
