"""What temporal detectors have in common: padding, the loss over a pyramid of points, and segments from its outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from hf_video.base.detection.configuration import TemporalDetectionConfig
from hf_video.base.modeling import InitializesAllModules
from hf_video.base.safe_weights import SafeWeights
from hf_video.errors import ModelInputError
from hf_video.layers.segments import assign_targets, center_distance_iou_loss, pyramid_points, sigmoid_focal_loss
from hf_video.layers.temporal import TemporalConvBlock, TemporalEmbeddings, TemporalNeck
from hf_video.layers.temporal_nms import merge_segments


@dataclass
class TemporalDetectionOutput(ModelOutput):
    """Outputs for all points of the pyramid, one level after another.

    Args:
        loss: scalar, with `segments` and `labels`; `classification_loss` and `regression_loss` are its parts.
        logits: (B, P, classes), before the sigmoid.
        offsets: (B, P, 2), distances from a point to start and end, in strides of its level.
        mask: (B, P), True where a point lies in the video.
        points: (P, 4), see `hf_video.layers.segments.pyramid_points`.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    offsets: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    points: torch.Tensor | None = None
    classification_loss: torch.Tensor | None = None
    regression_loss: torch.Tensor | None = None


@dataclass
class TemporalPyramidOutput(ModelOutput):
    """`hidden_states`: levels (B, T / 2^i, C); `masks`: (B, T / 2^i), True where the video is."""

    hidden_states: tuple[torch.Tensor, ...] | None = None
    masks: tuple[torch.Tensor, ...] | None = None


@dataclass
class Segments:
    """Segments of one video, best first: `segments` (N, 2) in steps of the grid, `scores` (N,), `labels` (N,)."""

    segments: torch.Tensor
    scores: torch.Tensor
    labels: torch.Tensor


class TemporalDetectionPreTrainedModel(SafeWeights, InitializesAllModules, PreTrainedModel):
    """Base of detectors over features (B, T, C)."""

    config_class = TemporalDetectionConfig
    main_input_name = "features"
    supports_gradient_checkpointing = False
    loss_joins_samples = True  # as of VideoPreTrainedModel

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters without weight decay: all but the weights of convolutions and products."""
        return {
            name
            for name, parameter in self.named_parameters()
            if parameter.ndim <= 1 or name.endswith("relative_positions")
        }

    def padded(self, features: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Features and mask (B, T, 1) padded as `TemporalDetectionConfig.padded_length` says.

        Raises ModelInputError for another shape or number of columns, and in training for sequences longer than
        `max_length`.
        """
        width = sum(self.config.input_sizes)
        if features is None or features.ndim != 3 or features.shape[2] != width or not features.shape[1]:
            came = "nothing" if features is None else f"shape {tuple(features.shape)}"
            raise ModelInputError(f"features must be (batch, time, {width}) with one step or more; {came} came.")
        if mask is None:
            mask = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        elif tuple(mask.shape) != tuple(features.shape[:2]):
            raise ModelInputError(
                f"mask has shape {tuple(mask.shape)}; expected (batch, time) = {tuple(features.shape[:2])}."
            )
        length = features.shape[1]
        if self.training and length > self.config.max_length:
            raise ModelInputError(
                f"{length} steps came; in training a sequence has at most max_length={self.config.max_length}. Cut "
                "longer videos."
            )
        rest = self.config.padded_length(length) - length
        if not rest:
            return features, mask.bool()[..., None]
        return F.pad(features, (0, 0, 0, rest)), F.pad(mask.bool(), (0, rest))[..., None]


