"""Which tokens of a clip are context, and which are to be predicted from it."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch

from hf_video.errors import ModelInputError

# Token numbers, (B, n) int64, all of one shape.
Masks = Sequence[torch.Tensor]


def check_masks(
    context: Masks | None,
    target: Masks | None,
    batch: int,
    grid: tuple[int, int, int],
    skip_predictor: bool = False,
) -> tuple[Masks | None, Masks | None]:
    """Both masks as lists, or None. Raises ModelInputError unless they are token numbers of the grid,
    as many for every clip, and, for the predictor, a target to each context."""
    if context is None and target is None:
        return None, None
    if not skip_predictor and (context is None or target is None):
        name = "target_mask" if target is None else "context_mask"
        raise ModelInputError(f"{name} is missing: pass both masks, or none to predict the whole clip from itself.")
    seen = None if context is None else check_mask("context_mask", context, batch, grid)
    hidden = None if target is None else check_mask("target_mask", target, batch, grid)
    if seen is not None and hidden is not None and len(seen) != len(hidden):
        raise ModelInputError(
            f"There are {len(seen)} context masks and {len(hidden)} target masks: each target is predicted from one "
            "context."
        )
    return seen, hidden


def check_mask(name: str, mask: Masks | torch.Tensor, batch: int, grid: tuple[int, int, int]) -> Masks:
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
        if one.shape != masks[0].shape:
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
