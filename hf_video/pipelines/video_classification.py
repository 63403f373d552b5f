"""`pipeline("video-classification")`: from a video of any form to labels, in any environment the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers.modeling_outputs import ModelOutput

from hf_video.base.modeling import clip_logits
from hf_video.clips.read import WindowSample
from hf_video.clips.request import FUNCTIONS, average_views
from hf_video.errors import CheckpointError, VideoOptionError, check_choice, check_count, is_number
from hf_video.pipelines.base import VideoPipeline
from hf_video.video.sampling.frame_sample import FrameSample

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

NOT_GIVEN: Any = object()


class Predictions(list[dict[str, Any]]):
    """`[{"score": float, "label": str}, ...]`, best first: equal to such a list, and written to JSON as one.

    `seconds` is (start, end) of everything that was seen, the last frame's own duration included, and `clips` the
    same for each clip; `indices` (clips, frames) are the frames; `repeated` names damaged ones that were replaced by
    their nearest good neighbour (`on_error="repeat"`).
    """

    def __init__(self, items: Sequence[dict[str, Any]], *, sample: FrameSample, repeated: Iterable[int] = ()):
        super().__init__(items)
        self.indices: np.ndarray = sample.indices
        self.clips: list[tuple[float, float]] = [(float(a), float(b)) for a, b in sample.spans]
        self.seconds: tuple[float, float] = (min(a for a, _ in self.clips), max(b for _, b in self.clips))
        self.repeated: tuple[int, ...] = tuple(sorted(repeated))


def thresholds_of(config: PreTrainedConfig, classes: int) -> list[float]:
    """From which score on a class counts as shown: the configuration's `label_thresholds`, one for each class, else a
    half. Raises CheckpointError for another number of them."""
    found = getattr(config, "label_thresholds", None)
    if found is None:
        return [0.5] * classes
    if len(found) != classes:
        raise CheckpointError(f"The model's label_thresholds are {len(found)}, and it has {classes} classes.")
    return [float(one) for one in found]


def best(
    scores: torch.Tensor, labels: Mapping[int, str], top_k: int | None, thresholds: Sequence[float] | None = None
) -> list[dict[str, Any]]:
    """The `top_k` highest of `scores` (classes,), all of them with None or where there are fewer; with `thresholds`,
    one a class, only those that reach theirs."""
    count = len(scores) if top_k is None else min(top_k, len(scores))
    values, ids = scores.topk(count)
    return [
        {"score": value, "label": labels.get(i, f"LABEL_{i}")}
        for value, i in zip(values.tolist(), ids.tolist(), strict=True)
        if thresholds is None or value >= thresholds[i]
    ]


class VideoClassificationPipeline(VideoPipeline):
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
        num_frames: Frames of a clip; default what the processor's file says, else the model's configuration.
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
        threshold: Only labels with at least this score, of the `top_k`; "model": each class's own, of the model's
            `config.label_thresholds` (a half where it has none). Default: no threshold.
        windows: Seconds (2.0, "2s"), or length and step ("2s/1s", (2.0, 1.0)). Each window is scored as a video of
            its own, with all its views. A last window that the video's end cuts off is shorter.
        on_error: "raise", or "repeat": damaged frames show their nearest good neighbour, and the result's
            `repeated` names them.
        bad_files: "raise", or "report": in place of a file that can't be read its result is
            `{"error": name of the exception, "kind": see `fault_kind`, "message": what is wrong}` and the others go on.
        backend: Of `VideoReader`.
        snap: "keyframe": each frame of a clip is the keyframe nearest in time, for a first look at long files: only
            these are decoded. Results have their indices and seconds, and windows that show the same ones are one.
        fps: Frames per second of videos without times (arrays, image lists and folders), for windows; default 25.
        batch_size: Views in one forward, filled from several videos. Default: each video on its own, at most 8 views
            at once.
        num_workers: Processes that read ahead. Default: a thread of this one reads the next clips, or videos, while the
            model has those before them; 0: nothing is read ahead.

    Results are `Predictions`: lists of `{"score", "label"}` as stock's, with `.seconds` (start, end) seen, `.clips`,
    `.indices` and `.repeated`.

    Raises VideoOptionError and SamplingError (options), CheckpointError (no processor, no classifier) and the
    exceptions of `VideoReader` (files).
    """

    def _options(
        self,
        *,
        top_k: int | None = NOT_GIVEN,
        function_to_apply: str | None = None,
        threshold: float | str | None = NOT_GIVEN,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        answer = answer_options(top_k, function_to_apply)
        if threshold is not NOT_GIVEN:
            answer["threshold"] = _checked_threshold(threshold)
        return {}, answer

    def _forward(self, model_inputs: dict[str, torch.Tensor]) -> ModelOutput:
        return ModelOutput(logits=clip_logits(self.model, self._run(self.model, model_inputs)))

    def postprocess(
        self,
        model_outputs: ModelOutput,
        *,
        top_k: int | None = 5,
        function_to_apply: str | None = None,
        threshold: float | str | None = None,
    ) -> list[dict[str, Any]]:
        """Logits (views, classes) of one video to its best labels."""
        scores = average_views(model_outputs["logits"], function_to_apply or self._function())
        config, classes = self.model.config, len(scores)
        limits = None if threshold is None else [threshold] * classes
        return best(scores, config.id2label, top_k, thresholds_of(config, classes) if threshold == "model" else limits)

    def _function(self) -> str:
        kinds = {"regression": "none", "multi_label_classification": "sigmoid"}
        return kinds.get(self.model.config.problem_type, "softmax")

    def _window(self, rows: torch.Tensor, seen: WindowSample, repeated: set[int], **answer: Any) -> Predictions:
        return Predictions(super()._window(rows, seen, repeated, **answer), sample=seen.sample, repeated=repeated)


def _checked_threshold(threshold: float | str | None) -> float | str | None:
    if threshold is None or threshold == "model" or is_number(threshold):
        return threshold
    raise VideoOptionError(f'threshold={threshold!r} must be a score, "model" for the model\'s own, or None.')


def answer_options(top_k: int | None, function_to_apply: str | None) -> dict[str, Any]:
    """Those of the two that were given, checked. Raises VideoOptionError."""
    check_choice("function_to_apply", function_to_apply, (*FUNCTIONS, None))
    answer: dict[str, Any] = {} if function_to_apply is None else {"function_to_apply": function_to_apply}
    if top_k is not NOT_GIVEN:
        check_count("top_k", top_k, optional=True)
        answer["top_k"] = top_k
    return answer
