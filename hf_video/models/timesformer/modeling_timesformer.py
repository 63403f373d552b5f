"""TimeSformer (Bertasius, Wang, Torresani, 2021, arXiv:2102.05095), section 3, after the authors' `models/vit.py`.

A clip of T frames is cut into N patches a frame. One class token stands for the whole clip. Tokens are ordered class
token first, then patch by patch with time fastest: 1 + patch·T + t. In `divided_space_time` each block attends over
time (each patch place on its own, the class token left out), then over space (each frame on its own, with the class
token; what it gathers is averaged over frames), then applies the MLP.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn
from transformers import initialization as init
from transformers.utils import logging

from hf_video.base.modeling import VideoClassifier, VideoPreTrainedModel, video_features
from hf_video.base.outputs import VideoFeatures, VideoModelOutput
from hf_video.errors import ModelInputError
from hf_video.layers.embeddings import PatchEmbedding, resize_grid
from hf_video.layers.linear import chain, is_untouched, on_rows
from hf_video.layers.vit import Attention, Dense, DropPath, FusedSelfAttention, ViTBlock, drop_path_rates, run_blocks
from hf_video.models.timesformer.configuration_timesformer import TimesformerConfig

logger = logging.get_logger(__name__)


class TimesformerEmbeddings(nn.Module):
    """Patches, class token, and learned positions in space and time. Other sizes than the config's take the nearest
    learned position, as the official code does; time and space are resized apart."""

    def __init__(self, config: TimesformerConfig) -> None:
        super().__init__()
        self.grid = tuple(config.position_grid or config.grid)
        frames, rows, columns = self.grid
        self.patch_embeddings = PatchEmbedding(config.num_channels, config.hidden_size, config.patch, dims=2)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + rows * columns, config.hidden_size))
        self.time_embeddings = None
        if config.attention_type != "space_only":
            self.time_embeddings = nn.Parameter(torch.zeros(1, frames, config.hidden_size))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, pixel_values: torch.Tensor, grid: tuple[int, int, int]) -> torch.Tensor:
        """(B, T, C, H, W) -> (B, 1 + N·T, D), or (B·T, 1 + N, D) for space_only."""
        frames, rows, columns = grid
        _, p, q = self.patch_embeddings.patch
        patches = self.patch_embeddings(pixel_values[..., : rows * p, : columns * q])
        patches = patches.unflatten(1, (frames, rows * columns))
        places = resize_grid(self.position_embeddings[:, 1:], self.grid[1:], grid[1:], mode="nearest")
        cls = self.cls_token + self.position_embeddings[:, :1]
        patches = self.dropout(patches + places[:, None])
        if self.time_embeddings is None:
            patches = patches.flatten(0, 1)
        else:
            times = resize_grid(self.time_embeddings, self.grid[:1], grid[:1], mode="nearest")
            patches = self.dropout(patches + times[:, :, None]).transpose(1, 2).flatten(1, 2)
        return torch.cat([self.dropout(cls.expand(patches.shape[0], -1, -1)), patches], dim=1)


def block_parts(config: TimesformerConfig, drop_path: float, core: type = FusedSelfAttention) -> dict:
    """What every block of the three attention types is made of."""
    return {
        "attention": core(config, config.hidden_size, config.num_attention_heads, config.qkv_bias),
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "act": config.hidden_act,
        "eps": config.layer_norm_eps,
        "dropout": config.hidden_dropout_prob,
        "mlp_dropout": config.hidden_dropout_prob,
        "drop_path": drop_path,
    }


class SpatialSelfAttention(FusedSelfAttention):
    """Each frame's N patches and the class token attend to each other: (B, 1 + N·T, D) -> (B·T, 1 + N, D) and the
    probabilities (B·T, heads, 1 + N, 1 + N) or None. The class token is the same for all frames: it is projected once,
    and has T answers."""

    def forward(self, x: torch.Tensor, output_attentions: bool = False, first_only: bool = False, frames: int = 1):
        qkv = self.project(x)
        cls = qkv[:, None, :1].expand(-1, frames, -1, -1)
        patches = qkv[:, 1:].unflatten(1, (-1, frames)).transpose(1, 2)
        query, key, value = self.split_heads(torch.cat([cls, patches], dim=2).flatten(0, 1))
        return self.attend(query[:, :, :1] if first_only else query, key, value, output_attentions)


class DividedSpaceTimeBlock(ViTBlock):
    """A ViT block over space with attention over time before it: (B, 1 + N·T, D) -> the same, and the spatial
    (B·T, heads, 1+N, 1+N) and temporal (B·N, heads, T, T) probabilities or None."""

    def __init__(self, config: TimesformerConfig, drop_path: float) -> None:
        super().__init__(**block_parts(config, drop_path, SpatialSelfAttention))
        width = config.hidden_size
        core = FusedSelfAttention(config, width, config.num_attention_heads, config.qkv_bias)
        self.temporal_layernorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.temporal_attention = Attention(core, width, config.hidden_dropout_prob)
        self.temporal_dense = nn.Linear(width, width)
        # Told to the layer itself: transformers initialises only modules that own parameters, and this block has none.
        self.temporal_dense.starts_at_zero = config.initializer == "official"
        self.row_drop_path = DropPath(drop_path, dims=2)  # the official code drops each place and each frame on its own

    def attend_time(self, patches: torch.Tensor, output_attentions: bool):
        """(B, N, T, D): each of the N places attends over its T frames."""
        rows = self.temporal_layernorm(patches).flatten(0, 1)
        attention, output = self.temporal_attention, self.temporal_attention.output
        parts = ((attention, Attention), (output, Dense), (output.dropout, nn.Dropout), (self.row_drop_path, DropPath))
        if any(part.training or not is_untouched(part, kind) for part, kind in parts):
            update, probs = attention(rows, output_attentions)
            return on_rows(self.temporal_dense, self.row_drop_path(update.unflatten(0, patches.shape[:2]))), probs
        context, probs = attention.attention(rows, output_attentions)
        return chain(context.unflatten(0, patches.shape[:2]), output.dense, self.temporal_dense), probs

    def attend_space(self, tokens: torch.Tensor, frames: int, output_attentions: bool, first_only: bool):
        """(B, 1 + N·T, D): each frame attends on its own; the class token's T answers are averaged."""
        attended, probs = self.attention(self.layernorm_before(tokens), output_attentions, first_only, frames=frames)
        update = self.row_drop_path(attended.unflatten(0, (-1, frames)))
        cls, patches = update[:, :, 0].mean(1, keepdim=True), update[:, :, 1:].transpose(1, 2).flatten(1, 2)
        return torch.cat([cls, patches], dim=1), probs

    def forward(self, tokens: torch.Tensor, output_attentions: bool = False, first_only: bool = False, frames: int = 1):
        """`frames` is T. `first_only` returns just the class token, as in `ViTBlock`."""
        cls, patches = tokens[:, :1], tokens[:, 1:].unflatten(1, (-1, frames))
        update, temporal_probs = self.attend_time(patches, output_attentions)
        tokens = torch.cat([cls, (patches + update).flatten(1, 2)], dim=1)
        update, probs = self.attend_space(tokens, frames, output_attentions, first_only)
        tokens = tokens[:, : update.shape[1]] + update
        return tokens + self.drop_path(self.mlp(tokens)), (probs, temporal_probs)


