"""VIOLET's trunk (Fu et al. 2021, arXiv:2111.12681, section 3.1; `model.py` of tsujuifu/pytorch_violet).

    video (B, T, C, H, W) -> Video Swin, every frame kept -> a learnt token before each frame's patches, positions
                             inside a frame, number of the frame, norm            -> (B, T·(1 + h·w), D)
    text  (B, L)          -> BERT's embeddings                                    -> (B, L, D)
    [video ; text]        -> BERT's encoder, padding left out                     -> (B, T·(1 + h·w) + L, D)

BERT's parts are transformers' own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from transformers import BertModel
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask
from transformers.utils import ModelOutput

from hf_video.base.losses import classification_loss
from hf_video.base.modeling import VideoPreTrainedModel, video_features
from hf_video.base.outputs import VideoClassifierOutput, VideoFeatures
from hf_video.errors import ModelInputError
from hf_video.models.video_swin.modeling_video_swin import VideoSwinModel
from hf_video.models.violet.configuration_violet import VioletConfig


@dataclass
class VioletModelOutput(ModelOutput):
    """`last_hidden_state` (B, T·(1 + h·w) + L, D), video first; `text_cls` (B, D), its state at the text's [CLS];
    `video_tokens` (B, T·(1 + h·w), D), before the joint encoder; `hidden_states`: what goes into the joint encoder and
    each of its layers' outputs; `attentions`: each layer's probabilities (B, heads, tokens, tokens)."""

    last_hidden_state: torch.Tensor | None = None
    text_cls: torch.Tensor | None = None
    video_tokens: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class VioletVideoEmbeddings(nn.Module):
    """Gives each frame's patches a token in front, positions inside the frame, and the number of the frame."""

    def __init__(self, config: VioletConfig) -> None:
        super().__init__()
        self.frame_token = nn.Parameter(torch.zeros(1, 1, 1, config.hidden_size))
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1, 1 + config.max_patches, config.hidden_size))
        self.time_embeddings = nn.Parameter(torch.zeros(1, config.max_frames, 1, config.hidden_size))
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """(B, T, h·w, D) -> (B, T·(1 + h·w), D), frame after frame."""
        batch, frames, count, _ = patches.shape
        tokens = torch.cat([self.frame_token.expand(batch, frames, -1, -1), patches], dim=2)
        tokens = tokens + (self.position_embeddings[:, :, : 1 + count] + self.time_embeddings[:, :frames])
        return self.norm(tokens).flatten(1, 2)


