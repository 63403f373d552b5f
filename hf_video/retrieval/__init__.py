"""Search in videos: cut a folder into moments, keep their vectors on disk, find them by sentence, example or vector."""

from hf_video.retrieval.index import IndexReport, VideoIndex
from hf_video.retrieval.moments import Moment

__all__ = ["IndexReport", "Moment", "VideoIndex"]
