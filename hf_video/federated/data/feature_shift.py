"""Clients whose videos look different: light, contrast, colours, focus and noise of a camera of their own, or a range
of greys.

The classes are the same everywhere; what changes from client to client is what pixels look like (feature shift, as in
FedBN). For simulations: real sites bring such a shift with them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hf_video.data.datasets.dataset import VideoDataset, generator
from hf_video.errors import FederatedError, check_choice, check_number
from hf_video.video.augment import ops

SHIFTS = ("camera", "greys")


@dataclass(frozen=True)
class Appearance:
    """How a client's camera changes a picture; the defaults change nothing.

    Args:
        brightness: Factor of the light: 0 is black.
        contrast: Factor of the distance from each frame's mean grey.
        hue: Turn of the colours, in turns from -0.5 to 0.5.
        blur: Deviation of a Gaussian, in pixels.
        noise: Deviation of the noise of each pixel and channel, in grey levels.
        lift: Grey levels that are added to all pixels.
        inverted: Light and dark change places, as in thermal pictures and X-rays of one maker or another.

    Raises:
        FederatedError: A number that means nothing.
    """

    brightness: float = 1.0
    contrast: float = 1.0
    hue: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    lift: float = 0.0
    inverted: bool = False

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "blur", "noise", "lift"):
            check_number(name, getattr(self, name), FederatedError, least=0)
        check_number("hue", self.hue, FederatedError, least=-0.5, most=0.5)

    @classmethod
    def of_client(cls, client: str, shift: float | str = 1.0, *, seed: int = 0) -> Appearance:
        """Draws the appearance of a client, from its name alone, whoever else takes part.

        Args:
            client: Its name.
            shift: A strength S, which is of "camera:S", or "greys:S"; 0 changes nothing. At camera:1 light and contrast
                lie between a half and twice those of the video, the hue anywhere, blur below 1 pixel and noise below 16
                grey levels; factors are powers of the strength, the rest grows with it. Under greys:S the range of
                greys is from 1 to 2^S times as narrow, begins anywhere, and is inverted at every other client.
            seed: Of the draws.

        Raises:
            FederatedError: There is no such shift.
        """
        kind, strength = parse_shift(shift)
        entropy = hashlib.sha256(f"{seed}/{client}".encode()).digest()[:8]
        drawn = np.random.default_rng(int.from_bytes(entropy, "little")).random(5).tolist()
        if kind == "greys":
            narrowed, begins, side = drawn[:3]
            width = 2 ** (-strength * narrowed)
            return cls(brightness=width, lift=255 * begins * (1 - width), inverted=strength > 0 and side < 0.5)
        brightness, contrast, hue, blur, noise = drawn
        return cls(
            brightness=2 ** (strength * (2 * brightness - 1)),
            contrast=2 ** (strength * (2 * contrast - 1)),
            hue=min(strength, 1) * (hue - 0.5),
            blur=strength * blur,
            noise=strength * 16 * noise,
        )

    def __call__(self, clip: torch.Tensor, seed: int = 0) -> torch.Tensor:
        """Changes a clip.

        Args:
            clip: uint8 (T, H, W, 3).
            seed: Of the noise.

        Returns:
            The same shape, uint8.
        """
        if self.blur:
            clip = _blurred(clip, self.blur)
        if self.hue:
            clip = ops.hue(clip, self.hue)
        if self.contrast != 1:
            clip = ops.contrast(clip, self.contrast)
        if self.brightness != 1:
            clip = ops.brightness(clip, self.brightness)
        if self.lift:
            clip = (clip + self.lift).round().clamp(0, 255).to(torch.uint8)
        if self.inverted:
            clip = 255 - clip
        if self.noise:
            noise = torch.randn(clip.shape, generator=generator(seed)) * self.noise
            clip = (clip + noise).round().clamp(0, 255).to(torch.uint8)
        return clip


def parse_shift(shift: float | str) -> tuple[str, float]:
    """Kind and strength of a shift such as 2, "2", "camera:2" or "greys:3".

    Raises:
        FederatedError: It is neither.
    """
    kind, colon, number = str(shift).rpartition(":")
    check_choice("shift", kind := kind if colon else SHIFTS[0], SHIFTS, FederatedError)
    try:
        strength = float(number)
    except ValueError:
        raise FederatedError(f"shift={shift!r}: the strength must be a number, as in {kind}:2.") from None
    check_number("shift", strength, FederatedError, least=0)
    return kind, strength


class ShiftedDataset(VideoDataset):
    """A `VideoDataset` whose frames go through an `Appearance` before anything else is done to them."""

    appearance: Appearance

    @classmethod
    def of(cls, dataset: VideoDataset, appearance: Appearance) -> ShiftedDataset:
        """The same samples as those of a data set, but for their appearance; both share the number of the epoch."""
        shifted = cls.__new__(cls)
        vars(shifted).update(vars(dataset), appearance=appearance)
        return shifted

    def _inputs(
        self, frames: torch.Tensor, needed: np.ndarray, label: int | tuple[int, ...] | None, seed: int, crop: int
    ) -> tuple[dict[str, Any], Any]:
        return super()._inputs(self.appearance(frames, seed), needed, label, seed, crop)


def _blurred(clip: torch.Tensor, deviation: float) -> torch.Tensor:
    """A Gaussian over height and width, cut off at three deviations; the border is repeated."""
    reach = max(int(np.ceil(3 * deviation)), 1)
    places = torch.arange(-reach, reach + 1, dtype=torch.float32)
    weights = torch.exp(-(places**2) / (2 * deviation**2))
    weights /= weights.sum()
    values = clip.permute(0, 3, 1, 2).float()
    values = torch.nn.functional.pad(values, (reach, reach, reach, reach), mode="replicate")
    for kernel in (weights.view(-1, 1), weights.view(1, -1)):
        values = torch.nn.functional.conv2d(values, kernel.expand(3, 1, *kernel.shape), groups=3)
    return values.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
