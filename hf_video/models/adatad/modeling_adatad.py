"""AdaTAD (Liu et al., *End-to-End Temporal Action Detection with 1B Parameters Across 1000 Frames*, CVPR 2024,
arXiv:2311.17241; sming256/OpenTAD, `vit_adapter.py`): VideoMAE and a detector trained together, at low memory, because
of the encoder only small adapters learn.

A window of many frames is cut into chunks of as many as VideoMAE sees. Blocks attend within a chunk; an adapter behind
each of them convolves over the time of all chunks joined. The mean over space, stretched to one vector for each frame,
(or for each few), is the sequence that ActionFormer, with global attention, finds actions in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init

from hf_video.base.detection.modeling import Segments, TemporalDetectionOutput
from hf_video.base.modeling import VideoPreTrainedModel, video_features
from hf_video.base.outputs import VideoFeatures, VideoModelOutput
from hf_video.errors import ModelInputError
from hf_video.layers.temporal import TemporalConv
from hf_video.layers.vit import CosineSelfAttention, SplitSelfAttention, ViTBlock, drop_path_rates
from hf_video.models.actionformer.configuration_actionformer import ActionFormerConfig
from hf_video.models.actionformer.modeling_actionformer import ActionFormerForTemporalActionDetection
from hf_video.models.adatad.configuration_adatad import AdaTADConfig
from hf_video.models.videomae.modeling_videomae import VideoMAEEmbeddings, VideoMAEModel


class TemporalAdapter(nn.Module):
    """Temporal-informative adapter (section 3.3): a bottleneck with a convolution over time beside its shortcut. It
    starts as the identity."""

    def __init__(self, width: int, hidden: int, kernel_size: int) -> None:
        super().__init__()
        self.down_proj = nn.Linear(width, hidden)
        self.depthwise = TemporalConv(hidden, hidden, kernel_size, groups=hidden)
        self.pointwise = nn.Linear(hidden, hidden)
        self.up_proj = nn.Linear(hidden, width)
        self.gamma = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor, videos: int, places: int) -> torch.Tensor:
        """(chunks, time · places, D), the chunks of `videos` windows one after another -> the same."""
        hidden = F.gelu(self.down_proj(x))
        lines = hidden.reshape(videos, -1, places, hidden.shape[2]).transpose(1, 2)  # (videos, places, time, D / 4)
        mixed = self.pointwise(self.depthwise(lines.flatten(0, 1))).view(lines.shape)
        return x + self.up_proj(hidden + mixed.transpose(1, 2).reshape(hidden.shape)) * self.gamma


class AdaTADBlock(ViTBlock):
    """VideoMAE's block, and an adapter behind it or none: one unit of gradient checkpointing."""

    def __init__(self, *args: Any, adapter: TemporalAdapter | None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.adapter = adapter

    def forward(self, x: torch.Tensor, videos: int, places: int) -> torch.Tensor:
        x, _ = super().forward(x)
        return x if self.adapter is None else self.adapter(x, videos, places)


class AdaTADEncoder(nn.Module):
    def __init__(self, config: AdaTADConfig) -> None:
        super().__init__()
        encoder = config.encoder_config
        width, attention = encoder.hidden_size, CosineSelfAttention if encoder.cosine_attention else SplitSelfAttention
        adapter = int(width * config.adapter_ratio), config.adapter_kernel_size
        self.layer = nn.ModuleList(
            AdaTADBlock(
                attention(encoder, width, encoder.num_attention_heads, encoder.qv_bias),
                width,
                encoder.intermediate_size,
                act=encoder.hidden_act,
                eps=encoder.layer_norm_eps,
                dropout=encoder.hidden_dropout_prob,
                drop_path=rate,
                adapter=TemporalAdapter(width, *adapter) if number in config.layers_with_adapters else None,
            )
            for number, rate in enumerate(drop_path_rates(encoder.drop_path_rate, encoder.num_hidden_layers))
        )


class AdaTADPreTrainedModel(VideoPreTrainedModel):
    config_class = AdaTADConfig
    base_model_prefix = "adatad"
    _no_split_modules: ClassVar[list[str]] = ["VideoMAEEmbeddings", "AdaTADBlock"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            init.trunc_normal_(module.weight, std=self.config.encoder_config.initializer_range)
        elif isinstance(module, SplitSelfAttention):
            if module.q_bias is not None:
                init.zeros_(module.q_bias)
                init.zeros_(module.v_bias)
            if isinstance(module, CosineSelfAttention):
                init.constant_(module.scale, math.log(10))
        elif isinstance(module, TemporalAdapter):
            init.trunc_normal_(module.down_proj.weight, std=0.02)
            init.normal_(module.depthwise.weight, std=math.sqrt(2 / module.depthwise.kernel_size[0]))
            init.normal_(module.pointwise.weight, std=math.sqrt(2 / module.pointwise.in_features))
            init.zeros_(module.up_proj.weight)
            for layer in (module.down_proj, module.depthwise, module.pointwise, module.up_proj):
                init.zeros_(layer.bias)
            init.ones_(module.gamma)

    @property
    def num_blocks(self) -> int:
        return self.config.encoder_config.num_hidden_layers


class AdaTADModel(AdaTADPreTrainedModel):
    """VideoMAE with adapters: windows (B, T, C, H, W) to sequences (B, T / frames_per_step, D).

    With `freeze_encoder` all but the adapters is frozen, and in eval mode while the model is in training, except for
    stochastic depth.
    """

    def __init__(self, config: AdaTADConfig) -> None:
        super().__init__(config)
        config.encoder_config._attn_implementation = config._attn_implementation
        self.embeddings = VideoMAEEmbeddings(config.encoder_config)
        self.encoder = AdaTADEncoder(config)
        self.post_init()
        self.train()

    def frozen_modules(self) -> Iterator[nn.Module]:
        """What `freeze_encoder` keeps as it is: embeddings, attentions, MLPs and norms."""
        yield self.embeddings
        for block in self.encoder.layer:
            yield from (module for name, module in block.named_children() if name not in ("adapter", "drop_path"))

    def train(self, mode: bool = True):
        """As any module's; what is frozen is so from here on, because `from_pretrained` makes new parameters."""
        super().train(mode)
        if self.config.freeze_encoder:
            for module in self.frozen_modules():
                module.eval().requires_grad_(False)
        return self

    def load_encoder(self, encoder: VideoMAEModel) -> None:
        """Takes over the weights of a VideoMAE of the same sizes; adapters stay as they are. Its last norm, where it
        has one, is not used here."""
        state = {name: value for name, value in encoder.state_dict().items() if not name.startswith("layernorm.")}
        missing, unexpected = self.load_state_dict(state, strict=False)
        if wrong := [name for name in missing if ".adapter." not in name] + unexpected:
            raise ModelInputError(f"The encoder does not fit encoder_config: {', '.join(wrong[:5])}.")

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.patch_embeddings

    def token_map(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(B, T, C, H, W) -> (B, T / tubelet, H / patch, W / patch, D), after the last block."""
        self.check_input(pixel_values)
        encoder = self.config.encoder_config
        chunk, (tubelet, p, q) = encoder.num_frames, encoder.patch
        videos, frames, _, height, width = pixel_values.shape
        if not frames or frames % chunk or height % p or width % q:
            raise ModelInputError(
                f"A window of {frames} frames of {height}x{width} pixels does not divide into chunks of {chunk} frames "
                f"and patches of {p}x{q}."
            )
        grid = chunk // tubelet, height // p, width // q
        tokens = self.embeddings(pixel_values.unflatten(1, (-1, chunk)).flatten(0, 1), grid)
        for block in self.encoder.layer:
            tokens = block(tokens, videos, grid[1] * grid[2])
        return tokens.reshape(videos, -1, *grid[1:], tokens.shape[2])

    def forward(self, pixel_values: torch.Tensor, return_dict: bool | None = None) -> VideoModelOutput | tuple:
        """Args:
            pixel_values: windows (B, T, C, H, W), normalised; T is a multiple of the encoder's `num_frames`.
            return_dict: False for a tuple.

        Returns:
            `last_hidden_state` (B, T / frames_per_step, D): a vector for each step of the detector.

        Raises:
            ModelInputError: a window of another shape.
        """
        sequence = self.token_map(pixel_values).mean((2, 3))
        steps = pixel_values.shape[1] // self.config.frames_per_step
        stretched = F.interpolate(sequence.transpose(1, 2), steps, mode="linear").transpose(1, 2)
        return self.to_output(VideoModelOutput(last_hidden_state=stretched), return_dict)

    @video_features
    def get_video_features(self, pixel_values: torch.Tensor) -> VideoFeatures:
        """Encodes clips.

        Args:
            pixel_values: Clips (B, T, C, H, W), normalised floats.

        Returns:
            `pooler_output` (B, D) is the mean of tokens; `feature_map` (B, T/t, H/p, W/p, D).
        """
        tokens = self.token_map(pixel_values)
        return VideoFeatures(
            last_hidden_state=tokens.flatten(1, 3), pooler_output=tokens.mean((1, 2, 3)), feature_map=tokens
        )


class AdaTADForTemporalActionDetection(AdaTADPreTrainedModel):
    """Windows of frames to actions with start and end. `parameter_groups` of `hf_video.training.optim` with
    `learning_rate=1e-4, weight_decay=0.05, backbone_rate=2` are the authors' groups."""

    def __init__(self, config: AdaTADConfig) -> None:
        super().__init__(config)
        self.adatad = AdaTADModel(config)
        self.detector = ActionFormerForTemporalActionDetection(config.detector_config)
        self.post_init()

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters without weight decay: the detector's; of adapters all decay, as in the official
        code."""
        return {f"detector.{name}" for name in self.detector.no_weight_decay()}

    def forward(
        self,
        pixel_values: torch.Tensor,
        mask: torch.Tensor | None = None,
        segments: Sequence[torch.Tensor] | None = None,
        labels: Sequence[torch.Tensor] | None = None,
        return_dict: bool | None = None,
    ) -> TemporalDetectionOutput | tuple:
        """Args:
            pixel_values: windows (B, T, C, H, W), normalised; T is a multiple of the encoder's `num_frames`.
            mask: (B, T / frames_per_step), True where a step lies in the video; None for all of them. Frames behind the
                end are the last one again, as the processor and the official code have it, and are seen by the encoder.
            segments: for the loss, (N, 2) for each window, start and end in steps of the window.
            labels: for the loss, (N,) class numbers for each window.
            return_dict: False for a tuple.

        Returns:
            `TemporalDetectionOutput`; `find_segments` turns it into segments.

        Raises:
            ModelInputError: a window or a mask of another shape.
        """
        sequence = self.adatad(pixel_values, return_dict=True).last_hidden_state
        return self.detector(sequence, mask, segments, labels, return_dict=return_dict)

    @torch.no_grad()
    def find_segments(
        self,
        output: TemporalDetectionOutput,
        config: ActionFormerConfig | None = None,
        starts: Sequence[int] | torch.Tensor | None = None,
    ) -> list[Segments]:
        """The segments of each window, or of one video that was seen in overlapping windows.

        Args:
            output: of `forward`, in eval mode.
            config: whose fields decide which segments are kept and how they are merged; None for `detector_config`.
            starts: for windows of one video, the step of the video at which each begins. Their segments are joined
                before they are merged, as the authors do it.

        Returns:
            One `Segments` for each window, or with `starts` one for the video, best first, positions in steps.
        """
        if starts is None:
            return self.detector.find_segments(output, config)
        config = config or self.detector.config
        windows = self.detector.candidates(output, config)
        joined = [one.segments + float(start) for one, start in zip(windows, starts, strict=True)]
        scores, labels = torch.cat([one.scores for one in windows]), torch.cat([one.labels for one in windows])
        return [self.detector.merge(Segments(torch.cat(joined), scores, labels), config)]
