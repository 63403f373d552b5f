"""The table of models: which classes stand for a model type, and where they live. `auto` registers them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from hf_video.errors import CheckpointError, unknown_name


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
        raise CheckpointError(unknown_name("Unknown model type", model_type, sorted(MODELS)))
    return MODELS[model_type]