class VioletPreTrainedModel(VideoPreTrainedModel):
    """Initialisation: tokens and positions normal; the towers as Video Swin and BERT do it."""

    config_class = VioletConfig
    base_model_prefix = "violet"
    input_modalities = ("video", "text")
    accepts_loss_kwargs = False
    knows_statistics = True
    _no_split_modules: ClassVar[list[str]] = ["VideoSwinEmbeddings", "VideoSwinBlock", "BertEmbeddings", "BertLayer"]
    # The video encoder's learned biases between pairs of tokens.
    _supports_flash_attn = False
    _supports_flex_attn = False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, VioletVideoEmbeddings):
            for part in (module.frame_token, module.position_embeddings, module.time_embeddings):
                init.normal_(part, std=self.config.initializer_range)

    def layer_groups(self) -> list[list[str]]:
        """Names of all parameters by depth: 0 the embeddings, then the video encoder's blocks, then the joint
        encoder's layers, last what follows."""
        depths = {"swin": 0, "bert": self.config.video_config.num_hidden_layers}
        blocks = depths["bert"] + self.config.text_config.num_hidden_layers
        groups: list[list[str]] = [[] for _ in range(blocks + 2)]
        for name, _ in self.named_parameters():
            if block := re.search(r"(swin|bert)\.encoder\.layer\.(\d+)\.", name):
                groups[depths[block[1]] + int(block[2]) + 1].append(name)
            else:
                groups[0 if "embeddings." in name else -1].append(name)
        return groups

    def no_weight_decay(self) -> set[str]:
        """As in the base class, and Video Swin's bias tables and the frames' token."""
        more = {n for n, _ in self.named_parameters() if n.endswith(("relative_position_bias_table", "frame_token"))}
        return super().no_weight_decay() | more

    @video_features
    def get_video_features(self, pixel_values: torch.Tensor, **flags: bool | None) -> VideoFeatures:
        """Of the video alone, before it meets a text: `pooler_output` (B, D) is the mean over patches of `feature_map`
        (B, T, h, w, D). It lies in no common space with texts: a pair is scored, not compared. `last_hidden_state`
        (B, T·(1 + h·w), D) is what goes into the joint encoder, `hidden_states` and `attentions` are Video Swin's."""
        model = self.base_model
        rows, columns = self.token_grid(pixel_values)[1:]
        grids, *states = model.swin.encode(pixel_values, **flags)
        outputs = model.swin.as_tokens(grids, *states)
        outputs.last_hidden_state = model.video_embeddings(grids.flatten(2, 3))
        patches = outputs.last_hidden_state.unflatten(1, (-1, 1 + rows * columns))[:, :, 1:]
        return outputs.features(patches.mean((1, 2)), patches.unflatten(2, (rows, columns)))

    # -- what may come in ---------------------------------------------------------------------------------------------

    def token_grid(self, pixel_values: torch.Tensor) -> tuple[int, int, int]:
        """(frames, rows, columns) of patches; raises ModelInputError for a clip that the model has no positions for."""
        self.check_input(pixel_values)
        frames, _, height, width = pixel_values.shape[1:]
        p, q = self.config.patch
        if height % p or width % q or 0 in (frames, height, width):
            raise ModelInputError(
                f"Frames of {height}x{width} pixels do not divide into patches of {p}x{q}; pass multiples of them, "
                f"such as {max(height // p, 1) * p}x{max(width // q, 1) * q}, and at least one frame."
            )
        rows, columns = height // p, width // q
        if frames > self.config.max_frames:
            raise ModelInputError(
                f"{frames} frames came and the model has positions for {self.config.max_frames}; sample fewer "
                "(num_frames= of the processor)."
            )
        if rows * columns > self.config.max_patches:
            raise ModelInputError(
                f"Frames of {height}x{width} pixels make {rows * columns} patches and the model has positions for "
                f"{self.config.max_patches}; use smaller frames."
            )
        return frames, rows, columns

    def check_text(self, input_ids: torch.Tensor | None, attention_mask: torch.Tensor | None, ndim: int = 2) -> None:
        """Raises ModelInputError unless ids, and their mask if any, are integers (B, L), or (B, options, L)."""
        shape = "(batch, tokens)" if ndim == 2 else "(batch, options, tokens)"
        if input_ids is None:
            raise ModelInputError(f"input_ids is missing. Pass the tokenizer's {shape}.")
        if input_ids.ndim != ndim or input_ids.is_floating_point() or 0 in input_ids.shape:
            raise ModelInputError(
                f"input_ids is {input_ids.dtype} of shape {tuple(input_ids.shape)}; expected integers {shape}."
            )
        limit = self.config.text_config.max_position_embeddings
        if input_ids.shape[-1] > limit:
            raise ModelInputError(f"Texts of {input_ids.shape[-1]} tokens came; the model has positions for {limit}.")
        if attention_mask is not None and attention_mask.shape != input_ids.shape:
            raise ModelInputError(
                f"attention_mask has shape {tuple(attention_mask.shape)} and input_ids {tuple(input_ids.shape)}: they "
                "must be equal."
            )


