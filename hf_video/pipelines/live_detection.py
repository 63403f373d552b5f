"""Events of a stream as they end: frames come in, windows fill, and what ends is handed out."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hf_video.base.detection.types import Detection
from hf_video.clips.grid import FeatureGrid
from hf_video.clips.read import ClipInputs, MemoryVideo, read_clips
from hf_video.errors import VideoArrayError, VideoOptionError
from hf_video.features.feature_stream import FeatureEvents
from hf_video.features.feature_windows import FeatureWindows
from hf_video.pipelines.event_classes import default_smoothing
from hf_video.pipelines.event_models import DETECTOR, NMS_OPTIONS
from hf_video.pipelines.temporal_action_detection import TemporalActionDetectionPipeline
from hf_video.video.frames.pixels import Sizing
from hf_video.video.frames.times import TOLERANCE, frames_at, frames_during
from hf_video.video.frames.types import VideoFrames
from hf_video.video.inputs import next_frames

if TYPE_CHECKING:
    from hf_video.base.detection.types import Hysteresis
    from hf_video.video.frames.types import Frame


class LiveDetector:
    """Events of a camera or another stream, by any model of the pipeline that sees clips, as soon as they end.

        live = LiveDetector("folder or Hub name", grid="2s/0.5s", threshold=0.6)
        for frames, seconds in camera:
            for event in live.push(frames, seconds):
                print(event.label, event.start, event.end)
        rest = live.close()

    The events are those that `pipeline("temporal-action-detection")` finds in the whole video with the same options,
    within 1e-6: clips are the same frames, and an event depends on nothing that comes later, but for the `smoothing`.
    (A sampler that counts at a rate, "at_fps", takes the mean rate of each clip, where that of the video varies.)
    Only the frames of one clip are held, at the size that the model sees where that gives the same pixels, so that
    memory does not grow with time.

    `latency` says how many seconds after its end an event is handed out: half a clip and half a step, whose clip must
    have been seen, and with `smoothing` as many steps more as a mean looks ahead.

    **A detector** of features (ActionFormer, TriDet) sees `window` steps of its grid at once, by default its
    `max_length`, and half of them again in the next window: the events are those of the pipeline with the same
    `window=`. One is handed out when no later window can see its end, up to a window after it; `latency` says how many
    seconds that is. The features of a window and a half are held besides the frames of one clip.

    Args:
        model: A `TemporalActionDetectionPipeline`, a folder or a name on the Hub.
        options: Of the pipeline: `grid`, `threshold`, `candidate_labels`, …, but `top_k`, which needs the whole video.
            A grid in the video's own frames gives a clip when the first frame behind it comes.

    Raises:
        VideoOptionError: Options that have no meaning for a stream: a detector that stretches every video to one length
            or sees frames (AdaTAD); a sampler that measures the motion of the whole video; `top_k`.
        CheckpointError: A model that finds no events.
    """

    def __init__(self, model: TemporalActionDetectionPipeline | str | os.PathLike[str], **options: Any) -> None:
        if isinstance(model, (str, os.PathLike)):
            from transformers import pipeline

            model = pipeline("temporal-action-detection", model=os.fspath(model))
        self.pipeline = model
        if model.is_end_to_end:
            raise VideoOptionError(f"{type(model.model).__name__} sees the frames of files: give them to the pipeline.")
        reading, asked, answer = model._sanitize_parameters(**options)
        answer = {**model._postprocess_params, **answer}
        if answer.get("top_k") is not None:
            raise VideoOptionError(f"top_k={answer['top_k']} needs the whole video: events are handed out as they end.")
        self._fps = {**model._preprocess_params, **reading}.get("fps") or 25.0
        self.request = model._request(**{**model._preprocess_params, **reading})
        if self.request.sampling.needs_motion():
            raise VideoOptionError('sampler="adaptive" measures the motion of the whole video; a stream has none yet.')
        self.grid: FeatureGrid = self.request.windows
        self._asked = model._ask(**{**model._forward_params, **asked})
        self._sizing = Sizing(**self.request.decode)
        self._merged: Hysteresis | FeatureEvents
        if model.kind == DETECTOR:
            merging = {name: answer[name] for name in NMS_OPTIONS if name in answer}
            window = answer.get("window") or model.model.config.max_length
            windows = FeatureWindows(model.model, window, model._config_with(merging))
            self._merged = FeatureEvents(windows, self.grid)
            self._scores: Callable[[torch.Tensor], np.ndarray] = lambda rows: rows.mean(0).numpy()
            self._late = windows.steps * self.grid.stride + self.grid.num_frames  # frames of the grid
            self._answer: dict[str, Any] | None = answer
        else:
            answer = {"smoothing": default_smoothing(self.grid), **answer}
            classes = model.classes(**answer)
            self._merged = classes.hysteresis(None, **answer)
            self._scores = classes.scores
            self._late = 0.5 * (self.grid.num_frames + self.grid.stride) + answer["smoothing"] // 2 * self.grid.stride
            self._answer = None
        self._frames: list[np.ndarray] = []
        self._times: list[float] = []
        self._dropped = 0  # frames before those that are held
        self._next = 0  # number of the next clip
        self._closed = False

    @property
    def under_way(self) -> list[Detection]:
        """The events that have begun and not ended, as far as clips were judged; to act on a beginning."""
        return self._merged.under_way

    @property
    def latency(self) -> float:
        """Seconds from the end of an event until the frame comes with which it is handed out, at the latest; the time
        of the model comes to that. On a grid of the video's own frames, at the mean rate of the frames that came."""
        if self.grid.fps is None:
            return self._late * self._frame_seconds
        return self._late / self.grid.fps + self._frame_seconds

    @property
    def _frame_seconds(self) -> float:
        """Mean distance of the frames that came."""
        count = self._dropped + len(self._times)
        return (self._times[-1] - self._begin) / (count - 1) if count > 1 else 1 / self._fps

    def push(
        self,
        frames: VideoFrames | np.ndarray | torch.Tensor | Sequence[Frame],
        seconds: float | Sequence[float] | np.ndarray | None = None,
    ) -> list[Detection]:
        """Takes the next frames.

        Args:
            frames: (T, H, W, 3) or (T, 3, H, W), one frame (H, W, 3), `VideoFrames`, or a list of images.
            seconds: (T,), when each of them is shown, later than all before; None takes those of `VideoFrames`, and
                else counts on at the option `fps`.

        Returns:
            The events that have ended, by their end.

        Raises:
            VideoArrayError: What is no video, times that are not as many or do not ascend, and frames after `close`.
        """
        if self._closed:
            raise VideoArrayError("The stream is closed: make a LiveDetector for each.")
        last = self._times[-1] if self._times else -np.inf
        pixels, times = next_frames(frames, seconds, last=last, distance=1 / self._fps)
        ended = []
        for frame, time in zip(pixels, times.tolist(), strict=True):
            if not self._times:
                self._begin = self._merged.begin = time
            if isinstance(self._merged, FeatureEvents):
                self._merged.see(time)
            self._frames.append(self._resized(frame))
            self._times.append(time)
            while (clip := self._filled()) is not None:
                ended += self._judge(*clip)
            if self.grid.stride > self.grid.num_frames:  # of what lies between two clips nothing is held
                self._let_go()
        return ended

    def close(self, end: float | None = None) -> list[Detection]:
        """Ends the stream, and returns the events that are left.

        Args:
            end: When the last frame stops being shown, in seconds; None lets it last as long as the mean of the others.
        """
        if self._closed or not self._times:
            self._closed = True
            return []
        if end is None:
            end = self._times[-1] + self._frame_seconds
        if end <= self._times[-1]:
            raise VideoArrayError(f"end={end} lies before the last frame, which is shown from {self._times[-1]} on.")
        self._closed = True
        grid, count = self.grid, self._dropped + len(self._times)
        length = count if grid.fps is None else (end - self._begin) * grid.fps
        clips = max(int((length - grid.num_frames) / grid.stride + TOLERANCE), 0) + 1
        ended = []
        while self._next < clips:
            ended += self._judge(*self._clip(end))
        return ended + self._chosen(self._merged.close(end))

    def _resized(self, frame: np.ndarray) -> np.ndarray:
        return self._sizing.apply(frame) if frame.dtype == np.uint8 else frame

    def _filled(self) -> tuple[int, int, float, float] | None:
        """The next clip, where all of its frames are there and the time of its end is known."""
        grid = self.grid
        if grid.fps is None:
            needed = self._next * int(grid.stride) + int(grid.num_frames) - self._dropped
            return self._clip(None) if needed < len(self._times) else None
        stop = self._begin + (self._next * grid.stride + grid.num_frames) / grid.fps
        return self._clip(None) if self._times[-1] >= stop - TOLERANCE else None

    def _clip(self, end: float | None) -> tuple[int, int, float, float]:
        """As `FeatureGrid.clips` for the next clip, its frames numbered among those that are held; `end` of the stream
        where it is known."""
        grid, times = self.grid, np.array(self._times)
        if grid.fps is None:
            first = self._next * int(grid.stride) - self._dropped
            last = min(first + int(grid.num_frames), len(times))
            return first, last, self._times[first], self._times[last] if last < len(times) else end
        start = self._begin + self._next * grid.stride / grid.fps
        stop = self._begin + (self._next * grid.stride + grid.num_frames) / grid.fps
        if end is not None:
            stop = min(stop, end)
        return *frames_during(times, start, stop), start, stop

    def _judge(self, first: int, last: int, start: float, stop: float) -> list[Detection]:
        """Scores a clip, lets go of the frames that none needs any more, and returns the events that end."""
        times = np.array(self._times[first:last])
        video = MemoryVideo(VideoFrames(np.stack(self._frames[first:last]), np.arange(last - first), times))
        pieces = read_clips(video, dataclasses.replace(self.request, windows=None), self.pipeline._process)
        clips = [piece.inputs for piece in pieces if isinstance(piece, ClipInputs)]
        inputs = {name: torch.cat([one[name] for one in clips]) for name in clips[0]}
        scores = self._scores(self.pipeline._rows(self._asked, inputs))
        self._next += 1
        self._let_go()
        return self._chosen(self._merged.update(scores, (start + stop) / 2))

    def _chosen(self, events: list[Detection]) -> list[Detection]:
        """By their end, and of a detector's those that the options ask for."""
        if self._answer is None:
            return events
        return sorted(self.pipeline._chosen(events, **self._answer), key=lambda one: one.end)

    def _let_go(self) -> None:
        """Drops the frames before the next clip, but for the one that may still be on screen when it begins."""
        grid = self.grid
        if grid.fps is None:
            first = self._next * int(grid.stride) - self._dropped
        else:
            first = int(frames_at(np.array(self._times), self._begin + self._next * grid.stride / grid.fps)) - 1
        first = max(min(first, len(self._times) - 1), 0)
        del self._frames[:first], self._times[:first]
        self._dropped += first
