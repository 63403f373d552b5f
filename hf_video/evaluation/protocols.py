"""Evaluation protocols by name: which views of a video a model sees, and how their scores are combined.

    paper           as the model's authors test it, on the data set they report first (Kinetics for most)
    paper:ssv2      the same on Something-Something v2; kinetics, ssv2, ucf101 where published
    5x3             5 clips x 3 crops, frames chosen as the model's processor says, probabilities averaged
    1x1             one clip and the centre crop: what the pipeline does
    center          the paper's clip, once, from the middle of the video, and the centre crop

Sources are named in each row of the table. Where the frames that a protocol takes depend on a clip's rate (SlowFast,
X3D, MViT: 8x8, 16x5, 32x3, …), the processor's file says it.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from hf_video.base.processing import ClipProcessing
from hf_video.base.processing_config import frames_per_clip
from hf_video.clips.read import ClipProcessor, clip_processor
from hf_video.clips.request import ClipRequest, Sampling, Views, average_views
from hf_video.errors import VideoOptionError, check_choice, check_count, did_you_mean
from hf_video.evaluation.published_sampling import (
    WholeVideo,
    centered_clips,
    linspaced_clips,
    whole_steps,
)
from hf_video.evaluation.ten_crops import ten_crop_processor
from hf_video.models.published_inputs import SSV2_CLASSES, SSV2_FRAMES

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
    frames: str = "frames as the processor's file says"
    source: str = ""

    def __post_init__(self) -> None:
        for name, allowed in (("average", AVERAGES), ("crops", CROPS), ("geometry", GEOMETRY)):
            check_choice(f"A protocol's {name}", getattr(self, name), allowed)
        check_count("A protocol's clips", self.clips)

    @property
    def views(self) -> int:
        """The number of views, `clips * crops`."""
        return self.clips * self.crops

    def describe(self) -> str:
        """Describes the protocol in words."""
        length = "" if self.num_frames is None else f" of {self.num_frames} frames"
        clips = f"{self.clips} clip{'s' if self.clips > 1 else ''}{length} ({self.frames})"
        score = AVERAGES[self.average] if self.views > 1 else "one view"
        source = f"; after {self.source}" if self.source else ""
        size = "" if self.geometry == "processor" else f", {GEOMETRY[self.geometry]}"
        return f"{clips} x {CROPS[self.crops]}{size}; score: {score}{source}"

    def to_dict(self) -> dict[str, Any]:
        """Returns the protocol as JSON values."""
        sampler = self.sampler if isinstance(self.sampler, str) else getattr(self.sampler, "__name__", None)
        plain = {name: getattr(self, name) for name in ("name", "clips", "crops", "average", "num_frames", "geometry")}
        return {**plain, "sampler": sampler, "options": dict(self.options), "in_words": self.describe()}

    def combine(self, logits: torch.Tensor) -> torch.Tensor:
        """Combines the logits of all views to the video's scores.

        Args:
            logits: (views, classes) of one video.

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


# -- by name -----------------------------------------------------------------------------------------------------------


def check_protocol(protocol: str | Protocol) -> None:
    """Raises VideoOptionError for a name that no model's protocol has, before a model or video is loaded."""
    name = str(protocol).strip().lower()
    if isinstance(protocol, Protocol) or re.fullmatch("center|paper(:.*)?", name):
        return
    views = re.fullmatch(r"(\d+)\s*[x×]\s*(\d+)", name)
    if not views or int(views[1]) < 1 or int(views[2]) not in CROPS:
        hint = did_you_mean(name, ("paper", "paper:kinetics", "paper:ssv2", "paper:ucf101", "center"))
        raise VideoOptionError(
            f'There is no protocol {protocol!r}.{hint} Use "paper", "paper:kinetics", "paper:ssv2", "paper:ucf101", '
            '"center" or clips x crops, such as "5x3" (1, 3 or 10 crops).'
        )


