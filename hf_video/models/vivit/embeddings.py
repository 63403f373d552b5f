"""ViViT's tokens (sections 3.1 and 3.2): tubelets, class token, learned positions, and the central-frame start."""

from __future__ import annotations

from math import prod

import torch
from torch import nn

from hf_video.layers.embeddings import PatchEmbedding, resize_grid
from hf_video.models.vivit.configuration_vivit import VivitConfig


def at_central_frame(filters: torch.Tensor, frames: int) -> torch.Tensor:
    """Image filters (D, C, p, q) as tubelet filters (D, C, frames, p, q) that see frame `frames // 2` of each tubelet
    and nothing of the others (the paper's equation 9): step 0 is the image model on those frames."""
    tubelets = filters.new_zeros(*filters.shape[:2], frames, *filters.shape[2:])
    tubelets[:, :, frames // 2] = filters
    return tubelets


class StageEmbeddings(nn.Module):
    """What a transformer starts from: tokens on a grid, a class token before them if there is one, learned positions.
    Another grid than `grid` takes interpolated positions, along time and space as axes of their own."""

    def __init__(self, config: VivitConfig, grid: tuple[int, ...]) -> None:
        super().__init__()
        self.grid = tuple(grid)
        self.extra = int(config.has_class_token)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size)) if self.extra else None
        self.position_embeddings = nn.Parameter(torch.zeros(1, self.extra + prod(grid), config.hidden_size))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def positions(self, grid: tuple[int, ...]) -> torch.Tensor:
        """(1, extra + prod(grid), D)."""
        if tuple(grid) == self.grid:
            return self.position_embeddings
        table = self.position_embeddings
        return torch.cat([table[:, : self.extra], resize_grid(table[:, self.extra :], self.grid, grid)], dim=1)

    @torch.no_grad()
    def resize(self, grid: tuple[int, ...]) -> None:
        """Positions for another grid, from here on."""
        if tuple(grid) != self.grid:
            self.position_embeddings = nn.Parameter(self.positions(grid), self.position_embeddings.requires_grad)
            self.grid = tuple(grid)

    def forward(self, tokens: torch.Tensor, grid: tuple[int, ...]) -> torch.Tensor:
        """(rows, prod(grid), D) -> (rows, extra + prod(grid), D)."""
        if self.cls_token is not None:
            tokens = torch.cat([self.cls_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        return self.dropout(tokens + self.positions(grid))


class VivitEmbeddings(StageEmbeddings):
    """Tubelets besides. Positions lie on (time, rows, columns), or for model 2 on (rows, columns)."""

    def __init__(self, config: VivitConfig, grid: tuple[int, ...]) -> None:
        super().__init__(config, grid)
        self.patch_embeddings = PatchEmbedding(config.num_channels, config.hidden_size, config.patch)

    def tubelets(self, pixel_values: torch.Tensor, grid: tuple[int, int, int]) -> torch.Tensor:
        """(B, T, C, H, W) -> (B, t·n, D); a rest smaller than a tubelet is left out."""
        frames, rows, columns = (n * size for n, size in zip(grid, self.patch_embeddings.patch, strict=True))
        return self.patch_embeddings(pixel_values[:, :frames, :, :rows, :columns])
