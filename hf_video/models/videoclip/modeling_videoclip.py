"""Dual encoders of video and text: CLIP for video.

    video (B, T, C, H, W) -> video tower -> projection -> temporal head -> mean over frames -> unit vector (B, D)
    text  (N, L)          -> text tower  -> projection                                     -> unit vector (N, D)
    logits = exp(logit_scale) · video · textᵀ

CLIP (Radford et al. 2021, arXiv:2103.00020) for the frame encoder and the loss, CLIP4Clip (arXiv:2104.08860) for the
order of things in time: every frame is normalised, then averaged, then normalised again. The towers are transformers'
own or our video encoders; parameter names of towers and projections are those of stock `CLIPModel`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
import transformers
from torch import nn
from torch.nn import functional as F
from transformers import MODEL_MAPPING, AutoModel, PreTrainedConfig
from transformers import initialization as init
from transformers.utils import ModelOutput

from hf_video.base.losses import contrastive_loss, gather_rows, sigmoid_contrastive_loss
from hf_video.base.modeling import VideoPreTrainedModel, video_features
from hf_video.base.outputs import TextFeatures, VideoFeatures
from hf_video.errors import ConfigError, ModelInputError
from hf_video.models.videoclip.clip_weights import clip_config, copy_clip
from hf_video.models.videoclip.configuration_videoclip import VideoCLIPConfig
from hf_video.models.videoclip.temporal_heads import HEADS, masked_mean


@dataclass
class VideoCLIPOutput(ModelOutput):
    """`loss` with `return_loss`; `logits_per_video` (V, N) and `logits_per_text` (N, V); `video_embeds` (V, D) and
    `text_embeds` (N, D), unit vectors; `frame_embeds` (V, T, D), before any normalisation, of frame encoders."""

    loss: torch.Tensor | None = None
    logits_per_video: torch.Tensor | None = None
    logits_per_text: torch.Tensor | None = None
    video_embeds: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    frame_embeds: torch.Tensor | None = None


def tower(config: PreTrainedConfig) -> nn.Module:
    """The bare model of a configuration: AutoModel's, or, as it does not list SigLIP's text towers, the class of the
    configuration's name."""
    if type(config) in MODEL_MAPPING:
        return AutoModel.from_config(config)
    name = type(config).__name__.removesuffix("Config") + "Model"
    if not hasattr(transformers, name):
        raise ConfigError(f"transformers has no model for {type(config).__name__}: AutoModel doesn't list it.")
    return getattr(transformers, name)._from_config(config)


