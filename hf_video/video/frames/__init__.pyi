from .types import VideoFrames as VideoFrames
from .types import VideoMetadata as VideoMetadata
from .types import VideoStream as VideoStream
from .types import VideoStreamMetadata as VideoStreamMetadata
