"""Classifiers of boxes in a clip: what the people in it do (AVA: Gu et al., 2018, arXiv:1705.08421). The head is that
of SlowFast (section 5), of VideoMAE-Action-Detection and of mmaction2, which differ by configuration alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers.utils import ModelOutput

from hf_video.base.configuration import BoxHeadConfig
from hf_video.base.modeling import VideoPreTrainedModel
from hf_video.base.outputs import VideoModelOutput
from hf_video.errors import ModelInputError
from hf_video.layers.roi_align import roi_align

LEFT_OUT = -100  # a label that does not count, as Trainer pads them


@dataclass
class BoxClassifierOutput(ModelOutput):
    """Answers for the boxes of clips.

    Args:
        loss: Scalar, with `labels`.
        logits: (B, boxes, classes), before the sigmoid: a person may do several things at once.
        hidden_states, attentions: The encoder's, where they are asked for.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


def box_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    *,
    focal_gamma: float = 0.0,
    focal_alpha: float = 1.0,
) -> torch.Tensor:
    """Binary cross-entropy of every box and class, in float32: its mean over labels that count, or, with
    `num_items_in_batch`, the sum over them divided by that number.

    Args:
        logits: (B, boxes, classes).
        labels: Of the same shape: 1, 0, or anything between; -100 does not count.
        num_items_in_batch: Labels that count in the whole effective batch; Trainer hands it in.
        focal_gamma, focal_alpha: See `BoxHeadConfig`.

    Returns:
        Scalar.
    """
    counts = labels != LEFT_OUT
    target = labels.to(logits.device, torch.float32).masked_fill(~counts, 0.0)
    each = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
    if focal_gamma:
        each = (1 - torch.exp(-each)) ** focal_gamma * each
    total = (focal_alpha * each * counts).sum()
    if isinstance(num_items_in_batch, torch.Tensor):
        num_items_in_batch = num_items_in_batch.to(total.device)
    return total / (counts.sum().clamp_min(1) if num_items_in_batch is None else num_items_in_batch)


def grown_boxes(boxes: torch.Tensor, growth: Sequence[float], size: tuple[int, int]) -> torch.Tensor:
    """Boxes (..., 4) made larger by shares of their width and height, each one pixel larger, and cut at a frame of
    (rows, columns) pixels, of which the last counts: VideoMAE-Action-Detection's test."""
    share = boxes.new_tensor(growth) / 2
    low, high = boxes[..., :2], boxes[..., 2:]
    margin = share * (high - low + 1)
    last = boxes.new_tensor((size[1] - 1, size[0] - 1))
    grown = torch.cat((low - margin, high + margin), dim=-1)
    return torch.minimum(grown.clamp_min(0), torch.cat((last, last)))


