"""Two-stream networks (Simonyan and Zisserman, 2014, arXiv:1406.2199): configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from huggingface_hub.dataclasses import strict

from hf_video.base.configuration import VideoConfig
from hf_video.base.loading import model_entry
from hf_video.errors import ConfigError, check_choice, check_count

FUSIONS = ("average", "weighted", "sum_logits", "conv")
SCORES = ("logits", "softmax")
STREAMS = ("spatial", "temporal")
VGG_WIDTHS = (64, 128, 256, 512, 512)
RESNET_WIDTHS = (64, 128, 256, 512)
# Dropout before each hidden or final linear layer, after bryanyzhu/two-stream-pytorch: (frame, flow).
VGG_DROPOUT = {"spatial": (0.9, 0.9), "temporal": (0.9, 0.8)}
RESNET_DROPOUT = {"spatial": (0.8,), "temporal": (0.7,)}

NETWORKS: dict[str, dict[str, Any]] = {
    "vgg16": {"kind": "vgg", "depths": (2, 2, 3, 3, 3), "widths": VGG_WIDTHS},
    "resnet18": {"kind": "resnet", "depths": (2, 2, 2, 2), "widths": RESNET_WIDTHS},
    "resnet34": {"kind": "resnet", "depths": (3, 4, 6, 3), "widths": RESNET_WIDTHS},
    "resnet50": {"kind": "resnet", "depths": (3, 4, 6, 3), "widths": RESNET_WIDTHS, "expansion": 4},
    "resnet101": {"kind": "resnet", "depths": (3, 4, 23, 3), "widths": RESNET_WIDTHS, "expansion": 4},
    "resnet152": {"kind": "resnet", "depths": (3, 8, 36, 3), "widths": RESNET_WIDTHS, "expansion": 4},
}


@dataclass(frozen=True)
class StreamSpec:
    """One convolutional stream, every value settled.

    `depths` and `widths` say how many layers (VGG: 3x3 convolutions, ResNet: residual blocks) of how many channels each
    stage has; `expansion` 4 makes ResNet's blocks bottlenecks. VGG ends in a `pool_size` x `pool_size` map and two
    hidden layers of `fc_width`; `dropout` holds VGG's two rates, or ResNet's one.
    """

    kind: str
    channels: int
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    dropout: tuple[float, ...]
    expansion: int = 1
    fc_width: int = 4096
    pool_size: int = 7

    @property
    def map_width(self) -> int:
        """Channels of the last feature map."""
        return self.widths[-1] * self.expansion

    @property
    def width(self) -> int:
        """Length of the vector that the classifier sees."""
        return self.fc_width if self.kind == "vgg" else self.map_width

    @property
    def depth(self) -> int:
        return len(self.depths)

    def check(self, name: str) -> None:
        """Raises ConfigError that names the field for values that make no network."""
        sizes = (self.channels, self.expansion, self.fc_width, self.pool_size, *self.depths, *self.widths)
        check_choice(f"{name}: kind", self.kind, ("vgg", "resnet"), ConfigError)
        if len(self.depths) != len(self.widths) or not self.depths or min(sizes) < 1:
            raise ConfigError(
                f"{name}: depths={list(self.depths)} and widths={list(self.widths)} must be as many whole numbers of 1 "
                f"or more, and so must all sizes be; {self} came."
            )
        hint = " 1 are basic blocks, 4 are bottlenecks."
        check_choice(f"{name}: expansion", self.expansion, (1, 4), ConfigError, hint=hint)
        rates = 2 if self.kind == "vgg" else 1
        if len(self.dropout) != rates or not all(0 <= rate < 1 for rate in self.dropout):
            raise ConfigError(
                f"{name}: dropout={list(self.dropout)} must be {rates} number(s) of at least 0 and below 1."
            )


@dataclass(frozen=True)
class VideoStreamSpec:
    """A stream that is one of our video models, such as I3D, with its configuration. It sees its frames together, and
    its map is its embedding: one place, one time."""

    channels: int
    config: Any
    kind: str = "video"

    @property
    def width(self) -> int:
        return self.config.hidden_size

    @property
    def depth(self) -> int:
        return self.config.num_hidden_layers


def video_stream_spec(values: dict[str, Any], name: str, channels: int) -> VideoStreamSpec:
    """The spec of `{"model_type": "i3d", …}`, the rest being fields of that model's configuration."""
    model_type = values.pop("model_type")
    if model_type == TwoStreamConfig.model_type:
        raise ConfigError(f"{name}: a stream can't be a two-stream model itself.")
    model = model_entry(model_type)
    return VideoStreamSpec(channels, model.load(model.config)(**{**values, "num_channels": channels}))


