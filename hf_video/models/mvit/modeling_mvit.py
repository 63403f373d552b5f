"""MViT (Fan et al., 2021, arXiv:2104.11227), section 3, and MViTv2 (Li et al., 2022, arXiv:2112.01526), section 4,
after the authors' SlowFast code (`models/attention.py`, `models/video_model_builder.py`).

A pyramid: from stage to stage the grid of tokens gets coarser and their channels more. Attention does it: queries, keys
and values are pooled by convolutions on the grid, keys and values always, queries where a stage begins, and what
attention gathers lies on the queries' grid. v1 knows places by learned positions at the stem; v2 by decomposed relative
positions in every attention, and adds the pooled queries to its result. The class token is never pooled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from hf_video.base.modeling import VideoClassifier, VideoPreTrainedModel, video_features
from hf_video.base.outputs import VideoFeatures, VideoModelOutput
from hf_video.errors import ModelInputError
from hf_video.layers.embeddings import resize_grid
from hf_video.layers.linear import is_plain, is_untouched
from hf_video.layers.vit import Dense, DropPath, SelfAttention, drop_path_rates
from hf_video.models.mvit.configuration_mvit import BlockShape, MViTConfig, Triple


def half(kernel: Triple) -> Triple:
    """The padding that goes with a pooling kernel."""
    return tuple(k // 2 for k in kernel)


def strided(grid: Triple, stride: Triple) -> Triple:
    """The grid that a padded odd kernel with this stride leaves."""
    return tuple((n - 1) // s + 1 for n, s in zip(grid, stride, strict=True))


def pool_patches(tokens: torch.Tensor, grid: Triple, pool: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Applies `pool` on (B, C, t, h, w) to all of (B, 1 + t·h·w, C) but the class token -> (B, 1 + fewer, C)."""
    patches = tokens[:, 1:].unflatten(1, grid).movedim(-1, 1)
    # Tokens lie in memory with channels last; several times as fast on a CPU, but only if the batch is dense as well.
    # Under torch.func.vmap there is a dimension more, and no such layout.
    if torch.compiler.is_compiling() or not torch._C._functorch.is_functorch_wrapped_tensor(patches):
        patches = patches.contiguous(memory_format=torch.channels_last_3d)
    patches = pool(patches)
    return torch.cat([tokens[:, :1], patches.flatten(2).transpose(1, 2)], dim=1)


class OverlappingPatches(nn.Module):
    """The stem's convolution, whose patches overlap. Any size is taken: what lies beyond the edge is black."""

    def __init__(self, config: MViTConfig) -> None:
        super().__init__()
        kernel = tuple(config.patch_kernel)
        self.projection = nn.Conv3d(
            config.num_channels, config.embed_dim, kernel, stride=tuple(config.patch_stride), padding=half(kernel)
        )

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(B, T, C, H, W) -> (B, t·h·w, D), in order frame, row, column."""
        return self.projection(pixel_values.transpose(1, 2)).flatten(2).transpose(1, 2)


class MViTEmbeddings(nn.Module):
    """Patches, the class token and, in v1, learned positions: one table for space, one for time, added up. Another grid
    than theirs interpolates each on its own."""

    def __init__(self, config: MViTConfig) -> None:
        super().__init__()
        width, self.grid = config.embed_dim, tuple(config.position_grid or config.grid)
        self.patch_embeddings = OverlappingPatches(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position_embeddings = None
        if config.use_absolute_positions:
            time, rows, columns = self.grid
            self.position_embeddings = nn.Parameter(torch.zeros(1, rows * columns, width))
            self.time_embeddings = nn.Parameter(torch.zeros(1, time, width))
            self.cls_position_embeddings = nn.Parameter(torch.zeros(1, 1, width))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, pixel_values: torch.Tensor, grid: Triple) -> torch.Tensor:
        """(B, T, C, H, W) -> (B, 1 + t·h·w, D)."""
        patches, cls = self.patch_embeddings(pixel_values), self.cls_token
        if self.position_embeddings is not None:
            places = resize_grid(self.position_embeddings, self.grid[1:], grid[1:])
            times = resize_grid(self.time_embeddings, self.grid[:1], grid[:1])
            patches = patches + (times[:, :, None] + places[:, None]).flatten(1, 2)
            cls = cls + self.cls_position_embeddings
        return self.dropout(torch.cat([cls.expand(patches.shape[0], -1, -1), patches], dim=1))


class Pooling(nn.Module):
    """A depth-wise convolution over the grid, whose weights all heads share, then a norm over each head's channels."""

    def __init__(self, channels: int, kernel: Triple, stride: Triple, eps: float) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv3d(
            channels, channels, kernel, stride=stride, padding=half(kernel), groups=channels, bias=False
        )
        self.norm = nn.LayerNorm(channels, eps=eps)

    def forward(self, x: torch.Tensor, grid: Triple) -> tuple[torch.Tensor, Triple]:
        """(B, heads, 1 + t·h·w, C) -> the same with fewer tokens, and their grid."""
        pooled = pool_patches(x.flatten(0, 1), grid, self.conv).unflatten(0, (-1, x.shape[1]))
        return self.norm(pooled), strided(grid, self.stride)


