"""Mixup and cutmix of whole clips in a batch, with soft targets and label smoothing.

Clip i is mixed with clip B-1-i of the batch (timm, SlowFast, VideoMAE); the middle one of an odd batch, and the only
one of a batch of 1, stay as they are.

    mixing = Mixing()                                                 # VideoMAE's and MViT's recipe
    clips, targets = mixing(clips, labels, num_labels=400, generator=g)
    loss = -(targets * logits.log_softmax(-1)).sum(-1).mean()         # what cross_entropy(logits, targets) computes
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import numpy as np
import torch
import torch.nn.functional as functional

from hf_video.errors import VideoArrayError, VideoOptionError, check_choice, check_count, check_number
from hf_video.video.augment.checks import check_normalized
from hf_video.video.augment.checks import numpy_generator as rng_of

MODES = ("batch", "pair", "elem")


@dataclass(frozen=True)
class MixingParams:
    """What was drawn for one batch of B clips.

    `shares` (B,) float64: how much of clip i stays, in 0..1; the rest is its partner's. `boxes` (B, 4) int: rows from
    and to, columns from and to that cutmix takes from the partner; empty where it is mixup. `cut` (B,) bool: cutmix.
    `label_smoothing` as in Mixing.
    """

    shares: np.ndarray
    boxes: np.ndarray
    cut: np.ndarray
    label_smoothing: float

    def clips(self, values: torch.Tensor) -> torch.Tensor:
        """Mixes clips.

        Args:
            values: Normalised floats (B, T, C, H, W).

        Returns:
            A new tensor, or the same one where nothing is to be mixed.

        Raises:
            VideoArrayError: Another number of clips came, or no normalised floats.
        """
        check_normalized(values, 5)
        if len(values) != len(self.shares):
            raise VideoArrayError(f"This mixture is for {len(self.shares)} clips and {len(values)} came.")
        if (self.shares == 1).all():
            return values
        own = torch.as_tensor(np.where(self.cut, 1.0, self.shares), dtype=values.dtype, device=values.device)
        weight = own[:, None, None, None, None]
        if self.cut.any():
            weight = weight.expand(-1, 1, 1, *values.shape[-2:]) * ~self._inside(values)
        return torch.lerp(values.flip(0), values, weight)

    def _inside(self, values: torch.Tensor) -> torch.Tensor:
        """(B, 1, 1, H, W), True where cutmix shows the partner."""
        top, bottom, left, right = torch.as_tensor(self.boxes.T[:, :, None, None], device=values.device)
        rows = torch.arange(values.shape[-2], device=values.device)[:, None]
        columns = torch.arange(values.shape[-1], device=values.device)
        return ((rows >= top) & (rows < bottom) & (columns >= left) & (columns < right))[:, None, None]

    def targets(self, labels: torch.Tensor, num_labels: int) -> torch.Tensor:
        """Mixes labels. Of a smoothing e and K classes a right one has 1 - e + e/K and each other e/K.

        Args:
            labels: Class numbers (B,), or 0 and 1 for each class (B, num_labels) float where clips show several.
            num_labels: Number of classes.

        Returns:
            float32 (B, num_labels): share · own + (1 - share) · partner's, smoothed.

        Raises:
            VideoArrayError: Labels have another shape.
            VideoOptionError: A label is no class.
        """
        check_count("num_labels", num_labels)
        if labels.is_floating_point() and labels.shape == (len(self.shares), num_labels):
            return self._shared(labels.float(), num_labels)
        if labels.shape != self.shares.shape or labels.is_floating_point():
            raise VideoArrayError(
                f"labels are {len(self.shares)} class numbers, or floats ({len(self.shares)}, {num_labels}); "
                f"{labels.dtype} {tuple(labels.shape)} came."
            )
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_labels:
            raise VideoOptionError(
                f"labels are from {int(labels.min())} to {int(labels.max())} and classes from 0 to {num_labels - 1}."
            )
        return self._shared(functional.one_hot(labels.long(), num_labels).float(), num_labels)

    def _shared(self, right: torch.Tensor, num_labels: int) -> torch.Tensor:
        right = right * (1 - self.label_smoothing) + self.label_smoothing / num_labels
        share = torch.as_tensor(self.shares, dtype=torch.float32, device=right.device)[:, None]
        return right * share + right.flip(0) * (1 - share)


Mixture = MixingParams  # its name in 0.1.0


@dataclass(frozen=True)
class Mixing:
    """Mixes the clips of a batch, and their labels.

    Args:
        mixup: Share of a clip ~ Beta(mixup, mixup) (Zhang et al. 2018); 0: no mixup.
        cutmix: Share of the frame ~ Beta(cutmix, cutmix), a box of the frame's shape that is cut off at its borders;
            the share counts what is left of it (Yun et al. 2019); 0: no cutmix. The box is the same in all frames.
        prob: How often anything is mixed.
        switch_prob: How often it is cutmix where both are on.
        mode: One draw for the "batch", for each "pair" of partners, or for each clip ("elem").
        label_smoothing: 0 to below 1. It is part of the targets: use no other.

    Raises:
        VideoOptionError: A value lies outside of what is written here.
    """

    _: KW_ONLY
    mixup: float = 0.8
    cutmix: float = 1.0
    prob: float = 1.0
    switch_prob: float = 0.5
    mode: str = "batch"
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        for name in ("mixup", "cutmix"):
            check_number(name, getattr(self, name), least=0)
        for name in ("prob", "switch_prob", "label_smoothing"):
            check_number(name, getattr(self, name), least=0, most=1)
        if self.label_smoothing == 1:
            raise VideoOptionError("label_smoothing=1 leaves nothing of the labels; 0.1 is usual.")
        check_choice("mode", self.mode, MODES)

    def __call__(
        self, clips: torch.Tensor, labels: torch.Tensor, *, num_labels: int, generator: torch.Generator | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mixes a batch.

        Args:
            clips: Floats (B, T, C, H, W).
            labels: Class numbers (B,), or 0 and 1 for each class (B, num_labels) float.
            num_labels: Number of classes.
            generator: Source of chance; None takes torch's global generator.

        Returns:
            The mixed clips, and targets (B, num_labels) float32 (see `MixingParams.targets`).

        Raises:
            VideoArrayError: Clips or labels have another shape or dtype.
            VideoOptionError: A label lies outside of the classes.
        """
        check_normalized(clips, 5)
        mixture = self.draw(len(clips), *clips.shape[-2:], generator=generator)
        return mixture.clips(clips), mixture.targets(labels, num_labels)

    def draw(self, batch: int, height: int, width: int, *, generator: torch.Generator | None = None) -> MixingParams:
        """Draws what happens to a batch.

        Args:
            batch: Number of clips.
            height: Of the clips, in pixels.
            width: Of the clips, in pixels.
            generator: Of the random numbers; None takes torch's own.

        Returns:
            The mixture, for several tensors of one batch too, such as RGB and flow: `clips(x)` of each.
        """
        rng = rng_of(generator)
        draws = {"batch": 1, "pair": (batch + 1) // 2, "elem": batch}[self.mode]
        shares, boxes, cut = self._draw(draws, height, width, rng)
        # Which draw each clip has: partners share one in a pair.
        own, partner = np.arange(batch), np.arange(batch)[::-1]
        owner = {"batch": 0 * own, "pair": np.minimum(own, partner), "elem": own}[self.mode]
        shares, boxes, cut = shares[owner], boxes[owner], cut[owner]
        alone = own == partner
        return MixingParams(np.where(alone, 1.0, shares), boxes * ~alone[:, None], cut, self.label_smoothing)

    def _draw(self, draws: int, height: int, width: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        on = (rng.random(draws) < self.prob) & bool(self.mixup or self.cutmix)
        cut = rng.random(draws) < (self.switch_prob if self.mixup and self.cutmix else bool(self.cutmix))
        cut &= on
        alpha = np.where(cut, self.cutmix, self.mixup)
        shares = np.where(on, rng.beta(np.where(on, alpha, 1.0), np.where(on, alpha, 1.0)), 1.0)
        boxes = _cut_boxes(np.where(cut, shares, 1.0), height, width, rng)
        left = 1 - (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2]) / (height * width)
        return np.where(cut, left, shares), boxes, cut


def _cut_boxes(shares: np.ndarray, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """(n, 4): boxes of sides int(side · sqrt(1 - share)) about a point anywhere in the frame, cut off at its border."""
    places = []
    for side in (height, width):
        half = (side * np.sqrt(1 - shares)).astype(int) // 2
        middle = rng.integers(0, side, size=len(shares))
        places += [np.clip(middle - half, 0, side), np.clip(middle + half, 0, side)]
    return np.stack(places, axis=1)
