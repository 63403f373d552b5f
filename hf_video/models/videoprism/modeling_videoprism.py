"""VideoPrism's classifier and clip model, on its encoder (`encoder.py`).

classifier:  tokens -> pooling by attention -> norm -> classes
clip model:  tokens -> two layers over all of them -> the same pooling -> unit vector (B, D)
             words, class token -> causal layers -> norm -> the class token's unit vector (N, D)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import ModelOutput, logging

from hf_video.base.losses import classification_loss
from hf_video.base.modeling import video_features
from hf_video.base.outputs import TextFeatures, VideoClassifierOutput, VideoFeatures
from hf_video.errors import ModelInputError
from hf_video.models.videoprism.configuration_videoprism import (
    VideoPrismConfig,
    VideoPrismTextConfig,
    VideoPrismVisionConfig,
)
from hf_video.models.videoprism.embeddings import VideoPrismTextEmbeddings
from hf_video.models.videoprism.encoder import VideoPrismPreTrainedModel, VideoPrismVisionModel
from hf_video.models.videoprism.layers import (
    VideoPrismLayer,
    VideoPrismLayerNorm,
    VideoPrismMultiheadAttentionPoolingHead,
    run_layers,
)

logger = logging.get_logger(__name__)


@dataclass
class VideoPrismClipOutput(ModelOutput):
    """`logits_per_video` (V, N): of each text its share of every video, so that columns add up to 1; `logits_per_text`
    (N, V): of each video its share of every text, columns again; `video_embeds` (V, D) and `text_embeds` (N, D); the
    towers' outputs; `loss` with `return_loss`. All as in transformers."""

    logits_per_video: torch.Tensor | None = None
    logits_per_text: torch.Tensor | None = None
    video_embeds: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    video_model_output: ModelOutput | None = None
    text_model_output: ModelOutput | None = None
    loss: torch.Tensor | None = None

    def to_tuple(self) -> tuple[Any, ...]:
        return tuple(value.to_tuple() if isinstance(value, ModelOutput) else value for value in super().to_tuple())


