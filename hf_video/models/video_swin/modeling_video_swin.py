"""Video Swin Transformer (Liu et al., 2021, arXiv:2106.13230), section 3, after the authors' `swin_transformer.py`.

A clip is cut into patches of 2 frames × 4 × 4 pixels. Stages of blocks follow; between stages 2 × 2 neighbours are
merged in space, never in time. A block attends inside 3-D windows; every second block of a stage shifts the windows by
half their size, so that neighbours meet. Positions are learned biases of the way from one token to another.
"""

from __future__ import annotations

from functools import partial
from math import prod
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init

from hf_video.base.modeling import VideoClassifier, VideoPreTrainedModel, video_features
from hf_video.base.outputs import VideoFeatures, VideoModelOutput
from hf_video.errors import ModelInputError
from hf_video.layers.embeddings import PatchEmbedding
from hf_video.layers.linear import may_use_onednn, on_rows
from hf_video.layers.vit import FusedSelfAttention, ViTBlock, drop_path_rates, run_blocks
from hf_video.models.video_swin.configuration_video_swin import VideoSwinConfig
from hf_video.models.video_swin.windows import (
    AXES,
    Size,
    WindowTables,
    boxes_by_size,
    fit_window,
    from_windows,
    to_windows,
)

# What the authors add to the score of tokens that must not see each other.
CUT = -100.0


class VideoSwinEmbeddings(nn.Module):
    """Patches, embedded and normed. Zeros are appended to frames, rows and columns that make no whole patch."""

    def __init__(self, config: VideoSwinConfig) -> None:
        super().__init__()
        self.patch, self.stride = tuple(config.patch_size), config.stride
        self.patch_embeddings = PatchEmbedding(
            config.num_channels, config.embed_dim, self.patch, time_stride=config.stride
        )
        self.norm = nn.LayerNorm(config.embed_dim, eps=config.layer_norm_eps) if config.patch_norm else nn.Identity()
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(B, T, C, H, W) -> (B, t, h, w, D)."""
        frames, _, height, width = pixel_values.shape[1:]
        t, p, q = self.patch
        grid = (-(-frames // self.stride), -(-height // p), -(-width // q))
        later = max((grid[0] - 1) * self.stride + t - frames, 0)
        if later or height % p or width % q:
            pixel_values = F.pad(pixel_values, (0, -width % q, 0, -height % p, 0, 0, 0, later))
        tokens = self.patch_embeddings(pixel_values).unflatten(1, grid)
        return self.dropout(self.norm(tokens))


class WindowAttention(FusedSelfAttention):
    """Self-attention inside windows, shifted or not, with a learned bias for each relative position and head."""

    def __init__(self, config: VideoSwinConfig, width: int, heads: int, shifted: bool) -> None:
        super().__init__(config, width, heads, config.qkv_bias)
        self.window: Size = tuple(config.window_size)
        self.shift: Size = tuple(size // 2 for size in self.window) if shifted else (0, 0, 0)
        t, h, w = self.window
        ways = (2 * t - 1) * (2 * h - 1) * (2 * w - 1)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(ways, heads))

    def forward(self, x, output_attentions: bool = False, first_only: bool = False, tables: WindowTables | None = None):
        """(B, t, h, w, D) -> the same, and probabilities (B·windows, heads, N, N) or None; `first_only` is False."""
        grid = tuple(x.shape[1:4])
        window, shift = fit_window(grid, self.window, self.shift)
        # The authors' rule for a window that has shrunk: the first rows of the table of the whole one.
        tokens = prod(window)
        index = tables.table("index", x.device)
        bias = self.relative_position_bias_table.t()[:, index[:tokens, :tokens]]
        # Rows or columns of a window that has shrunk have no such bias: it isn't one of the way between two tokens.
        ways = window[1:] == self.window[1:]
        if any(shift) and ways and not output_attentions and may_use_onednn(x, bias):
            return self.attend_boxes(x, bias, window, shift), None
        qkv = self.project(to_windows(x, window, shift))
        bias = bias.to(qkv.dtype)
        shifted = [axis for axis in AXES if shift[axis - 1]]
        cut = partial(tables.cut, window=window, device=x.device)
        context, probs = self.attend_windows(qkv, bias, cut, shifted, output_attentions)
        return from_windows(context, window, shift, grid), probs.flatten(0, 3) if output_attentions else None

    def attend_boxes(self, x: torch.Tensor, bias: torch.Tensor, window: Size, shift: Size) -> torch.Tensor:
        """(B, t, h, w, D), bias (heads, N, N) -> (B, t, h, w, D), by `boxes_by_size`: fewer scores and copies.

        What `CUT` leaves of a masked probability is nothing in float32, unless a token scores its own box lower by as
        much as the mask takes away."""
        grid = tuple(-(-tokens // size) * size for tokens, size in zip(x.shape[1:4], window, strict=True))
        padding = [n for axis in reversed(AXES) for n in (0, grid[axis - 1] - x.shape[axis])]
        padded = F.pad(x, (0, 0, *padding)) if any(padding) else x
        order, places, boxes = boxes_by_size(x.shape[0], grid, window, shift)
        qkv = self.project(padded.flatten(0, 3).index_select(0, order)[None])[0]
        bias = bias.view(-1, *window, *window)
        contexts = []
        for (t, h, w), part in zip(boxes, qkv.split(list(boxes.values())), strict=True):
            tokens = t * h * w
            mask = bias[:, :t, :h, :w, :t, :h, :w].reshape(1, -1, tokens, tokens)
            context, _ = self.attend(*self.split_heads(part.unflatten(0, (-1, tokens))), mask=mask)
            contexts.append(context.flatten(0, 1))
        t, h, w = x.shape[1:4]
        places = places.view(x.shape[0], *grid)[:, :t, :h, :w].flatten()
        return torch.cat(contexts).index_select(0, places).view(x.shape)

    def attend_windows(self, qkv, bias, cut, axes: list[int], output_attentions: bool, code: int = 0):
        """qkv (B, a, b, c, N, 3·D), bias (heads, N, N) -> (B, a, b, c, N, D), probabilities (B, a, b, c, heads, N, N).

        The last windows along each shifted axis have a mask of their own and are attended to apart: eight calls at
        most, each with one bias for all of its windows, in place of a mask for every window."""
        if axes:
            axis, *others = axes
            inner, last = qkv.tensor_split([-1], dim=axis)
            parts = (
                self.attend_windows(inner, bias, cut, others, output_attentions, code),
                self.attend_windows(last, bias, cut, others, output_attentions, code + (8 >> axis)),
            )
            context, probs = zip(*parts, strict=True)
            return torch.cat(context, axis), torch.cat(probs, axis) if output_attentions else None
        counts = qkv.shape[:4]
        mask = torch.where(cut(code), bias + CUT, bias) if code else bias
        context, probs = self.attend(*self.split_heads(qkv.flatten(0, 3)), output_attentions, mask=mask[None])
        return context.unflatten(0, counts), probs.unflatten(0, counts) if output_attentions else None


class PatchMerging(nn.Module):
    """2 × 2 neighbours in space become one token of twice the channels; an odd row or column gets zeros beside it."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width, eps=eps)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, t, h, w, D) -> (B, t, ⌈h/2⌉, ⌈w/2⌉, 2·D)."""
        height, width = x.shape[2:4]
        if height % 2 or width % 2:
            x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        x = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # (B, t, h, row, w, column, D)
        return on_rows(self.reduction, self.norm(x.permute(0, 1, 2, 4, 5, 3, 6).flatten(4)))


