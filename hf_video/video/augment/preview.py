"""A sheet that shows what an augmentation does to a clip, step by step, and what comes out of all of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from hf_video.errors import VideoArrayError, VideoOptionError
from hf_video.video.augment.augmentation import Augmentation
from hf_video.video.augment.crops import Box
from hf_video.video.augment.mixing import Mixing
from hf_video.video.augment.rand_augment import Operation, RandAugment, apply_operations
from hf_video.video.augment.temporal import TemporalAugmentation
from hf_video.video.contact_sheet import SheetClip, contact_sheet

_OUTLINE = (255, 214, 10)
# Erasing works on normalised pixels; what these are normalised with changes the look of the noise only.
_MEAN, _STD = 0.45, 0.225


@dataclass(frozen=True)
class PreviewClip:
    """A clip to show: `frames` uint8 (T, H, W, 3), the `indices` of these frames in their video of `total`, a function
    from other indices to their frames, and names."""

    frames: torch.Tensor
    indices: np.ndarray
    total: int
    read: Callable[[np.ndarray], torch.Tensor]
    name: str
    label: str | None = None


def preview_sheet(
    clips: Sequence[PreviewClip],
    *,
    augmentation: Augmentation,
    temporal: TemporalAugmentation | None = None,
    mixing: Mixing | None = None,
    labels: Sequence[str] = (),
    seed: int = 0,
    frames_per_clip: int = 6,
    title: str = "",
) -> Image.Image:
    """Draws what an augmentation does: each step that is switched on by itself, of the first clip; then all steps
    together, of each clip. What is rare (erasing in a quarter of the clips) is drawn until it happens; its note says
    how rare it is.

    Args:
        clips: At least one.
        augmentation, temporal, mixing: What is done to them.
        labels: The class names; the sheet shows whether flipping is safe for them.
        seed: Of what is drawn.
        frames_per_clip: Pictures of each clip.
        title: Stands above.

    Returns:
        A contact sheet.

    Raises:
        VideoArrayError: There are no clips, or one that the augmentation can't take.
    """
    if not clips:
        raise VideoArrayError("A preview needs at least one clip.")
    steps = _Steps(clips[0], augmentation, seed)
    other = next((clip for clip in clips if clip.label != clips[0].label), clips[-1])
    cells = [steps.original(), *steps.rand_augment(), steps.crop()]
    cells += [*steps.flip(labels), *steps.colors(), *steps.erasing()]
    cells += [*steps.temporal(temporal), *_mixes(steps, other, mixing)]
    cells += _together(clips, augmentation, temporal, mixing, labels, seed)
    return contact_sheet(cells, columns=2, frames_per_clip=frames_per_clip, cell=112, title=title)


class _Steps:
    """The steps for one clip, each by itself."""

    def __init__(self, clip: PreviewClip, augmentation: Augmentation, seed: int):
        self.clip, self.augmentation, self.seed = clip, augmentation, seed
        height, width = clip.frames.shape[1:3]
        self.params = replace(
            augmentation.draw(height, width, generator=self.chance()), operations=(), flipped=False, colors=()
        )
        self.cropped = augmentation.apply(clip.frames, self.params)

    def chance(self, step: int = 0) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed * 1000 + step)

    def rng(self, step: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, step))

    def original(self) -> SheetClip:
        frames, box = self.clip.frames, self.params.box
        height, width = frames.shape[1:3]
        size = self.params.resized or (height, width)
        down, across = height / size[0], width / size[1]
        shown = _outlined(frames, Box(*(round(v * s) for v, s in zip(box, (down, across, down, across), strict=True))))
        where = f"{self.clip.name}, frames {self.clip.indices[0]} to {self.clip.indices[-1]} of {self.clip.total}"
        return SheetClip(shown.numpy(), "Original", f"{where}, {height}x{width}; the crop is outlined")

    def rand_augment(self) -> list[SheetClip]:
        if self.augmentation.rand_augment is None:
            return []
        policy = RandAugment(self.augmentation.rand_augment)
        rng = self.rng(1)
        draws = sorted((policy.draw(rng) for _ in range(8)), key=len)[-2:]
        return [
            SheetClip(
                apply_operations(self.clip.frames, operations).numpy(),
                f"RandAugment {policy.config.removeprefix('rand-')}",
                ", ".join(map(str, operations)) or "nothing was drawn",
            )
            for operations in draws
        ]

    def crop(self) -> SheetClip:
        options, params = self.augmentation, self.params
        ranges = {
            "random_resized": f"area {_span(options.scale)}, width/height {_span(options.ratio)}",
            "multi_scale": f"scales {', '.join(f'{s:g}' for s in options.scales)}",
        }.get(options.crop, f"short side {_span(options.short_side)}" if options.short_side else "no resize before")
        stretch = f", stretched {_span(options.stretch)}" if options.stretch else ""
        of = "x".join(map(str, params.resized or self.clip.frames.shape[1:3]))
        return SheetClip(self.cropped.numpy(), f"Crop: {options.crop}", f"{params.box} of {of}; {ranges}{stretch}")

    def flip(self, labels: Sequence[str]) -> list[SheetClip]:
        if not self.augmentation.flip:
            return []
        flipped = self.cropped.flip(2).numpy()
        share = 0.5 if self.augmentation.flip == "swap" else self.augmentation.flip
        note, tone = f"in {share:.0%} of clips; no class name tells left from right", "plain"
        try:
            guarded = self.augmentation.for_labels(labels)
        except VideoOptionError as error:
            return [SheetClip(flipped, "Flip: refused", str(error).partition(". ")[0], "bad")]
        pairs = [(i, m) for i, m in enumerate(guarded.mirror or ()) if i != m]
        if pairs:
            note = f"in {share:.0%} of clips; labels exchange: {labels[pairs[0][0]]} and {labels[pairs[0][1]]}"
        return [SheetClip(flipped, "Flip", note, tone)]

    def colors(self) -> list[SheetClip]:
        options, cells = self.augmentation, []
        if any(options.color_jitter):
            certain = replace(options, color_prob=1.0, gray_prob=0.0, rand_augment=None)
            operations = certain.draw(*self.clip.frames.shape[1:3], generator=self.chance(2)).colors
            note = f"{', '.join(map(str, operations))}; in {options.color_prob:.0%} of clips"
            cells.append(SheetClip(apply_operations(self.cropped, operations).numpy(), "Colour jitter", note))
        if options.gray_prob:
            shown = apply_operations(self.cropped, [Operation("gray")]).numpy()
            cells.append(SheetClip(shown, "Grey", f"in {options.gray_prob:.0%} of clips"))
        return cells

    def erasing(self) -> list[SheetClip]:
        options = self.augmentation
        if not options.erase_prob:
            return []
        certain = replace(options, erase_prob=1.0)
        boxes = certain.draw_erasing(*self.cropped.shape[1:3], generator=self.chance(3))
        erased = certain.erase(_normalized(self.cropped), generator=self.chance(3))
        note = f"{options.erase_mode}, {' and '.join(map(str, boxes))}; in {options.erase_prob:.0%} of clips"
        return [SheetClip(_denormalized(erased), "Random erasing", note)]

    def temporal(self, temporal: TemporalAugmentation | None) -> list[SheetClip]:
        if temporal is None:
            return []
        alone = {
            "Speed": (replace(temporal, jitter=0, reverse=0), temporal.speed, f"span times {_span(temporal.speed)}"),
            "Temporal jitter": (
                replace(temporal, speed=None, reverse=0), temporal.jitter, f"{temporal.jitter:g} of a step",
            ),
            "Reverse": (
                replace(temporal, speed=None, jitter=0, reverse=min(1, temporal.reverse * 1e9)), temporal.reverse,
                f"in {temporal.reverse:.0%} of clips",
            ),
        }  # fmt: skip
        return [self._in_time(name, one, note) for name, (one, on, note) in alone.items() if on]

    def _in_time(self, name: str, temporal: TemporalAugmentation, note: str) -> SheetClip:
        indices = temporal(self.clip.indices, self.clip.total, generator=self.chance(4))
        frames = self.augmentation.apply(self.clip.read(indices), self.params)
        return SheetClip(frames.numpy(), name, f"frames {' '.join(map(str, indices))}; {note}")


def _mixes(steps: _Steps, other: PreviewClip, mixing: Mixing | None) -> list[SheetClip]:
    """Mixup and cutmix, each by itself, of the first clip and one of another class."""
    if mixing is None:
        return []
    partner = steps.augmentation.apply(
        other.frames,
        replace(
            steps.augmentation.draw(*other.frames.shape[1:3], generator=steps.chance(5)),
            operations=(), flipped=False, colors=(),
        ),
    )  # fmt: skip
    both = torch.stack([_normalized(steps.cropped), _normalized(partner)])
    cells = []
    for name, alpha, alone in (
        ("Mixup", mixing.mixup, replace(mixing, cutmix=0.0, prob=1.0)),
        ("Cutmix", mixing.cutmix, replace(mixing, mixup=0.0, prob=1.0)),
    ):
        if not alpha:
            continue
        # A share near 0 or 1 shows nothing: of a few draws take the most even one.
        draws = [alone.draw(2, *both.shape[-2:], generator=steps.chance(10 + i)) for i in range(4)]
        mixture = min(draws, key=lambda one: abs(one.shares[0] - 0.6))
        share = mixture.shares[0]
        first, second = (clip.label or clip.name for clip in (steps.clip, other))
        note = f"{share:.2f} of {first} + {1 - share:.2f} of {second}; share from Beta({alpha:g}, {alpha:g})"
        cells.append(SheetClip(_denormalized(mixture.clips(both)[0]), name, note))
    return cells


def _together(
    clips: Sequence[PreviewClip],
    augmentation: Augmentation,
    temporal: TemporalAugmentation | None,
    mixing: Mixing | None,
    labels: Sequence[str],
    seed: int,
) -> list[SheetClip]:
    """What training would see: each clip through all steps, mixed with one another."""
    try:
        guarded = augmentation.for_labels(labels)
    except VideoOptionError:
        guarded = replace(augmentation, flip=0)
    numbers = {label: i for i, label in enumerate(labels)}
    values, shown_labels = [], []
    for position, clip in enumerate(clips):
        chance = torch.Generator().manual_seed(seed * 1000 + 100 + position)
        indices = temporal(clip.indices, clip.total, generator=chance) if temporal else None
        frames = clip.frames if indices is None else clip.read(indices)
        augmented, number = guarded.with_label(frames, numbers.get(clip.label), generator=chance)
        values.append(guarded.erase(_normalized(augmented), generator=chance))
        shown_labels.append(labels[number] if number is not None else clip.label or clip.name)
    batch = torch.stack(values)
    notes = shown_labels
    if mixing is not None:
        mixture = mixing.draw(len(batch), *batch.shape[-2:], generator=torch.Generator().manual_seed(seed))
        batch = mixture.clips(batch)
        notes = [
            own if share == 1 else f"{share:.2f} {own} + {1 - share:.2f} {partner}"
            for own, partner, share in zip(shown_labels, shown_labels[::-1], mixture.shares, strict=True)
        ]
    return [SheetClip(_denormalized(v), "All together", note, "good") for v, note in zip(batch, notes, strict=True)]


def _outlined(frames: torch.Tensor, box: Box) -> torch.Tensor:
    """A copy with the box drawn in, 2 pixels wide at 192 pixels of width."""
    shown = frames.clone()
    top, left, height, width = box
    pen = max(round(frames.shape[2] / 96), 1)
    outside = torch.zeros(frames.shape[1:3], dtype=torch.bool)
    outside[top : top + height, left : left + width] = True
    outside[top + pen : top + height - pen, left + pen : left + width - pen] = False
    shown[:, outside] = torch.tensor(_OUTLINE, dtype=torch.uint8)
    return shown


def _normalized(clip: torch.Tensor) -> torch.Tensor:
    return (clip.permute(0, 3, 1, 2).float() / 255 - _MEAN) / _STD


def _denormalized(values: torch.Tensor) -> np.ndarray:
    pixels = ((values * _STD + _MEAN) * 255).round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous().numpy()


def _span(pair: Sequence[float] | None) -> str:
    if pair is None:
        return "1"
    return f"{pair[0]:g}" if pair[0] == pair[1] else f"{pair[0]:g} to {pair[1]:g}"
