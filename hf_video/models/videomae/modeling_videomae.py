"""VideoMAE (Tong et al., 2022, arXiv:2203.12602), section 3, after the authors' `modeling_finetune.py` and
`modeling_pretrain.py`; decoder masking and cosine attention of v2 (Wang et al., 2023, arXiv:2303.16727).

A clip is cut into tubelets of 2 frames × 16 × 16 pixels; there is no class token, and positions are a fixed sine-cosine
table over the flattened grid. Classification: mean of tokens, norm, linear. Pretraining: 90 % of tokens are hidden, the
encoder sees the rest, a narrow decoder gets what it made and mask tokens and predicts the hidden tubelets' pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.utils import ModelOutput, logging

from hf_video.base.detection.box_modeling import BoxClassifier, pool_time
from hf_video.base.modeling import VideoClassifier, VideoPreTrainedModel, video_features
from hf_video.base.outputs import VideoFeatures, VideoModelOutput
from hf_video.errors import ConfigError, ModelInputError
from hf_video.layers.embeddings import PatchEmbedding, SinusoidPositions, patch_view, take_patches
from hf_video.layers.vit import CosineSelfAttention, SplitSelfAttention, ViTBlock, drop_path_rates, run_blocks
from hf_video.models.videomae.configuration_videomae import VideoMAEConfig
from hf_video.models.videomae.masking import split_by_mask
from hf_video.models.videomae.static_patches import changed_patches, encode_changed

logger = logging.get_logger(__name__)


@dataclass
class VideoMAEForPreTrainingOutput(ModelOutput):
    """`loss` (scalar): mean squared error over hidden tokens; `logits` (B, predicted tokens, t·p·p·C): their pixels, in
    order frame, row, column, channel; the encoder's `hidden_states` and `attentions`."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


def make_blocks(config: VideoMAEConfig, width: int, depth: int, heads: int, intermediate: int, drop_path: float):
    """Pre-norm blocks of the encoder or, narrower, of the decoder."""
    attention = CosineSelfAttention if config.cosine_attention else SplitSelfAttention
    return nn.ModuleList(
        ViTBlock(
            attention(config, width, heads, config.qv_bias),
            width,
            intermediate,
            act=config.hidden_act,
            eps=config.layer_norm_eps,
            dropout=config.hidden_dropout_prob,
            drop_path=rate,
        )
        for rate in drop_path_rates(drop_path, depth)
    )


class VideoMAEEmbeddings(nn.Module):
    """Tubelets, embedded and given their place; only the visible ones where an index is given."""

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        self.patch_embeddings = PatchEmbedding(config.num_channels, config.hidden_size, config.patch)
        self.positions = SinusoidPositions(
            config.position_grid or config.grid, config.hidden_size, config.position_interpolation
        )

    def forward(self, pixel_values, grid: tuple[int, int, int], visible: torch.Tensor | None = None) -> torch.Tensor:
        """(B, T, C, H, W) -> (B, t·h·w, D), or (B, n, D) for `visible` (B, n)."""
        positions = self.positions(grid, pixel_values.device)
        if visible is not None:
            positions = positions[0][visible]
        tokens = self.patch_embeddings(pixel_values, visible)
        return tokens + positions.to(tokens.dtype)


class VideoMAEEncoder(nn.Module):
    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        self.layer = make_blocks(
            config,
            config.hidden_size,
            config.num_hidden_layers,
            config.num_attention_heads,
            config.intermediate_size,
            config.drop_path_rate,
        )


class VideoMAEPreTrainedModel(VideoPreTrainedModel):
    """Initialisation after the official code: truncated normal for encoders, Xavier-uniform where a decoder is."""

    config_class = VideoMAEConfig
    base_model_prefix = "videomae"
    _no_split_modules: ClassVar[list[str]] = ["VideoMAEEmbeddings", "ViTBlock"]
    pretraining_init = False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            if self.pretraining_init:
                init.xavier_uniform_(module.weight)
            else:
                init.trunc_normal_(module.weight, std=self.config.initializer_range)
        elif isinstance(module, SplitSelfAttention):
            if module.q_bias is not None:
                init.zeros_(module.q_bias)
                init.zeros_(module.v_bias)
            if isinstance(module, CosineSelfAttention):
                init.constant_(module.scale, 2.302585093)  # ln 10

    def token_grid(self, pixel_values: torch.Tensor) -> tuple[int, int, int]:
        """(time, rows, columns) of tubelets in a clip; raises ModelInputError unless they cover it exactly."""
        self.check_input(pixel_values)
        frames, _, height, width = pixel_values.shape[1:]
        t, p, q = self.base_model.embeddings.patch_embeddings.patch
        if frames % t or height % p or width % q or 0 in (frames, height, width):
            raise ModelInputError(
                f"A clip of {frames} frames of {height}x{width} pixels does not divide into tubelets of {t} frames of "
                f"{p}x{q}. Use a multiple, such as {max(frames // t, 1) * t} frames of "
                f"{max(height // p, 1) * p}x{max(width // q, 1) * q}."
            )
        return frames // t, height // p, width // q


