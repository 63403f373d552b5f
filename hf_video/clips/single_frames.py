"""The frames of a video's clips one by one, each once, for models that look at every frame for itself."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hf_video.clips.read import (
    FRAME_BUDGET,
    ClipInputs,
    ClipProcessor,
    Event,
    SeenWindows,
    frame_bytes,
    frames_of_clips,
    open_video,
    plan_clips,
)
from hf_video.clips.request import ClipRequest
from hf_video.errors import BackendError, VideoError, VideoOptionError
from hf_video.video.frames.types import VideoSource
from hf_video.video.reader import VideoReader


def frames_of_windows(seen: SeenWindows) -> np.ndarray:
    """The numbers of all frames that windows show, ascending."""
    return np.unique(np.concatenate([one.sample.indices.ravel() for one in seen]))


def read_single_frames(source: VideoSource, request: ClipRequest, process: ClipProcessor) -> Iterator[Event]:
    """As `read_events` of a request that `keeps_frames`, but after the windows come not their clips: each frame of
    `frames_of_windows` comes as a clip of itself alone, whose `window` is its place there."""
    options = {"on_error": request.on_error, "backend": request.backend, **request.decode}
    try:
        with open_video(source, fps=request.fps, num_threads=request.num_threads, **options) as video:
            seen, _ = plan_clips(video, source, request)
            yield seen
            decode = request.decode if isinstance(video, VideoReader) and video is not source else {}
            limit = max(FRAME_BUDGET // frame_bytes(video, decode), 1)
            clips = [index[None] for index in frames_of_windows(seen)]
            for number, frames in enumerate(frames_of_clips(video, clips, limit)):
                yield ClipInputs(number, process(frames.data, request.views.crops), frames.repeated)
    except (VideoOptionError, BackendError):
        raise
    except VideoError as error:
        yield error