class VideoSwinBlock(ViTBlock):
    """A ViT block whose attention stays inside windows. The first block of a later stage merges patches before."""

    def __init__(self, config: VideoSwinConfig, stage: int, number: int, drop_path: float) -> None:
        width = config.widths[stage]
        super().__init__(
            WindowAttention(config, width, config.num_heads[stage], shifted=number % 2 == 1),
            width,
            int(width * config.mlp_ratio),
            act=config.hidden_act,
            eps=config.layer_norm_eps,
            dropout=config.hidden_dropout_prob,
            mlp_dropout=config.hidden_dropout_prob,
            drop_path=drop_path,
        )
        merges = stage > 0 and number == 0
        self.downsample = PatchMerging(width // 2, config.layer_norm_eps) if merges else None

    def forward(self, x, output_attentions: bool = False, first_only: bool = False, tables: WindowTables | None = None):
        """(B, t, h, w, D) -> the same, or what `PatchMerging` makes of it; probabilities or None. There is no first
        token here, so `first_only` must be False."""
        x = x if self.downsample is None else self.downsample(x)
        attended, probs = self.attention(self.layernorm_before(x), output_attentions, tables=tables)
        x = x + self.drop_path(attended)
        return x + self.drop_path(self.mlp(x)), probs


class VideoSwinEncoder(nn.Module):
    """The blocks of all stages, one after the other; block `sum(depths[:i])` is the first of stage i."""

    def __init__(self, config: VideoSwinConfig) -> None:
        super().__init__()
        self.tables = WindowTables(config.window_size)
        rates = iter(drop_path_rates(config.drop_path_rate, config.num_hidden_layers))
        self.layer = nn.ModuleList(
            VideoSwinBlock(config, stage, number, next(rates))
            for stage, depth in enumerate(config.depths)
            for number in range(depth)
        )


class VideoSwinPreTrainedModel(VideoPreTrainedModel):
    """Initialisation after the official code: truncated normal linear maps and bias tables."""

    config_class = VideoSwinConfig
    base_model_prefix = "video_swin"
    _no_split_modules: ClassVar[list[str]] = ["VideoSwinEmbeddings", "VideoSwinBlock"]
    # Flash and flex kernels know no learned bias between pairs of tokens.
    _supports_flash_attn = False
    _supports_flex_attn = False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            init.trunc_normal_(module.weight, std=self.config.initializer_range)
        elif isinstance(module, WindowAttention):
            init.trunc_normal_(module.relative_position_bias_table, std=self.config.initializer_range)

    def group_of(self, name: str) -> int:
        """See `VideoPreTrainedModel`. A merging goes with the last block before it, as in the authors' SimMIM."""
        return super().group_of(name) - (".downsample." in name)

    def no_weight_decay(self) -> set[str]:
        """As in the base class, and the bias tables (the authors' configs)."""
        tables = {n for n, _ in self.named_parameters() if n.endswith("relative_position_bias_table")}
        return super().no_weight_decay() | tables


class VideoSwinModel(VideoSwinPreTrainedModel):
    """The encoder with its last norm: (B, T, C, H, W) -> (B, t·h·w, D), tokens in order frame, row, column, on a grid
    of t = ⌈T / stride⌉, h = ⌈H / 4⌉ halved (rounded up) once for each stage after the first, w likewise."""

    def __init__(self, config: VideoSwinConfig) -> None:
        super().__init__(config)
        self.embeddings = VideoSwinEmbeddings(config)
        self.encoder = VideoSwinEncoder(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.patch_embeddings

    def encode(self, pixel_values, output_attentions: bool | None = None, output_hidden_states: bool | None = None):
        """`forward`, with states on their grids: last (B, t, h, w, D), all or None, attentions or None."""
        self.check_input(pixel_values)
        if 0 in pixel_values.shape:
            raise ModelInputError(
                f"pixel_values of shape {tuple(pixel_values.shape)} holds no pixels. Pass at least one frame."
            )
        output_attentions, output_hidden_states = self.resolve_output_flags(output_attentions, output_hidden_states)
        x, hidden_states, attentions = run_blocks(
            self.encoder.layer,
            self.embeddings(pixel_values),
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            tables=self.encoder.tables,
        )
        return self.layernorm(x), hidden_states, attentions

    def forward(
        self,
        pixel_values: torch.Tensor,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> VideoModelOutput | tuple:
        """Encodes clips.

        Args:
            pixel_values: Clips (B, T, C, H, W), normalised.
            output_attentions, output_hidden_states, return_dict: As in transformers; None takes the configuration's.

        Returns:
            `last_hidden_state` (B, tokens, D). `hidden_states` are (B, tokens, channels) of their stage, `attentions`
            (B·windows, heads, N, N) of each block's windows, in the shifted grid where a block shifts.

        Raises:
            ModelInputError: The clip has another shape, or is smaller than a patch.
        """
        states = self.encode(pixel_values, output_attentions, output_hidden_states)
        return self.to_output(self.as_tokens(*states), return_dict)

    @staticmethod
    def as_tokens(x, hidden_states, attentions) -> VideoModelOutput:
        """What `encode` gave, its grids as tokens."""
        if hidden_states is not None:
            hidden_states = tuple(state.flatten(1, 3) for state in hidden_states)
        return VideoModelOutput(last_hidden_state=x.flatten(1, 3), hidden_states=hidden_states, attentions=attentions)

    @video_features
    def get_video_features(self, pixel_values: torch.Tensor, **flags: bool | None) -> VideoFeatures:
        """Encodes clips.

        Args:
            pixel_values: Clips (B, T, C, H, W), normalised floats.
            flags: `output_hidden_states`, `output_attentions`, `return_dict`.

        Returns:
            `pooler_output` (B, D) is the mean of tokens; `feature_map` (B, t, h, w, D).
        """
        outputs = self(pixel_values, return_dict=True, **flags)
        frames, _, *size = pixel_values.shape[1:]
        halvings = len(self.config.depths) - 1
        rows, columns = (-(-a // (b << halvings)) for a, b in zip(size, self.config.patch_size[1:], strict=True))
        grid = (-(-frames // self.config.stride), rows, columns)
        feature_map = outputs.last_hidden_state.unflatten(1, grid)
        return outputs.features(feature_map.mean((1, 2, 3)), feature_map)


class VideoSwinForVideoClassification(VideoClassifier, VideoSwinPreTrainedModel):
    """Mean of tokens, dropout, linear classifier."""

    def __init__(self, config: VideoSwinConfig) -> None:
        super().__init__(config)
        self.video_swin = VideoSwinModel(config)
        self.add_classifier(config.hidden_size)

    def pool(self, tokens: torch.Tensor) -> torch.Tensor:
        """Makes one vector of a clip's tokens.

        Args:
            tokens: (B, tokens, D).

        Returns:
            (B, D): the mean.
        """
        return tokens.mean(1)