class BoxHead(nn.Module):
    """From a map of a clip (B, D, H, W) and its boxes to logits: ROIAlign, maximum over the bins, linear layers."""

    def __init__(self, config: BoxHeadConfig, width: int) -> None:
        super().__init__()
        self.resolution, self.aligned, self.context = config.box_resolution, config.box_aligned, config.box_context
        width *= 2 if self.context else 1
        self.dropout = nn.Dropout(getattr(config, "classifier_dropout", 0.0))
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(config.box_layers - 1))
        self.classifier = nn.Linear(width, config.num_labels)

    def vectors(self, maps: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """What the classifier sees of each box: (B, boxes, D), or (B, boxes, 2·D) with the context behind. `boxes`
        (B, boxes, 4) are x1, y1, x2, y2 in positions of the map."""
        batch, count = boxes.shape[:2]
        number = torch.arange(batch, device=boxes.device).repeat_interleave(count)
        rows = torch.cat((number[:, None].to(boxes.dtype), boxes.flatten(0, 1)), dim=1)
        found = roi_align(maps, rows, self.resolution, aligned=self.aligned).amax((2, 3)).unflatten(0, (batch, count))
        if not self.context:
            return found
        whole = F.adaptive_avg_pool2d(maps, self.resolution).amax((2, 3))
        return torch.cat((found, whole[:, None].expand_as(found)), dim=2)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        x = self.dropout(vectors)
        for layer in self.hidden:
            x = F.relu(layer(x))
        return self.classifier(x)


def pool_time(maps: torch.Tensor, how: str) -> torch.Tensor:
    """(B, D, T, H, W) -> (B, D, H, W)."""
    return maps.amax(2) if how == "max" else maps.mean(2)


class BoxClassifier:
    """A classifier of boxes, mixed into a model: `class XForSpatioTemporalActionDetection(BoxClassifier,
    XPreTrainedModel)`. A model says with `encode_maps` what its maps are, and with `map_stride` how many pixels a
    position of them is."""

    accepts_loss_kwargs = True

    def add_box_head(self, width: int) -> None:
        """The last line of `__init__`, when the encoder stands."""
        self.num_labels = self.config.num_labels
        self.box_head = BoxHead(self.config, width)
        self.post_init()

    @property
    @abstractmethod
    def map_stride(self) -> tuple[int, int]:
        """(rows, columns) of pixels that a position of the map stands for."""

    @abstractmethod
    def encode_maps(self, pixel_values: torch.Tensor, **flags: bool | None) -> tuple[torch.Tensor, VideoModelOutput]:
        """The clips' maps without time, (B, D, H, W), and the encoder's outputs."""

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        boxes: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> BoxClassifierOutput | tuple:
        """Classifies boxes.

        Args:
            pixel_values: Clips (B, T, C, H, W), normalised.
            boxes: (B, boxes, 4): x1, y1, x2, y2 in pixels of the clips, of the frame in a clip's middle. Clips with
                fewer boxes than others are padded with any box.
            labels: (B, boxes, classes), 1 where a box shows a class and 0 where not; -100 for boxes that are padding.
            output_attentions, output_hidden_states, return_dict: As in transformers; None takes the configuration's.
            num_items_in_batch: Labels of the whole effective batch, by which Trainer divides the loss.

        Returns:
            `logits` (B, boxes, classes), `loss` with labels, and the encoder's states.

        Raises:
            ModelInputError: The clips, boxes or labels have another shape.
        """
        self.check_input(pixel_values)
        check_boxes(boxes, pixel_values, labels, self.config.num_labels)
        flags = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        maps, outputs = self.encode_maps(pixel_values, **flags)
        logits = self.box_head(self.box_head.vectors(maps, self.boxes_on_map(boxes, pixel_values)))
        loss = None
        if labels is not None:
            focal = {"focal_gamma": self.config.focal_gamma, "focal_alpha": self.config.focal_alpha}
            loss = box_loss(logits, labels, num_items_in_batch, **focal)
        output = BoxClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )
        return self.to_output(output, return_dict)

    def boxes_on_map(self, boxes: torch.Tensor, pixel_values: torch.Tensor) -> torch.Tensor:
        """Boxes in positions of the map, float32; grown by `box_growth` out of training."""
        boxes = boxes.to(pixel_values.device, torch.float32)
        if not self.training and any(self.config.box_growth):
            boxes = grown_boxes(boxes, self.config.box_growth, pixel_values.shape[-2:])
        rows, columns = self.map_stride
        return boxes / boxes.new_tensor((columns, rows, columns, rows))

    # The encoder's, before what a model's own base class has for encoders.
    get_video_features = VideoPreTrainedModel.get_video_features


def check_boxes(boxes: Any, pixel_values: torch.Tensor, labels: torch.Tensor | None, classes: int) -> None:
    """Raises ModelInputError for boxes that are not (B, boxes, 4), and labels that are not (B, boxes, classes)."""
    batch = pixel_values.shape[0]
    if not isinstance(boxes, torch.Tensor) or boxes.ndim != 3 or boxes.shape[0] != batch or boxes.shape[2] != 4:
        came = f"shape {tuple(boxes.shape)}" if isinstance(boxes, torch.Tensor) else f"a {type(boxes).__name__}"
        raise ModelInputError(
            f"boxes must be a tensor ({batch}, boxes, 4) of x1, y1, x2, y2 in pixels of the clips; {came} came."
        )
    expected = (batch, boxes.shape[1], classes)
    if labels is not None and tuple(labels.shape) != expected:
        raise ModelInputError(f"labels has shape {tuple(labels.shape)}; expected (batch, boxes, classes) = {expected}.")
