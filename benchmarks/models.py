"""Pairs of models with the same random weights: transformers' own (by its module, so that our registration over the
Auto classes doesn't matter) and ours, loaded from the file that the stock one saved."""

from __future__ import annotations

import importlib
import tempfile

import torch

VIDEOMAE = {"num_frames": 16, "image_size": 224}
VIDEOMAE_SMALL = {**VIDEOMAE, "hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}
TIMESFORMER = {"num_frames": 8, "image_size": 224}
VIDEOPRISM = {"num_frames": 16, "image_size": 288}
# Stock knows its fields under other names; ours takes both.
VJEPA2 = {"num_frames": 16, "image_size": 256, "frames_per_clip": 16, "crop_size": 256}
QUICK = {
    "image_size": 64,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
}
QUICK_VIDEOPRISM = {
    **{name: size for name, size in QUICK.items() if name != "num_hidden_layers"},
    "image_size": 54,
    "num_spatial_layers": 2,
    "num_temporal_layers": 1,
}
QUICK_VJEPA2 = {**QUICK, "crop_size": 64, "pred_num_hidden_layers": 1, "num_pooler_layers": 1}
TOLERANCE = 1e-4


def options(base: dict, quick: bool, small: dict = QUICK) -> dict:
    """Base-size settings, or small ones that only show that it runs."""
    return {**base, **(small if quick else {})}


def pair(name: str, settings: dict, attention: str) -> tuple[torch.nn.Module, torch.nn.Module]:
    """(ours, stock), float32, in eval mode. `attention` is the stock model's implementation; ours takes its default."""
    import hf_video

    family = next(one for one in ("videomae", "videoprism", "vjepa2", "timesformer") if name.lower().startswith(one))
    module = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    cls = getattr(module, name)
    torch.manual_seed(0)
    stock = cls(cls.config_class(**settings, attn_implementation=attention)).eval()
    with torch.no_grad():
        for parameter in stock.parameters():  # zeros of the initialisation would hide a part that is wrong
            parameter.add_(torch.randn_like(parameter), alpha=0.01)
    with tempfile.TemporaryDirectory() as folder:
        stock.save_pretrained(folder)
        ours = getattr(hf_video, name).from_pretrained(folder).eval()
    if not type(stock).__module__.startswith("transformers.") or not type(ours).__module__.startswith("hf_video."):
        raise RuntimeError(f"{name}: the pair isn't stock and ours but {type(stock)} and {type(ours)}")
    return ours, stock


def video(batch: int, settings: dict, seed: int = 0) -> torch.Tensor:
    """(batch, frames, 3, size, size) float32 with the spread of normalised pixels, different patterns for each row."""
    generator = torch.Generator().manual_seed(seed)
    size, frames = settings["image_size"], settings["num_frames"]
    coarse = torch.randn(batch * frames, 3, 7, 7, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    grain = torch.randn(batch * frames, 3, size, size, generator=generator)
    return (smooth + 0.3 * grain).view(batch, frames, 3, size, size)
