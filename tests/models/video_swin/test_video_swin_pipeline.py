"""Video Swin answers for a file."""

from __future__ import annotations

import numpy as np
from transformers import pipeline

import hf_video
from hf_video.data.moving_glyphs import DIRECTIONS
from hf_video.models.video_swin.configuration_video_swin import VideoSwinConfig
from hf_video.models.video_swin.modeling_video_swin import VideoSwinForVideoClassification
from hf_video.video import write_video

LABELS = list(DIRECTIONS)


def test_pipeline_answers_for_a_file(tmp_path):
    config = VideoSwinConfig(
        embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=(2, 3, 3), num_frames=4, image_size=32,
        id2label=dict(enumerate(LABELS)), label2id={name: i for i, name in enumerate(LABELS)},
    )  # fmt: skip
    VideoSwinForVideoClassification(config).save_pretrained(tmp_path / "model")
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    hf_video.VideoSwinImageProcessor(**size).save_pretrained(tmp_path / "model")
    classify = pipeline("video-classification", model=str(tmp_path / "model"))
    frames = np.random.default_rng(0).integers(0, 256, (24, 48, 80, 3), dtype=np.uint8)
    answers = classify(str(write_video(tmp_path / "clip.mp4", frames, 8)), top_k=4)
    assert {answer["label"] for answer in answers} == set(LABELS)
    assert abs(sum(answer["score"] for answer in answers) - 1) < 1e-5
    processor = classify.image_processor
    assert (processor.sampler, processor.sampler_options, processor.num_frames) == ("dense", {"stride": 2}, 4)
