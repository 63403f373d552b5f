"""A classifier that knows what it sees: bright and red clips, and background; so that events can be told beforehand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from transformers import PreTrainedModel

import hf_video
from hf_video.pipelines.temporal_action_detection import TemporalActionDetectionPipeline

LABELS = ("bright", "red", "background")
DARK, BRIGHT, RED = (20, 20, 20), (230, 230, 230), (230, 20, 20)


class BrightForVideoClassification(PreTrainedModel):
    """The share of bright, of red and of dark frames of a clip, as scores whose softmax is these shares."""

    config_class = hf_video.VideoMAEConfig
    main_input_name = "pixel_values"

    def __init__(self, config):
        super().__init__(config)
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.post_init()

    def forward(self, pixel_values, **_):
        red, green = (pixel_values[:, :, channel].mean((2, 3)) for channel in (0, 1))
        shown = torch.stack([green > 0.5, (red > 0.5) & (green <= 0.5), red <= 0.5], dim=-1)
        return SimpleNamespace(logits=(shown.float().mean(1) + 1e-4).log() * self.scale)


def bright_pipeline(num_frames: int = 4, **options) -> TemporalActionDetectionPipeline:
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    tiny = {"image_size": 8, "patch_size": 8, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = BrightForVideoClassification(hf_video.VideoMAEConfig(**tiny, num_frames=num_frames, **names))
    processor = hf_video.VideoMAEImageProcessor(
        size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8}, do_normalize=False
    )
    return TemporalActionDetectionPipeline(
        model=model, image_processor=processor, task="temporal-action-detection", device="cpu", **options
    )


def scene(seconds: np.ndarray, *shown: tuple[tuple[int, int, int], float, float], size: int = 16) -> np.ndarray:
    """Frames (T, size, size, 3) at these times: each colour from its start to its end, and dark."""
    frames = np.full((len(seconds), size, size, 3), DARK, dtype=np.uint8)
    for colour, start, end in shown:
        frames[(seconds >= start - 1e-9) & (seconds < end - 1e-9)] = colour
    return frames
