"""Run-length tokens (Choudhury et al., 2024, arXiv:2411.05222, section 3; the authors' `static_token_utils.py`):
patches that did not change since the tubelet before are left out before the encoder.

The authors average the tokens that are left. Here what was made of a patch stands for its whole run: everything behind
the encoder sees as many tokens as ever, and the mean is over what the clip shows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F
from transformers.utils import logging

from hf_video.base.outputs import VideoModelOutput
from hf_video.errors import ModelInputError
from hf_video.layers.embeddings import patch_view

logger = logging.get_logger(__name__)

Grid = tuple[int, int, int]


def changed_patches(clips: torch.Tensor, patch: Grid, threshold: float) -> torch.Tensor:
    """Which patches are encoded.

    A patch is compared with the one at its place in the tubelet before: its last frame with that one's first, as the
    authors do it, so that a motion within a tubelet counts too.

    Args:
        clips: (B, T, C, H, W), normalised floats.
        patch: (frames, rows, columns) of a tubelet, in frames and pixels.
        threshold: Mean absolute difference of the pixels, in their own units.

    Returns:
        bool (B, t·h·w) in order frame, row, column: True where the difference is larger, and in the first tubelet.
    """
    depth, height, width = patch
    clips = clips.float()
    change = (clips[:, 2 * depth - 1 :: depth] - clips[:, :-depth:depth]).abs()
    changed = ~(patch_view(change, (1, height, width)).mean((4, 5, 6, 7)) <= threshold)  # so is what is no number
    return F.pad(changed, (0, 0, 0, 0, 1, 0), value=True).flatten(1)


def encode_changed(
    encode: Callable[..., VideoModelOutput], clips: torch.Tensor, kept: torch.Tensor, grid: Grid, *flags: bool | None
) -> VideoModelOutput:
    """Encodes the kept patches of each clip on its own, as clips keep different numbers, and puts what became of them
    in the places of the whole run.

    Args:
        encode: (1, T, C, H, W), grid, token numbers (1, n) and flags to states (1, n, D).
        clips: (B, T, C, H, W).
        kept: bool (B, t·h·w), see `changed_patches`.
        grid: (time, rows, columns).
        flags: What `encode` takes besides.

    Returns:
        States (B, t·h·w, D), and `kept_tokens`. In `attentions` nothing looks at a token that was left out.

    Raises:
        ModelInputError: In a graph that is to be exported or traced, which can't choose by the pixels.
    """
    if torch.jit.is_tracing() or (torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()):
        raise ModelInputError(
            'static_patches="drop" encodes other tokens in every clip, which an exported graph can\'t: export the '
            'model with static_patches="keep".'
        )
    times, rows, columns = grid
    numbers = torch.arange(kept.shape[1], device=kept.device)
    # Each token's run, by the number of its first token: the last that was kept at this place.
    runs = torch.where(kept, numbers, 0).view(-1, times, rows * columns).cummax(1).values.flatten(1)
    clips_states = []
    for clip, chosen, run in zip(clips.split(1), kept, runs, strict=True):
        index = chosen.nonzero().T
        clips_states.append(in_runs(encode(clip, grid, index, *flags), index[0], (chosen.cumsum(0) - 1)[run]))
    logger.info(f'static_patches="drop": {int(kept.sum())} of {kept.numel()} patches were encoded.')
    joined = [join(values) for values in zip(*(one.values() for one in clips_states), strict=True)]
    return VideoModelOutput(**dict(zip(clips_states[0], joined, strict=True)), kept_tokens=kept)


def in_runs(states: VideoModelOutput, index: torch.Tensor, ranks: torch.Tensor) -> VideoModelOutput:
    """States of the kept tokens `index` (n,) at all places: `ranks` (tokens,) says which of the n each place shows."""

    def everywhere(probs: torch.Tensor) -> torch.Tensor:
        spread = probs.new_zeros(*probs.shape[:2], len(ranks), len(ranks))
        spread[..., index] = probs[:, :, ranks]
        return spread

    tokens, hidden_states, attentions = states.last_hidden_state, states.hidden_states, states.attentions
    return VideoModelOutput(
        last_hidden_state=None if tokens is None else tokens[:, ranks],
        hidden_states=None if hidden_states is None else tuple(state[:, ranks] for state in hidden_states),
        attentions=None if attentions is None else tuple(map(everywhere, attentions)),
    )


def join(values: tuple[Any, ...]) -> Any:
    """Tensors of one clip each, or tuples of them, one for each block, as those of a batch."""
    if isinstance(values[0], torch.Tensor):
        return torch.cat(values)
    return tuple(map(torch.cat, zip(*values, strict=True)))
