"""Types that annotations share. Type checkers alone import this module."""

from __future__ import annotations

from hf_video.data.types import FrameProcessor as FrameProcessor
from hf_video.data.types import Frames as Frames
from hf_video.data.types import VideoSource as VideoSource