def find_protocol(
    protocol: str | Protocol, config: PreTrainedConfig, *, processor: FrameProcessor | None = None
) -> Protocol:
    """Finds a protocol by its name.

    Args:
        protocol: "paper" (as the model's authors test it), "paper:ssv2", "paper:kinetics", "paper:ucf101", "center", or
            clips x crops, such as "5x3"; a `Protocol` is returned as it is.
        config: The model's.
        processor: The model's; it says the frame rate of some published protocols.

    Raises:
        VideoOptionError: The name is unknown, or nothing is published for this model; it lists what there is.
    """
    if isinstance(protocol, Protocol):
        return protocol
    name = str(protocol).strip().lower()
    if name == "paper" or name.startswith("paper:"):
        return paper_protocol(config, name.partition(":")[2] or None, processor=processor)
    if name == "center":
        return _centered(paper_protocol(config, processor=processor))
    check_protocol(name)
    clips, crops = (int(number) for number in re.split("[x×]", name))
    return Protocol(f"{clips}x{crops}", clips, crops)


def _centered(paper: Protocol) -> Protocol:
    one = replace(paper, name="center", clips=1, crops=1, source="")
    if paper.sampler is WholeVideo:
        return one
    if paper.num_frames == 1:  # single frames (25x10): one clip of them all
        return replace(one, num_frames=paper.clips)
    begins = paper.sampler == "at_fps" and "start" not in paper.options  # all others take a single clip from the middle
    options = {**paper.options, **({"start": "center"} if begins else {})}
    return replace(one, options=options, frames=f"{paper.frames.partition(',')[0]}, from the middle")


def paper_protocol(
    config: PreTrainedConfig, dataset: str | None = None, *, processor: FrameProcessor | None = None
) -> Protocol:
    """Returns the protocol of a model's authors on `dataset` ("kinetics", "ssv2", "ucf101" and their usual spellings;
    None: what they report first, or ssv2 for a model of its 174 classes). Raises VideoOptionError that lists what is
    published."""
    kind = getattr(config, "model_type", None)
    if kind not in PAPERS:
        raise VideoOptionError(
            f"No published protocol is known for a model of type {kind!r}; known are {', '.join(sorted(PAPERS))}. Use "
            'clips x crops, such as "5x3".'
        )
    published = dict(PAPERS[kind](config, processor))
    usual = "ssv2" if "ssv2" in published and config.num_labels == SSV2_CLASSES else next(iter(published))
    name = usual if dataset is None else dataset_name(dataset)
    if name not in published:
        raise VideoOptionError(
            f"No published protocol of {kind} on {dataset!r} is known; there is paper:"
            f'{", paper:".join(published)}. Use one of these, or clips x crops, such as "5x3".'
        )
    row = published[name]
    count = row.num_frames or (None if row.sampler is WholeVideo else frames_per_clip(processor, config))
    return replace(row, name=f"paper:{name}", num_frames=count)


def dataset_name(dataset: str) -> str:
    """ "Kinetics-400", "k600" -> "kinetics"; "something-something-v2" -> "ssv2"; others in lower case."""
    plain = re.sub(r"[^a-z0-9]", "", dataset.lower())
    if re.fullmatch(r"k(inetics)?\d*", plain):
        return "kinetics"
    return "ssv2" if plain in ("somethingsomethingv2", "somethingv2", "sthv2", "ssv2") else plain


# -- the table ---------------------------------------------------------------------------------------------------------

Published = list[tuple[str, Protocol]]  # by data set, the first what the authors report first


def _segments(average: str, source: str) -> Protocol:
    """The protocol of all loaders for Something-Something v2 that come from SlowFast's ssv2.py."""
    words = "the middles of equal parts of the video"
    return _row(1, 3, average, "uniform", words, source, geometry="resize to crop", **SSV2_FRAMES["sampler_options"])


def _row(
    clips: int,
    crops: int,
    average: str,
    sampler: str | Callable[..., Any],
    frames: str,
    source: str,
    **more: Any,
) -> Protocol:
    """`more`: fields of `Protocol`; all others are options of the sampler."""
    fields = {name: more.pop(name) for name in ("geometry", "num_frames") if name in more}
    return Protocol("paper", clips, crops, average, sampler, more, frames=frames, source=source, **fields)


def _rate(processor: FrameProcessor | None, otherwise: int) -> int:
    """Frames at 30 a second from one taken frame to the next: the processor's where it counts so."""
    if getattr(processor, "sampler", None) != "at_fps":
        return otherwise
    return (getattr(processor, "sampler_options", None) or {}).get("rate", otherwise)


def _videomae(config: PreTrainedConfig, processor: FrameProcessor | None) -> Published:
    dense = _row(5, 3, "softmax", "dense", "frames 4 apart, spread from start to end", "MCG-NJU/VideoMAE", stride=4)
    words = "frames spread over the whole video, the clips shifted against each other"
    shifted = _row(2, 3, "softmax", "uniform_views", words, "MCG-NJU/VideoMAE, ssv2.py")
    return [("kinetics", dense), ("ssv2", shifted), ("ucf101", dense)]


