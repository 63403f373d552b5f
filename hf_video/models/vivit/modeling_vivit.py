"""ViViT (Arnab et al., 2021, arXiv:2103.15691), section 3, after the authors' code (google-research/scenic,
`projects/vivit/model.py`).

A clip is cut into tubelets of 2 frames × 16 × 16 pixels: t · n tokens, n places at t times, in order time, row, column.
Pre-norm blocks follow. What attends to what is `config.attention_type`: all tokens to all (model 1); places at each
time, then, in a second transformer, times (model 2); times and places in turn in every block (model 3); or times in
half of the heads and places in the other half (model 4).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.utils import ModelOutput, logging

from hf_video.base.modeling import VideoClassifier, VideoPreTrainedModel, video_features
from hf_video.base.outputs import VideoClassifierOutput, VideoFeatures, VideoModelOutput
from hf_video.errors import ModelInputError
from hf_video.layers.vit import SplitSelfAttention, ViTBlock, drop_path_rates, run_blocks
from hf_video.models.vivit.configuration_vivit import VivitConfig
from hf_video.models.vivit.embeddings import StageEmbeddings, VivitEmbeddings, at_central_frame
from hf_video.models.vivit.factorized_attention import FactorizedDotProductAttention, FactorizedSelfAttentionBlock

logger = logging.get_logger(__name__)


@dataclass
class VivitModelOutput(ModelOutput):
    """`last_hidden_state` (B, tokens, D): model 1 class token and t·n tokens, model 2 class token and t times, models 3
    and 4 t·n tokens; `pooler_output` (B, pooler_output_size), model 1 only; `hidden_states`: embeddings and every
    block's output, (B, tokens, D) or, for model 2, those over space (B·t, 1 + n, D); `attentions`: each block's
    probabilities, for models 2 to 4 those over space (B·t, heads, places, places); `temporal_attentions`: those over
    time (B or B·n, heads, times, times). Model 4 has half of the heads in each."""

    last_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    temporal_attentions: tuple[torch.Tensor, ...] | None = None

    features = VideoModelOutput.features
    kept_tokens = None


def make_block(config: VivitConfig, drop_path: float) -> ViTBlock:
    """One block of the kind that `attention_type` asks for."""
    factorized_heads = config.attention_type == "factorized_dot_product_attention"
    core = FactorizedDotProductAttention if factorized_heads else SplitSelfAttention
    shape = (config, config.hidden_size, config.num_attention_heads, config.qkv_bias)
    parts = {
        "attention": core(*shape, key_bias=True),
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        # The same function, tanh's approximation, in one pass over memory instead of seven.
        "act": "gelu_pytorch_tanh" if config.hidden_act == "gelu_fast" else config.hidden_act,
        "eps": config.layer_norm_eps,
        "dropout": config.hidden_dropout_prob,
        "mlp_dropout": config.hidden_dropout_prob,
        "drop_path": drop_path,
    }
    if config.attention_type == "factorized_self_attention_block":
        return FactorizedSelfAttentionBlock(SplitSelfAttention(*shape, key_bias=True), **parts)
    return ViTBlock(**parts)


class VivitEncoder(nn.Module):
    def __init__(self, config: VivitConfig, depth: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList(make_block(config, rate) for rate in drop_path_rates(config.drop_path_rate, depth))


class VivitPooler(nn.Module):
    """Linear and tanh on the class token. Nothing of ours uses it: plain transformers saves one with a bare encoder."""

    def __init__(self, config: VivitConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.pooler_output_size)
        self.activation = ACT2FN[config.pooler_act]

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.activation(self.dense(tokens[:, 0]))


class VivitPreTrainedModel(VideoPreTrainedModel):
    """Initialisation after the official code: Xavier-uniform attention and MLP, zero biases, class tokens and
    classifier, normal positions."""

    config_class = VivitConfig
    base_model_prefix = "vivit"
    _no_split_modules: ClassVar[list[str]] = ["VivitEmbeddings", "ViTBlock", "FactorizedSelfAttentionBlock"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is getattr(self, "classifier", None):
            if isinstance(module, nn.Linear):
                init.zeros_(module.weight)
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
        elif isinstance(module, nn.Conv3d):
            init.lecun_normal_(module.weight)
            if self.config.tubelet_initializer == "central_frame":
                frames = module.weight.shape[2]
                # Fewer inputs add up to the same size of token.
                init.copy_(module.weight, at_central_frame(module.weight[:, :, 0] * frames**0.5, frames))
        elif isinstance(module, StageEmbeddings):
            init.normal_(module.position_embeddings, std=self.config.initializer_range)
            if module.cls_token is not None:
                init.zeros_(module.cls_token)

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        """As transformers'. With another `num_frames` or `image_size` than the file's, learned positions are
        interpolated once, over time and space apart; what is saved then is a model of the new size."""
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.base_model.fit_positions()
        return loaded

    @property
    def num_blocks(self) -> int:
        """Of both transformers, where there are two."""
        two = self.config.attention_type == "factorized_encoder"
        return self.config.num_hidden_layers + (self.config.num_temporal_layers if two else 0)

    def group_of(self, name: str) -> int:
        """See `VideoPreTrainedModel`. Model 2's second transformer goes on where the first one ends; what makes its
        input (the first one's norm, its own class token and positions) goes with its first block."""
        depth = self.config.num_hidden_layers
        if self.config.attention_type != "factorized_encoder" or re.search(r"(^|\.)(embeddings|encoder)\.", name):
            return super().group_of(name)
        if block := re.search(r"temporal_encoder\.layer\.(\d+)\.", name):
            return 1 + depth + int(block[1])
        return 1 + depth if re.search(r"temporal_embeddings\.|(^|\.)layernorm\.", name) else -1


class VivitModel(VivitPreTrainedModel):
    """The encoder with its final norm: (B, T, C, H, W) -> `VivitModelOutput`. T, H and W come from the tensor."""

    def __init__(self, config: VivitConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        grid = tuple(config.position_grid or config.grid)
        self.two_stages = config.attention_type == "factorized_encoder"
        self.embeddings = VivitEmbeddings(config, grid[1:] if self.two_stages else grid)
        self.encoder = VivitEncoder(config, config.num_hidden_layers)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        if self.two_stages:
            self.temporal_embeddings = StageEmbeddings(config, grid[:1])
            self.temporal_encoder = VivitEncoder(config, config.num_temporal_layers)
            self.temporal_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.pooler = VivitPooler(config) if add_pooling_layer and config.attention_type == "spacetime" else None
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.patch_embeddings

    @property
    def position_grid(self) -> tuple[int, int, int]:
        """(time, rows, columns) that the learned positions are made for."""
        return (*self.temporal_embeddings.grid, *self.embeddings.grid) if self.two_stages else self.embeddings.grid

    def fit_positions(self) -> None:
        """Interpolates learned positions to the config's `num_frames` and `image_size`, for good."""
        grid = self.config.grid
        self.embeddings.resize(grid[1:] if self.two_stages else grid)
        if self.two_stages:
            self.temporal_embeddings.resize(grid[:1])
        self.config.position_grid = None

    def token_grid(self, pixel_values: torch.Tensor) -> tuple[int, int, int]:
        """Counts the places of the last map, or the tokens, of a clip.

        Args:
            pixel_values: Clips (B, T, C, H, W), normalised floats.

        Returns:
            (time, rows, columns) of tubelets; a rest smaller than a tubelet is left out, as by the official
            convolution.

        Raises:
            ModelInputError: The clip is smaller than one tubelet.
        """
        self.check_input(pixel_values)
        frames, _, height, width = pixel_values.shape[1:]
        t, p, q = self.config.patch
        if frames < t or height < p or width < q:
            raise ModelInputError(
                f"A clip of {frames} frames of {height}x{width} pixels holds no tubelet of {t} frames of {p}x{q}. Use "
                "at least that."
            )
        if (frames % t or height % p or width % q) and not torch.compiler.is_compiling():
            logger.warning_once(
                f"{frames} frames of {height}x{width} pixels are no multiple of the tubelet, {t} frames of {p}x{q}; "
                "the rest at the end, bottom and right is not seen."
            )
        return frames // t, height // p, width // q

    def encode_places(self, pixel_values: torch.Tensor, grid: tuple[int, int, int], cls_only: bool = False, **flags):
        """Model 2's first transformer, each time on its own: (B·t, 1 + n, D), or (B·t, 1, D) for the class tokens
        alone; hidden states and probabilities, or None."""
        tokens = self.embeddings.tubelets(pixel_values, grid).unflatten(1, (grid[0], -1)).flatten(0, 1)
        tokens = self.embeddings(tokens, grid[1:])
        tokens, hidden_states, probs = run_blocks(self.encoder.layer, tokens, first_only=cls_only, **flags)
        return self.layernorm(tokens), hidden_states, probs

    def encode_times(self, tokens: torch.Tensor, times: int, cls_only: bool = False, **flags):
        """Model 2's second transformer, over the first one's class tokens: (B·t, ≥1, D) -> (B, 1 + t, D) or (B, 1, D),
        and probabilities or None."""
        tokens = self.temporal_embeddings(tokens[:, 0].unflatten(0, (-1, times)), (times,))
        tokens, _, probs = run_blocks(self.temporal_encoder.layer, tokens, first_only=cls_only, **flags)
        return self.temporal_layernorm(tokens), probs

    def encode_in_two_stages(self, pixel_values: torch.Tensor, grid, cls_only: bool, attentions: bool, hidden: bool):
        plain = not (attentions or hidden)
        places = self.encode_places(
            pixel_values, grid, plain, output_attentions=attentions, output_hidden_states=hidden
        )
        return self.over_time(*places, grid[0], cls_only and plain, output_attentions=attentions)

    def over_time(self, tokens, hidden_states, probs, times: int, cls_only: bool = False, **flags) -> VivitModelOutput:
        """What `encode_places` gave, and the second transformer over it."""
        tokens, temporal_probs = self.encode_times(tokens, times, cls_only, **flags)
        return VivitModelOutput(
            last_hidden_state=tokens,
            hidden_states=hidden_states,
            attentions=probs,
            temporal_attentions=temporal_probs,
        )

    def encode_in_one_stage(self, pixel_values: torch.Tensor, grid, cls_only: bool, attentions: bool, hidden: bool):
        factorized = self.config.attention_type != "spacetime"
        tokens = self.embeddings(self.embeddings.tubelets(pixel_values, grid), grid)
        tokens, hidden_states, probs = run_blocks(
            self.encoder.layer,
            tokens.unflatten(1, (grid[0], -1)) if factorized else tokens,
            output_attentions=attentions,
            output_hidden_states=hidden,
            first_only=cls_only and not (factorized or attentions or hidden),
        )
        if factorized:
            tokens = tokens.flatten(1, 2)
            hidden_states = tuple(state.flatten(1, 2) for state in hidden_states) if hidden else None
        tokens = self.layernorm(tokens)
        return VivitModelOutput(
            last_hidden_state=tokens,
            pooler_output=None if self.pooler is None else self.pooler(tokens),
            hidden_states=hidden_states,
            attentions=tuple(p[0] for p in probs) if factorized and probs else probs,
            temporal_attentions=tuple(p[1] for p in probs) if factorized and probs else None,
        )

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        interpolate_pos_encoding: bool = True,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cls_only: bool = False,
    ) -> VivitModelOutput | tuple:
        """Encodes clips.

        Args:
            pixel_values: Clips (B, T, C, H, W), normalised.
            interpolate_pos_encoding: False refuses clips of another grid than the positions' own.
            cls_only: Whether the class token alone may be returned, (B, 1, D), for less work.
            output_attentions, output_hidden_states, return_dict: As in transformers; None takes the configuration's.

        Returns:
            `last_hidden_state` (B, tokens, D), a class token first in models 1 and 2; `hidden_states` are the
            embeddings and every block's output.

        Raises:
            ModelInputError: The clip has another shape, or is smaller than a patch.
        """
        grid = self.token_grid(pixel_values)
        if not interpolate_pos_encoding and grid != self.position_grid:
            raise ModelInputError(
                f"The clip makes a grid {grid} of (time, rows, columns) tokens and positions were learned for "
                f"{self.position_grid}. Leave interpolate_pos_encoding=True to interpolate them."
            )
        encode = self.encode_in_two_stages if self.two_stages else self.encode_in_one_stage
        output = encode(
            pixel_values, grid, cls_only, *self.resolve_output_flags(output_attentions, output_hidden_states)
        )
        return self.to_output(output, return_dict)

    def pool(self, tokens: torch.Tensor) -> torch.Tensor:
        """Makes one vector of a clip's tokens.

        Args:
            tokens: (B, tokens, D).

        Returns:
            (B, D): the class token, or the mean where there is none.
        """
        return tokens[:, 0] if self.config.has_class_token else tokens.mean(1)

    @video_features
    def get_video_features(self, pixel_values: torch.Tensor, **flags: bool | None) -> VideoFeatures:
        """Encodes clips.

        Args:
            pixel_values: Clips (B, T, C, H, W), normalised floats.
            flags: `output_hidden_states`, `output_attentions`, `return_dict`.

        Returns:
            `pooler_output` (B, D): class token (models 1, 2) or mean of tokens; `feature_map` (B, T/t, H/p, W/q, D),
            for
            model 2 that of its first transformer.
        """
        grid = self.token_grid(pixel_values)
        if self.two_stages:
            attentions, hidden = self.resolve_output_flags(**flags)
            first = self.encode_places(pixel_values, grid, output_attentions=attentions, output_hidden_states=hidden)
            outputs = self.over_time(*first, grid[0], output_attentions=attentions)
            places = first[0][:, 1:].unflatten(0, (-1, grid[0])).unflatten(2, grid[1:])
        else:
            outputs = self(pixel_values, return_dict=True, **flags)
            places = outputs.last_hidden_state[:, self.embeddings.extra :].unflatten(1, grid)
        return outputs.features(self.pool(outputs.last_hidden_state), places)


class VivitForVideoClassification(VideoClassifier, VivitPreTrainedModel):
    """A linear classifier on the class token or the mean of tokens."""

    encoder_options: ClassVar[dict[str, bool]] = {"cls_only": True}

    def __init__(self, config: VivitConfig) -> None:
        super().__init__(config)
        self.vivit = VivitModel(config, add_pooling_layer=False)
        self.add_classifier(config.hidden_size)

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        interpolate_pos_encoding: bool = True,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> VideoClassifierOutput | tuple:
        """Classifies clips.

        Args:
            pixel_values: Clips (B, T, C, H, W), normalised.
            labels: (B,) class numbers, or (B, classes) floats; see `losses.classification_loss`.
            interpolate_pos_encoding: False refuses clips of another grid than the positions' own.
            output_attentions, output_hidden_states, return_dict: As in transformers; None takes the configuration's.
            num_items_in_batch: Labels of the whole effective batch, by which Trainer divides the loss.

        Returns:
            `logits` (B, classes), and `loss` with labels.
        """
        return self.classify(
            pixel_values,
            labels,
            num_items_in_batch,
            return_dict,
            interpolate_pos_encoding=interpolate_pos_encoding,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )

    def pool(self, tokens: torch.Tensor) -> torch.Tensor:
        """Makes one vector of a clip's tokens.

        Args:
            tokens: (B, tokens, D).

        Returns:
            (B, D): the class token, or the mean where there is none.
        """
        return self.vivit.pool(tokens)

    @property
    def frames_per_state(self) -> int | None:
        """Those of a tubelet for model 2, whose times meet in a second transformer; see `VideoPreTrainedModel`."""
        return self.config.patch[0] if self.vivit.two_stages else None

    def encode_states(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Clips (B, T, C, H, W) -> model 2's class tokens of their times (B, T / t, D)."""
        grid = self.vivit.token_grid(pixel_values)
        return self.vivit.encode_places(pixel_values, grid, cls_only=True)[0][:, 0].unflatten(0, (-1, grid[0]))

    def classify_states(self, states: torch.Tensor) -> torch.Tensor:
        """What `encode_states` gave, (B, t, D) -> logits (B, classes)."""
        tokens, _ = self.vivit.encode_times(states.flatten(0, 1)[:, None], states.shape[1], cls_only=True)
        return self.classifier(self.dropout(self.pool(tokens)))