def relative_index(queries: int, keys: int, device: torch.device) -> torch.Tensor:
    """(queries, keys): the entry of a table of 2·max(queries, keys) - 1 that tells how far a query lies from a key,
    where the coarser of the two is stretched to the other's scale.

    Float arithmetic in the authors' order, then truncated: in MViTv2-L (78 queries on 10 keys) its rounding moves some
    entries by one against whole-number arithmetic, and the published weights were trained with that."""
    query_step, key_step = max(keys / queries, 1.0), max(queries / keys, 1.0)
    query = torch.arange(queries, device=device)[:, None] * query_step
    key = torch.arange(keys, device=device)[None] * key_step
    return (query - key + (keys - 1) * key_step).long()


class PoolingAttention(SelfAttention):
    """Multi-head pooling attention. Queries, keys and values come from one product, each is pooled on its own."""

    def __init__(self, config: MViTConfig, shape: BlockShape) -> None:
        super().__init__(config, shape.attention_width, shape.heads)
        self.residual_pooling = config.residual_pooling
        self.qkv = nn.Linear(shape.width, 3 * shape.attention_width, bias=config.qkv_bias)
        pools = {"q": (shape.kernel_q, shape.stride_q)} | dict.fromkeys("kv", (shape.kernel_kv, shape.stride_kv))
        for name, (kernel, stride) in pools.items():
            pool = None if kernel is None else Pooling(self.head_dim, kernel, stride, config.layer_norm_eps)
            self.add_module(f"pool_{name}", pool)
        for axis, size in zip("thw", shape.tables, strict=True):
            table = nn.Parameter(torch.zeros(size, self.head_dim)) if size else None
            self.register_parameter(f"rel_pos_{axis}", table)
        self.output = Dense(shape.attention_width, shape.attention_width, dropout=config.hidden_dropout_prob)

    def relative_terms(self, query, query_grid: Triple, key_grid: Triple):
        """Decomposed relative positions, q·R_t + q·R_h + q·R_w, as further channels of queries and keys.

        A key has a one at its frame, row and column, and zeros elsewhere; a query has what R says of every frame, row
        and column. Their product is what the formula adds to the scores, so fused kernels apply and nothing of
        (queries × keys) is stored: 2 GB a clip in the first block of v2-L. That is more multiply-adds than the authors'
        additions (v2-S 68.5 against 64.2 billion, v2-B 253 against 224, v2-L 3582 against 2823), and not slower for it:
        float32 on a CPU, v2-S takes 4.8 against 4.6 s of processor time, an attention of v2-L's third stage 1.2 against
        1.6 s. Returns (B, heads, queries, t+h+w) and (keys, t+h+w); zeros for the class token."""
        patches = query[:, :, 1:].unflatten(2, query_grid)
        queries, keys = [], []
        for axis, letter in enumerate("thw"):
            table = getattr(self, f"rel_pos_{letter}")
            if table is None:
                continue
            places, size = query_grid[axis], key_grid[axis]
            table = resize_grid(table[None], table.shape[:1], (2 * max(places, size) - 1,))[0]
            table = table[relative_index(places, size, table.device)]
            queries.append(torch.einsum(f"bnthwc,{letter}kc->bnthwk", patches, table))
            ones = torch.eye(size, dtype=query.dtype, device=query.device)
            keys.append(ones.view([size if i in (axis, 3) else 1 for i in range(4)]).expand(*key_grid, size))
        query_terms = torch.cat(queries, dim=-1).flatten(2, 4)
        key_terms = torch.cat(keys, dim=-1).flatten(0, 2)
        return F.pad(query_terms, (0, 0, 1, 0)), F.pad(key_terms, (0, 0, 1, 0))

    def forward(self, x: torch.Tensor, grid: Triple, output_attentions: bool = False, first_only: bool = False):
        """(B, 1 + t·h·w, D) -> (B, 1 + queries, D') and the probabilities (B, heads, 1 + queries, 1 + keys) or None;
        with `first_only` the class token's alone."""
        (query, key, value), key_grid, query_grid = self.split_heads(self.qkv(x)), grid, grid
        if self.pool_k is not None:
            key, key_grid = self.pool_k(key, grid)
            value, _ = self.pool_v(value, grid)
        if first_only and self.pool_q is None:
            return self.output(self.attend(query[:, :, :1], key, value)[0]), None
        # The convolution moves all but the class token.
        if first_only and is_untouched(self.pool_q, Pooling) and is_plain(self.pool_q.conv, nn.Conv3d):
            return self.output(self.attend(self.pool_q.norm(query[:, :, :1]), key, value)[0]), None
        if self.pool_q is not None:
            query, query_grid = self.pool_q(query, grid)
        scaling, pooled = self.scaling, query
        if any(table is not None for table in (self.rel_pos_t, self.rel_pos_h, self.rel_pos_w)):
            query_terms, key_terms = self.relative_terms(query, query_grid, key_grid)
            query = torch.cat([query * scaling, query_terms], dim=-1)  # the scale is for the content alone
            key = torch.cat([key, key_terms.expand(*key.shape[:2], -1, -1)], dim=-1)
            value = F.pad(value, (0, key_terms.shape[-1]))  # fused kernels want one width
            scaling = 1.0
        context, probs = self.attend(query, key, value, output_attentions, scaling)
        context = context.unflatten(-1, (self.num_heads, -1))[..., : self.head_dim]
        if self.residual_pooling:
            context = torch.cat([context[:, :1], context[:, 1:] + pooled[:, :, 1:].transpose(1, 2)], dim=1)
        context = context[:, :1] if first_only else context
        return self.output(context.flatten(2)), probs


