"""Evaluation protocols by name: which views of a video a model sees, and how their scores are combined.

    paper           as the model's authors test it, on the data set they report first (Kinetics for most)
    paper:ssv2      the same on Something-Something v2; kinetics, ssv2, ucf101, diving48, jester, coin where published
    5x3             5 clips x 3 crops, frames chosen as the model's processor says, probabilities averaged
    1x1             one clip and the centre crop: what the pipeline does
    center          the paper's clip, once, from the middle of the video, and the centre crop

Sources are named in each row of the table. Where the frames that a protocol takes depend on a clip's rate (SlowFast,
X3D, MViT: 8x8, 16x5, 32x3, …), the processor's file says it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hf_video.base.processing_config import frames_per_clip
from hf_video.errors import VideoOptionError, did_you_mean
from hf_video.evaluation.protocol import CROPS, Protocol
from hf_video.evaluation.published_sampling import (
    WholeVideo,
    centered_clips,
    clips_of_parts,
    linspaced_clips,
    whole_steps,
)
from hf_video.models.published_inputs import SSV2_CLASSES, SSV2_FRAMES

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from hf_video.data.types import FrameProcessor

# Those that some model's authors publish a protocol for.
DATASETS = ("kinetics", "ssv2", "ucf101", "diving48", "jester", "coin")


def check_protocol(protocol: str | Protocol) -> None:
    """Raises VideoOptionError for a name that no model's protocol has, before a model or video is loaded."""
    name = str(protocol).strip().lower()
    if isinstance(protocol, Protocol) or re.fullmatch("center|paper(:.*)?", name):
        return
    views = re.fullmatch(r"(\d+)\s*[x×]\s*(\d+)", name)
    if not views or int(views[1]) < 1 or int(views[2]) not in CROPS:
        hint = did_you_mean(name, ("paper", *(f"paper:{dataset}" for dataset in DATASETS), "center"))
        raise VideoOptionError(
            f'There is no protocol {protocol!r}.{hint} Use "paper", "paper:<data set>" ({", ".join(DATASETS)}), '
            '"center" or clips x crops, such as "5x3" (1, 3 or 10 crops).'
        )


def find_protocol(
    protocol: str | Protocol, config: PreTrainedConfig, *, processor: FrameProcessor | None = None
) -> Protocol:
    """Finds a protocol by its name.

    Args:
        protocol: "paper" (as the model's authors test it), "paper:" and one of `DATASETS`, "center", or
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
    one = replace(paper, name="center", clips=1, crops=1, joined=False, source="")
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
    """Returns the protocol of a model's authors on `dataset` (one of `DATASETS` in any usual spelling; None: what they
    report first, or ssv2 for a model of its 174 classes). Raises VideoOptionError that lists what is published."""
    kind = getattr(config, "model_type", None)
    if kind not in PAPERS:
        raise VideoOptionError(
            f"No published protocol is known for a model of type {kind!r}{UNPUBLISHED.get(kind, '')}; known are "
            f'{", ".join(sorted(PAPERS))}. Use clips x crops, such as "5x3" or "1x1".'
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


def _vjepa2(config: PreTrainedConfig, processor: FrameProcessor | None) -> Published:
    """The authors' configs/eval. A model that has as many classes as one of the data sets is taken for a probe on it.
    Their last crop begins one pixel before the end where the room for crops is odd."""
    published = [  # classes; clips, their frames and distance: of Something-Something ViT-L reads 16 frames, ViT-g 64
        ("ssv2", SSV2_CLASSES, 2, None, 4 if config.frames_per_clip < 64 else 2),
        ("diving48", 48, 4, 32, 2),
        ("kinetics", 400, 8, 16, 4),
        ("jester", 27, 4, 32, 2),
        ("coin", 180, 8, 16, 4),
    ]
    published.sort(key=lambda row: row[1] != config.num_labels)
    rows = []
    for name, _, clips, frames, stride in published:
        words = f"frames {stride} apart, from the middles of equal parts, which overlap in short videos"
        more = {"geometry": "resize to crop", "num_frames": frames, "stride": stride}
        row = _row(clips, 3, "softmax", clips_of_parts, words, "facebookresearch/vjepa2", **more)
        rows.append((name, replace(row, joined=True)))
    return rows


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


UNPUBLISHED = {
    "videoprism_vision_model": (
        " (its authors report frozen encoders by VideoGLUE, without saying how many clips and crops were seen; their "
        'example on Kinetics sees one clip and one crop, which is "1x1")'
    ),
}
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
    "vjepa2": _vjepa2,
    "x3d": _slowfast(5),
}