def l2norm(x: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt((x * x).sum(dim=-1, keepdim=True) + 1e-6)


class VideoPrismForVideoClassification(VideoPrismPreTrainedModel):
    """The encoder, pooling by attention, and a linear classifier."""

    accepts_loss_kwargs = True

    def __init__(self, config: VideoPrismVisionConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.vision_model = VideoPrismVisionModel(config)
        self.head = VideoPrismMultiheadAttentionPoolingHead(config)
        self.head_layernorm = VideoPrismLayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        pixel_values_videos: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        interpolate_pos_encoding: bool | None = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> VideoClassifierOutput | tuple:
        """Classifies clips.

        Args:
            pixel_values_videos: Clips (B, T, C, H, W), pixels in [0, 1].
            labels: (B,) class numbers, or (B, classes) floats; see `losses.classification_loss`.
            interpolate_pos_encoding, output_attentions, output_hidden_states, return_dict: As in the encoder.
            num_items_in_batch: Labels of the whole effective batch, by which Trainer divides the loss.

        Returns:
            `logits` (B, 1, classes), with a dimension for the pooling's one query as in transformers, `loss` with
            labels, and the encoder's states.

        Raises:
            ModelInputError: The clip or the labels have another shape.
        """
        flags = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        encoded = self.vision_model(pixel_values_videos, interpolate_pos_encoding, return_dict=True, **flags)
        logits = self.classifier(self.head_layernorm(self.head(encoded.last_hidden_state)))
        loss = None
        if labels is not None:
            loss = classification_loss(logits[:, 0], labels, self.config.problem_type, num_items_in_batch)
        states = {"hidden_states": encoded.hidden_states, "attentions": encoded.attentions}
        return self.to_output(VideoClassifierOutput(loss=loss, logits=logits, **states), return_dict)

    @video_features
    def get_video_features(
        self, pixel_values_videos: torch.Tensor, interpolate_pos_encoding: bool | None = False, **flags: bool | None
    ) -> VideoFeatures:
        """As `VideoPreTrainedModel.get_video_features`; the vector is what the classifier reads."""
        encoded = self.vision_model(pixel_values_videos, interpolate_pos_encoding, return_dict=True, **flags)
        vector = self.head_layernorm(self.head(encoded.last_hidden_state))[:, 0]
        return self.vision_model.as_features(encoded, vector, pixel_values_videos)


class VideoPrismVideoModel(VideoPrismPreTrainedModel):
    """The video tower of the clip model: the encoder, auxiliary layers over all tokens, pooling, length 1."""

    def __init__(self, config: VideoPrismVisionConfig) -> None:
        super().__init__(config)
        self.vision_model = VideoPrismVisionModel(config)
        self.auxiliary_layers = nn.ModuleList(VideoPrismLayer(config) for _ in range(config.num_auxiliary_layers))
        self.head = VideoPrismMultiheadAttentionPoolingHead(config)
        self.head_layernorm = VideoPrismLayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def forward(
        self,
        pixel_values_videos: torch.Tensor | None = None,
        interpolate_pos_encoding: bool | None = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPooling | tuple:
        """Arguments as in the encoder. Returns `last_hidden_state` (B, T·N, D) of the auxiliary layers, `pooler_output`
        (B, 1, D), and the encoder's `hidden_states` and `attentions`."""
        flags = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        encoded = self.vision_model(pixel_values_videos, interpolate_pos_encoding, return_dict=True, **flags)
        tokens, states, attentions = encoded.last_hidden_state, encoded.hidden_states, encoded.attentions
        del encoded  # and with it what the layers before need no more
        tokens, _, _ = run_layers(self.auxiliary_layers, tokens)
        vector = self.head_layernorm(self.head(tokens))
        output = BaseModelOutputWithPooling(
            last_hidden_state=tokens,
            pooler_output=l2norm(vector) if self.config.apply_l2norm else vector,
            hidden_states=states,
            attentions=attentions,
        )
        return self.to_output(output, return_dict)


class VideoPrismTextModel(VideoPrismPreTrainedModel):
    """The text tower of the clip model."""

    config_class = VideoPrismTextConfig
    base_model_prefix = "text_model"
    main_input_name = "input_ids"
    input_modalities = ("text",)
    _input_embed_layer = "token_embedding"

    def __init__(self, config: VideoPrismTextConfig) -> None:
        super().__init__(config)
        self.embeddings = VideoPrismTextEmbeddings(config)
        self.layers = nn.ModuleList(VideoPrismLayer(config) for _ in range(config.num_hidden_layers))
        self.layernorm = VideoPrismLayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.token_embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.embeddings.token_embedding = value

    def causal_mask(self, attention_mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """(N, L) with 1 for words -> what is added to the logits, (N, 1, L + 1, L + 1): each token sees the words up
        to itself, the class token all words."""
        length = attention_mask.shape[1] + 1
        seen = F.pad(attention_mask.bool(), (0, 1), value=True)[:, None, None]
        seen = seen & torch.ones(length, length, dtype=torch.bool, device=seen.device).tril()
        return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)

    def check_tokens(self, tokens: torch.Tensor | None, attention_mask: torch.Tensor | None) -> None:
        shape = None if tokens is None else tuple(tokens.shape[:2])
        longest = self.config.max_position_embeddings
        if shape is None or len(shape) < 2 or shape[1] > longest:
            raise ModelInputError(
                f"Exactly one of input_ids (texts, tokens) and inputs_embeds (texts, tokens, width) is needed, of at "
                f"most {longest} tokens; got {shape}. Let the tokenizer pad and truncate to max_length={longest}."
            )
        if attention_mask is None:
            if not torch.compiler.is_compiling():
                logger.warning_once(
                    "No attention_mask came: every token then sees all others, as in plain transformers, which is not "
                    "what VideoPrism's text tower was trained for. Pass the tokenizer's attention_mask."
                )
        elif tuple(attention_mask.shape) != shape:
            raise ModelInputError(f"attention_mask has shape {tuple(attention_mask.shape)}; expected {shape}.")

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPooling | tuple:
        """Encodes texts.

        Args:
            input_ids: (N, L) token numbers, padded to `max_position_embeddings` in the official code.
            attention_mask: (N, L), 1 for words and 0 for padding. Without one, no token is masked, not even causally.
            inputs_embeds: (N, L, D) in place of `input_ids`.
            position_ids: (N, L); None counts from 0.
            output_attentions, output_hidden_states, return_dict: As in transformers; None takes the configuration's.

        Returns:
            `last_hidden_state` (N, L + 1, D) with the class token last, and `pooler_output` (N, D), of the class token.

        Raises:
            ModelInputError: No tokens, too many of them, or a mask of another shape.
        """
        both = input_ids is not None and inputs_embeds is not None
        self.check_tokens(None if both else input_ids if inputs_embeds is None else inputs_embeds, attention_mask)
        attentions, hidden = self.resolve_output_flags(output_attentions, output_hidden_states)
        tokens = self.embeddings(input_ids, inputs_embeds, position_ids)
        mask = None if attention_mask is None else self.causal_mask(attention_mask, tokens.dtype)
        tokens, states, probs = run_layers(
            self.layers, tokens, mask, output_attentions=attentions, output_hidden_states=hidden
        )
        tokens = self.layernorm(tokens)
        vector = tokens[:, -1]
        output = BaseModelOutputWithPooling(
            last_hidden_state=tokens,
            pooler_output=l2norm(vector) if self.config.apply_l2norm else vector,
            hidden_states=(*states[:-1], tokens) if hidden else None,
            attentions=probs if attentions else None,
        )
        return self.to_output(output, return_dict)


class VideoPrismClipModel(VideoPrismPreTrainedModel):
    """Videos and texts in one space (the official `FactorizedVideoCLIP`, "LvT")."""

    config_class = VideoPrismConfig
    base_model_prefix = "model"
    input_modalities = ("video", "text")
    accepts_loss_kwargs = False
    loss_joins_samples = True
    text_padding = "max_length"

    def __init__(self, config: VideoPrismConfig) -> None:
        super().__init__(config)
        self.video_model = VideoPrismVideoModel._from_config(config.vision_config)
        self.text_model = VideoPrismTextModel._from_config(config.text_config)
        self.post_init()

    @property
    def num_blocks(self) -> int:
        vision = self.config.vision_config
        return max(vision.num_hidden_layers + vision.num_auxiliary_layers, self.config.text_config.num_hidden_layers)

    def get_input_embeddings(self) -> nn.Module:
        """The text's."""
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.text_model.set_input_embeddings(value)

    def token_grid(self, pixel_values_videos: torch.Tensor) -> tuple[int, int, int]:
        """See `VideoPrismVisionModel`."""
        return self.video_model.vision_model.token_grid(pixel_values_videos)

    def get_text_features(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        return_dict: bool | None = None,
        **inputs: Any,
    ) -> TextFeatures | tuple:
        """Encodes texts: `VideoPrismTextModel`'s arguments, and its output, with `pooler_output` (N, D)."""
        states = self.text_model(input_ids, attention_mask, return_dict=True, **inputs)
        return self.to_output(TextFeatures(**states), return_dict)

    @video_features
    def get_video_features(
        self, pixel_values_videos: torch.Tensor, interpolate_pos_encoding: bool | None = False, **flags: bool | None
    ) -> VideoFeatures:
        """Encodes clips: `VideoPrismVideoModel`'s arguments and output, `pooler_output` (B, 1, D) as in transformers,
        `embedding` (B, D), and `feature_map` (B, T, rows, columns, D), the auxiliary layers' tokens on their grid."""
        states = self.video_model(pixel_values_videos, interpolate_pos_encoding, return_dict=True, **flags)
        tower = self.video_model.vision_model
        return tower.as_features(states, states.pooler_output, pixel_values_videos)

    def forward(
        self,
        pixel_values_videos: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        interpolate_pos_encoding: bool | None = False,
        temperature: float | None = None,
        return_loss: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> VideoPrismClipOutput | tuple:
        """Compares all videos with all texts.

        Args:
            pixel_values_videos: Clips (V, T, C, H, W), pixels in [0, 1].
            input_ids, attention_mask: Texts (N, L); 1 in the mask is a word, 0 padding.
            interpolate_pos_encoding: As in the encoder.
            temperature: What products of vectors are divided by. The official demonstration takes .01.
            return_loss: Whether text i belongs to video i (N equals V) and transformers' sigmoid loss of the shares is
                returned. For training, `video_embeds` and `text_embeds` serve `losses.contrastive_loss`.
            output_attentions, output_hidden_states, return_dict: As in transformers; None takes the configuration's.

        Returns:
            `VideoPrismClipOutput`.

        Raises:
            ModelInputError: Videos or texts are missing or have another shape, or their numbers differ for the loss.
        """
        flags = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        flags |= {"return_dict": True}
        video = self.video_model(pixel_values_videos, interpolate_pos_encoding, **flags)
        text = self.text_model(input_ids, attention_mask, **flags)
        videos, texts = video.pooler_output[:, 0], text.pooler_output
        similarity = videos @ texts.t()
        if temperature is not None:
            similarity = similarity / temperature
        shares = similarity.softmax(dim=0), similarity.t().softmax(dim=0)
        output = VideoPrismClipOutput(
            logits_per_video=shares[0],
            logits_per_text=shares[1],
            video_embeds=videos,
            text_embeds=texts,
            video_model_output=video,
            text_model_output=text,
            loss=sigmoid_loss(shares[1]) if return_loss else None,
        )
        return self.to_output(output, return_dict)


def sigmoid_loss(logits: torch.Tensor) -> torch.Tensor:
    """SigLIP's loss, each pair for itself, of (N, N)."""
    if logits.shape[0] != logits.shape[1]:
        raise ModelInputError(
            f"{logits.shape[0]} texts and {logits.shape[1]} videos came; for the loss, text i is that of video i."
        )
    signs = 2 * torch.eye(len(logits), dtype=logits.dtype, device=logits.device) - 1
    return -F.logsigmoid(signs * logits).sum(dim=-1).mean()
