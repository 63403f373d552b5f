"""Tiny models of video and text with random weights, saved with their processors."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_text import WORDS, tiny_clip_text, tiny_clip_vision, tiny_tokenizer

import hf_video

SIZE = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
ANSWERS = ("left", "right", "up", "down")


def save(model, processor, folder: Path) -> Path:
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def save_videoclip(folder: Path, **changes) -> Path:
    """Frames of 32x32, four of them; `changes` are fields of the configuration."""
    tokenizer = tiny_tokenizer()
    config = {"video_config": tiny_clip_vision(), "text_config": tiny_clip_text(len(tokenizer)), "projection_dim": 64}
    config |= {"temporal_layers": 1, "max_position_embeddings": 16, "num_frames": 4}
    model = hf_video.VideoCLIPModel(hf_video.VideoCLIPConfig(**{**config, **changes}))
    images = hf_video.VideoCLIPImageProcessor(**SIZE, num_frames=4)
    return save(model, hf_video.VideoCLIPProcessor(images, tokenizer), folder)


def save_violet(folder: Path, kind: str = "VioletForVideoTextRetrieval", **changes) -> Path:
    tokenizer = tiny_tokenizer()
    video = {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "image_size": 32, "temporal_stride": 1}
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    text |= {"vocab_size": len(WORDS) + 5, "max_position_embeddings": 40}
    config = hf_video.VioletConfig(
        video_config=video, text_config=text, mask_token_id=3, special_token_ids=[0, 2], num_frames=4, **changes
    )
    images = hf_video.VioletImageProcessor(size={"height": 32, "width": 32}, num_frames=4)
    return save(getattr(hf_video, kind)(config), hf_video.VioletProcessor(images, tokenizer), folder)
