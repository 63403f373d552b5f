"""X-CLIP (Ni et al., 2022, arXiv:2208.02816): transformers' own model, for any number of frames.

The number of frames stands in two places: the messages that the class tokens of a clip's frames exchange in every
block, which any number can, and the learnt positions of the transformer over frames (the authors' `models/cct.py` and
`models/mit.py`). Stock takes both from the configuration; here the first is read from the clip, and positions for
another number are interpolated in time, with a warning. With the configuration's number nothing is different.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.x_clip import modeling_x_clip as stock
from transformers.utils import logging

from hf_video.base.modeling import InitializesAllModules
from hf_video.errors import ModelInputError, check_count
from hf_video.layers.embeddings import resize_grid

logger = logging.get_logger(__name__)


class XCLIPVisionEncoderLayer(stock.XCLIPVisionEncoderLayer):
    """A block whose clips have `num_frames` frames."""

    num_frames: int

    def forward(self, *inputs: torch.Tensor, num_frames: int | None = None, **kwargs: Any) -> Any:
        # Set for each call, so that a block that is run a second time, by gradient checkpointing, counts alike.
        self.num_frames = self.num_frames if num_frames is None else num_frames
        return super().forward(*inputs, **kwargs)


class XCLIPMultiframeIntegrationTransformer(stock.XCLIPMultiframeIntegrationTransformer):
    """The transformer over frames, with positions for as many as come."""

    def forward(self, hidden_states: torch.Tensor, num_frames: int | None = None, **kwargs: Any) -> Any:
        """(B, frames, D) -> states of that shape, and their mean (B, D)."""
        learnt, frames = self.position_embedding.shape[1], hidden_states.shape[1]
        if learnt == frames:
            return super().forward(hidden_states, **kwargs)
        if not torch.compiler.is_compiling():
            warn_of_frames(learnt, frames)
        placed = hidden_states + resize_grid(self.position_embedding, (learnt,), (frames,))
        states = self.encoder(inputs_embeds=placed, **kwargs)[0].to(hidden_states.dtype) + hidden_states
        return BaseModelOutputWithPooling(last_hidden_state=states, pooler_output=states.mean(1))


def warn_of_frames(learnt: int, frames: int) -> None:
    logger.warning_once(
        f"X-CLIP learnt positions for {learnt} frames, and clips have {frames}: they are interpolated in time. "
        "Fine-tune before you trust the scores."
    )


class XCLIPModel(InitializesAllModules, stock.XCLIPModel):
    """transformers' `XCLIPModel`, which takes clips of any number of frames. Files are the same."""

    mit: Any

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        vision = self.vision_model.config
        self.vision_model.encoder.layers = nn.ModuleList(
            XCLIPVisionEncoderLayer(vision) for _ in range(vision.num_hidden_layers)
        )
        self.mit = XCLIPMultiframeIntegrationTransformer(self.mit.encoder.config)
        self.post_init()

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, *args: Any, **kwargs: Any
    ) -> Any:
        """As transformers'.

        Args:
            pretrained_model_name_or_path: A folder or a name on the Hub.
            args: As transformers'.
            kwargs: As transformers', and `num_frames`: frames of a clip, if not the configuration's. Positions are
                interpolated once, and are saved so.

        Returns:
            The model; with `output_loading_info` also what was loaded.
        """
        frames = kwargs.pop("num_frames", None)
        check_count("num_frames", frames, optional=True)
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        if frames is not None:
            (loaded[0] if isinstance(loaded, tuple) else loaded).set_num_frames(frames)
        return loaded

    @torch.no_grad()
    def set_num_frames(self, num_frames: int) -> None:
        """Makes the model one for clips of so many frames: its positions are interpolated in time, for good."""
        positions, config = self.mit.position_embedding, self.config.vision_config
        learnt = positions.shape[1]
        if learnt != num_frames:
            warn_of_frames(learnt, num_frames)
            self.mit.position_embedding = nn.Parameter(resize_grid(positions, (learnt,), (num_frames,)).contiguous())
        for one in (config, self.vision_model.config, self.mit.encoder.config):
            one.num_frames = num_frames
        for layer in self.vision_model.encoder.layers:
            layer.num_frames = num_frames

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        return_loss: bool | None = None,
        interpolate_pos_encoding: bool = False,
        **kwargs: Any,
    ) -> Any:
        """As transformers', with `pixel_values` (B, T, C, H, W) of any T."""
        return super().forward(
            input_ids,
            pixel_values,
            attention_mask,
            position_ids,
            return_loss,
            interpolate_pos_encoding,
            num_frames=frames_of(pixel_values),
            **kwargs,
        )

    def get_video_features(self, pixel_values: torch.Tensor, **kwargs: Any) -> Any:
        """As transformers', with `pixel_values` (B, T, C, H, W) of any T."""
        return super().get_video_features(pixel_values, num_frames=frames_of(pixel_values), **kwargs)


def frames_of(pixel_values: torch.Tensor | None) -> int:
    """T of clips (B, T, C, H, W). Raises ModelInputError for what are none."""
    if pixel_values is None or pixel_values.ndim != 5 or pixel_values.shape[1] == 0:
        came = "nothing" if pixel_values is None else f"shape {tuple(pixel_values.shape)}"
        raise ModelInputError(f"pixel_values must be clips (batch, frames, channels, height, width), and {came} came.")
    return pixel_values.shape[1]
