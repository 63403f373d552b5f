"""One reading of a video for several models: their frames are decoded together, and each model is given its own clips.

A video's frames are read in their order, a few at a time, resized at once to what each processor begins with, and
thrown away; of the small frames each is held until the last clip that needs it is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from hf_video.clips.read import (
    FRAME_BUDGET,
    ClipInputs,
    ClipProcessor,
    Event,
    clip_inputs,
    frame_bytes,
    frames_of_clips,
    open_video,
    plan_clips,
    read_events,
)
from hf_video.clips.request import ClipRequest
from hf_video.errors import BackendError, DamagedVideoError, VideoError, VideoOptionError
from hf_video.video.frames.pixels import Sizing
from hf_video.video.frames.types import VideoFrames, VideoSource
from hf_video.video.reader import VideoReader

Reading = tuple[ClipRequest, ClipProcessor]


def read_shared_events(source: VideoSource, readings: Sequence[Reading]) -> Iterator[tuple[int, Event]]:
    """Reads a video once for several models, and gives each the events that `read_events` would give it.

    Args:
        source: The video, in any form.
        readings: Request and processor of each model. They agree in `on_error`, `backend` and `fps`.

    Yields:
        (number of the reading, event). A fault of the file is the last event of every reading that it concerns: of
        damaged frames those whose clips need one of them.
    """
    if len(readings) == 1:
        yield from ((0, event) for event in read_events(source, *readings[0]))
        return
    left: dict[int, _ModelClips] | None = None
    try:
        first = readings[0][0]
        # A frame that is lost to one model's clips is no fault for the others: it is repeated, and told below.
        options = {"on_error": "repeat", "backend": first.backend, **_common_decode(readings)}
        with open_video(source, fps=first.fps, **options) as video:
            is_file = isinstance(video, VideoReader) and video is not source  # else frames are taken as they are
            left = {}
            for number, (request, process) in enumerate(readings):
                try:
                    seen, clips = plan_clips(video, source, request)
                except (VideoOptionError, BackendError):
                    raise
                except VideoError as error:
                    yield number, error
                    continue
                left[number] = _ModelClips(request, process, clips, Sizing(**request.decode) if is_file else Sizing())
                yield number, seen
            limit = max(FRAME_BUDGET // frame_bytes(video, _common_decode(readings) if is_file else {}), 1)
            needed = [clip for one in left.values() for _, clip in one.clips]
            numbers = np.unique(np.concatenate(needed)) if needed else np.zeros(0, np.int64)
            parts = [numbers[start : start + limit] for start in range(0, len(numbers), limit)]
            for frames in frames_of_clips(video, parts, limit):
                for number, one in list(left.items()):
                    try:
                        for event in one.take(frames):
                            yield number, event
                    except (VideoOptionError, BackendError):
                        raise
                    except VideoError as error:
                        del left[number]
                        yield number, error
                    else:
                        if one.complete:
                            del left[number]
    except (VideoOptionError, BackendError):
        raise
    except VideoError as error:
        for number in range(len(readings)) if left is None else left:
            yield number, error


def _common_decode(readings: Sequence[Reading]) -> dict[str, object]:
    """How frames are resized as they are decoded, where all agree; else they are read as they are."""
    first = dict(readings[0][0].decode)
    return first if all(dict(request.decode) == first for request, _ in readings) else {}


@dataclass
class _ModelClips:
    """The clips of one model that are still to be made: (window, frames needed) in order, and what is held for them."""

    request: ClipRequest
    process: ClipProcessor
    clips: list[tuple[int, np.ndarray]]
    sizing: Sizing
    _held: dict[int, np.ndarray] = field(default_factory=dict)
    _lost: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._last = {index: place for place, (_, clip) in enumerate(self.clips) for index in clip.tolist()}
        self._next = 0

    @property
    def complete(self) -> bool:
        return self._next == len(self.clips)

    def take(self, frames: VideoFrames) -> Iterator[ClipInputs]:
        """Takes the next frames of the video, and yields the clips that are complete with them. Raises
        DamagedVideoError for a clip with damaged frames where the request doesn't repeat them."""
        self._lost.update(frames.repeated)
        for index, pixels in zip(frames.indices.tolist(), frames.data, strict=True):
            if index in self._last:
                self._held[index] = np.array(self.sizing.apply(pixels))  # a view would hold all that were read
        while not self.complete:
            window, needed = self.clips[self._next]
            own = np.unique(needed)
            if int(own[-1]) > int(frames.indices[-1]):
                return
            repeated = tuple(index for index in own.tolist() if index in self._lost)
            if repeated and self.request.on_error == "raise":
                raise DamagedVideoError(
                    f"it is damaged: frame {', '.join(map(str, repeated[:5]))} can't be decoded; read it with "
                    'on_error="repeat", or repair the file',
                    indices=repeated,
                )
            stacked = np.stack([self._held[index] for index in own.tolist()])
            yield ClipInputs(window, clip_inputs(stacked, own, needed, self.request, self.process), repeated)
            for index in own.tolist():
                if self._last[index] == self._next:
                    del self._held[index]
            self._next += 1
