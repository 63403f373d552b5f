"""Hands our models to transformers' Auto classes and our pipelines to its table of tasks.

Nothing but `hf_video` itself and the command imports this file.
"""

from __future__ import annotations

import os
import pkgutil
import sys
from importlib import import_module
from typing import Any

from hf_video.base.saved_model import SavedVideoModel, SavedWriter
from hf_video.registry import DETECTORS, MODELS

_HOME = "hf_video.pipelines"
# Processors of detectors of events, which make inputs of videos or features, by model type.
_PROCESSORS = {
    **dict.fromkeys(("actionformer", "tridet"), "TemporalDetectionProcessor"),
    "adatad": "WindowDetectionProcessor",
}
# Of transformers' own video encoders: what their files name, and what stands for it where they don't.
STOCK_PROCESSORS = {
    "videoprism": "LlavaOnevisionVideoProcessor",
    "videoprism_vision_model": "LlavaOnevisionVideoProcessor",
    "vjepa2": "VJEPA2VideoProcessor",
}
PIPELINES = {"video-classification": f"{_HOME}.video_classification.VideoClassificationPipeline"}
# Tasks that transformers has not.
NEW_PIPELINES = {
    "spatio-temporal-action-detection": (
        f"{_HOME}.spatio_temporal_action_detection.SpatioTemporalActionDetectionPipeline"
    ),
    "temporal-action-detection": f"{_HOME}.temporal_action_detection.TemporalActionDetectionPipeline",
    "video-captioning": f"{_HOME}.video_captioning.VideoCaptioningPipeline",
    "video-feature-extraction": f"{_HOME}.video_feature_extraction.VideoFeatureExtractionPipeline",
    "video-moment-retrieval": f"{_HOME}.video_moment_retrieval.VideoMomentRetrievalPipeline",
    "video-question-answering": f"{_HOME}.video_question_answering.VideoQuestionAnsweringPipeline",
    "video-text-retrieval": f"{_HOME}.video_text_retrieval.VideoTextRetrievalPipeline",
    "zero-shot-video-classification": f"{_HOME}.zero_shot_video_classification.ZeroShotVideoClassificationPipeline",
}
# Those that load other models than ours with a head.
_LOADERS = {
    "video-captioning": SavedWriter,
    "video-question-answering": SavedWriter,
}


def override_wanted() -> bool:
    """HF_VIDEO_OVERRIDE=0 leaves transformers' own classes where a model type is in both and they can be used."""
    return os.environ.get("HF_VIDEO_OVERRIDE", "1").lower() not in ("0", "false", "no", "off")


def register_auto_classes(override: bool | None = None) -> None:
    """Registers every model with AutoConfig, AutoModel…, AutoImageProcessor and AutoVideoProcessor, and the pipelines.

    `override=True` (the default unless HF_VIDEO_OVERRIDE=0) puts our classes over transformers' own of the same model
    type, in every Auto class where those stood, so that existing checkpoints load into ours, and our pipeline over
    theirs. `override=False` leaves the stock ones alone; ours are then used by name (`hf_video.VideoMAEModel`). Video
    processors of transformers' that can't be made because torchvision is missing are ours in both cases.

    Args:
        override: Whether ours take the place of transformers' own; None: unless HF_VIDEO_OVERRIDE=0.
    """
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING
    from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING, AutoVideoProcessor
    from transformers.processing_utils import transformers_module
    from transformers.video_processing_utils import VideoProcessorMixin

    override = override_wanted() if override is None else override
    for model_type, model in (MODELS | DETECTORS).items():
        if model.stock and not override and model_type in CONFIG_MAPPING_NAMES:  # an older one may not have it
            continue
        config = model.load(model.config)
        transformers.AutoConfig.register(model_type, config, exist_ok=True)
        for auto, name in model.auto.items():
            getattr(transformers, auto).register(config, model.load(name), exist_ok=True)
        if model_type in _PROCESSORS:
            processor = getattr(import_module("hf_video.features.detection_processor"), _PROCESSORS[model_type])
            transformers.AutoProcessor.register(config, processor, exist_ok=True)
        if not model.reads_clips:
            continue
        processors = (
            (IMAGE_PROCESSOR_MAPPING, model.load(model.image_processor)),
            (VIDEO_PROCESSOR_MAPPING, model.load(model.video_processor)),
        )
        # Into the mappings themselves: the Auto classes' `register` would first import transformers' own processors of
        # these names, which asks for torchvision. Ours is the same class whatever is installed.
        for mapping, processor in processors:
            mapping.register(config, {"pil": processor, "torchvision": processor}, exist_ok=True)
        if model.processor:
            transformers.AutoProcessor.register(config, model.load(model.processor), exist_ok=True)
    if override:  # transformers' own but for the number of frames, under transformers' own configuration
        model = import_module("hf_video.models.xclip.modeling_xclip").XCLIPModel
        transformers.AutoModel.register(model.config_class, model, exist_ok=True)
    register_stock_processors(override=override)
    read_video_files_too()
    # Without torchvision, transformers hides these classes, though they need none. The import above may have made
    # transformers' module anew: a user holds the old object or will get the new one, and its processors their own.
    for module in (transformers, sys.modules["transformers"], transformers_module):
        module.AutoVideoProcessor = AutoVideoProcessor
        module.VideoProcessorMixin = VideoProcessorMixin
    register_pipelines(override=override)


