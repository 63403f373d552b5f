"""An evaluation protocol: which views of a video a model sees, and how their scores are combined."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from hf_video.base.processing import ClipProcessing
from hf_video.clips.read import ClipProcessor, clip_processor
from hf_video.clips.request import ClipRequest, Sampling, Views, average_views
from hf_video.errors import check_choice, check_count
from hf_video.evaluation.ten_crops import ten_crop_processor

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from hf_video.data.types import FrameProcessor

AVERAGES = {
    "softmax": "the mean of the views' probabilities",
    "sigmoid": "the mean of the views' probabilities, of each class by itself",
    "logits": "the mean of the views' logits",
    "sum": "the sum of the views' logits",
}
CROPS = {
    1: "the centre crop",
    3: "3 crops along the longer side",
    10: "10 crops: corners and centre, and these mirrored",
}
GEOMETRY = {
    "processor": "resized and cropped as the processor says",
    "resize to crop": "the shorter side resized to the crop's",
    "crop all": "square crops as high as the resized frame's shorter side",
}

_PLAIN = ("name", "clips", "crops", "average", "num_frames", "geometry", "joined")


@dataclass(frozen=True)
class Protocol:
    """The views of a video, `clips` in time x `crops` in space, and how their scores are combined.

    Args:
        name: For reports.
        clips: 1 or more.
        crops: 1 (centre), 3 (along the longer side) or 10 (corners and centre, and these mirrored).
        average: "softmax", "sigmoid", "logits" or "sum", see `AVERAGES`.
        sampler: What chooses the frames: a name of `hf_video.video.sampling.SAMPLERS`, a function, or a subclass of
            `Sampling`; None takes the processor's.
        options: Of the sampler.
        num_frames: Of a clip; None for the processor's, else the model's.
        geometry: "processor", "resize to crop" or "crop all", see `GEOMETRY`.
        joined: Whether the model classifies the tokens of all clips together, once for each crop, instead of each clip.
            It must have `encode_tokens` and `classify_tokens`, as `VJEPA2ForVideoClassification` has.
        frames: Says in words which frames are taken.
        source: Where the protocol is published.

    Raises:
        VideoOptionError: For other values.
    """

    name: str
    clips: int = 1
    crops: int = 1
    average: str = "softmax"
    sampler: str | Callable[..., Any] | type[Sampling] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    num_frames: int | None = None
    geometry: str = "processor"
    joined: bool = False
    frames: str = "frames as the processor's file says"
    source: str = ""

    def __post_init__(self) -> None:
        for name, allowed in (("average", AVERAGES), ("crops", CROPS), ("geometry", GEOMETRY)):
            check_choice(f"A protocol's {name}", getattr(self, name), allowed)
        check_count("A protocol's clips", self.clips)

    @property
    def views(self) -> int:
        """The number of views that are read and go through the encoder, `clips * crops`."""
        return self.clips * self.crops

    def describe(self) -> str:
        """Describes the protocol in words."""
        length = "" if self.num_frames is None else f" of {self.num_frames} frames"
        clips = f"{self.clips} clip{'s' if self.clips > 1 else ''}{length} ({self.frames})"
        score = AVERAGES[self.average] if self.views > 1 else "one view"
        source = f"; after {self.source}" if self.source else ""
        size = "" if self.geometry == "processor" else f", {GEOMETRY[self.geometry]}"
        joined = "; the tokens of the clips are classified together" if self.joined else ""
        return f"{clips} x {CROPS[self.crops]}{size}{joined}; score: {score}{source}"

    def to_dict(self) -> dict[str, Any]:
        """Returns the protocol as JSON values."""
        sampler = self.sampler if isinstance(self.sampler, str) else getattr(self.sampler, "__name__", None)
        plain = {name: getattr(self, name) for name in _PLAIN}
        return {**plain, "sampler": sampler, "options": dict(self.options), "in_words": self.describe()}

    def combine(self, logits: torch.Tensor) -> torch.Tensor:
        """Combines the logits of all views to the video's scores.

        Args:
            logits: (views, classes) of one video; (crops, classes) where the clips are `joined`.

        Returns:
            (classes,) float32.
        """
        scores = average_views(logits, self.average if self.average in ("softmax", "sigmoid") else "none")
        return scores * len(logits) if self.average == "sum" else scores

    def probabilities(self, scores: torch.Tensor) -> torch.Tensor:
        """Turns scores into probabilities. A sum of logits is divided by the views first: it ranks the classes as the
        mean does, and its softmax would be far too confident.

        Args:
            scores: (…, classes), what `combine` gave.

        Returns:
            (…, classes), from 0 to 1.
        """
        if self.average in ("softmax", "sigmoid"):
            return scores
        return (scores / self.views if self.average == "sum" else scores).softmax(-1)

    def request(
        self, config: PreTrainedConfig, processor: FrameProcessor, **reading: Any
    ) -> tuple[ClipRequest, ClipProcessor]:
        """Makes what reads a video by this protocol.

        Args:
            config: Of the model.
            processor: Its image or video processor.
            reading: Further fields of `ClipRequest`.

        Returns:
            The request and the processor for `hf_video.clips.read`.

        Raises:
            VideoOptionError: The processor can't do it.
        """
        processor = self._resized(processor)
        request = ClipRequest.resolve(
            processor,
            config,
            num_frames=self.num_frames,
            sampler=self.sampler,
            sampler_options=self.options,
            views=Views(self.clips, self.crops),
            **reading,
        )
        return request, ten_crop_processor(processor) if self.crops == 10 else clip_processor(processor)

    def _resized(self, processor: FrameProcessor) -> FrameProcessor:
        """A copy of the processor with this protocol's geometry. Stock processors are taken as they are."""
        if self.geometry == "processor" or not isinstance(processor, ClipProcessing):
            return processor
        processor = copy.deepcopy(processor)
        if self.geometry == "resize to crop":
            processor.size = {"shortest_edge": min(processor.crop_size.values())}
        else:
            edge = processor.size.get("shortest_edge") or min(processor.size.values())
            processor.crop_size = {"height": edge, "width": edge}
        return processor
