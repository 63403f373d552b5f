"""Which tokens pretraining hides: tube and random masks (VideoMAE, section 3.3) and the decoder's running cells (v2,
section 3.2).

All return bool (batch, t·h·w), True = hidden, tokens in order frame, row, column, and hide the same number of tokens in
every sample, as the model needs to batch them. Draw with a CPU `generator` for masks that repeat.
"""

from __future__ import annotations

import torch

from hf_video.errors import ModelInputError

Grid = tuple[int, int, int]


def _draw(batch: int, places: int, hidden: int, generator: torch.Generator | None) -> torch.Tensor:
    """`hidden` of `places` True in each row, uniformly."""
    ranks = torch.rand(batch, places, generator=generator).argsort(dim=1)
    return ranks < hidden


def _check_ratio(ratio: float, places: int) -> int:
    hidden = int(ratio * places)
    if not 0.0 <= ratio < 1.0 or not 0 < hidden < places:
        raise ModelInputError(
            f"A mask ratio of {ratio} hides {hidden} of {places} places; at least one must be hidden and one seen."
        )
    return hidden


def tube_mask(batch: int, grid: Grid, ratio: float = 0.9, *, generator: torch.Generator | None = None) -> torch.Tensor:
    """One spatial mask per sample, the same at all times: int(ratio·h·w)·t tokens hidden. `grid` is (t, h, w)."""
    t, h, w = grid
    return _draw(batch, h * w, _check_ratio(ratio, h * w), generator).repeat(1, t)


def random_mask(
    batch: int, grid: Grid, ratio: float = 0.9, *, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Tokens drawn over space and time alike; hides as many as `tube_mask` of the same ratio, so the two compare."""
    t, h, w = grid
    return _draw(batch, t * h * w, _check_ratio(ratio, h * w) * t, generator)


def running_cell_mask(batch: int, grid: Grid, ratio: float = 0.5) -> torch.Tensor:
    """Tokens that the decoder leaves out (v2): in every cell of 2×2 places, int(4·ratio) are dropped, and which ones
    moves on with time, so that each place is decoded at some times. The same for all samples."""
    t, h, w = grid
    if h % 2 or w % 2:
        raise ModelInputError(f"Running cells are 2x2 places; a grid of {h}x{w} places does not divide into them.")
    kept = 4 - int(4 * ratio)
    if not 0 < kept < 4:
        raise ModelInputError(
            f"A decoder mask ratio of {ratio} keeps {kept} of 4 places a cell; use 0.25, 0.5 or 0.75."
        )
    place = torch.arange(4).view(1, 2, 2)
    cell = (place - torch.arange(t).view(t, 1, 1)) % 4 >= kept
    return cell.repeat(1, h // 2, w // 2).flatten()[None].repeat(batch, 1)


def split_by_mask(mask: torch.Tensor, name: str = "bool_masked_pos") -> tuple[torch.Tensor, torch.Tensor]:
    """bool (B, n) -> token numbers of the False and of the True places, (B, seen) and (B, hidden), in order.

    Sorting keeps shapes regular without boolean indexing, which would break compiled graphs. Raises ModelInputError if
    the rows hide different numbers of tokens.
    """
    counts = mask.sum(1)
    if not torch.compiler.is_compiling() and not torch.equal(counts, counts[:1].expand_as(counts)):
        raise ModelInputError(
            f"{name} hides {counts.tolist()} tokens in the samples of one batch; every sample must hide the same number. "
            "tube_mask and random_mask do."
        )
    hidden = counts[0].item()
    torch._check(hidden >= 0)
    torch._check(hidden <= mask.shape[1])
    order = mask.to(torch.uint8).argsort(dim=1, stable=True)
    return order.tensor_split((mask.shape[1] - hidden,), dim=1)