class VideoMAEModel(VideoMAEPreTrainedModel):
    """The encoder: (B, T, C, H, W) -> (B, t·h·w, D), tokens in order frame, row, column. With `bool_masked_pos`
    (B, t·h·w, True = hidden) only visible tokens are embedded and encoded: (B, visible, D)."""

    def __init__(self, config: VideoMAEConfig, pretraining_init: bool = False) -> None:
        super().__init__(config)
        self.pretraining_init = pretraining_init
        self.embeddings = VideoMAEEmbeddings(config)
        self.encoder = VideoMAEEncoder(config)
        norm = None if config.use_mean_pooling else nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layernorm = norm
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.patch_embeddings

    def forward(
        self,
        pixel_values: torch.Tensor,
        bool_masked_pos: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> VideoModelOutput | tuple:
        """Encodes clips.

        Args:
            pixel_values: Clips (B, T, C, H, W), normalised.
            bool_masked_pos: (B, tokens) bool, True where a token is hidden; every row hides as many.
            output_attentions, output_hidden_states, return_dict: As in transformers; None takes the configuration's.

        Returns:
            `last_hidden_state` (B, tokens, D), of the visible tokens alone with a mask; `hidden_states` are the
            embeddings and every block's output. `static_patches="drop"` adds `kept_tokens` (B, tokens) bool: those that
            were encoded; the others hold the state of the one that they repeat.

        Raises:
            ModelInputError: The clip has another shape, or is smaller than a patch; a mask and `static_patches="drop"`.
        """
        visible = None
        grid = self.token_grid(pixel_values)
        drop = self.config.static_patches == "drop"
        if bool_masked_pos is not None:
            if drop:
                raise ModelInputError('bool_masked_pos and static_patches="drop" both choose tokens: leave one out.')
            visible, _ = split_by_mask(check_mask(bool_masked_pos, pixel_values, grid))
        flags = (output_attentions, output_hidden_states)
        if drop:
            kept = changed_patches(pixel_values, self.config.patch, self.config.static_threshold)
            return self.to_output(encode_changed(self.encode, pixel_values, kept, grid, *flags), return_dict)
        return self.to_output(self.encode(pixel_values, grid, visible, *flags), return_dict)

    def encode(self, pixel_values, grid, visible=None, output_attentions=None, output_hidden_states=None):
        """`forward` for a known grid and visible token numbers (B, n)."""
        output_attentions, output_hidden_states = self.resolve_output_flags(output_attentions, output_hidden_states)
        tokens, hidden_states, attentions = run_blocks(
            self.encoder.layer,
            self.embeddings(pixel_values, grid, visible),
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
        )
        tokens = tokens if self.layernorm is None else self.layernorm(tokens)
        return VideoModelOutput(last_hidden_state=tokens, hidden_states=hidden_states, attentions=attentions)

    @video_features
    def get_video_features(self, pixel_values: torch.Tensor, **flags: bool | None) -> VideoFeatures:
        """Encodes clips.

        Args:
            pixel_values: Clips (B, T, C, H, W), normalised floats.
            flags: `output_hidden_states`, `output_attentions`, `return_dict`.

        Returns:
            `pooler_output` (B, D) is the mean of tokens; `feature_map` (B, T/t, H/p, W/p, D).
        """
        outputs = self(pixel_values, return_dict=True, **flags)
        tokens = outputs.last_hidden_state
        return outputs.features(tokens.mean(1), tokens.unflatten(1, self.token_grid(pixel_values)))


def check_mask(mask: torch.Tensor, pixel_values: torch.Tensor, grid: tuple[int, int, int], name="bool_masked_pos"):
    """The mask as bool (B, t·h·w) on the clip's device; raises ModelInputError for another shape."""
    expected = (pixel_values.shape[0], grid[0] * grid[1] * grid[2])
    if tuple(mask.shape) != expected:
        raise ModelInputError(
            f"{name} has shape {tuple(mask.shape)}; expected (batch, tokens) = {expected}, grid {grid}."
        )
    return mask.to(device=pixel_values.device, dtype=torch.bool)


class VideoMAEForVideoClassification(VideoClassifier, VideoMAEPreTrainedModel):
    """Mean of tokens, `fc_norm`, linear classifier."""

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__(config)
        self.videomae = VideoMAEModel(config)
        self.fc_norm = nn.LayerNorm(config.hidden_size, eps=config.head_norm_eps) if config.use_mean_pooling else None
        self.add_classifier(config.hidden_size)
        if self.fc_norm is None:
            logger.warning_once(
                "use_mean_pooling=False classifies from the first token alone, as the pretraining files on the Hub are "
                "configured; the paper averages all tokens. Pass use_mean_pooling=True to fine-tune."
            )

    def pool(self, tokens: torch.Tensor) -> torch.Tensor:
        """Makes one vector of a clip's tokens.

        Args:
            tokens: (B, tokens, D).

        Returns:
            (B, D): the first token, or the norm of their mean (`use_mean_pooling`).
        """
        return tokens[:, 0] if self.fc_norm is None else self.fc_norm(tokens.mean(1))

    @video_features
    def get_video_features(self, pixel_values: torch.Tensor, **flags: bool | None) -> VideoFeatures:
        features = self.videomae.get_video_features(pixel_values, return_dict=True, **flags)
        features.pooler_output = self.pool(features.last_hidden_state)
        return features


class VideoMAEForSpatioTemporalActionDetection(BoxClassifier, VideoMAEPreTrainedModel):
    """What the people in boxes do, after VideoMAE-Action-Detection: normed tokens, mean over time, ROIAlign, maximum,
    linear. Clips whose sides are no multiples of a patch are padded with zeros on the right and below.

    The norm is the encoder's own (`use_mean_pooling=False`, the authors' files), or the `fc_norm` of a fine-tuned
    classifier, which training then starts from.
    """

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__(config)
        self.videomae = VideoMAEModel(config)
        self.fc_norm = nn.LayerNorm(config.hidden_size, eps=config.head_norm_eps) if config.use_mean_pooling else None
        self.add_box_head(config.hidden_size)

    @property
    def map_stride(self) -> tuple[int, int]:
        return self.config.patch[1:]

    def encode_maps(self, pixel_values: torch.Tensor, **flags: bool | None) -> tuple[torch.Tensor, VideoModelOutput]:
        _, p, q = self.config.patch
        clips = F.pad(pixel_values, (0, -pixel_values.shape[4] % q, 0, -pixel_values.shape[3] % p))
        outputs = self.videomae(clips, return_dict=True, **flags)
        tokens = outputs.last_hidden_state
        tokens = tokens if self.fc_norm is None else self.fc_norm(tokens)
        maps = tokens.unflatten(1, self.token_grid(clips)).permute(0, 4, 1, 2, 3)
        return pool_time(maps, self.config.box_time_pool), outputs


class VideoMAEDecoder(nn.Module):
    """A narrow transformer that reads encoded and mask tokens and predicts the pixels of the `predicted` ones."""

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        width = config.decoder_hidden_size
        t, p, q = config.patch
        self.decoder_layers = make_blocks(
            config,
            width,
            config.decoder_num_hidden_layers,
            config.decoder_num_attention_heads,
            config.decoder_intermediate_size,
            0.0,
        )
        self.norm = nn.LayerNorm(width, eps=config.head_norm_eps)
        self.head = nn.Linear(width, config.num_channels * t * p * q)

    def forward(self, tokens: torch.Tensor, seen: int) -> torch.Tensor:
        """(B, seen + predicted, D') -> (B, predicted, t·p·p·C)."""
        tokens, _, _ = run_blocks(self.decoder_layers, tokens)
        return self.head(self.norm(tokens[:, seen:]))


class VideoMAEForPreTraining(VideoMAEPreTrainedModel):
    """Masked autoencoding. `bool_masked_pos` (B, t·h·w): True = hidden from the encoder, the same number in each sample
    (see `masking.tube_mask`). `decoder_masked_pos` (v2, `masking.running_cell_mask`): True = left out by the decoder;
    the loss then covers tokens that it keeps and the encoder did not see, and `logits` every token that it keeps."""

    pretraining_init = True
    knows_statistics = True
    # Nothing here divides by a number of labels: Trainer divides by the accumulation steps instead.
    accepts_loss_kwargs = False

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__(config)
        self.videomae = VideoMAEModel(config, pretraining_init=True)
        self.encoder_to_decoder = nn.Linear(config.hidden_size, config.decoder_hidden_size, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.decoder_hidden_size))
        self.decoder_positions = SinusoidPositions(config.position_grid or config.grid, config.decoder_hidden_size)
        self.decoder = VideoMAEDecoder(config)
        if config.static_patches == "drop":
            raise ConfigError('Pretraining chooses tokens by its mask: pass static_patches="keep".')
        if config.use_mean_pooling:
            logger.warning_once(
                "use_mean_pooling=True leaves out the encoder's last norm, which the official pretraining has. Pass "
                "use_mean_pooling=False to pretrain, and True again to fine-tune."
            )
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self:
            init.trunc_normal_(self.mask_token, std=self.config.initializer_range)

    def targets(self, pixel_values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """What hidden tokens `index` (B, n) should become: pixels in [0, 1] before the processor's normalisation,
        (B, n, t·p·p·C), channel last; with `norm_pix_loss` each tubelet's channel has mean 0 and deviation 1."""
        patches = take_patches(patch_view(pixel_values, self.config.patch), index).flatten(3).transpose(2, 3).float()
        if len(self.config.image_mean) == self.config.num_channels:
            mean, std = (patches.new_tensor(v) for v in (self.config.image_mean, self.config.image_std))
            patches = patches * std + mean
        if self.config.norm_pix_loss:
            var, mean = torch.var_mean(patches, dim=2, unbiased=True, keepdim=True)
            patches = (patches - mean) / (var.sqrt() + 1e-6)
        return patches.flatten(2)

    def forward(
        self,
        pixel_values: torch.Tensor,
        bool_masked_pos: torch.Tensor,
        decoder_masked_pos: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> VideoMAEForPreTrainingOutput | tuple:
        """Predicts the pixels of hidden tubelets from the visible ones.

        Args:
            pixel_values: Clips (B, T, C, H, W), normalised with the configuration's `image_mean` and `image_std`.
            bool_masked_pos: (B, tokens) bool, True where the encoder sees nothing; every row hides as many.
            decoder_masked_pos: (B, tokens) bool, True where nothing is predicted (VideoMAE v2); None predicts all
                hidden ones.
            output_attentions, output_hidden_states, return_dict: As in transformers; None takes the configuration's.

        Returns:
            `loss`, the mean squared error, and `logits` (B, predicted tokens, pixels of a tubelet).

        Raises:
            ModelInputError: The clip or a mask has another shape, or rows hide different numbers.
        """
        grid = self.videomae.token_grid(pixel_values)
        if bool_masked_pos is None:
            raise ModelInputError("bool_masked_pos is missing: pretraining needs a mask, e.g. masking.tube_mask.")
        mask = check_mask(bool_masked_pos, pixel_values, grid)
        visible, predicted = split_by_mask(mask)
        if predicted.shape[1] == 0:
            raise ModelInputError("bool_masked_pos hides no token: there is nothing to predict.")
        if decoder_masked_pos is not None:
            dropped = check_mask(decoder_masked_pos, pixel_values, grid, "decoder_masked_pos")
            predicted, _ = split_by_mask(dropped, "decoder_masked_pos")
        outputs = self.videomae.encode(pixel_values, grid, visible, output_attentions, output_hidden_states)

        # Visible tokens first, then mask tokens: attention needs no order, only right positions.
        seen = self.encoder_to_decoder(outputs.last_hidden_state)
        positions = self.decoder_positions(grid, seen.device)[0].to(seen.dtype)
        tokens = torch.cat([seen + positions[visible], self.mask_token + positions[predicted]], dim=1)
        logits = self.decoder(tokens, seen.shape[1])

        with torch.no_grad():
            targets = self.targets(pixel_values, predicted)
        error = F.mse_loss(logits.float(), targets, reduction="none").mean(-1)
        hidden = mask.gather(1, predicted)
        loss = error.mean() if decoder_masked_pos is None else (error * hidden).sum() / hidden.sum()
        output = VideoMAEForPreTrainingOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )
        return self.to_output(output, return_dict)