def _timesformer(config: PreTrainedConfig, processor: FrameProcessor | None) -> Published:
    # 8x32, 16x16, 96x4; other lengths see the same 8.5 seconds.
    rate = 4 if config.num_frames == 96 else max(256 // config.num_frames, 1)
    words, source = f"frames {rate} apart at 30 a second, from the start", "facebookresearch/TimeSformer"
    kinetics = _row(1, 3, "sum", "at_fps", words, source, geometry="resize to crop", rate=rate)
    return [("kinetics", kinetics), ("ssv2", _segments("sum", source))]


def _vivit(config: PreTrainedConfig, processor: FrameProcessor | None) -> Published:
    words = "frames 2 apart, spread from start to end"
    return [("kinetics", _row(4, 3, "logits", linspaced_clips, words, "google-research/scenic, vivit", stride=2))]


def _mvit(config: PreTrainedConfig, processor: FrameProcessor | None) -> Published:
    rate = _rate(processor, 4 if config.num_frames <= 16 else 3)
    words, source = f"frames {rate} apart at 30 a second, spread from start to end", "facebookresearch/SlowFast"
    large = {"crops": 3, "geometry": "resize to crop"} if config.embed_dim == 144 else {}
    kinetics = replace(_row(5, 1, "softmax", "at_fps", words, source, rate=rate, start="spread"), **large)
    return [("kinetics", kinetics), ("ssv2", _segments("softmax", source))]


def _slowfast(rate: int) -> Callable[..., Published]:
    def rows(config: PreTrainedConfig, processor: FrameProcessor | None) -> Published:
        step = _rate(processor, rate)
        words = f"frames {step} apart at 30 a second, starts at tenths of the video"
        source = "facebookresearch/SlowFast"
        return [("kinetics", _row(10, 3, "softmax", "at_fps", words, source, geometry="crop all", rate=step))]

    return rows


def _i3d(config: PreTrainedConfig, processor: FrameProcessor | None) -> Published:
    return _slowfast(8)(config, processor) if config.architecture == "resnet" else _whole(config, processor)


def _whole(config: PreTrainedConfig, processor: FrameProcessor | None) -> Published:
    words = "the whole video at 25 frames a second"
    return [("kinetics", _row(1, 1, "logits", WholeVideo, words, "google-deepmind/kinetics-i3d", target_fps=25))]


def _c3d(config: PreTrainedConfig, processor: FrameProcessor | None) -> Published:
    words = "neighbouring frames, from the middles of equal parts"
    return [("ucf101", _row(10, 1, "softmax", centered_clips, words, "open-mmlab/mmaction2", stride=1))]


def _two_stream(config: PreTrainedConfig, processor: FrameProcessor | None) -> Published:
    if any(spec.kind == "video" for spec in config.specs.values()):
        return _whole(config, processor)
    average = "softmax" if config.fusion_scores == "softmax" else "logits"
    options = {"flow_length": config.flow_length} if "temporal" in config.specs else {}
    words, source = "single frames and stacks at equal whole steps from the first on", "bryanyzhu/two-stream-pytorch"
    # Fusion by convolution looks at neighbouring frames together: one clip of the model's own length.
    length = {"num_frames": None} if config.fusion == "conv" else {"num_frames": 1}
    clips = 1 if config.fusion == "conv" else 25
    return [("ucf101", _row(clips, 10, average, whole_steps, words, source, **length, **options))]


def _video_swin(config: PreTrainedConfig, processor: FrameProcessor | None) -> Published:
    words, source = "frames 2 apart, from the middles of equal parts", "SwinTransformer/Video-Swin-Transformer"
    kinetics = _row(4, 3, "softmax", centered_clips, words, source, geometry="resize to crop", stride=2)
    return [("kinetics", kinetics), ("ssv2", _segments("softmax", source))]


PAPERS: dict[str, Callable[..., Published]] = {
    "c3d": _c3d,
    "i3d": _i3d,
    "mvit": _mvit,
    "slowfast": _slowfast(2),
    "timesformer": _timesformer,
    "two_stream": _two_stream,
    "video_swin": _video_swin,
    "videomae": _videomae,
    "vivit": _vivit,
    "x3d": _slowfast(5),
}