class TimesformerEncoder(nn.Module):
    def __init__(self, config: TimesformerConfig) -> None:
        super().__init__()
        rates = drop_path_rates(config.drop_path_rate, config.num_hidden_layers)
        divided = config.attention_type == "divided_space_time"
        self.layer = nn.ModuleList(
            [
                DividedSpaceTimeBlock(config, rate) if divided else ViTBlock(**block_parts(config, rate))
                for rate in rates
            ]
        )


class TimesformerPreTrainedModel(VideoPreTrainedModel):
    """Initialisation after the official code (or Xavier, see the config)."""

    config_class = TimesformerConfig
    base_model_prefix = "timesformer"
    _no_split_modules: ClassVar[list[str]] = ["DividedSpaceTimeBlock", "ViTBlock", "TimesformerEmbeddings"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        config = self.config
        if getattr(module, "starts_at_zero", False):
            init.zeros_(module.weight)
        elif isinstance(module, nn.Linear) and config.initializer == "xavier":
            init.xavier_uniform_(module.weight)
        elif isinstance(module, (nn.Linear, nn.Conv2d)):
            init.trunc_normal_(module.weight, std=config.initializer_range)
        elif isinstance(module, TimesformerEmbeddings):
            init.trunc_normal_(module.cls_token, std=config.initializer_range)
            init.trunc_normal_(module.position_embeddings, std=config.initializer_range)
            if module.time_embeddings is not None:
                init.normal_(module.time_embeddings, std=config.time_embedding_init_std)


class TimesformerModel(TimesformerPreTrainedModel):
    """The encoder with its final norm: (B, T, C, H, W) -> (B, 1 + N·T, D); for space_only (B, 1 + N, D), the mean over
    frames. T, H and W come from the tensor."""

    def __init__(self, config: TimesformerConfig) -> None:
        super().__init__(config)
        self.embeddings = TimesformerEmbeddings(config)
        self.encoder = TimesformerEncoder(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.patch_embeddings

    def token_grid(self, pixel_values: torch.Tensor) -> tuple[int, int, int]:
        """Counts the places of the last map, or the tokens, of a clip.

        Args:
            pixel_values: Clips (B, T, C, H, W), normalised floats.

        Returns:
            (T, rows, columns) of patches; a rest smaller than a patch is left out, as by the official convolution.

        Raises:
            ModelInputError: The clip is smaller than one patch.
        """
        self.check_input(pixel_values)
        frames, _, height, width = pixel_values.shape[1:]
        _, p, q = self.config.patch
        if height < p or width < q:
            raise ModelInputError(
                f"Frames of {height}x{width} pixels hold no patch of {p}x{q}. Resize them to at least that."
            )
        if (height % p or width % q) and not torch.compiler.is_compiling():
            logger.warning_once(
                f"Frames of {height}x{width} pixels are no multiple of the patch {p}x{q}; the rest at the bottom and "
                "right is not seen."
            )
        return frames, height // p, width // q

    def forward(
        self,
        pixel_values: torch.Tensor,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cls_only: bool = False,
    ) -> VideoModelOutput | tuple:
        """Encodes clips.

        Args:
            pixel_values: Clips (B, T, C, H, W), normalised.
            cls_only: Whether to return the class token alone, (B, 1, D), for about 5 % less work.
            output_attentions, output_hidden_states, return_dict: As in transformers; None takes the configuration's.

        Returns:
            `last_hidden_state` (B, 1 + tokens, D), the class token first; `hidden_states` are the embeddings and every
            block's output.

        Raises:
            ModelInputError: The clip has another shape, or is smaller than a patch.
        """
        grid = self.token_grid(pixel_values)
        output_attentions, output_hidden_states = self.resolve_output_flags(output_attentions, output_hidden_states)
        tokens = self.embeddings(pixel_values, grid)
        divided = self.config.attention_type == "divided_space_time"
        options = {"frames": grid[0]} if divided else {}
        tokens, hidden_states, probs = run_blocks(
            self.encoder.layer,
            tokens,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            first_only=cls_only and not output_attentions and not output_hidden_states,
            **options,
        )
        if self.config.attention_type == "space_only":
            tokens = tokens.unflatten(0, (-1, grid[0])).mean(1)
        output = VideoModelOutput(
            last_hidden_state=self.layernorm(tokens[:, :1] if cls_only else tokens),
            hidden_states=hidden_states,
            attentions=tuple(p[0] for p in probs) if divided and probs else probs,
            temporal_attentions=tuple(p[1] for p in probs) if divided and probs else None,
        )
        return self.to_output(output, return_dict)

    @video_features
    def get_video_features(self, pixel_values: torch.Tensor, **flags: bool | None) -> VideoFeatures:
        """Encodes clips.

        Args:
            pixel_values: Clips (B, T, C, H, W), normalised floats.
            flags: `output_hidden_states`, `output_attentions`, `return_dict`.

        Returns:
            `pooler_output` (B, D) is the class token; `feature_map` (B, T, H/p, W/p, D), with T = 1 for space_only.
        """
        outputs = self(pixel_values, return_dict=True, **flags)
        tokens = outputs.last_hidden_state
        frames, rows, columns = self.token_grid(pixel_values)
        frames = 1 if self.config.attention_type == "space_only" else frames
        feature_map = tokens[:, 1:].unflatten(1, (rows, columns, frames)).movedim(3, 1)
        return outputs.features(tokens[:, 0], feature_map)


class TimesformerForVideoClassification(VideoClassifier, TimesformerPreTrainedModel):
    """A linear classifier on the class token."""

    encoder_options: ClassVar[dict[str, bool]] = {"cls_only": True}

    def __init__(self, config: TimesformerConfig) -> None:
        super().__init__(config)
        self.timesformer = TimesformerModel(config)
        self.add_classifier(config.hidden_size)

    def pool(self, tokens: torch.Tensor) -> torch.Tensor:
        """Makes one vector of a clip's tokens.

        Args:
            tokens: (B, tokens, D).

        Returns:
            (B, D): the class token.
        """
        return tokens[:, 0]

    @property
    def frames_per_state(self) -> int | None:
        """1 for space_only, whose frames meet in a mean; see `VideoPreTrainedModel`."""
        return 1 if self.config.attention_type == "space_only" else None

    def encode_states(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Clips (B, T, C, H, W) -> the class tokens of their frames (B, T, D), for space_only."""
        grid = self.timesformer.token_grid(pixel_values)
        tokens = self.timesformer.embeddings(pixel_values, grid)
        tokens, _, _ = run_blocks(self.timesformer.encoder.layer, tokens, first_only=True)
        return tokens[:, 0].unflatten(0, (-1, grid[0]))

    def classify_states(self, states: torch.Tensor) -> torch.Tensor:
        """What `encode_states` gave, (B, T, D) -> logits (B, classes)."""
        return self.classifier(self.dropout(self.timesformer.layernorm(states.mean(1))))
