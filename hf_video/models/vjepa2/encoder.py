"""V-JEPA 2's encoder and predictor, both stacks of the blocks in `blocks`."""

from __future__ import annotations

import torch
from torch import nn

from hf_video.base.outputs import VideoModelOutput
from hf_video.layers.embeddings import PatchEmbedding
from hf_video.layers.vit import run_blocks
from hf_video.models.vjepa2.blocks import make_layers
from hf_video.models.vjepa2.configuration_vjepa2 import VJEPA2Config
from hf_video.models.vjepa2.masks import Masks
from hf_video.models.vjepa2.rotation import RotaryTables, Rotation, at_tokens

Grid = tuple[int, int, int]


class VJEPA2Embeddings(nn.Module):
    def __init__(self, config: VJEPA2Config) -> None:
        super().__init__()
        self.patch_embeddings = PatchEmbedding(config.in_chans, config.hidden_size, config.patch, name="proj")

    def forward(self, pixel_values_videos: torch.Tensor, places: torch.Tensor | None = None) -> torch.Tensor:
        """(B, T, C, H, W), of any floating type -> (B, t·h·w, D), or (B, n, D) for token numbers (B, n)."""
        return self.patch_embeddings(pixel_values_videos.to(next(self.patch_embeddings.parameters()).dtype), places)


class VJEPA2Encoder(nn.Module):
    """Tubelets, blocks and the last norm. With `places`, token numbers (B, n), these alone are embedded and seen."""

    def __init__(self, config: VJEPA2Config) -> None:
        super().__init__()
        width, heads = config.hidden_size, config.num_attention_heads
        self.embeddings = VJEPA2Embeddings(config)
        self.tables = RotaryTables(width // heads)
        self.layer = make_layers(config, width, heads, config.mlp_ratio, config.num_hidden_layers)
        self.layernorm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(
        self, pixel_values_videos: torch.Tensor, grid: Grid, places: torch.Tensor | None = None, **flags: bool
    ) -> VideoModelOutput:
        tokens = self.embeddings(pixel_values_videos, places)
        rotation = self.tables(grid, tokens.dtype, tokens.device)
        if places is not None:
            rotation = at_tokens(rotation, places)
        tokens, hidden_states, attentions = run_blocks(self.layer, tokens, rotation=rotation, **flags)
        return VideoModelOutput(self.layernorm(tokens), hidden_states, attentions)


class VJEPA2PredictorEmbeddings(nn.Module):
    """Context tokens in the predictor's width, and a mask token for each token to be predicted: always the same of
    several (`pred_mask_token`)."""

    def __init__(self, config: VJEPA2Config) -> None:
        super().__init__()
        self.predictor_embeddings = nn.Linear(config.hidden_size, config.pred_hidden_size)
        self.mask_tokens = nn.Parameter(torch.zeros(config.pred_num_mask_tokens, 1, 1, config.pred_hidden_size))
        self.mask_token = config.pred_mask_token % config.pred_num_mask_tokens

    def forward(self, context: torch.Tensor, targets: int) -> torch.Tensor:
        """(rows, context tokens, D) -> (rows, context tokens + targets, P)."""
        mask_token = self.mask_tokens[self.mask_token].expand(context.shape[0], targets, -1)
        return torch.cat([self.predictor_embeddings(context), mask_token], dim=1)


class VJEPA2Predictor(nn.Module):
    """A narrow transformer over context and mask tokens, each with its own place. The authors sort tokens by place
    before and back after, which changes nothing: attention sees a set."""

    def __init__(self, config: VJEPA2Config) -> None:
        super().__init__()
        width, heads = config.pred_hidden_size, config.pred_num_attention_heads
        self.embeddings = VJEPA2PredictorEmbeddings(config)
        self.tables = RotaryTables(width // heads)
        self.layer = make_layers(config, width, heads, config.pred_mlp_ratio, config.pred_num_hidden_layers)
        self.layernorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.proj = nn.Linear(width, config.hidden_size)

    def forward(self, context: torch.Tensor, grid: Grid, masks: tuple[Masks, Masks] | None = None) -> torch.Tensor:
        """Context (rows, n, D) and the places of context and target, lists of (B, n) and (B, m) -> (rows, m, D).
        Without places both are the whole grid."""
        rotation = self.tables(grid, context.dtype, context.device)
        if masks is None:
            targets, rotation = context.shape[1], both(rotation)
        else:
            places = torch.cat([torch.cat(list(mask)) for mask in masks], dim=1)
            targets, rotation = masks[1][0].shape[1], at_tokens(rotation, places)
        tokens, _, _ = run_blocks(self.layer, self.embeddings(context, targets), rotation=rotation)
        return self.proj(self.layernorm(tokens[:, context.shape[1] :]))


def both(rotation: Rotation) -> Rotation:
    """For tokens that stand there twice, as context and as target."""
    cos, sin = rotation
    return torch.cat([cos, cos]), torch.cat([sin, sin])
