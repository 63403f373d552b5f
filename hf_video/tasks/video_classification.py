"""`pipeline("video-classification")`: from a video of any form to labels, in any environment the same."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sized
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from transformers.modeling_outputs import ModelOutput
from transformers.pipelines.base import Pipeline
from transformers.utils import logging

from hf_video.errors import CheckpointError, VideoOptionError
from hf_video.tasks.batching import Job, run_jobs
from hf_video.tasks.clip_processors import clip_processor, decode_options, find_processors, frames_needed
from hf_video.tasks.clips import Event, Piece, Reading, read_clips, read_events
from hf_video.tasks.results import Predictions, best, error_entry
from hf_video.tasks.sources import each, videos_of
from hf_video.tasks.views import FUNCTIONS, Sampling, Views, average_views, parse_views
from hf_video.tasks.windows import parse_windows
from hf_video.video.sampling import resolve

logger = logging.get_logger(__name__)

_NOT_GIVEN: Any = object()
BAD_FILES = ("raise", "report")
ON_ERROR = ("raise", "repeat")


class VideoClassificationPipeline(Pipeline):
    """Labels for videos, by any `AutoModelForVideoClassification`.

        classify = pipeline("video-classification", model="folder or Hub name")
        classify("clip.mp4")                                  # [{"score": 0.93, "label": "archery"}, ...]
        classify(["a.mp4", "b.mp4"], batch_size=4, top_k=1)   # one list for each file
        classify("clip.mp4", views="5x3")                     # 5 clips x 3 crops, probabilities averaged
        classify("match.mp4", windows="2s/1s")                # [{"seconds": (0.0, 2.0), "predictions": [...]}, ...]

    **A video** is a path, http(s) URL, bytes, a binary file object, a folder of images, a `VideoReader` or
    `VideoFrames`, an array or tensor (frames, height, width, 3) or (frames, 3, height, width), a list of PIL images or
    of single-frame arrays, or a row of a `datasets` Video column. A list of anything else, and a 5-d array, are many
    videos and give a list; a generator, an iterator or a dataset gives an iterator that works as it is read.

    Frames are always decoded and chosen by hf_video, so that the same file has the same scores whatever else is
    installed. Each video is decoded once for all of its views, at the processor's size where that gives the same
    pixels, and long ones in stretches: memory does not grow with the length.

    Options, of the pipeline or of a call:
        top_k: How many labels, default 5; None gives all.
        num_frames: Frames of a clip; default the model's.
        frame_sampling_rate: Frames from one taken frame to the next. Gives clips of neighbouring frames: one from the
            middle, or several spread from start to end (stock transformers: from the start only). For
            `sampler="at_fps"` it is the rate at 30 fps. Default: no rate, the clip spans the whole video.
        sampler, sampler_options: A name of `hf_video.video.sampling.SAMPLERS` with its own keywords, or a callable
            `(number of frames, num_frames, **options)` that returns indices. Default: what the processor's file
            says, and for most that is "uniform": the middle frames of `num_frames` equal parts of the video.
        views: "5x3" or (5, 3): clips x crops (1, or 3 along the longer side). The function is applied to every view,
            then the mean is taken. Several clips of the uniform sampler are shifted against each other. Official
            protocols: VideoMAE on Kinetics `views="5x3", frame_sampling_rate=4`, on Something-Something
            `views="2x3"`; TimeSformer on Kinetics `views="1x3", sampler="at_fps", frame_sampling_rate=32`.
        function_to_apply: "softmax", "sigmoid" or "none"; default by the model's `problem_type`.
        windows: Seconds (2.0, "2s"), or length and step ("2s/1s", (2.0, 1.0)). Each window is scored as a video of
            its own, with all its views. A last window that the video's end cuts off is shorter.
        on_error: "raise", or "repeat": damaged frames show their nearest good neighbour, and the result's
            `repeated` names them.
        bad_files: "raise", or "report": in place of a file that can't be read its result is
            `{"error": name of the exception, "message": what is wrong}` and the others go on.
        backend: Of `VideoReader`.
        fps: Frames per second of videos without times (arrays, image lists and folders), for windows; default 25.
        batch_size: Views in one forward, filled from several videos. Default: each video on its own, at most 8 views
            at once.
        num_workers: Processes that decode. Each holds a whole video's clips then, also with windows.

    Results are `Predictions`: lists of `{"score", "label"}` as stock's, with `.seconds` (start, end) seen, `.clips`,
    `.indices` and `.repeated`.

    Raises VideoOptionError and SamplingError (options), CheckpointError (no processor, no classifier) and the
    exceptions of `VideoReader` (files).
    """

    _load_processor = False
    _load_image_processor = None
    _load_video_processor = None
    _load_feature_extractor = False
    _load_tokenizer = False

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.image_processor, self.video_processor = find_processors(
            self.model, self.image_processor, self.video_processor
        )
        _check_count("batch_size", self._batch_size)

    # -- options ----------------------------------------------------------------------------------------------------

    def _sanitize_parameters(
        self,
        top_k: int | None = _NOT_GIVEN,
        num_frames: int | None = None,
        frame_sampling_rate: int | None = None,
        function_to_apply: str | None = None,
        views: str | tuple[int, int] | None = None,
        sampler: str | Callable[..., Any] | None = None,
        sampler_options: dict[str, Any] | None = None,
        windows: float | str | tuple[float, float] | None = None,
        on_error: str | None = None,
        bad_files: str | None = None,
        backend: str | None = None,
        fps: float | None = None,
        local_files_only: bool | None = None,  # transformers' factory hands it on
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        _check_count("num_frames", num_frames)
        _check_count("frame_sampling_rate", frame_sampling_rate)
        _check_choice("on_error", on_error, ON_ERROR)
        _check_choice("bad_files", bad_files, BAD_FILES)
        _check_choice("function_to_apply", function_to_apply, FUNCTIONS)
        reading = {
            "num_frames": num_frames,
            "frame_sampling_rate": frame_sampling_rate,
            "sampler": None if sampler is None else resolve(sampler),
            "sampler_options": sampler_options,
            "views": None if views is None else parse_views(views),
            "windows": parse_windows(windows),
            "on_error": on_error,
            "backend": backend,
            "fps": fps,
        }
        answer = {"function_to_apply": function_to_apply, "bad_files": bad_files}
        reading, answer = ({k: v for k, v in given.items() if v is not None} for given in (reading, answer))
        if top_k is not _NOT_GIVEN:
            _check_count("top_k", top_k)
            answer["top_k"] = top_k
        return reading, {}, answer

    def _reading(
        self,
        *,
        num_frames: int | None = None,
        frame_sampling_rate: int | None = None,
        sampler: Callable[..., Any] | None = None,
        sampler_options: dict[str, Any] | None = None,
        views: Views | None = None,
        **rest: Any,
    ) -> Reading:
        """All options together, those that were not given from the processor and the model."""
        processor = self.image_processor
        options = dict(sampler_options or {})
        if sampler is None and frame_sampling_rate is None:
            sampler = getattr(processor, "sampler", None)
            kept = getattr(processor, "sampler_options", None) or {}
            options = {**{k: v for k, v in kept.items() if views is None or k != "num_clips"}, **options}
        if views is None:
            views = Views(1, getattr(processor, "num_crops", 1) or 1)
        sampling = Sampling(num_frames or self._frames_of_model(), sampler, frame_sampling_rate, options)
        return Reading(
            sampling=sampling,
            views=views,
            decode=decode_options(processor),
            frames_needed=frames_needed(processor),
            **rest,
        )

    def _frames_of_model(self) -> int:
        config = self.model.config
        for name in ("num_frames", "frames_per_clip"):
            if isinstance(count := getattr(config, name, None), int):
                return count
        raise VideoOptionError(f"{type(config).__name__} doesn't say how many frames a clip has: pass num_frames=.")

    # -- the three steps that every pipeline has ---------------------------------------------------------------------

    def preprocess(self, video: Any, **options: Any) -> dict[str, torch.Tensor]:
        """One video to model inputs (views, frames, channels, height, width), clips first, then crops."""
        pieces = [p for p in read_clips(video, self._reading(**options), self._process) if isinstance(p, Piece)]
        return {name: torch.cat([p.inputs[name] for p in pieces]) for name in pieces[0].inputs}

    def _forward(self, model_inputs: dict[str, torch.Tensor]) -> ModelOutput:
        name = self.model.main_input_name
        if name not in model_inputs and len(model_inputs) == 1:
            # Some models call their clips otherwise than the processor; there is only one thing that can be meant.
            model_inputs = {name: next(iter(model_inputs.values()))}
        floating = {k: v.to(self.dtype) if v.is_floating_point() else v for k, v in model_inputs.items()}
        training = self.model.training
        self.model.eval()
        try:
            output = self.model(**floating)
        finally:
            self.model.train(training)
        if getattr(output, "logits", None) is None:
            raise CheckpointError(
                f"{type(self.model).__name__} gives no logits. Load the model with AutoModelForVideoClassification."
            )
        return ModelOutput(logits=output.logits)

    def postprocess(
        self, model_outputs: ModelOutput, *, top_k: int | None = 5, function_to_apply: str | None = None
    ) -> list[dict[str, Any]]:
        """Logits (views, classes) of one video to its best labels."""
        scores = average_views(model_outputs["logits"], function_to_apply or self._function())
        return best(scores, self.model.config.id2label, top_k)

    def _function(self) -> str:
        kinds = {"regression": "none", "multi_label_classification": "sigmoid"}
        return kinds.get(self.model.config.problem_type, "softmax")

    @property
    def _process(self) -> Callable[..., dict[str, torch.Tensor]]:
        return clip_processor(self.image_processor, self.video_processor)

    # -- calling ----------------------------------------------------------------------------------------------------

    def __call__(
        self, inputs: Any, *, batch_size: int | None = None, num_workers: int | None = None, **options: Any
    ) -> Any:
        """One video, or many. See the class for what may come and for the options.

        Returns a list of `{"score", "label"}` for one video (with `windows` a list of `{"seconds", "predictions"}`), a
        list of such results for a list, an iterator of them for a generator or dataset.
        """
        _check_count("batch_size", batch_size)
        kind, videos = videos_of(inputs)
        reading, _, answer = self._sanitize_parameters(**options)
        results = self._results(
            [videos] if kind == "one" else videos,
            self._reading(**{**self._preprocess_params, **reading}),
            batch_size or self._batch_size,
            (self._num_workers or 0) if num_workers is None else num_workers,
            **{**self._postprocess_params, **answer},
        )
        if kind == "one":
            return next(results)
        return list(results) if kind == "list" else results

    def _results(
        self,
        videos: Any,
        reading: Reading,
        batch_size: int | None,
        num_workers: int,
        *,
        bad_files: str = "raise",
        **answer: Any,
    ) -> Iterator[Any]:
        read = functools.partial(read_events, reading=reading, process=self._process)
        for job in run_jobs(self._events(videos, read, num_workers), self._logits, batch_size=batch_size):
            if job.error is None:
                yield self._answer(job, reading, answer)
            elif bad_files == "raise":
                raise job.error
            else:
                yield error_entry(job.error)

    def _events(self, videos: Any, read: Callable[[Any], Iterator[Event]], num_workers: int) -> Iterator[Any]:
        if num_workers > 0 and isinstance(videos, Sized) and hasattr(videos, "__getitem__"):
            loader = DataLoader(_Read(videos, read), batch_size=None, num_workers=min(num_workers, len(videos)))
            return iter(loader)
        if num_workers > 0:
            logger.warning_once("num_workers is for lists and datasets with a length; this stream is read here.")
        return (read(video) for video in each(videos))

    def _logits(self, rows: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.forward(rows)["logits"]

    def _answer(self, job: Job, reading: Reading, answer: dict[str, Any]) -> Any:
        windows = []
        for number, seen in enumerate(job.seen):
            items = self.postprocess(ModelOutput(logits=torch.stack(job.logits[number])), **answer)
            found = Predictions(items, sample=seen.sample, repeated=job.repeated[number])
            windows.append({"seconds": seen.seconds, "predictions": found})
        return windows[0]["predictions"] if reading.windows is None else windows


class _Read(Dataset):
    """A list of videos whose items are their events: what a worker process does."""

    def __init__(self, videos: Any, read: Callable[[Any], Iterator[Event]]):
        self._videos = videos
        self._read = read

    def __len__(self) -> int:
        return len(self._videos)

    def __getitem__(self, index: int) -> list[Event]:
        return list(self._read(self._videos[index]))


def _check_count(name: str, value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise VideoOptionError(f"{name}={value!r} must be a whole number of 1 or more.")


def _check_choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        hint = ""
        if name == "on_error" and value == "skip":
            hint = " A clip needs all of its frames, so damaged ones can't be left out."
        raise VideoOptionError(f"{name}={value!r} must be one of {', '.join(map(repr, allowed))}.{hint}")
