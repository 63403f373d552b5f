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


def running_cell_mask(
    batch: int, grid: Grid, ratio: float = 0.5, *, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Tokens that the decoder leaves out (v2): in every cell of 2×2 places, int(4·ratio) are dropped, and which ones
    moves on by one place with time, so that each place is decoded at some times. Each sample starts at a place of its
    own, as in the official code."""
    t, h, w = grid
    if h % 2 or w % 2:
        raise ModelInputError(f"Running cells are 2x2 places; a grid of {h}x{w} places does not divide into them.")
    dropped = int(4 * ratio)
    if not 0 < dropped < 4:
        raise ModelInputError(
            f"A decoder mask ratio of {ratio} drops {dropped} of 4 places a cell; use 0.25, 0.5 or 0.75."
        )
    start = torch.randint(4, (batch, 1, 1, 1), generator=generator)
    place, time = torch.arange(4).view(2, 2), torch.arange(t)[:, None, None]
    return ((start + time + place) % 4 < dropped).repeat(1, 1, h // 2, w // 2).flatten(1)


def _uneven(name: str, counts: object) -> str:
    return (
        f"{name} hides {counts} tokens in the samples of one batch; every sample must hide the same number. tube_mask "
        "and random_mask do."
    )


def _count_tokens(mask: torch.Tensor, name: str) -> tuple[int, int]:
    """How many tokens each row of bool (B, n) leaves and hides; raises ModelInputError unless rows agree.

    In a compiled or exported graph the two numbers are symbols that come out of the mask at run time, each known to be
    at least 1 (no kernel is asked for zero tokens), and the check is part of the graph.
    """
    counts = mask.sum(1)
    if torch.compiler.is_compiling():
        torch._assert_async((counts == counts[0]).all(), _uneven(name, "different numbers of"))
        seen, hidden = (~mask[0]).sum().item(), counts[0].item()
        for count in (seen, hidden):
            torch._check(count >= 1)
            torch._check(count < mask.shape[1])
        return seen, hidden
    while torch._C._functorch.is_functorch_wrapped_tensor(counts):
        counts = torch._C._functorch.get_unwrapped(counts)  # under torch.func.vmap: of all samples
    counts = counts.flatten().tolist()  # the one time that a GPU is waited for
    if len(set(counts)) > 1:
        raise ModelInputError(_uneven(name, counts))
    if counts[0] == mask.shape[1]:
        raise ModelInputError(f"{name} hides all {counts[0]} tokens; at least one must be seen.")
    return mask.shape[1] - counts[0], counts[0]


def split_by_mask(mask: torch.Tensor, name: str = "bool_masked_pos") -> tuple[torch.Tensor, torch.Tensor]:
    """bool (B, n) -> token numbers of the False and of the True places, (B, seen) and (B, hidden), in order.

    Sorting keeps shapes regular without boolean indexing, which would break compiled graphs. Raises ModelInputError if
    the rows hide different numbers of tokens, or all.
    """
    seen, hidden = _count_tokens(mask, name)
    order = mask.to(torch.uint8).argsort(dim=1, stable=True)
    return order.narrow(1, 0, seen), order.narrow(1, seen, hidden)