class TemporalPyramid(TemporalDetectionPreTrainedModel):
    """A backbone: features (B, T, C) to a pyramid of `branch_layers` + 1 levels, each half as long. Subclasses say with
    `make_blocks` what stands between embeddings and neck."""

    def __init__(self, config: TemporalDetectionConfig) -> None:
        super().__init__(config)
        self.embeddings = TemporalEmbeddings(config)
        if config.backbone == "conv":
            strides = [1] * config.stem_layers + [2] * config.branch_layers
            self.blocks = nn.ModuleList(TemporalConvBlock(config, stride) for stride in strides)
        else:
            self.blocks = self.make_blocks(config)
        self.neck = TemporalNeck(config)
        self.post_init()

    def make_blocks(self, config: TemporalDetectionConfig) -> nn.ModuleList:
        """`stem_layers` blocks that keep the length, then `branch_layers` that halve it: (x, mask) -> (x, mask)."""
        raise NotImplementedError(f"{type(self).__name__} has no blocks.")

    def forward(
        self, features: torch.Tensor, mask: torch.Tensor | None = None, return_dict: bool | None = None
    ) -> TemporalPyramidOutput | tuple:
        """Args:
            features: (B, T, input_size), float.
            mask: (B, T), True where a video is; None for all of it.
            return_dict: False for a tuple.

        Returns:
            `TemporalPyramidOutput`; T is padded as `config.padded_length` says.
        """
        x, valid = self.padded(features, mask)
        valid = valid.to(x.dtype)
        x = self.embeddings(x, valid)
        levels, masks = [], []
        for i, block in enumerate(self.blocks):
            x, valid = block(x, valid)
            if i >= self.config.stem_layers - 1:
                levels.append(x)
                masks.append(valid)
        states = self.neck(levels, masks)
        output = TemporalPyramidOutput(hidden_states=states, masks=tuple(one[..., 0].bool() for one in masks))
        return output if return_dict or (return_dict is None and self.config.return_dict) else output.to_tuple()