class MultiscaleBlock(GradientCheckpointingLayer):
    """Pooling attention and an MLP, each with a residual that follows where grid and channels change: max-pooled where
    queries are pooled, projected where channels grow (in v2 at the attention, in v1 at the MLP)."""

    def __init__(self, config: MViTConfig, shape: BlockShape, drop_path: float) -> None:
        super().__init__()
        width, dropout, eps = shape.attention_width, config.hidden_dropout_prob, config.layer_norm_eps
        self.stride = shape.stride_q if shape.kernel_q is not None else (1, 1, 1)
        self.grows_in_attention = config.dim_mul_in_attention
        self.layernorm_before = nn.LayerNorm(shape.width, eps=eps)
        self.attention = PoolingAttention(config, shape)
        self.layernorm_after = nn.LayerNorm(width, eps=eps)
        hidden = int(width * config.mlp_ratio)
        self.intermediate = Dense(width, hidden, act=config.hidden_act, dropout=dropout)
        self.output = Dense(hidden, shape.width_out, dropout=dropout)
        self.projection = nn.Linear(shape.width, shape.width_out) if shape.width != shape.width_out else None
        self.drop_path = DropPath(drop_path)

    def pool_residual(self, x: torch.Tensor, grid: Triple) -> torch.Tensor:
        """(B, 1 + t·h·w, D) max-pooled to the queries' grid."""
        if max(self.stride) == 1:
            return x
        kernel = tuple(s + 1 if s > 1 else 1 for s in self.stride)
        return pool_patches(x, grid, lambda p: F.max_pool3d(p, kernel, self.stride, half(kernel)))

    def forward(self, x: torch.Tensor, output_attentions=False, first_only=False, grid: Triple = (1, 1, 1)):
        """(B, 1 + t·h·w, D) on `grid` -> (B, 1 + fewer, D'), and probabilities or None. `first_only` returns just the
        class token, (B, 1, D')."""
        normed = self.layernorm_before(x)
        update, probs = self.attention(normed, grid, output_attentions, first_only)
        residual, normed = (x[:, :1], normed[:, :1]) if first_only else (x, normed)
        if self.projection is not None and self.grows_in_attention:
            residual = self.projection(normed)
        residual = residual if first_only else self.pool_residual(residual, grid)
        x = residual + self.drop_path(update)
        normed = self.layernorm_after(x)
        if self.projection is not None and not self.grows_in_attention:
            x = self.projection(normed)
        return x + self.drop_path(self.output(self.intermediate(normed))), probs


class MViTEncoder(nn.Module):
    def __init__(self, config: MViTConfig) -> None:
        super().__init__()
        rates = drop_path_rates(config.drop_path_rate, config.num_hidden_layers)
        shapes = config.block_shapes()
        self.layer = nn.ModuleList(MultiscaleBlock(config, *pair) for pair in zip(shapes, rates, strict=True))


