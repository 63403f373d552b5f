"""The table of models: which classes stand for a model type, and where they live. `auto` registers them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelEntry:
    """The public classes of a model type, whose names all begin alike.

    Attributes:
        model_type: As in `config.json`; the model's folder and the ends of its files are named so too.
        prefix: What the names of its classes begin with: "VideoMAE" of `VideoMAEConfig`, `VideoMAEImageProcessor`, ….
        heads: How the models' names go on: "ForPreTraining", which `AutoModelForPreTraining` stands for, and "Model" or
            another end in it, which `AutoModel` does.
        by_name: How the names of classes go on that no Auto class stands for.
        has_processor: Whether an image processor and a tokenizer are joined in a processor (video and text).
        stock: Whether transformers has classes of the same names, which ours replace.
        reads_clips: Whether it takes clips; a model of feature sequences has no image processor.
        part: What stands between the prefix and "Config", of a type that is part of another: "Vision".
        folder: The folder, where another type has it too.
    """

    model_type: str
    prefix: str
    heads: tuple[str, ...] = ("Model", "ForVideoClassification")
    by_name: tuple[str, ...] = ()
    has_processor: bool = False
    stock: bool = False
    reads_clips: bool = True
    part: str = ""
    folder: str = ""

    @property
    def home(self) -> str:
        """The model's folder, as which its files end too."""
        return self.folder or self.model_type

    @property
    def package(self) -> str:
        return f"hf_video.models.{self.home}"

    @property
    def config(self) -> str:
        return f"{self.prefix}{self.part}Config"

    @property
    def auto(self) -> dict[str, str]:
        """Names of Auto classes, and of those that they stand for."""
        return {f"AutoModel{'' if head.endswith('Model') else head}": f"{self.prefix}{head}" for head in self.heads}

    @property
    def image_processor(self) -> str:
        return f"{self.prefix}ImageProcessor"

    @property
    def video_processor(self) -> str:
        return f"{self.prefix}VideoProcessor"

    @property
    def processor(self) -> str | None:
        return f"{self.prefix}Processor" if self.has_processor else None

    @property
    def class_names(self) -> list[str]:
        names = [self.config, *self.auto.values(), *(self.prefix + end for end in self.by_name)]
        processors = [self.image_processor, self.video_processor] if self.reads_clips else []
        return [*names, *processors, *([self.processor] if self.processor else [])]

    def load(self, name: str) -> type[Any]:
        """Imports the class of that name from the model's folder."""
        files: dict[str | None, str] = {
            **{self.config: "configuration", self.processor: "processing"},
            **dict.fromkeys((self.image_processor, self.video_processor), "image_processing"),
        }
        module = f"{self.package}.{files.get(name, 'modeling')}_{self.home}"
        return getattr(importlib.import_module(module), name)


_VIOLET = (
    "ForVideoTextRetrieval",
    "ForQuestionAnswering",
    "ForMultipleChoice",
    "VisualTokenizer",
    "VisualTokenizerConfig",
)
# Of a clip encoder that classifies boxes.
_BOXES = ("ForSpatioTemporalActionDetection",)
_PRISM = ("VideoModel", "TextModel", "TextConfig")
_PRETRAINED = ("Model", "ForPreTraining", "ForVideoClassification")

# The models of clips, by their model type, which `config.json` names.
MODELS: dict[str, ModelEntry] = {
    row.model_type: row
    for row in (
        ModelEntry("c3d", "C3D"),
        ModelEntry("i3d", "I3D"),
        ModelEntry("mvit", "MViT"),
        ModelEntry("s3d", "S3D", heads=("Model",)),
        ModelEntry("slowfast", "SlowFast", by_name=_BOXES),
        ModelEntry("timesformer", "Timesformer", stock=True),
        ModelEntry("two_stream", "TwoStream"),
        ModelEntry("video_swin", "VideoSwin"),
        ModelEntry("videoclip", "VideoCLIP", heads=("Model",), has_processor=True),
        ModelEntry("videomae", "VideoMAE", heads=_PRETRAINED, by_name=_BOXES, stock=True),
        ModelEntry("videoprism", "VideoPrism", heads=("ClipModel",), by_name=_PRISM, has_processor=True, stock=True),
        ModelEntry(
            "videoprism_vision_model",
            "VideoPrism",
            heads=("VisionModel", "ForVideoClassification"),
            stock=True,
            part="Vision",
            folder="videoprism",
        ),
        ModelEntry("violet", "Violet", heads=("Model", "ForPreTraining"), by_name=_VIOLET, has_processor=True),
        ModelEntry("vivit", "Vivit", stock=True),
        ModelEntry("vjepa2", "VJEPA2", heads=_PRETRAINED, stock=True),
        ModelEntry("x3d", "X3D"),
    )
}

_EVENTS = ("ForTemporalActionDetection",)
# Models that find events, moments or anomalies, most of them in a sequence of a clip model's features, by model type.
DETECTORS: dict[str, ModelEntry] = {
    row.model_type: row
    for row in (
        ModelEntry("adatad", "AdaTAD", heads=("Model",), by_name=_EVENTS),
        ModelEntry("actionformer", "ActionFormer", heads=("Model",), by_name=_EVENTS, reads_clips=False),
        ModelEntry("mil_ranking", "MILRanking", heads=(), by_name=("ForAnomalyDetection",), reads_clips=False),
        ModelEntry("moment_detr", "MomentDetr", heads=(), by_name=("ForMomentRetrieval",), reads_clips=False),
        ModelEntry("rtfm", "RTFM", heads=(), by_name=("ForAnomalyDetection",), reads_clips=False),
        ModelEntry("tridet", "TriDet", heads=("Model",), by_name=_EVENTS, reads_clips=False),
    )
}