def register_stock_processors(*, override: bool) -> None:
    """Processors that need no torchvision, for files of video models that name one of transformers' which needs it:
    where ours take the place of transformers' own; and of all these models where torchvision is missing, because
    nothing of transformers' could be used in their place."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING
    from transformers.utils import is_torchvision_available

    names = {}
    if override:
        taken = {name for row in MODELS.values() for name in (row.image_processor, row.video_processor)}
        names = {one: name for one, name in STOCK_PROCESSORS.items() if name not in taken}
    elif not is_torchvision_available():
        wanted = {one: STOCK_PROCESSORS.get(one, row.video_processor) for one, row in MODELS.items() if row.stock}
        names = {one: name for one, name in wanted.items() if hasattr(transformers, name)}
    if not names:
        return
    from hf_video.base.processing_stock import Door

    for model_type, name in names.items():
        same = tuple(one for one in names if override and names[one] == name)
        chosen = type(name, (Door,), {"model_types": same})
        # Under transformers' own configuration, as ours of the same type has our processor; where there is none, under
        # anything: it is looked for by its name.
        config = getattr(transformers, CONFIG_MAPPING_NAMES.get(model_type, ""), chosen)
        VIDEO_PROCESSOR_MAPPING.register(config, {"pil": chosen, "torchvision": chosen}, exist_ok=True)


def read_video_files_too() -> None:
    """Has AutoImageProcessor take a folder that holds no other file of a processor than a video processor's, as V-JEPA
    2's and VideoPrism's on the Hub do, if its model has a processor of ours; transformers raises OSError for all."""
    from transformers import AutoConfig, AutoImageProcessor
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING

    from hf_video.base.processing import ClipProcessing
    from hf_video.base.processing_config import hub_options

    stock = AutoImageProcessor.from_pretrained.__func__
    if stock.__module__ == __name__:
        return

    def from_pretrained(cls: Any, pretrained_model_name_or_path: Any, *inputs: Any, **kwargs: Any) -> Any:
        try:
            return stock(cls, pretrained_model_name_or_path, *inputs, **kwargs)
        except OSError as missing:
            if "_from_auto" in kwargs:  # AutoProcessor asks, and goes on to the video processor
                raise
            try:
                config = AutoConfig.from_pretrained(pretrained_model_name_or_path, **hub_options(kwargs))
                found = IMAGE_PROCESSOR_MAPPING.get(type(config), None) or {}
                ours = next(one for one in found.values() if issubclass(one, ClipProcessing))
                for name in ("config", "use_fast", "backend", "trust_remote_code"):
                    kwargs.pop(name, None)
                return ours.from_pretrained(pretrained_model_name_or_path, *inputs, **kwargs)
            except (OSError, StopIteration):
                raise missing from None

    from_pretrained.__doc__ = stock.__doc__
    AutoImageProcessor.from_pretrained = classmethod(from_pretrained)


def register_pipelines(*, override: bool = True) -> None:
    """Makes `transformers.pipeline(task)` ours, whether `pipeline` was imported before or after. `override=False` adds
    only the tasks that transformers has not.

    Only the name of our class is written into the table; transformers imports it when a pipeline is made. (Its own
    `register_pipeline` needs the class at once, and marks it as one whose code is to be copied to the Hub on saving.)
    """
    from transformers import pipelines

    table = pipelines.PIPELINE_REGISTRY.supported_tasks
    # transformers 5.20, the last for Python 3.10, needs the class itself.
    implementation = str if hasattr(pipelines, "_resolve_impl") else pkgutil.resolve_name
    for task, path in PIPELINES.items() if override else ():
        table[task] = {**table[task], "impl": implementation(path)}
    for task, path in NEW_PIPELINES.items():
        table[task] = {
            "impl": implementation(path),
            "pt": (_LOADERS.get(task, SavedVideoModel),),
            "default": {},
            "type": "multimodal",
        }