class VideoCLIPModel(VideoPreTrainedModel):
    """Videos and texts in one space.

    model = VideoCLIPModel.from_clip("openai/clip-vit-base-patch32")      # zero-shot, no training
    model = VideoCLIPModel(VideoCLIPConfig(video_config=TimesformerConfig(), text_config=CLIPTextConfig()))
    """

    config_class = VideoCLIPConfig
    base_model_prefix = "videoclip"
    input_modalities = ("video", "text")
    accepts_loss_kwargs = False
    loss_joins_samples = True
    knows_statistics = True

    def __init__(self, config: VideoCLIPConfig) -> None:
        super().__init__(config)
        if config.patch_frames > 1:
            config.video_config.num_channels = config.num_channels * config.patch_frames
        self.vision_model = None if config.feature_dim else tower(config.video_config)
        self.text_model = tower(config.text_config)
        self.visual_projection = self._projection(config.feature_dim or config.video_config.hidden_size)
        self.text_projection = self._projection(config.text_config.hidden_size)
        self.temporal_head = None if config.sees_clips else HEADS[config.temporal](config)
        if config.logit_scale_init_value is not None:
            self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))
        if config.logit_bias_init_value is not None:
            self.logit_bias = nn.Parameter(torch.tensor(float(config.logit_bias_init_value)))
        self.post_init()

    @property
    def text_padding(self) -> str | bool:
        """How a tokenizer must pad texts: SigLIP reads the last place, so every text fills all of them; else True, to
        the longest."""
        return "max_length" if self.config.text_config.model_type.startswith("siglip") else True

    def _projection(self, width: int) -> nn.Module:
        if self.config.projection_dim is None:
            return nn.Identity()
        return nn.Linear(width, self.config.projection_dim, bias=False)

    def get_input_embeddings(self) -> nn.Module:
        """The text's."""
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.text_model.set_input_embeddings(value)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self:
            if self.config.logit_scale_init_value is not None:
                init.constant_(self.logit_scale, self.config.logit_scale_init_value)
            if self.config.logit_bias_init_value is not None:
                init.constant_(self.logit_bias, self.config.logit_bias_init_value)
        elif module in (self.visual_projection, self.text_projection) and isinstance(module, nn.Linear):
            init.normal_(module.weight, std=module.in_features**-0.5)

    @classmethod
    def from_clip(cls, clip, *, temporal: str = "mean", num_frames: int = 12, **options):
        """A video model out of an image-text one: CLIP, SigLIP and their kin, with no training.

        Args:
            clip: a name on the Hub, a folder, or an already loaded `CLIPModel` or `SiglipModel`.
            temporal: the head that joins frames. "transformer" and "tight" start, as CLIP4Clip does, from the text
                tower's positions and first layers where the widths allow it; they and "lstm" need training.
            num_frames: frames that the processor will take.
            options: other fields of `VideoCLIPConfig`.

        Raises ModelInputError for a model without a vision and a text tower.
        """
        stock = AutoModel.from_pretrained(clip) if isinstance(clip, str) or hasattr(clip, "__fspath__") else clip
        model = cls(clip_config(stock, temporal=temporal, num_frames=num_frames, **options))
        copy_clip(stock, model)
        return model.to(stock.dtype).eval()

    # -- the two towers -----------------------------------------------------------------------------------------------

    def get_frame_embeddings(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Frames (B, T, C, H, W) -> projected vectors (B, T, D), each frame (or segment of `segment_frames`, then T is
        their number) for itself, not normalised."""
        return self.visual_projection(self.encode_states(pixel_values))

    @property
    def frames_per_state(self) -> int | None:
        """1 for a tower of frames, `segment_frames` for one of segments; None for one that sees whole clips, or
        neighbours in its patches. See `VideoPreTrainedModel`."""
        apart = not self.config.sees_clips and self.vision_model is not None and self.config.patch_frames == 1
        return (self.config.segment_frames or 1) if apart else None

    def encode_states(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Clips (B, T, C, H, W) -> the tower's vectors of their frames or segments, (B, T', D): the `segment_features`
        of the other methods."""
        return self._encode(pixel_values)[0]

    def _encode(self, pixel_values: torch.Tensor, **flags: bool | None) -> tuple[torch.Tensor, ModelOutput]:
        """`encode_states`, and what the tower gave for all frames (or segments) as one batch."""
        self.check_input(pixel_values)
        if self.config.segment_frames:
            return self._encode_segments(pixel_values, **flags)
        batch, frames = pixel_values.shape[:2]
        if self.config.patch_frames > 1:
            # A 3-D patch embedding of 3 frames and stride 1 is a 2-D one over the channels of three frames.
            padded = F.pad(pixel_values, (0, 0, 0, 0, 0, 0, 1, 1))
            pixel_values = torch.cat([padded[:, i : i + frames] for i in range(3)], dim=2)
        size = self.config.video_config.image_size
        other_size = tuple(pixel_values.shape[-2:]) != (size, size)
        images = pixel_values.flatten(0, 1)
        resized = {"interpolate_pos_encoding": True} if other_size else {}
        states = self.vision_model(images, return_dict=True, **resized, **flags)
        return states.pooler_output.unflatten(0, (batch, frames)), states

    def _encode_segments(self, pixel_values: torch.Tensor, **flags: bool | None) -> tuple[torch.Tensor, ModelOutput]:
        length = self.config.segment_frames
        if pixel_values.shape[1] % length:
            raise ModelInputError(
                f"{pixel_values.shape[1]} frames came; the tower sees segments of {length} (segment_frames): give a "
                "multiple of it."
            )
        segments = pixel_values.unflatten(1, (-1, length))
        states = self.vision_model.get_video_features(segments.flatten(0, 1), return_dict=True, **flags)
        return states.pooler_output.unflatten(0, segments.shape[:2]), states

    @video_features
    def get_video_features(
        self,
        pixel_values: torch.Tensor | None = None,
        video_mask: torch.Tensor | None = None,
        segment_features: torch.Tensor | None = None,
        **flags: bool | None,
    ) -> VideoFeatures:
        """Encodes clips.

        Args:
            pixel_values: Clips (B, T, C, H, W), normalised.
            video_mask: (B, T), or (B, segments), 0 where a clip was padded.
            segment_features: (B, segments, D), vectors that were made before, in place of `pixel_values`.
            flags: `output_hidden_states` and `output_attentions` give the tower's, every frame in a row of its own.

        Returns:
            `pooler_output` (B, D) in the space of the texts, of unit length where the model compares cosines (none with
            `temporal="tight"`); `feature_map`, (B, T, 1, 1, D) for frame encoders; `last_hidden_state` (B, T·L, D'),
            the L tokens of every frame (segment) in turn, as the tower left them.
        """
        if self.config.sees_clips:
            self.check_input(pixel_values)
            if video_mask is not None and not bool(video_mask.all()):
                raise ModelInputError(
                    "This model's video tower sees whole clips and knows no padding: leave out video_mask."
                )
            features = self.vision_model.get_video_features(pixel_values, return_dict=True, **flags)
            features.pooler_output = self.normalized(self.visual_projection(features.pooler_output))
            return features
        frames, mask, tower = self._frames(pixel_values, video_mask, segment_features, **flags)
        tokens = segment_features
        if tower is not None:
            tokens = tower.last_hidden_state.unflatten(0, frames.shape[:2]).flatten(1, 2)
        return VideoFeatures(
            last_hidden_state=tokens,
            pooler_output=self._embed(frames, mask),
            hidden_states=getattr(tower, "hidden_states", None),
            attentions=getattr(tower, "attentions", None),
            feature_map=frames[:, :, None, None],
        )

    def _frames(self, pixel_values, video_mask, segment_features, **flags):
        """Vectors of frames or segments (B, T, D), which of them are there (B, T), and what the tower gave, or None."""
        tower = None
        if segment_features is None:
            if self.vision_model is None:
                raise ModelInputError("This model has no video tower (feature_dim is set): pass segment_features.")
            segment_features, tower = self._encode(pixel_values, **flags)
        frames = self.visual_projection(segment_features)
        shape = tuple(frames.shape[:2])
        if video_mask is None:
            return frames, torch.ones(shape, dtype=torch.bool, device=frames.device), tower
        if tuple(video_mask.shape) != shape:
            raise ModelInputError(f"video_mask has shape {tuple(video_mask.shape)}; expected {shape}, (batch, frames).")
        return frames, video_mask.bool(), tower

    def _embed(self, frames: torch.Tensor, mask: torch.Tensor) -> torch.Tensor | None:
        if self.config.temporal == "tight":
            return None
        states, mask = self.temporal_head(frames, mask)
        return self.normalized(masked_mean(self.normalized(states), mask))

    def normalized(self, vectors: torch.Tensor) -> torch.Tensor:
        """Unit vectors, unless the configuration leaves them as they are."""
        return F.normalize(vectors, dim=-1) if self.config.normalize else vectors

    def get_text_features(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        return_dict: bool | None = None,
        **inputs,
    ) -> TextFeatures | tuple:
        """Encodes texts.

        Args:
            input_ids, attention_mask: Tokens (N, L); 1 in the mask is a word, 0 padding.
            return_dict: False for a tuple; None takes the configuration's.
            inputs: Of the text tower: `token_type_ids`, `output_hidden_states`, `output_attentions`.

        Returns:
            `pooler_output` (N, D), and `projected`, the same before normalisation.
        """
        states = self.text_model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True, **inputs)
        pooling = self.config.text_pooling
        if pooling == "pooler":
            pooled = states.pooler_output
        elif pooling == "cls":
            pooled = states.last_hidden_state[:, 0]
        else:
            mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            first = 1 if pooling == "mean_after_first" else 0
            pooled = masked_mean(states.last_hidden_state[:, first:], mask[:, first:])
        projected = self.text_projection(pooled)
        features = TextFeatures(
            last_hidden_state=states.last_hidden_state,
            pooler_output=self.normalized(projected),
            hidden_states=states.hidden_states,
            attentions=states.attentions,
            projected=projected,
        )
        return self.to_output(features, return_dict)

    # -- together -----------------------------------------------------------------------------------------------------

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        video_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        segment_features: torch.Tensor | None = None,
        return_loss: bool | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> VideoCLIPOutput | tuple:
        """Compares all texts with all videos.

        Args:
            input_ids, attention_mask, token_type_ids: Texts (N, L); 1 in the mask is a word, 0 padding.
            pixel_values: Clips (V, T, C, H, W), normalised.
            video_mask: (V, T), 1 for frames and 0 for padding behind them.
            segment_features: (V, segments, features) of a video encoder elsewhere, in place of `pixel_values`.
            return_loss: Whether text i belongs to video i (N equals V) and a loss is returned. In a process group it is
                that of the joint batch: every process's pairs are negatives of all the others' (`losses.gather_rows`).
            return_dict: As in transformers; None takes the configuration's.

        Returns:
            `logits_per_video` (V, N), `logits_per_text` (N, V), the vectors of both, and `loss` with `return_loss`.
        """
        if input_ids is None:
            raise ModelInputError("input_ids is missing. Pass the tokenizer's (texts, tokens).")
        if self.training and self.config.logit_scale_init_value is not None:
            with torch.no_grad():
                self.logit_scale.clamp_(max=self.config.logit_scale_max)
        more = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        text = self.get_text_features(input_ids, attention_mask, return_dict=True, **more)
        frames = mask = None
        if self.config.sees_clips:
            video = self.get_video_features(pixel_values, video_mask, return_dict=True).embedding
        else:
            frames, mask, _ = self._frames(pixel_values, video_mask, segment_features)
            video = self._embed(frames, mask)
        tight = video is None
        texts, videos = (text.projected, (frames, mask)) if tight else (text.embedding, (video,))
        logits_per_text = self.similarity(texts, *videos)
        output = VideoCLIPOutput(
            loss=self._loss(texts, videos, logits_per_text) if return_loss else None,
            logits_per_video=logits_per_text.t(),
            logits_per_text=logits_per_text,
            video_embeds=video,
            text_embeds=None if tight else text.embedding,
            frame_embeds=frames,
        )
        return self.to_output(output, return_dict)

    def similarity(self, text: torch.Tensor, video: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Compares what the towers gave.

        Args:
            text: Vectors (N, D); for "tight" projected ones.
            video: Vectors (V, D); for "tight" those of frames (V, T, D).
            mask: For "tight" (V, T), 0 where a clip was padded.

        Returns:
            Scores (N, V).
        """
        if self.config.temporal == "tight":
            return self.temporal_head(text, video, mask)
        logits = text @ video.t()
        if self.config.logit_scale_init_value is not None:
            logits = logits * self.logit_scale.exp()
        return logits if self.config.logit_bias_init_value is None else logits + self.logit_bias

    def _loss(self, text: torch.Tensor, video: tuple[torch.Tensor, ...], logits: torch.Tensor) -> torch.Tensor:
        if len(text) != len(video[0]):
            raise ModelInputError(
                f"{len(text)} texts and {len(video[0])} videos came; for the loss, text i is that of video i."
            )
        everyone = [gather_rows(rows) for rows in (text, *video)]
        joint = logits if everyone[0] is text else self.similarity(*everyone)
        if self.config.loss == "sigmoid":
            return sigmoid_contrastive_loss(joint)
        return contrastive_loss(joint) * (2 if self.config.loss == "softmax_sum" else 1)

    def layer_groups(self) -> list[list[str]]:
        """Names of all parameters by depth: 0 the embeddings, i+1 block i of either tower, the last what follows."""
        names = [name for name, _ in self.named_parameters()]
        block = re.compile(r"^(?:vision|text)_model\..*?(?:layers?|blocks)\.(\d+)\.")
        found = {name: match for name in names if (match := block.search(name))}
        deepest = max((int(match.group(1)) for match in found.values()), default=-1)
        groups: list[list[str]] = [[] for _ in range(deepest + 3)]
        for name in names:
            stem = name.startswith(("vision_model.", "text_model.")) and "embeddings" in name
            groups[int(found[name].group(1)) + 1 if name in found else 0 if stem else -1].append(name)
        return groups
