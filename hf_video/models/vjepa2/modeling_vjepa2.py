"""V-JEPA 2 (Assran et al., 2025, arXiv:2506.09985), section 2, after the authors' code (facebookresearch/vjepa2).

A clip is cut into tubelets of 2 frames × 16 × 16 pixels; tokens have no positions added, but queries and keys of every
block are rotated by them (see `rotation`). A predictor gets the tokens of a part of the clip, the context, and mask
tokens for another, the target, and says what the encoder makes of the target. Classification: the attentive pooler,
then a linear layer; the predictor is not asked. Pretraining: predictions from what a second encoder makes of the
context alone are compared with what the first, its moving average, makes of the whole clip.

Positions are those in the clip at hand, as in the authors' encoder. transformers' class numbers the tokens of every
clip as if its frames had `crop_size` pixels; for other sizes the two give different answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.utils import logging

from hf_video.base.modeling import VideoClassifier, VideoPreTrainedModel, video_features
from hf_video.base.outputs import VideoClassifierOutput, VideoFeatures
from hf_video.errors import ConfigError, ModelInputError
from hf_video.models.vjepa2.blocks import VJEPA2AttentivePooler, VJEPA2Layer
from hf_video.models.vjepa2.configuration_vjepa2 import VJEPA2Config
from hf_video.models.vjepa2.encoder import Grid, VJEPA2Encoder, VJEPA2Predictor, VJEPA2PredictorEmbeddings
from hf_video.models.vjepa2.masks import check_masks, take_tokens
from hf_video.models.vjepa2.outputs import VJEPA2ForPreTrainingOutput, VJEPA2ModelOutput, VJEPA2PredictorOutput

logger = logging.get_logger(__name__)


class VJEPA2PreTrainedModel(VideoPreTrainedModel):
    """Initialisation after the authors' code: truncated normal, the last weights of both branches of block l divided by
    √(2l); mask tokens zero."""

    config_class = VJEPA2Config
    base_model_prefix = "vjepa2"
    main_input_name = "pixel_values_videos"
    _no_split_modules: ClassVar[list[str]] = [
        "VJEPA2Layer",
        "VJEPA2PoolerSelfAttentionLayer",
        "VJEPA2PoolerCrossAttentionLayer",
        "VJEPA2PredictorEmbeddings",
    ]
    stem_pattern = r"encoder\.embeddings\."
    # Of a pretraining, whose moving average is what is used.
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [r"^context_encoder\."]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, (nn.Linear, nn.Conv3d)):
            init.trunc_normal_(module.weight, std=std)
        elif isinstance(module, VJEPA2Layer):
            for last in (module.attention.proj, module.mlp.fc2):
                init.trunc_normal_(last.weight, std=std / (2 * module.number) ** 0.5)
        elif isinstance(module, VJEPA2PredictorEmbeddings):
            if self.config.pred_zero_init_mask_tokens:
                init.zeros_(module.mask_tokens)
            else:
                init.trunc_normal_(module.mask_tokens, std=std)
        elif isinstance(module, VJEPA2AttentivePooler):
            init.trunc_normal_(module.query_tokens, std=std)
            for number, layer in enumerate(module.self_attention_layers, 1):
                for name in ("self_attn.out_proj", "mlp.fc2"):
                    init.trunc_normal_(layer.get_submodule(name).weight, std=std / (2 * number) ** 0.5)
            number = max(len(module.self_attention_layers), 1)
            init.trunc_normal_(module.cross_attention_layer.mlp.fc2.weight, std=std / (2 * number) ** 0.5)

    def token_grid(self, pixel_values_videos: torch.Tensor) -> Grid:
        """(time, rows, columns) of tubelets in a clip. One frame counts as a whole tubelet; whatever else does not
        divide into tubelets raises ModelInputError."""
        self.check_input(pixel_values_videos)
        frames, _, height, width = pixel_values_videos.shape[1:]
        t, p, q = self.config.patch
        frames = t if frames == 1 else frames
        if frames % t or height % p or width % q or 0 in (frames, height, width):
            raise ModelInputError(
                f"A clip of {frames} frames of {height}x{width} pixels does not divide into tubelets of {t} frames of "
                f"{p}x{q}. Use a multiple, such as {max(frames // t, 1) * t} frames of "
                f"{max(height // p, 1) * p}x{max(width // q, 1) * q}, or one frame, which is shown {t} times."
            )
        return frames // t, height // p, width // q


class VJEPA2Model(VJEPA2PreTrainedModel):
    """Encoder and predictor: (B, T, C, H, W) -> `VJEPA2ModelOutput`. T, H and W come from the tensor."""

    def __init__(self, config: VJEPA2Config) -> None:
        super().__init__(config)
        self.encoder = VJEPA2Encoder(config)
        self.predictor = VJEPA2Predictor(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.encoder.embeddings.patch_embeddings

    def forward(
        self,
        pixel_values_videos: torch.Tensor,
        context_mask: Sequence[torch.Tensor] | None = None,
        target_mask: Sequence[torch.Tensor] | None = None,
        skip_predictor: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> VJEPA2ModelOutput | tuple[Any, ...]:
        """Encodes clips, and predicts some of their tokens from others.

        Args:
            pixel_values_videos: Clips (B, T, C, H, W), normalised. One frame is an image, which the model sees as a
                clip of one tubelet that stands still.
            context_mask: The tokens that the predictor sees: a list of int64 (B, n), token numbers in order time, row,
                column; or one such tensor. None shows all of them.
            target_mask: The tokens to predict: as many int64 (B, m) as there are context masks, each predicted from the
                context at the same place of the list. Pass both masks or none.
            skip_predictor: Whether the encoder alone is wanted.
            output_attentions, output_hidden_states, return_dict: As in transformers; None takes the configuration's.
                States and probabilities are the encoder's.

        Returns:
            `last_hidden_state` (B, tokens, D), and with the predictor `predictor_output`.

        Raises:
            ModelInputError: The clip has another shape or does not divide into tubelets; masks are no such lists, or
                one is given without the other.
        """
        grid = self.token_grid(pixel_values_videos)
        batch = pixel_values_videos.shape[0]
        context_places, target_places = check_masks(context_mask, target_mask, batch, grid, skip_predictor)
        attentions, hidden_states = self.resolve_output_flags(output_attentions, output_hidden_states)
        outputs = self.encoder(
            self.as_clip(pixel_values_videos),
            grid,
            output_attentions=attentions,
            output_hidden_states=hidden_states,
        )
        tokens = outputs.last_hidden_state
        context = take_tokens(tokens, context_places)
        predicted = None
        if not skip_predictor:
            places = None if context_places is None or target_places is None else (context_places, target_places)
            predicted = VJEPA2PredictorOutput(
                last_hidden_state=self.predictor(context, grid, places),
                target_hidden_state=take_tokens(tokens, target_places),
            )
        output = VJEPA2ModelOutput(tokens, context, outputs.hidden_states, outputs.attentions, predicted)
        return self.to_output(output, return_dict)

    def as_clip(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        """An image, a clip of one frame, as often as a tubelet has frames; the authors' evaluation on ImageNet shows
        it as often as a clip has."""
        if pixel_values_videos.shape[1] > 1 or self.config.tubelet_size == 1:
            return pixel_values_videos
        if not torch.compiler.is_compiling():
            logger.warning_once(f"A clip of one frame is an image: it is shown {self.config.tubelet_size} times.")
        return pixel_values_videos.expand(-1, self.config.tubelet_size, -1, -1, -1)

    def get_vision_features(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        """(B, tokens, D): the encoder's tokens, under transformers' name for them."""
        return self(pixel_values_videos, skip_predictor=True, return_dict=True).last_hidden_state

    @video_features
    def get_video_features(self, pixel_values: torch.Tensor, **flags: bool | None) -> VideoFeatures:
        """`pooler_output` (B, D) is the mean of tokens; `feature_map` (B, T/t, H/p, W/p, D)."""
        outputs = self(pixel_values, skip_predictor=True, return_dict=True, **flags)
        tokens = outputs.last_hidden_state
        return outputs.features(tokens.mean(1), tokens.unflatten(1, self.token_grid(pixel_values)))


class VJEPA2ForPreTraining(VJEPA2PreTrainedModel):
    """Masked prediction in the space of features (section 2.1 of the paper, `app/vjepa/train.py`).

    `context_encoder` is what learns. It sees the context alone, and `vjepa2.predictor` says from that what
    `vjepa2.encoder` makes of the targets, which sees the whole clip: a moving average of the context encoder, with its
    outputs normed and no gradient. After each step of the optimiser `update_target` has to be called;
    `hf-video pretrain` does so.

    The average is what the authors evaluate. It lies where other models look for their encoder: `AutoModel` and
    `AutoModelForVideoClassification` load it from the same folder, also transformers' own. Weights of a `VJEPA2Model`
    start both encoders.
    """

    accepts_loss_kwargs = False  # nothing here divides by a number of labels

    def __init__(self, config: VJEPA2Config) -> None:
        super().__init__(config)
        self.vjepa2 = VJEPA2Model(config)
        self.context_encoder = VJEPA2Encoder(config)
        self.vjepa2.encoder.requires_grad_(False)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self:
            pairs = zip(self.context_encoder.parameters(), self.vjepa2.encoder.parameters(), strict=True)
            for learning, average in pairs:
                init.copy_(learning, average)

    def train(self, mode: bool = True) -> VJEPA2ForPreTraining:
        """As torch's; the average drops nothing and has no gradient, also after `from_pretrained`, which calls this.

        Args:
            mode: Training, or evaluation.
        """
        super().train(mode)
        self.vjepa2.encoder.eval().requires_grad_(False)
        return self

    @torch.no_grad()
    def update_target(self, momentum: float) -> None:
        """Moves the average: momentum · average + (1 - momentum) · context encoder.

        Raises:
            ConfigError: The weights have less than 32 bits; they would round the little steps away.
        """
        average: list[torch.Tensor] = list(self.vjepa2.encoder.parameters())
        learning: list[torch.Tensor] = list(self.context_encoder.parameters())
        if self.dtype.itemsize < 4:
            raise ConfigError(
                f"The weights are {self.dtype}, in which the moving average would stand still: load the model in "
                "float32 and train it with bf16=True."
            )
        torch._foreach_lerp_(average, learning, 1 - momentum)

    @torch.no_grad()
    def targets(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        """What there is to predict: the tokens of the average, each normed.

        Args:
            pixel_values_videos: Clips (B, T, 3, H, W), whole.

        Returns:
            (B, tokens, D) in float32.
        """
        grid = self.token_grid(pixel_values_videos)
        tokens = self.vjepa2.encoder(self.vjepa2.as_clip(pixel_values_videos), grid).last_hidden_state
        return F.layer_norm(tokens.float(), tokens.shape[-1:])

    def errors(self, predicted: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """How far predictions are from their targets: |z - h|^p / p, with `loss_exponent` as p.

        Args:
            predicted: (..., D).
            targets: Of the same shape.

        Returns:
            The error of each number, of that shape.
        """
        exponent = self.config.loss_exponent
        return (predicted.float() - targets).abs() ** exponent / exponent

    def forward(
        self,
        pixel_values_videos: torch.Tensor,
        context_mask: Sequence[torch.Tensor] | None = None,
        target_mask: Sequence[torch.Tensor] | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> VJEPA2ForPreTrainingOutput | tuple[Any, ...]:
        """Predicts features of hidden tokens from those that are seen.

        Args:
            pixel_values_videos: Clips (B, T, C, H, W), normalised.
            context_mask: The tokens that are seen: a list of int64 (B, n), token numbers in order time, row, column, or
                one such tensor. See `masks.draw_block_masks`.
            target_mask: The tokens to predict, int64 (B, m), as many as there are context masks. The numbers of tokens
                may differ from pair to pair.
            output_attentions, output_hidden_states, return_dict: As in transformers; None takes the configuration's.

        Returns:
            `loss`, the mean over the pairs of masks, and `logits`.

        Raises:
            ModelInputError: The clip has another shape or does not divide into tubelets; a mask is missing or is not
                one of the clip's.
        """
        grid = self.token_grid(pixel_values_videos)
        batch = pixel_values_videos.shape[0]
        contexts, hidden = check_masks(context_mask, target_mask, batch, grid, uneven=True)
        if contexts is None or hidden is None:
            raise ModelInputError(
                "context_mask and target_mask are missing: pretraining needs both, e.g. of masks.draw_block_masks."
            )
        attentions, hidden_states = self.resolve_output_flags(output_attentions, output_hidden_states)
        flags = {"output_attentions": attentions, "output_hidden_states": hidden_states}
        targets, clips = self.targets(pixel_values_videos), self.vjepa2.as_clip(pixel_values_videos)
        first: Any = None
        predictions: list[torch.Tensor] = []
        losses: list[torch.Tensor] = []
        for context, target in zip(contexts, hidden, strict=True):
            context, target = context.to(clips.device), target.to(clips.device)
            encoded = self.context_encoder(clips, grid, context, **({} if predictions else flags))
            first = first or encoded
            predictions.append(self.vjepa2.predictor(encoded.last_hidden_state, grid, ([context], [target])))
            losses.append(self.errors(predictions[-1], take_tokens(targets, [target])).mean())
        output = VJEPA2ForPreTrainingOutput(
            loss=torch.stack(losses).mean(),
            logits=torch.cat(predictions, dim=1),
            hidden_states=first.hidden_states,
            attentions=first.attentions,
        )
        return self.to_output(output, return_dict)


class VJEPA2ForVideoClassification(VideoClassifier, VJEPA2PreTrainedModel):
    """Attentive pooler and linear classifier on the encoder's tokens."""

    def __init__(self, config: VJEPA2Config) -> None:
        super().__init__(config)
        self.vjepa2 = VJEPA2Model(config)
        self.pooler = VJEPA2AttentivePooler(config)
        self.add_classifier(config.hidden_size)

    def forward(  # type: ignore[override]
        self,
        pixel_values_videos: torch.Tensor,
        labels: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> VideoClassifierOutput | tuple[Any, ...]:
        """Classifies clips; see `VideoClassifier.forward`, whose `pixel_values` have transformers' name here."""
        output_attentions, output_hidden_states = self.resolve_output_flags(output_attentions, output_hidden_states)
        outputs = self.encode(pixel_values_videos, output_attentions, output_hidden_states)
        return self.classifier_output(
            self.classify_tokens(self.pooler_tokens(outputs)),
            labels,
            num_items_in_batch,
            return_dict,
            hidden_states=outputs.hidden_states if output_hidden_states else None,
            attentions=outputs.attentions,
        )

    def encode(self, pixel_values_videos: torch.Tensor, attentions: bool, hidden_states: bool) -> Any:
        """The encoder's outputs, with the hidden states if the pooler reads any."""
        return self.vjepa2(
            pixel_values_videos,
            skip_predictor=True,
            output_attentions=attentions,
            output_hidden_states=hidden_states or self.config.pooler_layers is not None,
            return_dict=True,
        )

    def encode_tokens(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        """Computes what the pooler reads of clips.

        Args:
            pixel_values_videos: Clips (B, T, C, H, W), normalised.

        Returns:
            (B, tokens, D).
        """
        return self.pooler_tokens(self.encode(pixel_values_videos, attentions=False, hidden_states=False))

    def classify_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        """Classifies by tokens of `encode_tokens`.

        Args:
            tokens: (B, n, D), of one clip, or of several one behind the other as in the authors' evaluations.

        Returns:
            Logits (B, classes).
        """
        return self.classifier(self.dropout(self.pooler(tokens)))

    def pool(self, outputs: Any) -> torch.Tensor:
        """What the classifier reads, (B, D)."""
        return self.pooler(self.pooler_tokens(outputs))

    def pooler_tokens(self, outputs: Any) -> torch.Tensor:
        """What the pooler reads, (B, tokens, D)."""
        blocks, states = self.config.pooler_layers, outputs.hidden_states
        if blocks is None or states is None:
            return outputs.last_hidden_state
        norm = self.vjepa2.encoder.layernorm
        return torch.cat([norm(states[1 + i]) for i in blocks], dim=1)

    @video_features
    def get_video_features(
        self,
        pixel_values: torch.Tensor,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> VideoFeatures:
        attentions, hidden_states = self.resolve_output_flags(output_attentions, output_hidden_states)
        outputs = self.encode(pixel_values, attentions, hidden_states)
        feature_map = outputs.last_hidden_state.unflatten(1, self.token_grid(pixel_values))
        features: VideoFeatures = outputs.features(self.pool(outputs), feature_map)
        features.hidden_states = outputs.hidden_states if hidden_states else None
        return features