def stream_spec(given: str | Mapping[str, Any], stream: str, channels: int) -> StreamSpec | VideoStreamSpec:
    """What a `spatial_config` or `temporal_config` means: a name of `NETWORKS`; a dictionary with fields of
    `StreamSpec` that may start from such a name under "network"; or one with a "model_type" of `hf_video.MODELS`, such
    as "i3d", and fields of its configuration. Raises ConfigError."""
    name = f"{stream}_config"
    values = {"network": given} if isinstance(given, str) else dict(given)
    if "model_type" in values:
        return video_stream_spec(values, name, channels)
    network = values.pop("network", None)
    check_choice(f"{name}: network", network, (*NETWORKS, None), ConfigError)
    values = {**NETWORKS.get(network, {}), **values}
    unknown = sorted(set(values) - set(StreamSpec.__dataclass_fields__) | ({"channels"} & set(values)))
    if unknown or not {"kind", "depths", "widths"} <= set(values):
        raise ConfigError(
            f"{name} is a name ({', '.join(NETWORKS)}) or a dictionary with network, or with kind, depths and widths, "
            f"and besides expansion, fc_width, pool_size and dropout. {given!r} came."
        )
    if "dropout" not in values:
        values["dropout"] = (VGG_DROPOUT if values["kind"] == "vgg" else RESNET_DROPOUT)[stream]
    values = {k: tuple(v) if isinstance(v, (list, tuple)) else v for k, v in values.items()}
    spec = StreamSpec(channels=channels, **values)
    spec.check(name)
    return spec


@strict
class TwoStreamConfig(VideoConfig):
    r"""A spatial stream that sees single frames, a temporal one that sees stacks of optical flow, and their fusion.

    Args:
        spatial_config, temporal_config: a network's name (`vgg16`, `resnet18`, `resnet34`, `resnet50`, `resnet101`,
            `resnet152`), a dictionary (see `stream_spec`), or None: the model then has the other stream alone. Of a
            video model of ours, `{"model_type": "i3d", ...}`, with `flow_length=1` for two channels of flow a frame.
        fusion: "average": the mean of the two streams' scores; "weighted": their mean weighted by `fusion_weights`;
            "sum_logits": the sum of logits, as two-stream I3D adds them; "conv": Feichtenhofer et al. 2016, a 3-D
            convolution over both streams' last maps, whose classifier's scores are averaged with the temporal one's.
        fusion_weights: (spatial, temporal) for "weighted"; 1 to 1.5 in TSN and in Wang et al. 2015 (1 to 2).
        fusion_scores: what "average", "weighted" and "conv" average: "logits" as bryanyzhu/two-stream-pytorch and TSN
            do, or "softmax", the probabilities, as in the 2014 paper; the model's logits are then the logarithms of
            the averaged probabilities.
        num_frames: frames (and stacks) of a clip. 25 in the official test; scores of a stream are averaged over them.
        flow_length: L, flow fields in a stack; the temporal stream has 2·L input channels, x1, y1, x2, y2, …
        image_size: pixels, of the crops that the official weights were trained on. VGG takes other sizes too, its last
            map is then averaged to `pool_size`.
        initializer_range: standard deviation of VGG's linear layers; convolutions are drawn after He et al. 2015.
    """

    model_type = "two_stream"

    spatial_config: str | dict | None = "vgg16"
    temporal_config: str | dict | None = "vgg16"
    fusion: str = "average"
    fusion_weights: list[float | int] | tuple[float | int, ...] = (1.0, 1.5)
    fusion_scores: str = "logits"
    num_frames: int = 25
    flow_length: int = 10
    image_size: int | list[int] | tuple[int, int] = 224
    num_channels: int = 3
    initializer_range: float = 0.01

    @property
    def specs(self) -> dict[str, StreamSpec | VideoStreamSpec]:
        """The streams that there are, by name."""
        channels = {"spatial": self.num_channels, "temporal": 2 * self.flow_length}
        given = {"spatial": self.spatial_config, "temporal": self.temporal_config}
        return {name: stream_spec(given[name], name, channels[name]) for name in STREAMS if given[name] is not None}

    @property
    def hidden_size(self) -> int:
        """Length of a clip's embedding: of both streams together."""
        return sum(spec.width for spec in self.specs.values())

    @property
    def num_hidden_layers(self) -> int:
        """Stages of the deeper stream, after the first convolution."""
        return max(spec.depth for spec in self.specs.values())

    def check(self) -> None:
        for name, allowed in (("fusion", FUSIONS), ("fusion_scores", SCORES)):
            check_choice(name, getattr(self, name), allowed, ConfigError)
        check_count("flow_length", self.flow_length, ConfigError)
        if self.spatial_config is None and self.temporal_config is None:
            raise ConfigError("spatial_config and temporal_config are both None: a model has at least one stream.")
        if len(self.fusion_weights) != 2 or min(self.fusion_weights) < 0 or not sum(self.fusion_weights):
            raise ConfigError(
                f"fusion_weights={self.fusion_weights!r} must be (spatial, temporal), 0 or more, not both 0."
            )
        if self.fusion_scores == "softmax" and self.problem_type not in (None, "single_label_classification"):
            raise ConfigError(f"fusion_scores='softmax' is for one label out of several, not for {self.problem_type}.")
        if self.fusion == "conv" and len(self.specs) < 2:
            raise ConfigError("fusion='conv' joins two streams and the model has one.")
        if self.fusion == "conv" and any(spec.kind == "video" for spec in self.specs.values()):
            raise ConfigError("fusion='conv' joins the last maps of image networks (vgg…, resnet…).")
        super().check()
