"""`Watch`: what a model says of a camera or stream, window after window, and how late."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hf_video.base.detection.types import Detection
from hf_video.clips.request import Windows, parse_windows
from hf_video.errors import VideoOptionError
from hf_video.pipelines.base import VideoPipeline
from hf_video.pipelines.event_classes import default_grid
from hf_video.pipelines.live_detection import LiveDetector
from hf_video.pipelines.streaming_classification import NOT_FOR_STREAMS, Labeller, StreamingClassifier
from hf_video.pipelines.temporal_action_detection import TemporalActionDetectionPipeline
from hf_video.video.frames.types import VideoFrames
from hf_video.video.live.live_video import LiveVideo

LIVE_OPTIONS = ("realtime", "seconds", "retry", "transport", "timeout", "on_event")
KINETICS_RATE = 30.0  # frames per second, which recipes count in


@dataclass(frozen=True)
class LiveResult:
    """What was said of a window.

    Args:
        seconds: From its first frame to its last, in seconds of the stream.
        predictions: What the pipeline gives for it; of a detection, the events under way, the surest first.
        events: Of a detection, the events that have ended.
        latency: Seconds from when its last frame was taken until now (see `LiveVideo.latency`).
    """

    seconds: tuple[float, float]
    predictions: Any
    events: tuple[Detection, ...]
    latency: float


class Watch:
    """What a pipeline says of a camera, a network stream, or a file at its own speed.

        with Watch(pipeline("video-classification", model="my-model"), "rtsp://camera/stream") as watch:
            for one in watch:
                print(one.seconds, one.predictions[0]["label"], one.latency)

    A window is a video of its own for the pipeline, with all its options, as with `windows=` for a file; a slow model
    sees the newest windows, and `video` counts what was dropped. Where a model encodes each frame by itself, a
    `StreamingClassifier` keeps what overlapping windows share; the frames of a window are evenly spread then. For
    "temporal-action-detection", `LiveDetector` gives events after they end, `event_delay` seconds at the most (a
    detector such as ActionFormer must see what follows: `window=` steps of its grid, fewer of which are sooner there);
    a gap in the stream ends those under way.

    A processor that takes every so many frames, at no rate, takes them at the 30 a second of Kinetics here.

    Args:
        pipeline: For "video-classification", "zero-shot-video-classification" or "temporal-action-detection"; any other
            of hf_video gives what it gives for a clip.
        source: Of `LiveVideo`.
        windows: Length and step in seconds, as "2s/0.5s". Default: as long as the clips of the model's processor, a new
            one at every quarter of it; of a detection, its `grid`.
        options: Of `LiveVideo` (`realtime`, `seconds`, `retry`, `transport`, `timeout`, `on_event`), and of the
            pipeline (`top_k`, `threshold`, `views`, …).

    Raises:
        VideoOptionError, VideoSourceError, NotAVideoError: As `LiveVideo` and the pipeline raise them.
    """

    def __init__(
        self,
        pipeline: VideoPipeline,
        source: str | os.PathLike[str] | int,
        *,
        windows: float | str | tuple[float, float] | None = None,
        **options: Any,
    ) -> None:
        live = {name: options.pop(name) for name in LIVE_OPTIONS if name in options}
        self._pipeline, self._options = pipeline, options
        self._detector: LiveDetector | None = None
        self._stream: StreamingClassifier | None = None
        if isinstance(pipeline, TemporalActionDetectionPipeline):
            if windows is not None:
                raise VideoOptionError('A detection has a grid= in place of windows=, such as "2s/0.5s".')
            self._detector = LiveDetector(pipeline, **options)
            grid, request, fps = self._detector.grid, self._detector.request, None
        else:
            reading, _, _ = pipeline._sanitize_parameters(**options)
            request = pipeline._request(**{**pipeline._preprocess_params, **reading})
            grid = default_grid(request, getattr(pipeline.model.config, "clip_seconds", None))
            fps = KINETICS_RATE if grid.fps is None else None
        self._views = request.views.total
        rate = grid.fps or KINETICS_RATE
        cut = parse_windows(windows) or Windows(grid.num_frames / rate, min(grid.stride, grid.num_frames) / rate)
        assert isinstance(cut, Windows)
        if isinstance(pipeline, Labeller) and not {*NOT_FOR_STREAMS} & {*options, *pipeline._preprocess_params}:
            fps_seen = request.num_frames / cut.length
            stride = max(round(cut.step * fps_seen), 1)
            stream = StreamingClassifier(pipeline, stride=stride, frame_sampling_rate=1, **options)
            if stream.reuses_frames:
                self._stream, fps, cut = stream, fps_seen, Windows(cut.length, stride / fps_seen)
        self.video = LiveVideo(source, window=cut.length, step=cut.step, fps=fps, **request.decode, **live)
        # For a page beside the loop.
        self.finds_events = self._detector is not None
        self.last: LiveResult | None = None
        self.recent: tuple[Detection, ...] = ()  # that have ended; replaced, since another thread reads it

    def __iter__(self) -> Iterator[LiveResult]:
        if self._detector is not None:
            results = self._events()
        else:
            results = self._reused() if self._stream is not None else self._whole()
        for window, predictions, events in results:
            seconds = float(window.seconds[0]), float(window.seconds[-1])
            self.last = LiveResult(seconds, predictions, events, self.video.latency(seconds[1]))
            self.recent = (*self.recent, *events)[-10:]
            yield self.last

    @property
    def event_delay(self) -> float | None:
        """Seconds from the end of an event until it is given, at the most and without the model's own time; None where
        there are no events. On a grid in the stream's own frames it is known once some have come."""
        return None if self._detector is None else self._detector.latency

    def close(self) -> None:
        """Ends the reading of the source."""
        self.video.close()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _whole(self) -> Iterator[tuple[VideoFrames, Any, tuple[Detection, ...]]]:
        """Each window as a video; in one call, so that texts are encoded once."""
        waiting: deque[VideoFrames] = deque()

        def noted() -> Iterator[VideoFrames]:
            for window in self.video:
                waiting.append(window)
                yield window

        # As many views as a window has fill a forward, so that none waits for the next window.
        for predictions in self._pipeline(noted(), num_workers=0, batch_size=self._views, **self._options):
            yield waiting.popleft(), predictions, ()

    def _reused(self) -> Iterator[tuple[VideoFrames, Any, tuple[Detection, ...]]]:
        assert self._stream is not None
        for window, new, follows in self._new_frames():
            if not follows:
                self._stream.restart()
            rows = self._stream.push(new)
            if rows:
                yield window, rows[-1]["predictions"], ()
            else:  # the end of the stream, which is no multiple of the stride
                yield window, self._pipeline(window, sampler="uniform", **self._options), ()

    def _events(self) -> Iterator[tuple[VideoFrames, Any, tuple[Detection, ...]]]:
        assert isinstance(self._pipeline, TemporalActionDetectionPipeline)
        assert self._detector is not None
        window = None
        for window, new, follows in self._new_frames():
            ended = []
            if not follows:
                ended = self._detector.close()
                self._detector = LiveDetector(self._pipeline, **self._options)
            ended += self._detector.push(new)
            under_way = sorted(self._detector.under_way, key=lambda one: -one.score)
            yield window, [{"score": one.score, "label": one.label} for one in under_way], tuple(ended)
        if window is not None and (rest := self._detector.close()):
            yield window, [], tuple(rest)

    def _new_frames(self) -> Iterator[tuple[VideoFrames, VideoFrames, bool]]:
        """Each window, what is new in it, and whether that follows the last one without a gap."""
        last = -1
        for window in self.video:
            new = window.indices > last
            if not new.any():  # of a stream with few frames
                continue
            follows = bool(window.indices[0] <= last + 1)
            last = int(window.indices[-1])
            yield window, VideoFrames(window.data[new], window.indices[new], window.seconds[new]), follows
