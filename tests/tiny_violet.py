"""A VIOLET of few channels, its tokenizer, and what can be said about generated clips."""

from __future__ import annotations

import numpy as np
import torch
from contract import randomise
from tiny_text import WORDS, tiny_tokenizer

from hf_video.data.moving_glyphs import COLORS, DIRECTIONS, SHAPES, GlyphClip, moving_glyph
from hf_video.models.violet.configuration_violet import VioletConfig

QUESTION_WORDS = ("where", "does", "what", "moves", "move", "colour", "is", "diamond", "glyph", *COLORS)
TOKENIZER = tiny_tokenizer(words=(*WORDS, *QUESTION_WORDS))
ANSWERS = (*DIRECTIONS, *SHAPES, *COLORS)


def tiny_config(embed_dim: int = 8, **changes) -> VioletConfig:
    """4 frames of 32 × 32 in patches of 8 × 8: 4 · (1 + 16) video tokens."""
    spread = 0.2  # the authors' .02 is made for dozens of times the width; less, and no text sees the video at first
    video = {"embed_dim": embed_dim, "depths": (2, 2), "num_heads": (2, 4), "window_size": (4, 4, 4)}
    text = {"hidden_size": 2 * embed_dim, "intermediate_size": 4 * embed_dim, "num_attention_heads": 4}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    given = {
        "video_config": {**video, "temporal_stride": 1, "image_size": 32, "initializer_range": spread},
        "text_config": {
            **{**text, **dropout, "vocab_size": len(TOKENIZER), "num_hidden_layers": 2},
            **{"max_position_embeddings": 16, "initializer_range": spread},
        },
        "num_frames": 4,
        "max_patches": 16,
        "mask_token_id": TOKENIZER.mask_token_id,
        "special_token_ids": TOKENIZER.convert_tokens_to_ids(["[CLS]", "[SEP]", "[PAD]"]),
        "visual_vocab_size": 32,
        "classifier_dropout": 0.0,
        "initializer_range": spread,
    }
    return VioletConfig(**{**given, **changes})


def tiny(cls, **changes):
    """With every parameter drawn anew, in eval mode."""
    return randomise(cls(tiny_config(**{"num_labels": 5, **changes})))


def pairs(count: int = 3, frames: int = 4, size: tuple[int, int] = (32, 32)) -> dict[str, torch.Tensor]:
    """Clips and texts of different lengths."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, len(TOKENIZER) - 1, (count, 7), generator=generator)
    ids[:, 0] = TOKENIZER.cls_token_id
    mask = torch.arange(7) < torch.arange(7, 7 - count, -1)[:, None]
    video = torch.randn(count, frames, 3, *size, generator=generator)
    return {"input_ids": ids.masked_fill(~mask, 0), "attention_mask": mask.long(), "pixel_values": video}


def clips(count: int, seed: int, shapes: tuple[str, ...] = tuple(SHAPES)) -> tuple[list[GlyphClip], torch.Tensor]:
    """Generated clips, directions in turn, and their pixels (count, 4, 3, 32, 32) about 0."""
    rng, directions = np.random.default_rng(seed), list(DIRECTIONS)
    sizes = {"num_frames": 4, "size": 32, "speed": 4}
    made = [moving_glyph(directions[i % 4], rng, **sizes, shape=str(rng.choice(shapes))) for i in range(count)]
    pixels = torch.from_numpy(np.stack([clip.frames for clip in made])).movedim(-1, 2).float()
    return made, pixels / 127.5 - 1


def questions(clip: GlyphClip) -> list[tuple[str, str]]:
    """Three questions about a clip, each with its answer."""
    return [
        (f"where does the {clip.shape} move", clip.direction),
        ("what moves", clip.shape),
        (f"what colour is the {clip.shape}", clip.color),
    ]


def tokens(texts: list[str]) -> dict[str, torch.Tensor]:
    made = TOKENIZER(texts, padding=True, return_tensors="pt")
    return {name: made[name] for name in ("input_ids", "attention_mask")}
