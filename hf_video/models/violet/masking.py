"""What VIOLET's pretraining hides (arXiv:2111.12681, section 3.2; `Agent_Pretrain.masking` of the authors'
`main_pretrain.py`). Each sample is masked in one of two ways, by a toss:

- **blockwise**: T cuboids at random over the grid of patches, and each word for itself;
- **attended**: tokens of both kinds that the joint encoder looks at most, drawn in proportion to that.

Hidden words become [MASK]. Hidden patches become black pixels: the video encoder mixes neighbours, so hiding its
tokens alone would leave them to be read off.

Draw with a CPU `generator` for masks that repeat.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from hf_video.errors import ModelInputError

Grid = tuple[int, int, int]
IGNORED = -100  # transformers' label for "no loss here"


def blockwise_mask(grid: Grid, *, generator: torch.Generator | None = None) -> torch.Tensor:
    """bool (T, h, w), True = hidden: the union of T cuboids. Each is 1 to T - 1 frames long (1 where T is 1), and from
    1 to below 2/3 of the grid high and wide; sizes and places are uniform."""
    mask = torch.zeros(grid, dtype=torch.bool)
    limits = (grid[0] - 1, *(2 * n // 3 - 1 for n in grid[1:]))
    for _ in range(grid[0]):
        sizes = [_up_to(max(limit, 1), generator) for limit in limits]
        places = [_up_to(n - size + 1, generator) - 1 for n, size in zip(grid, sizes, strict=True)]
        (t, y, x), (frames, rows, columns) = places, sizes
        mask[t : t + frames, y : y + rows, x : x + columns] = True
    return mask


def attended_mask(
    attention: torch.Tensor, maskable: torch.Tensor, probability: float, *, generator: torch.Generator | None = None
) -> torch.Tensor:
    """bool (B, n), True = hidden: int(probability · n) tokens of each row, or as many as may be, without replacement
    and in proportion to `attention` (B, n) where `maskable` (B, n)."""
    weights = attention.float().masked_fill(~maskable, 0.0).clamp_min(0)
    # The first to ring of n exponential clocks with these rates: a draw without replacement, for all rows at once.
    times = -torch.rand(weights.shape, generator=generator).log().to(weights.device) / weights
    chosen = times.topk(int(probability * weights.shape[1]), dim=1, largest=False).indices
    return torch.zeros_like(maskable).scatter_(1, chosen, True) & (weights > 0)


def received_attention(attentions: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """How much each token is looked at, (B, n): the mean over heads, summed over layers and queries, of probabilities
    (B, heads, queries, n)."""
    return sum(layer.mean(1).sum(1) for layer in attentions)


def split_tokens(mask: torch.Tensor, grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
    """A mask of the joint encoder's tokens (B, T·(1 + h·w) + L) -> of patches (B, T, h, w) and of words (B, L)."""
    frames, rows, columns = grid
    video, text = mask.tensor_split([frames * (1 + rows * columns)], dim=1)
    return video.unflatten(1, (frames, -1))[:, :, 1:].unflatten(2, (rows, columns)), text


def join_tokens(patches: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    """The way back, with False at every frame's own token."""
    video = patches.flatten(2)
    video = torch.cat([torch.zeros_like(video[:, :, :1]), video], dim=2).flatten(1)
    return torch.cat([video, words], dim=1)


def draw_masks(
    attention: torch.Tensor,
    words: torch.Tensor,
    grid: Grid,
    probability: float = 0.15,
    *,
    generator: torch.Generator | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which patches (B, T, h, w) and words (B, L) to hide, bool.

    Args:
        attention: (B, T·(1 + h·w) + L), as `received_attention` gives it.
        words: bool (B, L), the words that may be hidden: no [CLS], [SEP] or padding.
        grid: (T, h, w).
        probability: of a word in blockwise masking, and the share of all tokens in attended masking.
    """
    batch, device = len(words), words.device
    attended = torch.rand(batch, generator=generator).to(device) < 0.5
    blocks = torch.stack([blockwise_mask(grid, generator=generator) for _ in range(batch)]).to(device)
    singly = (torch.rand(words.shape, generator=generator).to(device) < probability) & words
    maskable = join_tokens(torch.ones_like(blocks), words)
    by_attention = attended_mask(attention, maskable, probability, generator=generator)
    patches, attended_words = split_tokens(by_attention, grid)
    return (
        torch.where(attended[:, None, None, None], patches, blocks),
        torch.where(attended[:, None], attended_words, singly),
    )


def hide_patches(pixel_values: torch.Tensor, patches: torch.Tensor, black: torch.Tensor) -> torch.Tensor:
    """(B, T, C, H, W) with the pixels of hidden patches (B, T, h, w) set to `black` (C,)."""
    rows, columns = (size // n for size, n in zip(pixel_values.shape[-2:], patches.shape[-2:], strict=True))
    hidden = patches.repeat_interleave(rows, 2).repeat_interleave(columns, 3)[:, :, None]
    return torch.where(hidden, black.to(pixel_values)[:, None, None], pixel_values)


def labels_where(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """`values` where they are hidden, -100 elsewhere."""
    if values.shape != mask.shape:
        raise ModelInputError(
            f"visual_tokens has shape {tuple(values.shape)}; expected one code for each patch, (batch, frames, rows, "
            f"columns) {tuple(mask.shape)}."
        )
    return values.masked_fill(~mask, IGNORED)


def _up_to(most: int, generator: torch.Generator | None) -> int:
    return int(torch.randint(1, most + 1, (), generator=generator))


def cross_entropy_where_hidden(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The mean where there are labels, in float32; 0 where all are -100."""
    total = F.cross_entropy(logits.float().flatten(0, -2), labels.flatten(), ignore_index=IGNORED, reduction="sum")
    return total / (labels != IGNORED).sum().clamp(min=1)


def other_rows(batch: int, count: int, device: torch.device) -> torch.Tensor:
    """For each row of a batch, `count` different others, (B, count)."""
    order = torch.rand(batch, batch, device=device)
    order = order.masked_fill(torch.eye(batch, dtype=torch.bool, device=device), 2.0)
    return order.argsort(1)[:, :count]
