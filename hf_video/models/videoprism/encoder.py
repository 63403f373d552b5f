"""VideoPrism's encoder (Zhao et al., 2024, arXiv:2402.13217), after the authors' code (google-deepmind/videoprism,
`encoders.py`) and under the names of transformers' classes.

    frames (B, T, C, H, W) -> patches 18 × 18, positions in space -> 12 layers over the places of each frame -> norm
    -> positions in time -> 4 layers over the times of each place -> norm -> (B, T · places, D)

"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from transformers import initialization as init
from transformers.utils import ModelOutput

from hf_video.base.modeling import VideoPreTrainedModel, video_features
from hf_video.base.outputs import VideoFeatures
from hf_video.errors import ModelInputError
from hf_video.models.videoprism.configuration_videoprism import VideoPrismVisionConfig
from hf_video.models.videoprism.embeddings import (
    GridPositions,
    VideoPrismSpatialEmbeddings,
    VideoPrismTemporalEmbeddings,
    VideoPrismTextEmbeddings,
)
from hf_video.models.videoprism.layers import (
    VideoPrismLayer,
    VideoPrismLayerNorm,
    VideoPrismMultiheadAttentionPoolingHead,
    run_layers,
)


@dataclass
class BaseModelOutputWithSpatialAndTemporalStates(ModelOutput):
    """`last_hidden_state` (B, T·N, D); `hidden_states`: the embeddings (B·T, N, D), every spatial layer's output
    (B·T, N, D), every temporal one's (B·N, T, D) but for the last, and `last_hidden_state`; `attentions`: probabilities
    of all layers, (B·T, heads, N, N), then (B·N, heads, T, T); the last layers' outputs before their norms,
    `last_temporal_hidden_state` (B·N, T, D) and `last_spatial_hidden_state` (B·T, N, D)."""

    last_hidden_state: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    last_temporal_hidden_state: torch.Tensor | None = None
    last_spatial_hidden_state: torch.Tensor | None = None


class VideoPrismPreTrainedModel(VideoPreTrainedModel):
    """Initialisation after the official code: LeCun-normal maps and positions, norms of scale 1 (weight 0)."""

    config_class = VideoPrismVisionConfig
    main_input_name = "pixel_values_videos"
    base_model_prefix = "vision_model"
    stem_pattern = r"spatial_embeddings\.|text_model\.embeddings\."
    _no_split_modules: ClassVar[list[str]] = [
        "VideoPrismSpatialEmbeddings",
        "VideoPrismTemporalEmbeddings",
        "VideoPrismTextEmbeddings",
        "VideoPrismLayer",
        "VideoPrismMultiheadAttentionPoolingHead",
    ]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, (nn.Linear, nn.Conv3d)):
            init.lecun_normal_(module.weight)
        elif isinstance(module, VideoPrismLayerNorm):
            init.zeros_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, GridPositions):
            init.lecun_normal_(module.position_embeddings)
        elif isinstance(module, VideoPrismMultiheadAttentionPoolingHead):
            init.zeros_(module.per_dim_scale)
            init.lecun_normal_(module.pooling_attention_query)
        elif isinstance(module, VideoPrismTextEmbeddings):
            init.copy_(module.position_embedding, module.table().to(module.position_embedding))
            init.copy_(module.position_ids, torch.arange(module.length)[None])
            for table in (module.token_embedding.weight, module.cls_emb):
                init.normal_(table, std=module.width**-0.5)

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        """As transformers'. With another `num_frames` or `image_size` than the file's, positions are interpolated once,
        over time and space apart, with a warning; what is saved then is a model of the new size."""
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        for module in model.modules():
            if isinstance(module, VideoPrismVisionModel):
                module.fit_positions()
        return loaded

    def group_of(self, name: str) -> int:
        """See `VideoPreTrainedModel`. Temporal layers follow the spatial ones, and their positions and the norm before
        them go with the first; auxiliary layers follow those, and text layers count from the first again."""
        config = getattr(self.config, "vision_config", self.config)
        depths = {"spatial": 0, "temporal": getattr(config, "num_spatial_layers", 0), "text_model": 0}
        depths["auxiliary"] = getattr(config, "num_hidden_layers", 0)
        if block := re.search(r"(spatial|temporal|auxiliary)_layers\.(\d+)\.|(text_model)\.layers\.(\d+)\.", name):
            return 1 + depths[block[1] or block[3]] + int(block[2] or block[4])
        if re.search(r"temporal_embeddings\.|(^|\.)layernorm1\.", name):
            return 1 + depths["temporal"]
        return 0 if re.search(self.stem_pattern, name) else -1

    def no_weight_decay(self) -> set[str]:
        more = ("pooling_attention_query", "cls_emb")
        return super().no_weight_decay() | {name for name, _ in self.named_parameters() if name.endswith(more)}


class VideoPrismVisionModel(VideoPrismPreTrainedModel):
    """The factorised encoder: (B, T, C, H, W) -> tokens (B, T · N, D) in order time, row, column."""

    def __init__(self, config: VideoPrismVisionConfig) -> None:
        super().__init__(config)
        times, *places = config.position_grid or config.grid
        self.layernorm1 = VideoPrismLayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layernorm2 = VideoPrismLayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.spatial_embeddings = VideoPrismSpatialEmbeddings(config, tuple(places))
        self.temporal_embeddings = VideoPrismTemporalEmbeddings(config, times)
        self.spatial_layers = nn.ModuleList(VideoPrismLayer(config) for _ in range(config.num_spatial_layers))
        self.temporal_layers = nn.ModuleList(VideoPrismLayer(config) for _ in range(config.num_temporal_layers))
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.spatial_embeddings.patch_embeddings

    @property
    def position_grid(self) -> tuple[int, int, int]:
        """(time, rows, columns) that the positions are made for."""
        return (self.temporal_embeddings.grid[0], *self.spatial_embeddings.grid)

    def fit_positions(self) -> None:
        """Interpolates positions to the config's `num_frames` and `image_size`, for good."""
        times, *places = self.config.grid
        self.spatial_embeddings.resize(tuple(places))
        self.temporal_embeddings.resize((times, 1))
        self.config.position_grid = None

    def token_grid(self, pixel_values_videos: torch.Tensor) -> tuple[int, int, int]:
        """(time, rows, columns) of patches. A rest of a patch is refused."""
        self.check_input(pixel_values_videos)
        frames, _, height, width = pixel_values_videos.shape[1:]
        _, p, q = self.config.tubelet_size
        if height % p or width % q or min(frames, height, width) < 1:
            raise ModelInputError(
                f"A clip of {frames} frames of {height}x{width} pixels is not made of whole patches of {p}x{q}, and no "
                f"rest is dropped here. Resize it to multiples of them, such as {max(1, round(height / p)) * p}x"
                f"{max(1, round(width / q)) * q}."
            )
        return frames, height // p, width // q

    def check_positions(self, grid: tuple[int, int, int]) -> None:
        """Raises ModelInputError for another grid than the positions' own."""
        if grid != self.position_grid:
            _, p, q = self.config.tubelet_size
            asked, known = (
                f"{t} frames of {rows * p}x{columns * q}" for t, rows, columns in (grid, self.position_grid)
            )
            raise ModelInputError(
                f"The clip has {asked} pixels, and positions are for {known}. Give it such clips, or pass "
                "interpolate_pos_encoding=True to interpolate positions over time and space, for which nothing was "
                "trained."
            )

    def forward(
        self,
        pixel_values_videos: torch.Tensor | None = None,
        interpolate_pos_encoding: bool | None = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithSpatialAndTemporalStates | tuple:
        """Encodes clips.

        Args:
            pixel_values_videos: Clips (B, T, C, H, W), pixels in [0, 1].
            interpolate_pos_encoding: Whether clips of other sizes and frame counts are taken, with positions
                interpolated over space and over time.
            output_attentions, output_hidden_states, return_dict: As in transformers; None takes the configuration's.

        Returns:
            `BaseModelOutputWithSpatialAndTemporalStates`.

        Raises:
            ModelInputError: The clip has another shape, or a rest of a patch.
        """
        frames, *places = grid = self.token_grid(pixel_values_videos)
        if not interpolate_pos_encoding:
            self.check_positions(grid)
        attentions, hidden = self.resolve_output_flags(output_attentions, output_hidden_states)
        flags = {"output_attentions": attentions, "output_hidden_states": hidden}
        tokens = self.spatial_embeddings(pixel_values_videos, tuple(places))
        spatial, states, probs = run_layers(self.spatial_layers, tokens, **flags)
        tokens = self.temporal_embeddings(self.layernorm1(spatial), frames)
        temporal, later_states, later_probs = run_layers(self.temporal_layers, tokens, **flags)
        tokens = (
            self.layernorm2(temporal).unflatten(0, (pixel_values_videos.shape[0], -1)).transpose(1, 2).flatten(1, 2)
        )
        output = BaseModelOutputWithSpatialAndTemporalStates(
            last_hidden_state=tokens,
            hidden_states=(*states, *later_states[1:-1], tokens) if hidden else None,
            attentions=probs + later_probs if attentions else None,
            last_temporal_hidden_state=temporal,
            last_spatial_hidden_state=spatial,
        )
        return self.to_output(output, return_dict)

    @video_features
    def get_video_features(
        self, pixel_values_videos: torch.Tensor, interpolate_pos_encoding: bool | None = False, **flags: bool | None
    ) -> VideoFeatures:
        """As `VideoPreTrainedModel.get_video_features`. The bare encoder was given no vector of a clip: its
        `pooler_output` is the mean of the tokens."""
        output = self(pixel_values_videos, interpolate_pos_encoding, return_dict=True, **flags)
        return self.as_features(output, output.last_hidden_state.mean(1), pixel_values_videos)

    def as_features(self, output, vector: torch.Tensor, clips: torch.Tensor) -> VideoFeatures:
        """Tokens and states of `output` (B, T·N, D), and a vector a clip."""
        return VideoFeatures(
            last_hidden_state=output.last_hidden_state,
            pooler_output=vector,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            feature_map=output.last_hidden_state.unflatten(1, self.token_grid(clips)),
        )