class VioletModel(VioletPreTrainedModel):
    """The trunk. `forward` joins video i and text i."""

    def __init__(self, config: VioletConfig) -> None:
        super().__init__(config)
        self.swin = VideoSwinModel(config.video_config)
        self.video_embeddings = VioletVideoEmbeddings(config)
        self.bert = BertModel(config.text_config, add_pooling_layer=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.bert.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.bert.embeddings.word_embeddings = value

    def embed_video(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(B, T, C, H, W) -> (B, T·(1 + h·w), D)."""
        self.token_grid(pixel_values)
        return self.video_embeddings(self.swin.encode(pixel_values)[0].flatten(2, 3))

    def embed_text(self, input_ids: torch.Tensor, token_type_ids: torch.Tensor | None = None) -> torch.Tensor:
        """(B, L) -> (B, L, D)."""
        return self.bert.embeddings(input_ids=input_ids, token_type_ids=token_type_ids)

    def join(
        self,
        video: torch.Tensor,
        text: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> VioletModelOutput:
        """Video tokens (B, n, D) and text tokens (B, L, D) with the text's mask (B, L) through the joint encoder."""
        tokens = torch.cat([video, text], dim=1)
        if attention_mask is None:
            attention_mask = torch.ones(text.shape[:2], dtype=torch.bool, device=text.device)
        seen = torch.ones(video.shape[:2], dtype=torch.bool, device=text.device)
        seen = torch.cat([seen, attention_mask.bool()], dim=1)
        mask = create_bidirectional_mask(config=self.bert.config, inputs_embeds=tokens, attention_mask=seen)
        states, attentions = (tokens,), ()
        for layer in self.bert.encoder.layer:
            if output_attentions:
                attentions += (attention_probabilities(layer.attention.self, states[-1], seen),)
            tokens = layer(tokens, mask)
            states = (*states, tokens) if output_hidden_states else (tokens,)
        return VioletModelOutput(
            last_hidden_state=tokens,
            text_cls=tokens[:, video.shape[1]],
            video_tokens=video,
            hidden_states=states if output_hidden_states else None,
            attentions=attentions if output_attentions else None,
        )

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> VioletModelOutput | tuple:
        """Encodes pairs of a text and a video together.

        Args:
            input_ids, attention_mask, token_type_ids: Texts (B, L); 1 in the mask is a word, 0 padding.
            pixel_values: Clips (B, T, C, H, W), normalised; video i belongs to text i.
            output_attentions, output_hidden_states, return_dict: As in transformers; None takes the configuration's.

        Returns:
            `last_hidden_state` (B, tokens, D): the video's tokens, frame by frame, before the text's.
        """
        self.check_input(pixel_values)
        self.check_text(input_ids, attention_mask)
        if len(input_ids) != len(pixel_values):
            raise ModelInputError(
                f"{len(input_ids)} texts and {len(pixel_values)} videos came; text i goes with video i."
            )
        output_attentions, output_hidden_states = self.resolve_output_flags(output_attentions, output_hidden_states)
        output = self.join(
            self.embed_video(pixel_values),
            self.embed_text(input_ids, token_type_ids),
            attention_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        return self.to_output(output, return_dict)


def attention_probabilities(attention: nn.Module, states: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """A BERT layer's probabilities (B, heads, n, n) for its input (B, n, D): worked out beside the layer, so that they
    are there under every attention implementation and cost nothing where nobody asks. `seen` (B, n), bool."""
    heads = (attention.num_attention_heads, attention.attention_head_size)
    query, key = (part(states).unflatten(2, heads).transpose(1, 2) for part in (attention.query, attention.key))
    scores = query @ key.transpose(2, 3) * attention.scaling
    return scores.masked_fill(~seen[:, None, None], torch.finfo(scores.dtype).min).softmax(-1)


def classifier_output(
    logits: torch.Tensor,
    labels: torch.Tensor | None,
    num_items_in_batch: torch.Tensor | int | None,
    states: VioletModelOutput,
) -> VideoClassifierOutput:
    """Logits (B, classes) and the states that they were read off, with a loss where there are labels (B,)."""
    loss = None
    if labels is not None:
        loss = classification_loss(logits, labels, "single_label_classification", num_items_in_batch)
    hidden_states, attentions = states.hidden_states, states.attentions
    return VideoClassifierOutput(loss=loss, logits=logits, hidden_states=hidden_states, attentions=attentions)