class MViTPreTrainedModel(VideoPreTrainedModel):
    """Truncated normal weights, tokens and positions; biases zero (the authors' code sets them to 0.02)."""

    config_class = MViTConfig
    base_model_prefix = "mvit"
    _no_split_modules: ClassVar[list[str]] = ["MViTEmbeddings", "MultiscaleBlock"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, (nn.Linear, nn.Conv3d)):
            init.trunc_normal_(module.weight, std=self.config.initializer_range)
        elif isinstance(module, (MViTEmbeddings, PoolingAttention)):
            for parameter in module.parameters(recurse=False):
                init.trunc_normal_(parameter, std=self.config.initializer_range)

    def token_grid(self, pixel_values: torch.Tensor) -> Triple:
        """(time, rows, columns) of the stem's tokens of a clip; raises ModelInputError for an empty one."""
        self.check_input(pixel_values)
        frames, _, height, width = pixel_values.shape[1:]
        if 0 in (frames, height, width):
            raise ModelInputError(f"A clip of {frames} frames of {height}x{width} pixels is empty.")
        return strided((frames, height, width), self.config.patch_stride)


class MViTModel(MViTPreTrainedModel):
    """The encoder with its final norm: (B, T, C, H, W) -> (B, 1 + t·h·w, D), class token first, then the last stage's
    grid in order frame, row, column. `hidden_states` have the width and the grid of their stage. T, H and W come from
    the tensor and may be any: tables of another size are interpolated."""

    def __init__(self, config: MViTConfig) -> None:
        super().__init__(config)
        self.embeddings = MViTEmbeddings(config)
        self.encoder = MViTEncoder(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.patch_embeddings

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
            cls_only: Whether to return the class token alone, (B, 1, D), for less work in the last block.
            output_attentions, output_hidden_states, return_dict: As in transformers; None takes the configuration's.

        Returns:
            `last_hidden_state` (B, 1 + tokens, D), the class token first; `hidden_states` are the embeddings and every
            block's output.

        Raises:
            ModelInputError: The clip has another shape, or is smaller than a patch.
        """
        grid = self.token_grid(pixel_values)
        output_attentions, output_hidden_states = self.resolve_output_flags(output_attentions, output_hidden_states)
        # Not while training: parameters that get no gradient at all stop distributed training.
        shorten = cls_only and not (output_attentions or output_hidden_states or self.training)
        tokens = self.embeddings(pixel_values, grid)
        hidden_states, attentions = [tokens], []
        for block in self.encoder.layer:
            last = block is self.encoder.layer[-1]
            tokens, probs = block(tokens, output_attentions, shorten and last, grid=grid)
            grid = strided(grid, block.stride)
            attentions.append(probs)
            hidden_states = [*hidden_states, tokens] if output_hidden_states else []
        output = VideoModelOutput(
            last_hidden_state=self.layernorm(tokens[:, :1] if cls_only else tokens),
            hidden_states=tuple(hidden_states) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
        )
        return self.to_output(output, return_dict)

    @video_features
    def get_video_features(self, pixel_values: torch.Tensor, **flags: bool | None) -> VideoFeatures:
        """Encodes clips.

        Args:
            pixel_values: Clips (B, T, C, H, W), normalised floats.
            flags: `output_hidden_states`, `output_attentions`, `return_dict`.

        Returns:
            `pooler_output` (B, D) is the class token; `feature_map` (B, t, h, w, D) the last stage's grid.
        """
        outputs = self(pixel_values, return_dict=True, **flags)
        tokens = outputs.last_hidden_state
        grid = self.token_grid(pixel_values)
        for block in self.encoder.layer:
            grid = strided(grid, block.stride)
        return outputs.features(tokens[:, 0], tokens[:, 1:].unflatten(1, grid))


class MViTForVideoClassification(VideoClassifier, MViTPreTrainedModel):
    """Dropout and a linear classifier on the class token."""

    encoder_options: ClassVar[dict[str, bool]] = {"cls_only": True}

    def __init__(self, config: MViTConfig) -> None:
        super().__init__(config)
        self.mvit = MViTModel(config)
        self.add_classifier(config.hidden_size)

    def pool(self, tokens: torch.Tensor) -> torch.Tensor:
        """Makes one vector of a clip's tokens.

        Args:
            tokens: (B, tokens, D).

        Returns:
            (B, D): the class token.
        """
        return tokens[:, 0]
