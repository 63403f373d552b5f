"""THE table: which classes stand for a model type, and the one loop that hands them to transformers' Auto classes."""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass

from hf_video.errors import CheckpointError
from hf_video.wording import did_you_mean


@dataclass(frozen=True)
class ModelEntry:
    """Where a model's classes live: `package` is its folder, the rest are class names; `auto` maps an Auto class to
    ours; `by_name` are those that no Auto class stands for; `processor`, of a model of video and text, joins an image
    processor and a tokenizer. `stock` tells that transformers has classes of the same names, which ours replace."""

    package: str
    config: str
    auto: dict[str, str]
    image_processor: str
    video_processor: str
    processor: str | None = None
    by_name: tuple[str, ...] = ()
    stock: bool = False

    def load(self, name: str):
        """The class of that name, from the model's folder."""
        paper = self.package.rsplit(".", 1)[-1]
        kind = {self.config: "configuration", self.image_processor: "image_processing"}.get(name, "modeling")
        kind = {self.video_processor: "image_processing", self.processor: "processing"}.get(name, kind)
        return getattr(importlib.import_module(f"{self.package}.{kind}_{paper}"), name)

    @property
    def class_names(self) -> list[str]:
        joint = [self.processor] if self.processor else []
        return [self.config, *self.auto.values(), *self.by_name, self.image_processor, self.video_processor, *joint]


MODELS: dict[str, ModelEntry] = {
    "c3d": ModelEntry(
        package="hf_video.models.c3d",
        config="C3DConfig",
        auto={"AutoModel": "C3DModel", "AutoModelForVideoClassification": "C3DForVideoClassification"},
        image_processor="C3DImageProcessor",
        video_processor="C3DVideoProcessor",
    ),
    "i3d": ModelEntry(
        package="hf_video.models.i3d",
        config="I3DConfig",
        auto={"AutoModel": "I3DModel", "AutoModelForVideoClassification": "I3DForVideoClassification"},
        image_processor="I3DImageProcessor",
        video_processor="I3DVideoProcessor",
    ),
    "mvit": ModelEntry(
        package="hf_video.models.mvit",
        config="MViTConfig",
        auto={
            "AutoModel": "MViTModel",
            "AutoModelForVideoClassification": "MViTForVideoClassification",
        },
        image_processor="MViTImageProcessor",
        video_processor="MViTVideoProcessor",
    ),
    "s3d": ModelEntry(
        package="hf_video.models.s3d",
        config="S3DConfig",
        auto={"AutoModel": "S3DModel"},
        image_processor="S3DImageProcessor",
        video_processor="S3DVideoProcessor",
    ),
    "slowfast": ModelEntry(
        package="hf_video.models.slowfast",
        config="SlowFastConfig",
        auto={"AutoModel": "SlowFastModel", "AutoModelForVideoClassification": "SlowFastForVideoClassification"},
        image_processor="SlowFastImageProcessor",
        video_processor="SlowFastVideoProcessor",
    ),
    "timesformer": ModelEntry(
        package="hf_video.models.timesformer",
        config="TimesformerConfig",
        auto={
            "AutoModel": "TimesformerModel",
            "AutoModelForVideoClassification": "TimesformerForVideoClassification",
        },
        image_processor="TimesformerImageProcessor",
        video_processor="TimesformerVideoProcessor",
        stock=True,
    ),
    "two_stream": ModelEntry(
        package="hf_video.models.two_stream",
        config="TwoStreamConfig",
        auto={
            "AutoModel": "TwoStreamModel",
            "AutoModelForVideoClassification": "TwoStreamForVideoClassification",
        },
        image_processor="TwoStreamImageProcessor",
        video_processor="TwoStreamVideoProcessor",
    ),
    "video_swin": ModelEntry(
        package="hf_video.models.video_swin",
        config="VideoSwinConfig",
        auto={
            "AutoModel": "VideoSwinModel",
            "AutoModelForVideoClassification": "VideoSwinForVideoClassification",
        },
        image_processor="VideoSwinImageProcessor",
        video_processor="VideoSwinVideoProcessor",
    ),
    "videoclip": ModelEntry(
        package="hf_video.models.videoclip",
        config="VideoCLIPConfig",
        auto={"AutoModel": "VideoCLIPModel"},
        image_processor="VideoCLIPImageProcessor",
        video_processor="VideoCLIPVideoProcessor",
        processor="VideoCLIPProcessor",
    ),
    "videomae": ModelEntry(
        package="hf_video.models.videomae",
        config="VideoMAEConfig",
        auto={
            "AutoModel": "VideoMAEModel",
            "AutoModelForPreTraining": "VideoMAEForPreTraining",
            "AutoModelForVideoClassification": "VideoMAEForVideoClassification",
        },
        image_processor="VideoMAEImageProcessor",
        video_processor="VideoMAEVideoProcessor",
        stock=True,
    ),
    "violet": ModelEntry(
        package="hf_video.models.violet",
        config="VioletConfig",
        auto={"AutoModel": "VioletModel", "AutoModelForPreTraining": "VioletForPreTraining"},
        by_name=(
            "VioletForVideoTextRetrieval",
            "VioletForQuestionAnswering",
            "VioletForMultipleChoice",
            "VioletVisualTokenizer",
            "VioletVisualTokenizerConfig",
        ),
        image_processor="VioletImageProcessor",
        video_processor="VioletVideoProcessor",
        processor="VioletProcessor",
    ),
    "vivit": ModelEntry(
        package="hf_video.models.vivit",
        config="VivitConfig",
        auto={
            "AutoModel": "VivitModel",
            "AutoModelForVideoClassification": "VivitForVideoClassification",
        },
        image_processor="VivitImageProcessor",
        video_processor="VivitVideoProcessor",
        stock=True,
    ),
    "x3d": ModelEntry(
        package="hf_video.models.x3d",
        config="X3DConfig",
        auto={"AutoModel": "X3DModel", "AutoModelForVideoClassification": "X3DForVideoClassification"},
        image_processor="X3DImageProcessor",
        video_processor="X3DVideoProcessor",
    ),
}


