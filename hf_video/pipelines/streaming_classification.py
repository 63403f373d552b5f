"""Labels of a stream, window after window, without encoding a frame twice where a model lets that."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers.modeling_outputs import ModelOutput
from transformers.utils import logging

from hf_video.errors import CheckpointError, VideoOptionError, check_count
from hf_video.layers.linear import is_untouched
from hf_video.pipelines.video_classification import VideoClassificationPipeline
from hf_video.pipelines.zero_shot_video_classification import ZeroShotVideoClassificationPipeline
from hf_video.video.inputs import next_frames

if TYPE_CHECKING:
    from hf_video.video.frames.types import Frame, VideoFrames

logger = logging.get_logger(__name__)

Labeller = VideoClassificationPipeline | ZeroShotVideoClassificationPipeline
# What has no meaning for windows of a fixed number of neighbouring frames, or for a stream.
NOT_FOR_STREAMS = ("windows", "views", "sampler", "sampler_options", "on_error", "bad_files", "backend")


class StreamingClassifier:
    """Labels of a camera or another stream: of `num_frames` frames each, a new window every `stride` frames.

        stream = StreamingClassifier("folder or Hub name", stride=1)
        for frames, seconds in camera:
            for window in stream.push(frames, seconds):
                print(window["seconds"], window["predictions"][0]["label"])

    The labels of a window are those that the pipeline gives its frames as a clip, within the rounding of a batch of
    another size. Where a model's frames meet only behind its encoder, what is known of a frame is kept as long as a
    window needs it, and each frame is encoded once, however many windows it stands in: VideoCLIP with a tower of frames
    or segments, the spatial stream of two-stream networks, TimeSformer `space_only`, and ViViT's model 2, of which each
    tubelet is encoded once. `reuses_frames` says whether that is so. All other models see each window anew. (For
    convolutions over time, reuse would not be exact: a clip's first and last frames see its padding.)

    Causal networks (X3D with `causal=True`) are made for streams: each frame is seen once, the layers remember what
    came before, and the labels of a window are those of all frames from the stream's first to the window's last, shown
    as one clip. `stride` is then a multiple of `frame_sampling_rate`.

    Memory does not grow with time: of a frame, its pixels as the model sees them or its vector are held, and only those
    of one window.

    Args:
        model: A pipeline for "video-classification" or "zero-shot-video-classification", a folder or a name on the Hub.
        stride: Frames from one window to the next.
        options: Of the pipeline: `num_frames`, `frame_sampling_rate` (frames from one taken frame to the next; default
            what the processor's file says, else 1), `top_k`, `threshold`, `function_to_apply`, `fps` (of frames that
            come without seconds, default 25), and `candidate_labels`, with which a folder or name is taken for a model
            of video and text.

    Raises:
        VideoOptionError: Options that have no meaning for a stream.
        CheckpointError: A model that sees optical flow.
    """

    def __init__(self, model: Labeller | str | os.PathLike[str], *, stride: int = 1, **options: Any) -> None:
        check_count("stride", stride)
        if isinstance(model, (str, os.PathLike)):
            from transformers import pipeline as load

            task = "zero-shot-video-classification" if "candidate_labels" in options else "video-classification"
            pipeline: Labeller = load(task, model=os.fspath(model))
        else:
            pipeline = model
        for name in NOT_FOR_STREAMS:
            if name in options or name in pipeline._preprocess_params:
                raise VideoOptionError(
                    f"A stream has no {name}: its windows are num_frames frames, frame_sampling_rate apart, one every "
                    "stride frames."
                )
        if getattr(pipeline.image_processor, "streams", "spatial") != "spatial":
            raise CheckpointError(
                f"{type(pipeline.model).__name__} sees optical flow, which lies between frames, and a stream shows "
                "frame by frame: use a model of the spatial stream alone."
            )
        self.pipeline = pipeline
        reading, asked, answer = pipeline._sanitize_parameters(**options)
        reading = {**pipeline._preprocess_params, **reading}
        sampling = pipeline._request(**reading).sampling
        self.stride, self.step = stride, int(sampling.stride or sampling.options.get("stride") or 1)
        self.num_frames = sampling.num_frames
        self._distance = 1 / (reading.get("fps") or 25.0)
        self._asked = pipeline._ask(**{**pipeline._forward_params, **asked})
        self._answer = {**pipeline._postprocess_params, **answer}
        self._answer.pop("bad_files", None)
        group = self._frames_per_state()
        self.reuses_frames = group is not None
        if self.reuses_frames and pipeline.model.base_model._compiled_call_impl is not None:
            logger.warning(
                f"A stream encodes each frame of {type(pipeline.model).__name__} once, and only what encodes whole "
                "clips was compiled: compile=True saves nothing here."
            )
        self._group = group or 1  # frames of what is kept
        network = pipeline.model
        # What a causal network's layers remember.
        self._past: dict[Any, torch.Tensor] | None = {} if group and getattr(network, "keeps_past", False) else None
        if self._past is not None and self.num_frames != network.config.num_frames:
            raise VideoOptionError(
                f"num_frames={self.num_frames}, and {type(network).__name__} is causal and averages the last "
                f"{network.config.num_frames} frames: leave num_frames out."
            )
        if self._past is not None and stride % self.step:
            raise VideoOptionError(
                f"A causal model sees every frame_sampling_rate={self.step} frames, once: stride={stride} must be a "
                "multiple of that."
            )
        if self.num_frames % self._group:
            raise VideoOptionError(f"num_frames={self.num_frames} must be a multiple of {self._group} for this model.")
        self._last = -np.inf
        self.restart()

    def restart(self) -> None:
        """Begins anew with the next frame, so that no window goes over a gap in the stream."""
        self._frames: dict[int, torch.Tensor] = {}  # pixels as the model sees them, (C, H, W), by frame number
        self._states: dict[int, torch.Tensor] = {}  # vectors by the number of their first frame
        self._times: dict[int, tuple[float, float]] = {}  # when it is shown, and until when
        self._count = self._next = 0  # frames that came; the first frame of the next window
        if self._past is not None:
            self._past = {}

    def _frames_per_state(self) -> int | None:
        """As the model says, and None where somebody attached a hook to it, which must see whole clips."""
        model = self.pipeline.model
        count = getattr(model, "frames_per_state", None)
        if count is None or all(is_untouched(one, type(one)) for one in (model, model.base_model)):
            return count
        if model.keeps_past:
            raise CheckpointError(
                f"{type(model).__name__} has a hook, which must see whole clips, and is causal: a stream is shown to "
                "it frame by frame. Remove the hook, or attach it to a layer."
            )
        return None

    @property
    def span(self) -> int:
        """Frames of the stream from a window's first to its last."""
        return (self.num_frames - 1) * self.step + 1

    def push(
        self,
        frames: VideoFrames | np.ndarray | torch.Tensor | Sequence[Frame],
        seconds: float | Sequence[float] | np.ndarray | None = None,
    ) -> list[dict[str, Any]]:
        """Takes the next frames.

        Args:
            frames: (T, H, W, 3) or (T, 3, H, W), one frame (H, W, 3), `VideoFrames`, or a list of images.
            seconds: (T,), when each of them is shown, later than all before; None takes those of `VideoFrames`, and
                else counts on at the option `fps`.

        Returns:
            A row for each window that is full now: `{"seconds": (start, end), "predictions": [{"score", "label"}, …]}`.
            The last frame of a window is taken to be shown for as long as the one before it.

        Raises:
            VideoArrayError: What is no video, and times that are not as many or do not ascend.
        """
        pixels, times = next_frames(frames, seconds, last=self._last, distance=self._distance)
        rows = []
        for first in range(0, len(pixels), self.num_frames):
            part = slice(first, first + self.num_frames)
            rows += self._take(pixels[part], times[part].tolist())
        return rows

    def _take(self, pixels: np.ndarray, times: list[float]) -> list[dict[str, Any]]:
        """Some frames at once, so that they are encoded as one batch; the rows of the windows that they fill."""
        for frame, time in zip(pixels, times, strict=True):
            if self._count:
                self._distance = time - self._last
            # Else it lies between two windows.
            if self._count >= self._next or (self._past is not None and self._count % self.step == 0):
                self._frames[self._count] = self._seen(frame)
                self._times[self._count] = time, time + self._distance
            self._last = time
            self._count += 1
        if self.reuses_frames:
            self._encode(range(self._count - len(pixels), self._count))
        rows = []
        while self._count >= self._next + self.span:
            rows.append(self._judge())
        return rows

    def _seen(self, frame: np.ndarray) -> torch.Tensor:
        """(H, W, 3) -> (C, H, W), as the processor gives it; processors see each frame of a clip by itself."""
        ((self._name, clip),) = self.pipeline._process(frame[None], 1).items()
        return clip[0, 0]

    def _encode(self, ends: range) -> None:
        """The states whose last frame is one of these, where a window needs them."""
        if self._past is not None:
            numbers = [number for number in ends if number % self.step == 0]
            if numbers:
                given = torch.stack([self._frames[number] for number in numbers])[None]
                encode = self.pipeline.model.encode_states
                states = self._run(lambda clip: encode(clip, self._past), given)[0]
                self._states |= dict(zip(numbers, states, strict=True))
            self._frames.clear()
            return
        size = self._group * self.step
        needed = [
            first
            for first in (end - size + self.step for end in ends)
            if any(
                start >= self._next and start % self.stride == 0
                for start in range(first, first - size * (self.num_frames // self._group), -size)
            )
        ]
        if needed:
            clips = [[self._frames[first + self.step * i] for i in range(self._group)] for first in needed]
            given = torch.stack([torch.stack(clip) for clip in clips])
            states = self._run(self.pipeline.model.encode_states, given)[:, 0]
            self._states |= dict(zip(needed, states, strict=True))
        _drop_before(self._frames, self._count - size + self.step)

    def _judge(self) -> dict[str, Any]:
        """The row of the next window, whose frames have come."""
        numbers = range(self._next, self._next + self.span, self.step)
        if not self.reuses_frames:
            clip = torch.stack([self._frames[number] for number in numbers])[None]
            scores = self.pipeline._rows(self._asked, {self._name: clip})
        else:
            states = torch.stack([self._states[number] for number in numbers[:: self._group]])[None]
            if isinstance(self.pipeline, ZeroShotVideoClassificationPipeline):
                scores = self.pipeline._rows(self._asked, {"segment_features": states})
            else:
                scores = self._run(self.pipeline.model.classify_states, states)
        span = (self._times[numbers[0]][0], self._times[numbers[-1]][1])
        self._next += self.stride
        for held in (self._times, self._states, *(() if self.reuses_frames else (self._frames,))):
            _drop_before(held, self._next)
        predictions = self.pipeline.postprocess(ModelOutput(logits=scores), **self._answer)
        return {"seconds": span, "predictions": predictions}

    @torch.inference_mode()
    def _run(self, method: Callable[..., torch.Tensor], given: torch.Tensor) -> torch.Tensor:
        given = given.to(self.pipeline.device, self.pipeline.dtype)
        return self.pipeline._run(lambda: method(given), {})


def _drop_before(held: dict[int, Any], first: int) -> None:
    for number in [number for number in held if number < first]:
        del held[number]
