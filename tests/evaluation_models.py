"""A tiny classifier of every model type with its processor, and labelled lossless clips for them."""

from __future__ import annotations

from pathlib import Path

from contract import randomise
from tiny import LABELS, moving_frames

import hf_video
from hf_video.data.rows import VideoRow, VideoRows
from hf_video.video.writer import write_video

NAMES = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
VIT = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
PLAIN = {"image_size": 32, "num_frames": 4}
VGG = {"kind": "vgg", "depths": [1, 1], "widths": [6, 8], "fc_width": 8, "pool_size": 2}
MVIT = {
    **PLAIN,
    "embed_dim": 16,
    "num_hidden_layers": 2,
    "dim_mul": [[1, 2.0]],
    "head_mul": [[1, 2.0]],
    "pool_q_stride": [[1, 1, 2, 2]],
    "pool_kv_stride_adaptive": [1, 4, 4],
}
I3D_R50 = {"architecture": "resnet", "stem_channels": 8, "depths": [1, 1], "temporal_kernels": [[3], [3]]}
CONFIGS = {
    "videomae": {**PLAIN, **VIT, "patch_size": 16},
    "timesformer": {**PLAIN, **VIT, "patch_size": 16},
    "vjepa2": {
        **{**PLAIN, "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 16},
        **{"pred_hidden_size": 24, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1, "num_pooler_layers": 1},
    },
    "videoprism_vision_model": {
        **{**PLAIN, "hidden_size": 24, "num_attention_heads": 2, "intermediate_size": 32, "tubelet_size": [1, 16, 16]},
        **{"num_spatial_layers": 1, "num_temporal_layers": 1},
    },
    "vivit": {**PLAIN, **VIT, "tubelet_size": [2, 16, 16]},
    "mvit": MVIT,
    "mvit-large": {**MVIT, "embed_dim": 144, "num_attention_heads": 2},
    "video_swin": {**PLAIN, "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2), "window_size": (2, 3, 3)},
    "i3d": {"stem_channels": 8, "num_frames": 10, "image_size": 32},
    "i3d-resnet": {**PLAIN, **I3D_R50, "head_pool": [2, 3, 3]},
    "slowfast": {
        **{**PLAIN, "num_frames": 8, "stem_channels": 8, "depths": [1, 1], "alpha": 4},
        **{"slow_kernels": [1, 3], "fast_kernels": [3, 3], "head_pool": [4, 4]},
    },
    "x3d": {**PLAIN, "stem_channels": 8, "depth_factor": 0.5, "head_size": 32},
    "c3d": {"image_size": 32, "num_frames": 16, "stem_channels": 4, "fc_size": 24},
    "two_stream": {"spatial_config": VGG, "temporal_config": VGG, "flow_length": 3, "num_frames": 3},
    "two_stream-rgb": {"spatial_config": VGG, "temporal_config": None, "num_frames": 3},
}
SIZES = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}
FIXED = {**SIZES, "size": {"height": 40, "width": 64}}
PROCESSORS = {
    "c3d": FIXED,
    "videoprism_vision_model": {"size": {"height": 32, "width": 32}},
    "two_stream": {**FIXED, "flow_length": 3},
    "two_stream-rgb": {**FIXED, "streams": "spatial"},
    "slowfast": {**SIZES, "sampler_options": {"rate": 2, "start": "center"}},
    "i3d-resnet": {**SIZES, "sampler_options": {"rate": 3}},
}


def make(name: str):
    """The model, in double precision so that the order of a batch does not show, and its processor."""
    entry = hf_video.MODELS[name.partition("-")[0]]
    config = entry.load(entry.config)(**CONFIGS[name], **NAMES)
    model = randomise(entry.load(entry.auto["AutoModelForVideoClassification"])(config)).double()
    return model, entry.load(entry.image_processor)(**PROCESSORS.get(name, SIZES))


def write_rows(folder: Path, count: int, *, frames: int = 70, fps: int = 24, **size: int) -> VideoRows:
    """`count` lossless clips of `moving_frames(frames, seed=number)`, 48x80 pixels, labels in turn."""
    rows = []
    for i in range(count):
        path = write_video(folder / f"{i}.mkv", moving_frames(frames, seed=i, **size), fps=fps, codec="ffv1")
        rows.append(VideoRow(str(path), i % len(LABELS), path.name))
    return VideoRows(rows, LABELS)