class TemporalDetectionLoss(nn.Module):
    """ActionFormer's loss (section 3.4): focal loss over all points and distance-IoU loss over the positive ones, both
    divided by a running mean of the number of positive points.

    The mean is a buffer, so that checkpoints go on with it. It moves once for each forward in training: with gradient
    accumulation and on several devices each micro-batch counts its own points, as each step of the official code does.
    """

    normalizer: torch.Tensor

    def __init__(self, config: TemporalDetectionConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("normalizer", torch.tensor(float(config.loss_normalizer)))

    def targets(
        self, points: torch.Tensor, segments: Sequence[torch.Tensor], labels: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Classes (B, P, C) and offsets (B, P, 2) for all points."""
        found = [
            assign_targets(
                points, one.to(points), label.to(points.device), self.config.num_labels, self.config.center_radius
            )
            for one, label in zip(segments, labels, strict=True)
        ]
        return torch.stack([classes for classes, _ in found]), torch.stack([offsets for _, offsets in found])

    def update(self, positive: torch.Tensor) -> torch.Tensor:
        """Moves the running number of positive points towards this batch's, at least 1, and returns it."""
        if self.training:
            count = positive.sum().clamp_min(1).to(self.normalizer)
            self.normalizer.lerp_(count, 1 - self.config.loss_normalizer_momentum)
        return self.normalizer.clone()

    def smoothed(self, classes: torch.Tensor) -> torch.Tensor:
        share = self.config.label_smoothing
        return classes * (1 - share) + share / (self.config.num_labels + 1)

    def combined(self, classification: torch.Tensor, regression: torch.Tensor) -> torch.Tensor:
        weight = self.config.regression_loss_weight
        if weight <= 0:
            return classification + regression * (classification / regression.clamp_min(0.01)).detach()
        return classification + regression * weight

    def forward(
        self, output: TemporalDetectionOutput, segments: Sequence[torch.Tensor], labels: Sequence[torch.Tensor]
    ) -> TemporalDetectionOutput:
        """The output with its losses; `segments` (N, 2) on the grid and `labels` (N,) of each video."""
        classes, offsets = self.targets(output.points, segments, labels)
        positive = (classes.sum(-1) > 0) & output.mask
        normalizer = self.update(positive)
        focal = sigmoid_focal_loss(output.logits, self.smoothed(classes)) * output.mask[..., None]
        output.classification_loss = focal.sum() / normalizer
        overlap = center_distance_iou_loss(output.offsets[positive].float(), offsets[positive])
        output.regression_loss = overlap.sum() / normalizer
        output.loss = self.combined(output.classification_loss, output.regression_loss)
        return output


class TemporalDetector(TemporalDetectionPreTrainedModel):
    """A detector: a pyramid, heads on its levels, a loss, and what the outputs mean. Subclasses have `predict`."""

    detection_loss: TemporalDetectionLoss
    output_class = TemporalDetectionOutput

    def predict(self, levels: list[tuple[torch.Tensor, torch.Tensor]]) -> TemporalDetectionOutput:
        """`logits` and `offsets` of all points, from the states (B, T, C) and the mask (B, T, 1) of each level."""
        raise NotImplementedError(f"{type(self).__name__} has no heads.")

    def forward(
        self,
        features: torch.Tensor,
        mask: torch.Tensor | None = None,
        segments: Sequence[torch.Tensor] | None = None,
        labels: Sequence[torch.Tensor] | None = None,
        return_dict: bool | None = None,
    ) -> TemporalDetectionOutput | tuple:
        """Args:
            features: (B, T, input_size), float.
            mask: (B, T), True where a video is; None for all of it.
            segments: for the loss, (N, 2) for each video, start and end in steps of the feature grid.
            labels: for the loss, (N,) class numbers for each video.
            return_dict: False for a tuple.

        Returns:
            `TemporalDetectionOutput`; `find_segments` turns it into segments.
        """
        pyramid = self.base_model(features, mask, return_dict=True)
        states = pyramid.hidden_states
        output = self.predict([(x, one[..., None].to(x.dtype)) for x, one in zip(states, pyramid.masks, strict=True)])
        output.mask = torch.cat(pyramid.masks, dim=1)
        output.points = pyramid_points(
            [x.shape[1] for x in states], self.config.strides, self.config.regression_ranges, features.device
        )
        if segments is not None and labels is not None:
            output = self.detection_loss(output, segments, labels)
        output = replace(output)  # fields in their order, the loss first
        return output if return_dict or (return_dict is None and self.config.return_dict) else output.to_tuple()

    @torch.no_grad()
    def find_segments(
        self, output: TemporalDetectionOutput, config: TemporalDetectionConfig | None = None
    ) -> list[Segments]:
        """The segments of each video after merging (`nms` and the fields beside it).

        Args:
            output: of `forward`, in eval mode.
            config: whose fields decide which segments are kept and how they are merged; None for the model's.

        Returns:
            One `Segments` for each video, at most `max_detections`, best first, positions in steps of the grid.
        """
        config = config or self.config
        return [self.merge(found, config) for found in self.candidates(output, config)]

    @torch.no_grad()
    def candidates(self, output: TemporalDetectionOutput, config: TemporalDetectionConfig) -> list[Segments]:
        """What `find_segments` merges: the segments of each video, level by level."""
        levels = torch.unique_consecutive(output.points[:, 3], return_counts=True)[1].tolist()
        scores = (output.logits.float().sigmoid() * output.mask[..., None]).split(levels, dim=1)
        offsets, points = output.offsets.float().split(levels, dim=1), output.points.split(levels)
        found = []
        for video in range(len(output.logits)):
            parts = [
                self._candidates(score[video], offset[video], point, config)
                for score, offset, point in zip(scores, offsets, points, strict=True)
            ]
            joined = [torch.cat(values).cpu() for values in zip(*parts, strict=True)]
            if config.max_candidates is not None and len(joined[1]) > config.max_candidates:
                best = joined[1].argsort(descending=True, stable=True)[: config.max_candidates]
                joined = [values[best] for values in joined]
            found.append(Segments(*joined))
        return found

    def merge(self, found: Segments, config: TemporalDetectionConfig) -> Segments:
        """The segments of one video without those that others stand for, the best first."""
        if config.nms == "none":
            return found
        merged = merge_segments(
            found.segments,
            found.scores,
            found.labels,
            method=config.nms,
            sigma=config.nms_sigma,
            iou_threshold=config.nms_iou_threshold,
            min_score=config.nms_min_score,
            class_agnostic=config.class_agnostic_nms,
            voting_threshold=config.voting_threshold,
            max_segments=config.max_detections,
            voting=self.voting,
        )
        return Segments(*merged)

    voting = "score_iou"

    def _candidates(
        self, scores: torch.Tensor, offsets: torch.Tensor, points: torch.Tensor, config: TemporalDetectionConfig
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Segments, scores and labels of one level: above `score_threshold`, the best `candidates_per_level` pairs of
        point and class, not shorter than `min_length`. `offsets` (T, 2), or (T, classes, 2) where each class has its
        own."""
        flat = scores.flatten()
        place = (flat > config.score_threshold).nonzero()[:, 0]
        best, order = flat[place].sort(descending=True)
        place, best = place[order][: config.candidates_per_level], best[: config.candidates_per_level]
        point, label = place // scores.shape[1], place % scores.shape[1]
        distance = offsets[point, label] if offsets.ndim == 3 else offsets[point]
        position, stride = points[point, 0], points[point, 3]
        segments = torch.stack((position - distance[:, 0] * stride, position + distance[:, 1] * stride), dim=1)
        kept = segments[:, 1] - segments[:, 0] > config.min_length
        return segments[kept], best[kept], label[kept]
