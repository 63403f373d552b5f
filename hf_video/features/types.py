"""Types that annotations share. Type checkers alone import this module."""

from __future__ import annotations

import os
from typing import BinaryIO

import numpy as np
import torch
from PIL.Image import Image
from transformers.image_processing_utils import BaseImageProcessor
from transformers.video_processing_utils import BaseVideoProcessor

from hf_video.base.processing import ClipProcessing
from hf_video.video.frames.part import VideoPart

# What makes model inputs of frames: ours, or a stock image or video processor.
FrameProcessor = ClipProcessing | BaseImageProcessor | BaseVideoProcessor
# What `VideoReader` opens: a path or URL, encoded bytes, an open file, frames (T, H, W, C), stills, a part of these.
Frames = np.ndarray | torch.Tensor | list[str | os.PathLike[str] | Image]
VideoSource = str | os.PathLike[str] | bytes | BinaryIO | Frames | VideoPart
