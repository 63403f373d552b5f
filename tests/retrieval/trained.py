"""A VideoCLIP that has learnt what moving glyphs are called, in seconds, and a library of such clips."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_text import tiny_clip_text, tiny_clip_vision, tiny_tokenizer

import hf_video
from hf_video.data.moving_glyphs import COLORS, DIRECTIONS, SHAPES, moving_glyphs
from hf_video.video.writer import write_video

SIZE, FRAMES = 32, 4


def write_glyphs(folder: Path, count: int, *, seed: int = 1000) -> Path:
    """Clips of 3 seconds, 64x64, named by what they show: `red-ring-left-007.mp4`."""
    folder.mkdir(parents=True)
    for number, clip in enumerate(moving_glyphs(count, seed, num_frames=24, speed=4)):
        write_video(folder / f"{clip.color}-{clip.shape}-{clip.direction}-{number:03d}.mp4", clip.frames, 8)
    return folder


def train_videoclip(folder: Path, *, steps: int = 250, batch: int = 48) -> Path:
    """Trains and saves it with its processor; the loss is contrastive, the words are those of the captions."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for layers this small a second one costs more than it brings
    tokenizer = tiny_tokenizer(["a", "moving", *COLORS, *SHAPES, *DIRECTIONS])
    config = hf_video.VideoCLIPConfig(
        video_config=tiny_clip_vision(image_size=SIZE, patch_size=8),
        text_config=tiny_clip_text(vocab_size=len(tokenizer)),
        projection_dim=64,
        temporal="mean",
        num_frames=FRAMES,
    )
    model = hf_video.VideoCLIPModel(config).train()
    size = {"shortest_edge": SIZE}
    pixels = hf_video.VideoCLIPImageProcessor(size=size, crop_size={"height": SIZE, "width": SIZE}, num_frames=FRAMES)
    processor = hf_video.VideoCLIPProcessor(pixels, tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    clips = moving_glyphs(288, seed=0, num_frames=FRAMES)
    inputs = processor(text=[clip.caption for clip in clips], videos=[clip.frames for clip in clips])
    for _ in range(steps):
        chosen = torch.randperm(len(clips))[:batch]
        loss = model(**{name: value[chosen] for name, value in inputs.items()}, return_loss=True).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    torch.set_num_threads(threads)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
