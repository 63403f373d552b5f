"""What pipelines of generative models share: the frames of each window to a model, its words back, window by window."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from transformers.modeling_outputs import ModelOutput

from hf_video.base.generation import DEFAULT_FRAMES, SeenVideo, check_generate_options, find_writer, fitting
from hf_video.clips.read import ClipInputs, Event, SeenWindows, WindowSample, read_events
from hf_video.clips.request import ClipRequest, Sampling, Views
from hf_video.errors import BackendError, VideoError, VideoOptionError, check_count
from hf_video.pipelines.base import VideoPipeline
from hf_video.video.frames.types import FrameTimes, Videos, VideoSource
from hf_video.video.sampling.frame_sample import FrameSample
from hf_video.video.sampling.samplers import sample_video

DEFAULT_TOKENS = 64  # generate's own default ends most captions in mid-sentence

# What is asked of each window of a video: prompts, None for the model's own, and whether a single one was given.
Asked = tuple[list[str | None], bool]


@dataclasses.dataclass(frozen=True)
class EvenSampling(Sampling):
    """Frames evenly over the video or window, as many as its length gives: the options are `fps` for each second, at
    `least` and at `most`, a `multiple`, and there are never more than the video has."""

    def choose(self, video: FrameTimes, views: Views, seed: int | None = None) -> FrameSample:
        """The frames of one clip."""
        most, fps = self.options.get("most", video.metadata.num_frames), self.options.get("fps")
        count = (
            most if fps is None else min(max(round(video.metadata.duration * fps), self.options.get("least", 1)), most)
        )
        multiple = self.options.get("multiple", 1)
        count = min(-(-count // multiple) * multiple, video.metadata.num_frames)
        return sample_video(video, count, sampler="uniform")


class GenerativePipeline(VideoPipeline):
    """The base class. A task says with `_asked` what is asked of a video, and with `_answers` what the texts of one
    window become."""

    reading_names = tuple(name for name in VideoPipeline.reading_names if name != "views")

    def _prepare(self) -> None:
        self.writer = find_writer(self.model, getattr(self, "processor", None))
        self.processor, self.tokenizer = self.writer.processor, self.writer.tokenizer
        self.writer.check(self._preprocess_params.get("num_frames"))
        check_generate_options(self.model, self._forward_params.get("generate_kwargs", {}))

    @staticmethod
    def _writing(max_new_tokens: int | None, generate_kwargs: Mapping[str, Any] | None, **own: Any) -> Any:
        """What `_options` returns, of the options that all tasks have and of its `own`."""
        check_count("max_new_tokens", max_new_tokens, optional=True)
        if generate_kwargs is not None and not isinstance(generate_kwargs, Mapping):
            raise VideoOptionError(f"generate_kwargs={generate_kwargs!r} must hold options of model.generate by name.")
        given = {"max_new_tokens": max_new_tokens, "generate_kwargs": generate_kwargs, **own}
        return {name: value for name, value in given.items() if value is not None}, {}

    def _request(self, **asked: Any) -> ClipRequest:
        if "views" in asked:
            raise VideoOptionError("views: words of several views can't be averaged. windows= gives several captions.")
        self.writer.check(asked.get("num_frames"))
        settings = self.writer.sampling
        if not {"num_frames", "sampler", "sampler_options", "frame_sampling_rate"} & set(asked):
            return ClipRequest.resolve(
                None, None, num_frames=1, sampler=EvenSampling, sampler_options=settings, **asked
            )
        count = DEFAULT_FRAMES if "fps" in settings else settings["most"]
        return ClipRequest.resolve(None, None, **{"num_frames": count, **asked})

    def _ask(
        self, *, max_new_tokens: int | None = None, generate_kwargs: Mapping[str, Any] | None = None, **own: Any
    ) -> dict[str, Any]:
        options = dict(generate_kwargs or {})
        check_generate_options(self.model, options)
        if max_new_tokens is not None and {"max_new_tokens", "max_length"} & set(options):
            raise VideoOptionError("max_new_tokens is given, and generate_kwargs say a length too: leave one out.")
        if not {"max_new_tokens", "max_length"} & set(options):
            options["max_new_tokens"] = max_new_tokens or DEFAULT_TOKENS
        return {**own, "generate": options}

    # -- reading, maybe in another process ---------------------------------------------------------------------------

    def _asked(self, asked: dict[str, Any]) -> Callable[[VideoSource], Asked]:
        """What is asked of a video; it may run in another process."""
        raise NotImplementedError

    def _reader(self, request: ClipRequest, asked: dict[str, Any]) -> Callable[[Any], Iterator[Any]]:
        return functools.partial(_read_with_questions, request=request, asked=self._asked(asked))

    # -- writing -----------------------------------------------------------------------------------------------------

    def _results(
        self,
        videos: Videos,
        request: ClipRequest,
        batch_size: int | None,
        num_workers: int | None,
        asked: dict[str, Any],
        *,
        bad_files: str = "raise",
        **answer: Any,
    ) -> Iterator[Any]:
        """One window after the other, so that memory does not grow with the length of a video."""
        if (batch_size or 1) > 1:
            raise VideoOptionError(
                f"batch_size={batch_size}: words are written for one window at a time; leave it out."
            )
        read = self._reader(request, asked)
        with contextlib.closing(self._events(videos, read, num_workers)) as each:
            for events in each:
                try:
                    windows = list(self._written(iter(events), asked["generate"]))
                except (VideoOptionError, BackendError):
                    raise
                except VideoError as error:
                    yield self._fault(error, videos, bad_files)
                else:
                    yield self._video(windows, whole=request.windows is None)

    def _written(self, events: Iterator[Any], generate: dict[str, Any]) -> Iterator[tuple[tuple[float, float], Any]]:
        """The seconds of each window, and its result."""
        (prompts, single), seen = next(events), SeenWindows([], np.zeros((0, 2)))
        for event in events:
            if isinstance(event, VideoError):
                raise event
            if isinstance(event, SeenWindows):
                seen = event
            elif isinstance(event, ClipInputs):
                frames = event.inputs["frames"][0].numpy()
                texts = [self._write(frames, _seen_video(seen, event.window, frames), one, generate) for one in prompts]
                window = seen[event.window]
                yield window.seconds, self._answers(texts, single, window, event.repeated)

    def _video(self, windows: list[tuple[tuple[float, float], Any]], whole: bool) -> Any:
        """The result of one video."""
        if whole:
            return windows[0][1]
        return [{"seconds": seconds, self.window_key: found} for seconds, found in windows]

    def _write(self, frames: np.ndarray, seen: SeenVideo, prompt: str | None, generate: dict[str, Any]) -> str:
        return self.postprocess(
            self.forward(self.writer.inputs(frames, seen, prompt or self.writer.prompt), **generate)
        )

    def _forward(self, model_inputs: dict[str, Any], **generate: Any) -> ModelOutput:
        training = self.model.training
        self.model.eval()
        try:
            found = self.model.generate(**fitting(model_inputs, self.model), **generate)
        finally:
            self.model.train(training)
        # A decoder gives back what it was asked, with the text after it.
        asked = model_inputs.get("input_ids") if not self.model.config.is_encoder_decoder else None
        ids = getattr(found, "sequences", found)
        return ModelOutput(sequences=ids if asked is None else ids[:, asked.shape[1] :])

    def postprocess(self, model_outputs: ModelOutput) -> str:
        """Token ids (1, L) to their text."""
        return self.writer.tokenizer.decode(model_outputs["sequences"][0], skip_special_tokens=True).strip()

    def _answers(self, texts: list[str], single: bool, seen: WindowSample, repeated: tuple[int, ...]) -> Any:
        """The result of one window: of a text, or of one for each of several questions."""
        raise NotImplementedError


def _read_with_questions(
    video: VideoSource, *, request: ClipRequest, asked: Callable[[VideoSource], Asked]
) -> Iterator[Asked | Event]:
    """First what is asked, then the events of the video with its frames as they are."""
    yield asked(video)
    yield from read_events(video, request, _whole_frames)


def _whole_frames(frames: np.ndarray, crops: int) -> dict[str, torch.Tensor]:
    """(1, T, H, W, 3) uint8. Processors take floats for pixels up to 255 too."""
    if frames.dtype != np.uint8:
        frames = (frames.clip(0, 1) * 255).round().astype(np.uint8)
    return {"frames": torch.from_numpy(np.ascontiguousarray(frames))[None]}


def _seen_video(seen: SeenWindows, number: int, frames: np.ndarray) -> SeenVideo:
    """What a processor is told of the clip of a window."""
    (_, begin), (count, end) = seen.timeline
    window = seen[number]
    start, stop = window.seconds
    assert window.sample.seconds is not None  # a reader always knows them
    return SeenVideo(
        window.sample.indices[0],
        window.sample.seconds[0],
        num_frames=int(count),
        fps=float(count / (end - begin)),
        duration=float(end - begin),
        size=(frames.shape[1], frames.shape[2]),
        length=stop - start,
    )