def entry(model_type: str) -> ModelEntry:
    """The table's row; raises CheckpointError naming the known types."""
    if model_type not in MODELS:
        hint = did_you_mean(model_type, MODELS)
        raise CheckpointError(f"Unknown model type {model_type!r}.{hint} Known are: {', '.join(sorted(MODELS))}.")
    return MODELS[model_type]


def override_wanted() -> bool:
    """HF_VIDEO_OVERRIDE=0 leaves transformers' own classes where a model type is in both."""
    return os.environ.get("HF_VIDEO_OVERRIDE", "1").lower() not in ("0", "false", "no", "off")


def register_auto_classes(override: bool | None = None) -> None:
    """Registers every model with AutoConfig, AutoModel…, AutoImageProcessor and AutoVideoProcessor, and the pipelines.

    `override=True` (the default unless HF_VIDEO_OVERRIDE=0) puts our classes over transformers' own of the same model
    type, in every Auto class where those stood, so that existing checkpoints load into ours, and our pipeline over
    theirs. `override=False` leaves the stock ones alone; ours are then used by name (`hf_video.VideoMAEModel`).
    """
    import transformers
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING
    from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING, AutoVideoProcessor

    override = override_wanted() if override is None else override
    for model_type, model in MODELS.items():
        if model.stock and not override:
            continue
        config = model.load(model.config)
        transformers.AutoConfig.register(model_type, config, exist_ok=True)
        for auto, name in model.auto.items():
            getattr(transformers, auto).register(config, model.load(name), exist_ok=True)
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
    # Without torchvision, transformers hides this class behind a placeholder, though the class itself needs none. The
    # import above may have made transformers' module anew: a user holds the old object or will get the new one.
    for module in (transformers, sys.modules["transformers"]):
        module.AutoVideoProcessor = AutoVideoProcessor
    from hf_video.tasks.registration import register_pipelines

    register_pipelines(override=override)
