"""C3D's processors, after jfzhang95/pytorch-video-recognition: **BGR** in 0..255 less the mean of Sports-1M in each
channel, not divided by a deviation; frames of 128×171 whatever their proportions, centre 112; 16 frames in a row.

mmaction2's UCF101 weights were trained otherwise, on RGB with BGR's means: `C3DImageProcessor(
do_flip_channel_order=False, image_mean=[104, 117, 128], size={"shortest_edge": 128})`. Caffe's net takes off a mean
clip of 16×128×171, not one value per channel.
"""

from __future__ import annotations

from typing import Any

from hf_video.processing import VideoImageProcessor, VideoVideoProcessor

SIZE = {"height": 128, "width": 171}
CROP = {"height": 112, "width": 112}
BGR_MEAN = (90.0, 98.0, 102.0)
ONE = (1.0, 1.0, 1.0)


class C3DImageProcessor(VideoImageProcessor):
    size: Any = SIZE
    crop_size: Any = CROP
    do_flip_channel_order = True
    do_rescale = False
    image_mean = BGR_MEAN
    image_std = ONE
    sampler = "dense"


class C3DVideoProcessor(VideoVideoProcessor):
    size: Any = SIZE
    crop_size: Any = CROP
    do_flip_channel_order = True
    do_rescale = False
    image_mean = BGR_MEAN
    image_std = ONE
    sampler = "dense"
