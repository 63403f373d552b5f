"""What every pipeline of ours shares: videos of any form, read once, their views through a model in batches, one result
for each video in order."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Generator, Iterator
from typing import Any

import torch
from tqdm import tqdm
from transformers.modeling_outputs import ModelOutput
from transformers.pipelines.base import Pipeline
from transformers.utils import logging

from hf_video.base.fast_numbers import why_slow
from hf_video.base.loading import check_pair, find_processors
from hf_video.base.modeling import inputs_for
from hf_video.base.saved_model import as_video_model
from hf_video.clips.batching import VideoResult, read_each, run_videos
from hf_video.clips.read import ClipInputs, Event, WindowSample, clip_processor, read_clips, read_events, videos_of
from hf_video.clips.request import SNAPS, ClipRequest, parse_views, parse_windows
from hf_video.errors import (
    VideoError,
    VideoOptionError,
    check_choice,
    check_count,
    check_switch,
    error_entry,
    unknown_name,
)
from hf_video.features.compiled import compile_model
from hf_video.video.frames.types import VideoList, Videos, VideoSource
from hf_video.video.sampling.samplers import resolve

logger = logging.get_logger(__name__)

BAD_FILES = ("raise", "report")
ON_ERROR = ("raise", "repeat")
READING_OPTIONS = (
    *("num_frames", "frame_sampling_rate", "views", "sampler", "sampler_options", "windows", "on_error", "bad_files"),
    *("backend", "snap", "fps", "local_files_only"),
)


class VideoPipeline(Pipeline):
    """The base class. A task says with `_options` which options it has besides those of `reading_options`, with `_ask`
    what goes with the clips into every forward (encoded texts, say), with `_forward` how clips become one row of
    numbers each, and with `_window` what the rows of one window become.

    See `VideoClassificationPipeline` for what a video is and for all options of reading.
    """

    _load_processor = False
    _load_image_processor = None
    _load_video_processor = None
    _load_feature_extractor = False
    _load_tokenizer = False
    # The options of `reading_options` that the task has.
    reading_names: tuple[str, ...] = READING_OPTIONS
    # What a window's result is called where there are several.
    window_key = "predictions"

    def __init__(self, *args: Any, compile: bool = False, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.model = as_video_model(self.model)
        if self.processor is not None:
            self.image_processor = self.image_processor or getattr(self.processor, "image_processor", None)
            self.tokenizer = self.tokenizer or getattr(self.processor, "tokenizer", None)
        self._prepare()
        check_count("batch_size", self._batch_size, optional=True)
        if slow := why_slow(self.model):
            logger.warning_once(f"{type(self.model).__name__}: {slow}.")
        if check_switch("compile", compile):
            self.compile()

    def compile(self, say: Callable[[str], Any] | None = None) -> None:
        """Compiles the model that sees the clips.

        Args:
            say: Takes the lines about it; default the log.

        Raises:
            BackendError, CheckpointError: As `hf_video.compile_model`.
        """
        compile_model(self.clip_model, say=say)

    @property
    def clip_model(self) -> Any:
        """The model that sees the clips."""
        return self.model

    def _prepare(self) -> None:
        """Finds the processor, and compares it with the model."""
        self.image_processor, self.video_processor = find_processors(
            self.model, self.image_processor, self.video_processor
        )
        asked = self._preprocess_params.get("num_frames")
        check_pair(self.model, self.image_processor or self.video_processor, num_frames=asked)

    # -- options ----------------------------------------------------------------------------------------------------

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Options of reading, of `_ask`, and of the answer. Raises VideoOptionError for what there is not."""
        if "compile" in options:
            raise VideoOptionError("compile is an option of the pipeline, not of a call: pipeline(task, compile=True).")
        reading, bad_files = self.reading_options(**{n: options.pop(n) for n in READING_OPTIONS if n in options})
        own = inspect.signature(self._options).parameters
        unknown = [name for name in options if name not in own]
        if unknown:
            known = sorted({*self.reading_names, *own} - {"local_files_only"})
            raise VideoOptionError(unknown_name(f"{self.task or type(self).__name__} has no option", unknown[0], known))
        asked, answer = self._options(**options)
        return reading, asked, {**answer, **({} if bad_files is None else {"bad_files": bad_files})}

    def _options(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What was given of the options of `_ask`, and of those of `_window`."""
        return {}, {}

    def reading_options(
        self,
        num_frames: int | None = None,
        frame_sampling_rate: int | None = None,
        views: str | tuple[int, int] | None = None,
        sampler: str | Callable[..., Any] | None = None,
        sampler_options: dict[str, Any] | None = None,
        windows: float | str | tuple[float, float] | None = None,
        on_error: str | None = None,
        bad_files: str | None = None,
        backend: str | None = None,
        snap: str | None = None,
        fps: float | None = None,
        local_files_only: bool | None = None,  # transformers' factory hands it on
    ) -> tuple[dict[str, Any], str | None]:
        """Checked and parsed, those that were given; and `bad_files`."""
        check_count("num_frames", num_frames, optional=True)
        check_count("frame_sampling_rate", frame_sampling_rate, optional=True)
        left_out = " A clip needs all of its frames, so damaged ones can't be left out." if on_error == "skip" else ""
        check_choice("on_error", on_error, (*ON_ERROR, None), hint=left_out)
        check_choice("bad_files", bad_files, (*BAD_FILES, None))
        check_choice("snap", snap, SNAPS)
        reading = {
            "num_frames": num_frames,
            "frame_sampling_rate": frame_sampling_rate,
            "sampler": None if sampler is None else resolve(sampler),
            "sampler_options": sampler_options,
            "views": None if views is None else parse_views(views),
            "windows": parse_windows(windows),
            "on_error": on_error,
            "backend": backend,
            "snap": snap,
            "fps": fps,
        }
        return {name: value for name, value in reading.items() if value is not None}, bad_files

    def _request(self, **asked: Any) -> ClipRequest:
        return ClipRequest.resolve(self.image_processor or self.video_processor, self.model.config, **asked)

    # -- the steps that every pipeline has ---------------------------------------------------------------------------

    def preprocess(self, video: VideoSource, **options: Any) -> dict[str, torch.Tensor]:
        """Reads one video.

        Args:
            video: In any form.
            options: Of reading, such as `num_frames` and `views`.

        Returns:
            Model inputs such as `pixel_values` (views, frames, channels, height, width), clips first, then crops.

        Raises:
            VideoError: What `VideoReader` and the samplers raise.
        """
        pieces = [p for p in read_clips(video, self._request(**options), self._process) if isinstance(p, ClipInputs)]
        return {name: torch.cat([p.inputs[name] for p in pieces]) for name in pieces[0].inputs}

    def _ask(self, **asked: Any) -> dict[str, Any]:
        """Keywords of `_forward`, once for each call, before any video is read."""
        return asked

    def _run(self, method: Callable[..., Any], model_inputs: dict[str, torch.Tensor], **more: Any) -> Any:
        """`method` of the model on clips in the pipeline's dtype, the model in eval mode meanwhile."""
        floating = {k: v.to(self.dtype) if v.is_floating_point() else v for k, v in model_inputs.items()}
        training = self.model.training
        self.model.eval()
        try:
            return method(**inputs_for(self.model, floating), **more)
        finally:
            self.model.train(training)

    def _window(self, rows: torch.Tensor, seen: WindowSample, repeated: set[int], **answer: Any) -> Any:
        """The result of one window: `rows` (views, numbers) are its clips'."""
        return self.postprocess(ModelOutput(logits=rows), **answer)

    @property
    def _process(self) -> Callable[..., dict[str, torch.Tensor]]:
        return clip_processor(self.image_processor or self.video_processor)

    # -- calling ----------------------------------------------------------------------------------------------------

    def __call__(
        self,
        inputs: VideoSource | Videos,
        *,
        batch_size: int | None = None,
        num_workers: int | None = None,
        **options: Any,
    ) -> Any:
        """Answers for one video, or many.

        Args:
            inputs: See the class.
            batch_size: Views of one forward, filled from several videos; None runs each video on its own.
            num_workers: Processes that read ahead. None: a thread of this one does, a few clips at most, and asks a
                stream for its next video meanwhile. 0: each video is read when the one before it is done.
            options: See the class.

        Returns:
            One result for one video (with `windows` a list of `{"seconds", ...}`, in seconds), a list of such results
            for a list, an iterator of them for a generator or dataset.

        Raises:
            VideoOptionError: An option that there is not, or one that fits no video.
            VideoError: A video can't be read, and `bad_files` is "raise".
        """
        kind, videos = videos_of(inputs)
        results = self._all([videos] if kind == "one" else videos, batch_size, num_workers, **options)
        if kind == "one":
            return next(results)
        return list(self._with_bar(results, len(videos))) if kind == "list" else results

    def _with_bar(self, results: Iterator[Any], total: int) -> Iterator[Any]:
        """A progress bar with the rate, for several videos and where stderr is a terminal; transformers' switch for its
        own bars (`transformers.utils.logging.disable_progress_bar`) is heeded."""
        shown = total > 1 and logging.is_progress_bar_enabled()
        return iter(tqdm(results, total=total, desc=self.task, unit="video", disable=None if shown else True))

    def _all(self, videos: Videos, batch_size: int | None, num_workers: int | None, **options: Any) -> Iterator[Any]:
        """One result after the other. Options are checked, and texts encoded, before the first video is read."""
        check_count("batch_size", batch_size, optional=True)
        reading, asked, answer = self._sanitize_parameters(**options)
        request = self._request(**{**self._preprocess_params, **reading})
        if isinstance(videos, list) and len(videos) == 1 and request.windows is None:
            # The model waits for the only clips that there are: its threads decode them.
            request = dataclasses.replace(request, num_threads=torch.get_num_threads())
        return self._results(
            videos,
            request,
            batch_size or self._batch_size,
            self._num_workers if num_workers is None else num_workers,
            self._ask(**{**self._forward_params, **asked}),
            **{**self._postprocess_params, **answer},
        )

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
        read = self._reader(request, asked)
        rows = functools.partial(self._rows, asked)
        for result in run_videos(self._events(videos, read, num_workers), rows, batch_size=batch_size):
            if result.error is None:
                yield self._answer(result, request, answer)
            else:
                yield self._fault(result.error, videos, bad_files)

    @staticmethod
    def _fault(error: VideoError, videos: Videos, bad_files: str) -> dict[str, Any]:
        """The result of a video that can't be read; raises its error where `bad_files` says so."""
        if bad_files == "raise":
            raise error if isinstance(videos, list) and len(videos) == 1 else _with_way_on(error)
        return error_entry(error)

    def _reader(self, request: ClipRequest, asked: dict[str, Any]) -> Callable[[Any], Iterator[Event]]:
        """What makes events of a video; it may run in another process."""
        return functools.partial(read_events, request=request, process=self._process)

    def _events(
        self, videos: Videos, read: Callable[[Any], Iterator[Event]], num_workers: int | None
    ) -> Generator[Any, None, None]:
        if num_workers and not isinstance(videos, VideoList):
            logger.warning_once("num_workers is for lists and datasets with a length; a thread reads this stream.")
        return read_each(videos, read, num_workers)

    def _rows(self, asked: dict[str, Any], clips: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.forward(clips, **asked)["logits"]

    def _answer(self, result: VideoResult, request: ClipRequest, answer: dict[str, Any]) -> Any:
        windows = []
        for number, seen in enumerate(result.seen):
            found = self._window(result.views(number), seen, result.repeated[number], **answer)
            windows.append({"seconds": seen.seconds, self.window_key: found})
        return windows[0][self.window_key] if request.windows is None else windows


def _with_way_on(error: VideoError) -> VideoError:
    """The error of one of many videos, saying how the results of the others are kept."""
    if error.args and not isinstance(error, ImportError):
        way = (
            'bad_files="report" keeps the results of the other videos, with an entry {"error", "kind", "message"} '
            "for this one."
        )
        error.args = (f"{str(error.args[0]).rstrip('.')}. {way}", *error.args[1:])
    return error
