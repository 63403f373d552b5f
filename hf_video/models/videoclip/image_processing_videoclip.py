"""The video half of VideoCLIP's processor: CLIP's statistics, bicubic short side 224, centre crop; 12 frames spread
over the video (CLIP4Clip, section 4.1: one a second and at most 12)."""

from __future__ import annotations

from hf_video.base.processing import VideoImageProcessor, VideoVideoProcessor

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
BICUBIC = 3


class VideoCLIPImageProcessor(VideoImageProcessor):
    """Frames as CLIP sees images: bicubic, its mean and deviation; 12 frames of a video."""

    resample = BICUBIC
    image_mean = MEAN
    image_std = STD
    num_frames = 12


class VideoCLIPVideoProcessor(VideoVideoProcessor):
    """`VideoCLIPImageProcessor` for `AutoVideoProcessor`."""

    resample = BICUBIC
    image_mean = MEAN
    image_std = STD
    num_frames = 12
