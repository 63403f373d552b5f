"""Types that annotations share. Type checkers alone import this module."""

from __future__ import annotations

from transformers.image_processing_utils import BaseImageProcessor
from transformers.video_processing_utils import BaseVideoProcessor

from hf_video.base.processing import ClipProcessing

# What makes model inputs of frames: ours, or a stock image or video processor.
FrameProcessor = ClipProcessing | BaseImageProcessor | BaseVideoProcessor
