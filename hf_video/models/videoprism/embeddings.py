"""What VideoPrism's transformers start from: patches with positions in space, then tokens with positions in time; words
with sines and a class token behind them."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from hf_video.layers.embeddings import PatchEmbedding
from hf_video.models.videoprism.configuration_videoprism import VideoPrismTextConfig, VideoPrismVisionConfig


def resize_positions(table: torch.Tensor, old: tuple[int, int], new: tuple[int, int]) -> torch.Tensor:
    """(1, rows · columns, D) to another number of rows and columns: bilinear with antialiasing, as `jax.image.resize`
    has it in the official code."""
    if tuple(old) == tuple(new):
        return table
    grid = table.unflatten(1, tuple(old)).permute(0, 3, 1, 2).float()
    grid = F.interpolate(grid, size=tuple(new), mode="bilinear", antialias=True)
    return grid.flatten(2).transpose(1, 2).to(table.dtype)


class GridPositions(nn.Module):
    """Learned positions on a grid of (rows, columns); times have one column."""

    def __init__(self, grid: tuple[int, int], config: VideoPrismVisionConfig) -> None:
        super().__init__()
        self.grid = grid
        self.position_embeddings = nn.Parameter(torch.zeros(1, grid[0] * grid[1], config.hidden_size))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def positions(self, grid: tuple[int, int]) -> torch.Tensor:
        """(1, rows · columns, D) for any grid."""
        return resize_positions(self.position_embeddings, self.grid, grid)

    @torch.no_grad()
    def resize(self, grid: tuple[int, int]) -> None:
        """Positions for another grid, from here on."""
        if grid != self.grid:
            self.position_embeddings = nn.Parameter(self.positions(grid), self.position_embeddings.requires_grad)
            self.grid = grid


class VideoPrismSpatialEmbeddings(GridPositions):
    """(B, T, C, H, W) -> (B·T, rows · columns, D)."""

    def __init__(self, config: VideoPrismVisionConfig, grid: tuple[int, int]) -> None:
        super().__init__(grid, config)
        _, p, q = config.tubelet_size
        self.patch_embeddings = PatchEmbedding(config.num_channels, config.hidden_size, (1, p, q))

    def forward(self, pixel_values_videos: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        patches = self.patch_embeddings(pixel_values_videos).unflatten(1, (-1, grid[0] * grid[1])).flatten(0, 1)
        return self.dropout(patches + self.positions(grid))


class VideoPrismTemporalEmbeddings(GridPositions):
    """(B·T, N, D), places of each frame -> (B·N, T, D), times of each place."""

    def __init__(self, config: VideoPrismVisionConfig, frames: int) -> None:
        super().__init__((frames, 1), config)

    def forward(self, tokens: torch.Tensor, frames: int) -> torch.Tensor:
        tokens = tokens.unflatten(0, (-1, frames)).transpose(1, 2)
        return self.dropout((tokens + self.positions((frames, 1))).flatten(0, 1))


def sines_and_cosines(positions: int, width: int, last: int) -> torch.Tensor:
    """(positions, width): sines, then cosines, of position / 10000^(i / last) for i below width / 2. `last` is width/2
    in plain transformers, so the slowest is not quite 10000, and width/2 - 1 in the official code."""
    rates = 10000.0 ** (-torch.arange(width // 2, device="cpu").double() / max(last, 1))
    angles = torch.arange(positions, device="cpu").double()[:, None] * rates
    return torch.cat((angles.sin(), angles.cos()), dim=1).float()


class VideoPrismTextEmbeddings(nn.Module):
    """Token ids (N, L) -> (N, L + 1, D), the class token last. Positions are in files, under transformers' names, and
    what a file holds counts; those of a model without a file are transformers'."""

    position_embedding: torch.Tensor
    position_ids: torch.Tensor

    def __init__(self, config: VideoPrismTextConfig) -> None:
        super().__init__()
        self.length, self.width = config.max_position_embeddings, config.hidden_size
        self.token_embedding = nn.Embedding(config.vocab_size, self.width)
        self.register_buffer("position_embedding", self.table())
        self.register_buffer("position_ids", torch.arange(self.length)[None])
        self.cls_emb = nn.Parameter(torch.zeros(1, 1, self.width))

    def table(self) -> torch.Tensor:
        return sines_and_cosines(self.length, self.width, self.width // 2)

    def forward(
        self, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None, position_ids: torch.Tensor | None
    ) -> torch.Tensor:
        words = self.token_embedding(input_ids) if inputs_embeds is None else inputs_embeds
        places = self.position_ids[:, : words.shape[1]] if position_ids is None else position_ids
        words = words * self.width**0.5 + self.position_embedding[places].to(words.dtype)
        return torch.cat((words, (self.cls_emb * self.width**0.5).expand(words.shape[0], -1, -1)), dim=1)
