"""What the configurations of temporal detectors have in common: the feature grid, the pyramid, targets, inference."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

from huggingface_hub.dataclasses import strict

from hf_video.base.configuration import VideoConfig
from hf_video.errors import ConfigError, check_count, check_number

NMS = ("soft", "hard", "none")
NECKS = ("identity", "fpn")


@strict
class TemporalDetectionConfig(VideoConfig):
    r"""Fields of ActionFormer and TriDet. Lengths are in steps of the feature grid unless a unit is named.

    Args:
        input_size: columns of the features; a list for several encoders' features side by side.
        stream_sizes: columns that each of several features is projected to; their sum must be `hidden_size`.
        feature_stride, feature_frames: frames from one feature vector to the next, and frames that one sees.
        feature_fps: frame rate the features were made at; None where each video's own counts.
        standardize_features: subtract a mean from each column and divide by a deviation, both kept with the weights and
            measured on the training videos: features of encoders differ in scale by orders of magnitude.
        fixed_length: whether every video is stretched to `max_length` vectors (ActivityNet).
        encoder: `name` and `digest` of the encoder whose features it was trained on, and how the frames of its clips
            are chosen; None where that is not known.
        max_length: longest sequence in training; shorter ones are padded to it, in inference too.
        hidden_size, neck_size, head_size: channels of the backbone, the pyramid and the heads.
        embedding_layers, stem_layers, branch_layers: convolutions at the start, blocks at full length, blocks that each
            halve the sequence. The pyramid has `branch_layers` + 1 levels.
        embedding_kernel_size, embedding_norm, use_absolute_positions: of the start.
        head_layers, head_kernel_size, head_norm: of the heads, the last convolution counted.
        backbone: kind of its blocks.
        neck: "identity" (a norm for each level) or "fpn" (a top-down pyramid).
        neck_norm: LayerNorm on the levels of the pyramid.
        layer_norm_eps, conv_norm_eps: of the norms; the second of those behind convolutions of the start and the heads
            and of the neck, None for the same (OpenTAD: 1e-6).
        mask_norms: set the padding to 0 behind the norms of the start and the heads too, and not behind a head's last
            convolution, as OpenTAD does; ActionFormer's and TriDet's own code does it behind convolutions.
        drop_path_rate: stochastic depth of each residual branch. 0 also leaves out the learnt scale of the branches, as
            the official code does.
        regression_ranges: distances (low, high) to the farther boundary that each level answers for.
        center_radius: strides around a segment's centre in which points answer for it; None is the whole segment.
        label_smoothing, regression_loss_weight: of the loss; a weight of -1 makes both parts equally large.
        loss_normalizer, loss_normalizer_momentum: start and momentum of the running number of positive points.
        prior_probability: score that the class head starts from.
        empty_classes: class numbers without examples; their scores start near 0.
        score_threshold, candidates_per_level, max_candidates: what is kept of a level, and of all together (None: all
            of them), before segments are compared.
        min_length: shortest segment that is kept, in steps of the grid.
        nms, nms_sigma, nms_iou_threshold, nms_min_score, class_agnostic_nms, voting_threshold, max_detections: how
            overlapping segments are merged; see `hf_video.layers.temporal_nms`.
    """

    backbones: ClassVar[tuple[str, ...]] = ("conv",)

    backbone: str = "conv"
    input_size: int | list[int] | tuple[int, ...] = 2048
    stream_sizes: list[int] | tuple[int, ...] | None = None
    feature_stride: int | float = 4
    feature_frames: int | float = 16
    feature_fps: int | float | None = None
    standardize_features: bool = False
    fixed_length: bool = False
    encoder: dict | None = None
    max_length: int = 2304
    hidden_size: int = 512
    neck_size: int = 512
    head_size: int = 512
    embedding_layers: int = 2
    stem_layers: int = 2
    branch_layers: int = 5
    embedding_kernel_size: int = 3
    embedding_norm: bool = True
    use_absolute_positions: bool = False
    head_layers: int = 3
    head_kernel_size: int = 3
    head_norm: bool = True
    neck: str = "identity"
    neck_norm: bool = True
    drop_path_rate: float | int = 0.1
    layer_norm_eps: float = 1e-5
    conv_norm_eps: float | None = None
    mask_norms: bool = False
    initializer_range: float = 0.02
    regression_ranges: list[list[int | float]] | list[tuple[int | float, int | float]] | None = None
    center_radius: float | int | None = 1.5
    label_smoothing: float | int = 0.0
    regression_loss_weight: float | int = 1.0
    loss_normalizer: float | int = 100.0
    loss_normalizer_momentum: float = 0.9
    prior_probability: float = 0.01
    empty_classes: list[int] | tuple[int, ...] = ()
    score_threshold: float = 0.001
    candidates_per_level: int = 2000
    max_candidates: int | None = None
    min_length: float = 0.05
    nms: str = "soft"
    nms_sigma: float = 0.5
    nms_iou_threshold: float = 0.1
    nms_min_score: float = 0.001
    class_agnostic_nms: bool = False
    voting_threshold: float = 0.7
    max_detections: int = 200

    def __post_init__(self, **kwargs) -> None:
        if self.regression_ranges is None:
            edges = [0, *(4 * 2**level for level in range(self.branch_layers)), 10000]
            self.regression_ranges = [list(pair) for pair in pairwise(edges)]
        super().__post_init__(**kwargs)

    @property
    def strides(self) -> list[int]:
        """Steps of the grid from one point of a level to the next."""
        return [2**level for level in range(self.branch_layers + 1)]

    @property
    def eps_behind_convolutions(self) -> float:
        """Of the norms of `conv_norm_eps`."""
        return self.layer_norm_eps if self.conv_norm_eps is None else self.conv_norm_eps

    @property
    def input_sizes(self) -> list[int]:
        return [self.input_size] if isinstance(self.input_size, int) else list(self.input_size)

    @property
    def length_multiple(self) -> int:
        """What the length of a sequence longer than `max_length` is padded to a multiple of."""
        return self.strides[-1]

    def padded_length(self, length: int) -> int:
        """The length that `length` feature vectors are padded to. A video's end depends on its padding (norms give
        padded positions values, and convolutions read them), so that batches must not choose it."""
        if length <= self.max_length:
            return self.max_length
        return -(-length // self.length_multiple) * self.length_multiple

    def check(self) -> None:
        super().check()
        if len(self.regression_ranges) != len(self.strides):
            raise ConfigError(
                f"regression_ranges has {len(self.regression_ranges)} pairs; the pyramid has {len(self.strides)} "
                f"levels (branch_layers={self.branch_layers} and the stem)."
            )
        if len(self.input_sizes) > 1 or self.stream_sizes:
            sizes = list(self.stream_sizes or [])
            if len(sizes) != len(self.input_sizes) or sum(sizes) != self.hidden_size:
                raise ConfigError(
                    f"stream_sizes={self.stream_sizes!r} must give one width for each of the {len(self.input_sizes)} "
                    f"features, with the sum hidden_size={self.hidden_size}."
                )
        for name in ("candidates_per_level", "max_detections"):
            check_count(name, getattr(self, name), ConfigError)
        check_count("max_candidates", self.max_candidates, ConfigError, optional=True)
        check_number("nms_sigma", self.nms_sigma, ConfigError, above=0)
        for name in ("score_threshold", "nms_min_score", "nms_iou_threshold", "voting_threshold", "min_length"):
            check_number(name, getattr(self, name), ConfigError, least=0)
        for name, allowed in (("nms", NMS), ("neck", NECKS), ("backbone", self.backbones)):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name}={getattr(self, name)!r} must be one of {', '.join(map(repr, allowed))}.")
        if self.neck == "identity" and self.neck_size != self.hidden_size:
            raise ConfigError(
                f'neck_size={self.neck_size} must be hidden_size={self.hidden_size} where neck="identity".'
            )
        for name in ("embedding_kernel_size", "head_kernel_size"):
            if getattr(self, name) % 2 == 0:
                raise ConfigError(f"{name}={getattr(self, name)} must be odd.")
