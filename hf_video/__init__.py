"""Video models with the Hugging Face treatment.

`import hf_video` registers every model with transformers' Auto classes and the video pipelines (see
`register_auto_classes`; the environment variable HF_VIDEO_OVERRIDE=0 leaves transformers' own classes alone). All
public names below load when they are first used.
"""

from __future__ import annotations

import importlib
import sys

from hf_video._version import __version__
from hf_video.errors import HFVideoError
from hf_video.registry import MODELS, register_auto_classes

_LAZY = {
    "from_official": "hf_video.convert",
    "video_clip": "hf_video.models.videoclip.from_image_text",
    "VideoReader": "hf_video.video",
    "VideoFrames": "hf_video.video",
    "write_video": "hf_video.video",
    "VideoClassificationPipeline": "hf_video.tasks.video_classification",
    "VideoFeatureExtractionPipeline": "hf_video.tasks.features",
    "VideoQuestionAnsweringPipeline": "hf_video.tasks.question_answering",
    "VideoTextRetrievalPipeline": "hf_video.tasks.retrieval",
    "ZeroShotVideoClassificationPipeline": "hf_video.tasks.zero_shot",
}

__all__ = ["MODELS", "HFVideoError", "__version__", "register_auto_classes", *_LAZY]
__all__ += [name for model in MODELS.values() for name in model.class_names]


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    for model in MODELS.values():
        if name in model.class_names:
            return model.load(name)
    raise AttributeError(f"module 'hf_video' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


def _is_command() -> bool:
    """Whether this process is `hf-video` or `python -m hf_video.cli`, which registers once it knows its verb, so that
    its help answers at once."""
    command = sys.modules.get("hf_video_command")
    return getattr(command, "running", False) or sys.orig_argv[1:3] == ["-m", "hf_video.cli"]


if not _is_command():
    register_auto_classes()
