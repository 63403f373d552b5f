"""Which tokens of a clip are context, and which are to be predicted from it: masks that a caller gives are checked, and
those of pretraining drawn (V-JEPA 2's `src/masks/multiseq_multiblock3d.py`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod, sqrt
from typing import Any

import torch

from hf_video.errors import ConfigError, ModelInputError, check_count, check_number

# Token numbers, (B, n) int64, all of one shape.
Masks = Sequence[torch.Tensor]


def check_masks(
    context: Masks | None,
    target: Masks | None,
    batch: int,
    grid: tuple[int, int, int],
    skip_predictor: bool = False,
    *,
    uneven: bool = False,
) -> tuple[Masks | None, Masks | None]:
    """Both masks as lists, or None. Raises ModelInputError unless they are token numbers of the grid,
    as many for every clip, and, for the predictor, a target to each context; `uneven` masks of one list may take
    different numbers of tokens."""
    if context is None and target is None:
        return None, None
    if not skip_predictor and (context is None or target is None):
        name = "target_mask" if target is None else "context_mask"
        raise ModelInputError(f"{name} is missing: pass both masks, or none to predict the whole clip from itself.")
    seen = None if context is None else check_mask("context_mask", context, batch, grid, uneven)
    hidden = None if target is None else check_mask("target_mask", target, batch, grid, uneven)
    if seen is not None and hidden is not None and len(seen) != len(hidden):
        raise ModelInputError(
            f"There are {len(seen)} context masks and {len(hidden)} target masks: each target is predicted from one "
            "context."
        )
    return seen, hidden


def check_mask(
    name: str, mask: Masks | torch.Tensor, batch: int, grid: tuple[int, int, int], uneven: bool = False
) -> Masks:
    """A list of int64 (B, n); see `check_masks`."""
    masks = [mask] if isinstance(mask, torch.Tensor) and mask.ndim == 2 else list(mask)
    for one in masks:
        if (
            one.ndim != 2
            or one.shape[0] != batch
            or one.shape[1] == 0
            or one.is_floating_point()
            or one.dtype is torch.bool
        ):
            raise ModelInputError(
                f"{name} holds a {one.dtype} of shape {tuple(one.shape)}; expected token numbers, int64 ({batch}, "
                "tokens)."
            )
        if not uneven and one.shape != masks[0].shape:
            raise ModelInputError(
                f"{name} holds {one.shape[1]} and {masks[0].shape[1]} tokens: every mask takes as many."
            )
        if torch.compiler.is_compiling():
            continue
        least, most = int(one.min()), int(one.max())
        if least < 0 or most >= prod(grid):
            raise ModelInputError(
                f"{name} has token numbers from {least} to {most}; the clip has {prod(grid)} tokens, a grid "
                f"{tuple(grid)} of (time, rows, columns)."
            )
    if not masks:
        raise ModelInputError(f"{name} is an empty list.")
    return masks


def take_tokens(tokens: torch.Tensor, masks: Masks | None) -> torch.Tensor:
    """(B, N, D) -> (masks · B, n, D), the tokens of one mask after those of another; all of them without masks."""
    if masks is None:
        return tokens
    batch = torch.arange(tokens.shape[0], device=tokens.device)[:, None]
    return torch.cat([tokens[batch, mask.to(tokens.device)] for mask in masks])


TRIES = 100  # for a place of the blocks, and for a size of them


@dataclass(frozen=True)
class BlockMask:
    """A kind of mask: what `blocks` blocks cover together is to be predicted, the rest is context.

    All blocks of a batch have one size, drawn anew for each batch: a share of the times, a share of the places of a
    frame, and height by width, each uniformly from its range. Where they lie is drawn for each clip.
    """

    blocks: int
    spatial_scale: Sequence[float]
    temporal_scale: Sequence[float] = (1.0, 1.0)
    aspect_ratio: Sequence[float] = (0.75, 1.5)

    def __post_init__(self) -> None:
        check_count("blocks", self.blocks, ConfigError)
        for name, most in (("spatial_scale", 1), ("temporal_scale", 1), ("aspect_ratio", None)):
            bounds = getattr(self, name)
            if not isinstance(bounds, Sequence) or len(bounds) != 2:
                raise ConfigError(f"{name} of a mask is a range [least, most], and {bounds!r} came.")
            for bound in bounds:
                check_number(name, bound, ConfigError, above=0, most=most)
            if bounds[0] > bounds[1]:
                raise ConfigError(f"{name} of a mask is a range [least, most], and {list(bounds)} came.")

    def draw_size(self, grid: tuple[int, int, int], generator: torch.Generator | None) -> tuple[int, int, int]:
        """(times, rows, columns) of a block, at least one of each."""
        scales = torch.rand(3, generator=generator).tolist()
        bounds = (self.temporal_scale, self.spatial_scale, self.aspect_ratio)
        long, wide, ratio = (low + share * (high - low) for share, (low, high) in zip(scales, bounds, strict=True))
        t, h, w = grid
        area = int(h * w * wide)
        sizes = (int(t * long), round(sqrt(area * ratio)), round(sqrt(area / ratio)))
        return tuple(min(max(size, 1), most) for size, most in zip(sizes, grid, strict=True))  # type: ignore[return-value]

    def draw_hidden(
        self, grid: tuple[int, int, int], size: tuple[int, int, int], generator: torch.Generator | None
    ) -> torch.Tensor | None:
        """bool (t·h·w), True where one of the blocks lies; None where they left nothing to see TRIES times."""
        for _ in range(TRIES):
            hidden = torch.zeros(grid, dtype=torch.bool)
            for _ in range(self.blocks):
                starts = [
                    int(torch.randint(n - k + 1, (), generator=generator)) for n, k in zip(grid, size, strict=True)
                ]
                hidden[tuple(slice(start, start + k) for start, k in zip(starts, size, strict=True))] = True
            if not hidden.all():
                return hidden.flatten()
        return None


# Of all published configurations (`configs/train`): many small blocks, and two large ones.
SHORT_RANGE = BlockMask(blocks=8, spatial_scale=(0.15, 0.15))
LONG_RANGE = BlockMask(blocks=2, spatial_scale=(0.7, 0.7))


def block_masks(kinds: Sequence[Mapping[str, Any]]) -> list[BlockMask]:
    """Kinds of masks from their fields. Raises ConfigError for none, and for fields that there are not."""
    known = BlockMask.__dataclass_fields__
    for kind in kinds:
        if not isinstance(kind, Mapping) or not {"blocks", "spatial_scale"} <= set(kind) <= set(known):
            optional = ", ".join(list(known)[2:])
            raise ConfigError(f"A kind of mask has blocks, spatial_scale and, if need be, {optional}; {kind!r} came.")
    if not kinds:
        raise ConfigError("There is no kind of mask: pretraining needs one at least.")
    return [BlockMask(**kind) for kind in kinds]


def draw_block_masks(
    kind: BlockMask,
    grid: tuple[int, int, int],
    generators: Sequence[torch.Generator | None],
    *,
    size_generator: torch.Generator | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Masks of one kind for a batch.

    As in the authors' code, blocks overlap as they will, so clips hide different numbers of tokens; of each, context
    and target keep as many as the clip with the fewest has, the first in order.

    Args:
        kind: What is drawn.
        grid: Tokens of a clip (times, rows, columns).
        generators: Of the places of the blocks, one for each clip; None draws from torch's own.
        size_generator: Of the size that all blocks have.

    Returns:
        Context (B, n) and target (B, m), int64 token numbers in order time, row, column.

    Raises:
        ModelInputError: The blocks cover such small clips wholly, however they are drawn.
    """
    for _ in range(TRIES):
        size = kind.draw_size(grid, size_generator)
        drawn = []
        for generator in generators:
            hidden = kind.draw_hidden(grid, size, generator)
            if hidden is None:
                break
            drawn.append(hidden)
        else:
            return first_of_each([~hidden for hidden in drawn]), first_of_each(drawn)
    raise ModelInputError(
        f"{kind.blocks} blocks of {size[0]}x{size[1]}x{size[2]} tokens leave nothing to see of a clip of "
        f"{grid[0]}x{grid[1]}x{grid[2]} (time, rows, columns), however they are drawn. Take larger clips or a smaller "
        "patch_size, fewer blocks, or a smaller spatial_scale or temporal_scale."
    )


def first_of_each(chosen: Sequence[torch.Tensor]) -> torch.Tensor:
    """bool (N,) -> the numbers of True places, (B, n) int64: of each the first n, which the one with the fewest has."""
    places = [one.nonzero()[:, 0] for one in chosen]
    return torch.stack([one[: min(map(len, places))] for one in places])
