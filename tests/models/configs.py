"""The smallest models that still have every part, and their inputs."""

from __future__ import annotations

import torch
from contract import randomise

from hf_video.models.timesformer.configuration_timesformer import TimesformerConfig
from hf_video.models.timesformer.modeling_timesformer import TimesformerModel
from hf_video.models.videomae.configuration_videomae import VideoMAEConfig
from hf_video.models.videomae.masking import tube_mask

TIMESFORMER = {
    "image_size": [32, 48],
    "patch_size": 16,
    "num_frames": 4,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
}
VIDEOMAE = {
    "image_size": [32, 64],
    "patch_size": 16,
    "num_frames": 4,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 24,
    "use_mean_pooling": False,
}

CLIP = torch.randn(2, 4, 3, 32, 64, generator=torch.Generator().manual_seed(0))  # for VIDEOMAE


def timesformer(cls=TimesformerModel, **changes):
    """With every parameter drawn anew."""
    return randomise(cls(TimesformerConfig(**{**TIMESFORMER, **changes})))


def videomae(cls, **changes):
    """With every parameter drawn anew."""
    return randomise(cls(VideoMAEConfig(**{**VIDEOMAE, **changes})))


def half_hidden(batch=2, clip=(4, 32, 64), patch=(2, 16, 16)):
    """Tube masks of ratio 1/2 that are the same in every call."""
    grid = tuple(n // p for n, p in zip(clip, patch, strict=True))
    return tube_mask(8, grid, 0.5, generator=torch.Generator().manual_seed(1))[:batch].contiguous()
