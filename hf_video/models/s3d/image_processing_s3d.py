"""S3D's processors: RGB in [0, 1] and nothing subtracted; short side 224, centre crop (fairseq's MMPT)."""

from __future__ import annotations

from hf_video.base.processing import VideoImageProcessor, VideoVideoProcessor


class S3DImageProcessor(VideoImageProcessor):
    """RGB in [0, 1] with nothing subtracted; short side 224, centre crop."""

    do_normalize = False


class S3DVideoProcessor(VideoVideoProcessor):
    """`S3DImageProcessor` for `AutoVideoProcessor`."""

    do_normalize = False
