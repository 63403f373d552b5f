"""`pipeline("temporal-action-detection")`: what happens in a video, and when, by a detector or by any classifier."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers.modeling_outputs import ModelOutput

from hf_video.base.detection.events import Events
from hf_video.base.detection.types import Detection
from hf_video.clips.batching import VideoResult
from hf_video.clips.frame_windows import read_frame_window_events, read_frame_windows
from hf_video.clips.grid import parse_grid
from hf_video.clips.read import ClipInputs
from hf_video.clips.request import ClipRequest
from hf_video.errors import CheckpointError, VideoOptionError, check_count, check_number
from hf_video.features.events import find_events
from hf_video.features.sequence_encoder import SequenceEncoder, load_encoder
from hf_video.features.sequences import FeatureSequence, grid_of
from hf_video.features.window_detector import find_window_events, is_end_to_end, window_rows
from hf_video.pipelines import matching
from hf_video.pipelines.base import READING_OPTIONS, VideoPipeline
from hf_video.pipelines.event_classes import EventClasses, default_grid, default_smoothing
from hf_video.pipelines.event_models import (
    CLASSIFIER,
    DETECTOR,
    NMS_OPTIONS,
    OPTIONS_OF,
    TEXT,
    describe,
    kind_of,
)
from hf_video.pipelines.video_classification import (
    NOT_GIVEN,
    VideoClassificationPipeline,
    answer_options,
    thresholds_of,
)
from hf_video.pipelines.video_feature_extraction import VideoFeatureExtractionPipeline
from hf_video.pipelines.zero_shot_video_classification import (
    ZeroShotVideoClassificationPipeline,
    checked_labels,
    checked_templates,
)
from hf_video.video.frames.types import Videos, VideoSource

if TYPE_CHECKING:
    import os

    from hf_video.base.detection.configuration import TemporalDetectionConfig
    from hf_video.clips.grid import GridLike
    from hf_video.clips.read import ClipProcessor, Event


class TemporalActionDetectionPipeline(VideoPipeline):
    """Events of videos with their seconds, by a detector, or without any training by a classifier or by words.

        detect = pipeline("temporal-action-detection", model="folder or Hub name")
        detect("match.mp4")                               # [Detection("jump", 0.91, start=3.2, end=5.0), ...]
        detect(["a.mp4", "b.mp4"], threshold=0.3)         # one such list for each file
        detect("match.mp4").query("jump before throw")    # see `hf_video.base.detection.events`
        detect("kitchen.mp4", candidate_labels=["cutting bread", "washing up"], grid="2s/0.5s")   # a VideoCLIP or CLIP

    **A detector** (ActionFormer, TriDet) works on features of the encoder in its sub-folder `encoder/`, on the grid of
    its configuration. Ready features may come in place of videos: a `FeatureSequence`, an array (T, D), or a list of
    them. **AdaTAD** sees the frames themselves, in overlapping windows of a longer video (`batch_size` counts them; by
    default one at a time).

    **Any video classifier, and any model of video and text**, scores the clips of a grid; stretches of high scores are
    events (`hf_video.base.detection.types.Hysteresis`).

    Videos, workers and files that can't be read are as in `VideoClassificationPipeline`; so are views, samplers and
    frames of a clip, but for detectors, which have those that they were trained on.

    Options, of the pipeline or of a call:
        threshold: Only events that reach this score. For classifiers and texts an event begins there; default 0.4 of a
            softmax and 0.5 otherwise, and for several labels at once the model's own `config.label_thresholds`.
            Detectors: default none.
        top_k: The best so many events; default all.
        min_length: Only events of so many seconds or more; default 0.

    Options for classifiers and texts:
        grid: Length and step of clips, such as "2s/0.5s" or "16/4": see `hf_video.clips.grid.parse_grid`. Default: as
            many frames as the processor's sampler spans; where it spans no fixed number, as many seconds as the clips
            had that `hf-video train` trained the model on (`config.clip_seconds`), or 2; a new clip at every quarter of
            it. A step longer than a clip leaves parts of the video unseen; a clip longer than the video
            is the whole of it.
        off_threshold: An event goes on until its score falls below this; default 0.7 · threshold.
        smoothing: Clips whose mean score counts for the one in their middle, an odd number; default about one length of
            a clip, such as 5 for "2s/0.5s". 1 is none.
        function_to_apply: "softmax", "sigmoid" or "none"; default by the model, as in classification.
        background: Classes that say that nothing happens, one name or several: they take their share of a softmax and
            make no events. Default: those named "background", "normal", "nothing", "none", "no action" and the like.
            For texts it is compared with the video as the labels are; where softmax is applied and no label has such a
            name, the default is "nothing happening". None or []: there is none.
        candidate_labels, hypothesis_template: For texts, see `ZeroShotVideoClassificationPipeline`.

    Options for detectors: `nms`, `nms_sigma`, `nms_iou_threshold`, `nms_min_score`, `class_agnostic_nms`,
    `voting_threshold` and `max_detections`, in place of the configuration's, and `window`, how many steps of its grid a
    detector of features sees at once (`hf_video.features.feature_windows`); default the whole video. Of the pipeline
    alone: `encoder`, a `SequenceEncoder` or the name of a model, for a detector that has none.

    Results are `Events`, lists of `Detection`, the best first; those of equal score by their start. A detector's events
    may overlap, also in one class.

    Raises VideoOptionError (options), CheckpointError (a model that finds no events), DataError (features of another
    encoder or grid) and the exceptions of `VideoReader` (files).
    """

    reading_names = ("grid", *(name for name in READING_OPTIONS if name != "windows"))

    def __init__(
        self, *args: Any, encoder: SequenceEncoder | str | os.PathLike[str] | None = None, **kwargs: Any
    ) -> None:
        self._given_encoder = encoder
        super().__init__(*args, **kwargs)

    @property
    def kind(self) -> str:
        """What the model is, of DETECTOR, CLASSIFIER and TEXT. Raises CheckpointError for one that finds no events."""
        return kind_of(self.model)

    def _prepare(self) -> None:
        """Makes `clips`, the pipeline that gives a row of numbers for every clip: features or scores of classes."""
        parts = {"image_processor": self.image_processor, "video_processor": self.video_processor}
        given = {name: self._preprocess_params[name] for name in ("num_frames",) if name in self._preprocess_params}
        options: dict[str, Any] = {"device": self.device, **given}
        self.encoder: SequenceEncoder | None = None
        self.clips: VideoPipeline | None = None
        self._why_no_encoder: CheckpointError | None = None
        self.is_end_to_end = is_end_to_end(self.model)
        if self.is_end_to_end:
            super()._prepare()
            if self._given_encoder is not None:
                raise VideoOptionError(f"encoder= is for detectors of features. {describe(self.model)}")
        elif self.kind == CLASSIFIER:
            self.clips = VideoClassificationPipeline(self.model, **parts, **options)
        elif self.kind == TEXT:
            self.clips = ZeroShotVideoClassificationPipeline(self.model, tokenizer=self.tokenizer, **parts, **options)
        else:
            self.encoder = self._find_encoder()
        if self.encoder is not None:
            self.clips = VideoFeatureExtractionPipeline(
                self.encoder.model, image_processor=self.encoder.processor, device=self.device
            )

    @property
    def clip_model(self) -> Any:
        if self._why_no_encoder is not None:
            raise self._why_no_encoder
        return self.model if self.encoder is None else self.encoder.model

    def _find_encoder(self) -> SequenceEncoder | None:
        """The detector's encoder; None where it takes ready features only. Raises CheckpointError for another one."""
        config, given = self.model.config, self._given_encoder
        if given is None:
            try:
                return load_encoder(getattr(self.model, "name_or_path", ""), config, device=self.device)
            except CheckpointError as error:
                if config.encoder:
                    raise
                self._why_no_encoder = error
                return None
        if not isinstance(given, SequenceEncoder):
            given = SequenceEncoder(given, grid=grid_of(config), device=self.device)
        trained_on = (config.encoder or {}).get("digest")
        if not given.has_digest(trained_on) or given.grid != grid_of(config):
            raise CheckpointError(
                f"The encoder {given.name!r} on the grid {given.grid} is not what the detector was trained on: "
                f"{(config.encoder or {}).get('name', 'its encoder')} on the grid {grid_of(config)}."
            )
        return given

    # -- options ----------------------------------------------------------------------------------------------------

    def _sanitize_parameters(
        self, grid: GridLike | None = None, **options: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if options.get("windows") is not None:
            raise VideoOptionError('Events have no windows=: say with grid= which clips are seen, such as "2s/0.5s".')
        kind = self.kind
        for name, value in {"grid": grid, **options}.items():
            if value is not None and kind not in OPTIONS_OF.get(name, (kind,)):
                raise VideoOptionError(
                    f"{name}={value!r} is for {' and '.join(OPTIONS_OF[name])}. {describe(self.model)}"
                )
        reading, asked, answer = super()._sanitize_parameters(**options)
        return {**reading, **({} if grid is None else {"windows": parse_grid(grid)})}, asked, answer

    def _options(
        self,
        *,
        threshold: float | None = None,
        top_k: int | None = NOT_GIVEN,
        min_length: float | None = None,
        off_threshold: float | None = None,
        smoothing: int | None = None,
        function_to_apply: str | None = None,
        background: str | Sequence[str] | None = NOT_GIVEN,
        candidate_labels: str | list[str] | None = None,
        hypothesis_template: str | list[str] | None = None,
        nms: str | None = None,
        nms_sigma: float | None = None,
        nms_iou_threshold: float | None = None,
        nms_min_score: float | None = None,
        class_agnostic_nms: bool | None = None,
        voting_threshold: float | None = None,
        max_detections: int | None = None,
        window: int | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        asked: dict[str, Any] = {}
        answer = answer_options(top_k, function_to_apply)
        values = (nms, nms_sigma, nms_iou_threshold, nms_min_score, class_agnostic_nms, voting_threshold)
        merging = {
            name: value for name, value in zip(NMS_OPTIONS, (*values, max_detections), strict=True) if value is not None
        }
        if merging:
            self._config_with(merging)
        check_count("window", window, least=2, optional=True, hint=" It is in steps of the detector's grid.")
        given: dict[str, Any] = {"threshold": threshold, "off_threshold": off_threshold, "min_length": min_length}
        for name, value in given.items():
            check_number(name, value, optional=True, **({"least": 0} if name == "min_length" else {}))
        answer |= {
            name: value
            for name, value in {**given, "smoothing": smoothing, "window": window, **merging}.items()
            if value is not None
        }
        if candidate_labels is not None:
            asked["candidate_labels"] = answer["candidate_labels"] = checked_labels(candidate_labels)
        if hypothesis_template is not None:
            asked["hypothesis_template"] = checked_templates(hypothesis_template)
        if background is not NOT_GIVEN:
            names = [] if background is None or background == [] else matching.texts_of("background", background)
            answer["background"] = names
        if self.kind == TEXT:
            asked |= {name: answer[name] for name in ("background", "function_to_apply") if name in answer}
        return asked, answer

    def _config_with(self, merging: dict[str, Any]) -> TemporalDetectionConfig:
        """The detector's configuration with some fields changed, checked. Raises ConfigError."""
        config = self.model.config.detector_config if self.is_end_to_end else self.model.config
        return type(config).from_dict({**config.to_dict(), **merging}) if merging else config

    # -- clips ------------------------------------------------------------------------------------------------------

    def _request(self, **asked: Any) -> ClipRequest:
        if self.is_end_to_end:
            return super()._request(**asked)
        if self.clips is None:
            raise self._why_no_encoder
        if self.encoder is not None:
            return dataclasses.replace(self.encoder.request, **asked)
        if "windows" not in asked:
            clip_seconds = getattr(self.model.config, "clip_seconds", None)
            asked["windows"] = default_grid(self.clips._request(**asked), clip_seconds)
        return self.clips._request(**asked)

    @property
    def _process(self) -> ClipProcessor:
        return super()._process if self.clips is None else self.clips._process

    def _reader(self, request: ClipRequest, asked: dict[str, Any]) -> Callable[[Any], Iterator[Event]]:
        if not self.is_end_to_end:
            return super()._reader(request, asked)
        windows = self.model.config.windows
        return functools.partial(read_frame_window_events, windows=windows, request=request, process=self._process)

    def _ask(self, **asked: Any) -> dict[str, Any]:
        if self.kind != TEXT:
            return {}
        texts = self.classes(**asked).all
        return self.clips._ask(candidate_labels=texts, hypothesis_template=asked.get("hypothesis_template"))

    def _results(
        self,
        videos: Videos,
        request: ClipRequest,
        batch_size: int | None,
        *parts: Any,
        bad_files: str = "raise",
        **answer: Any,
    ) -> Iterator[Any]:
        if self.kind != DETECTOR:
            # Options that have no meaning are refused before a video is read.
            self.classes(**answer).hysteresis(None, **answer)
        if self.is_end_to_end and batch_size is None:
            batch_size = 1  # a window is hundreds of frames
        return super()._results(videos, request, batch_size, *parts, bad_files=bad_files, **answer)

    def _rows(self, asked: dict[str, Any], clips: dict[str, torch.Tensor]) -> torch.Tensor:
        return super()._rows(asked, clips) if self.clips is None else self.clips._rows(asked, clips)

    # -- events -----------------------------------------------------------------------------------------------------

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """One video, or many, or for a detector their features. See the class for the options.

        Returns the `Events` of one video; a list of them for a list; an iterator of them for a generator or dataset.
        """
        several = isinstance(inputs, (list, tuple)) and len(inputs) > 0 and all(map(_are_features, inputs))
        if not several and not _are_features(inputs):
            return super().__call__(inputs, **options)
        if self.kind != DETECTOR or self.is_end_to_end:
            raise VideoOptionError(f"Features are for detectors of features. {describe(self.model)}")
        reading, _, answer = self._sanitize_parameters(**options)
        fps = {**self._preprocess_params, **reading}.get("fps")
        answer = {**self._postprocess_params, **answer}
        found = [self.detect(self._sequence(one, fps), **answer) for one in (inputs if several else [inputs])]
        return found if several else found[0]

    def _sequence(self, features: FeatureSequence | np.ndarray | torch.Tensor, fps: float | None) -> FeatureSequence:
        if isinstance(features, FeatureSequence):
            return features
        config = self.model.config
        rate = config.feature_fps if fps is None else fps
        if rate is None:
            raise VideoOptionError(
                "The seconds of an array of features are not known: pass fps=, the frame rate of the video, or a "
                "FeatureSequence."
            )
        return FeatureSequence.from_array(np.asarray(features), grid_of(config), rate)

    def detect(self, sequence: FeatureSequence, **answer: Any) -> Events:
        """A detector's events of one video, from its features."""
        merging = {name: answer[name] for name in NMS_OPTIONS if name in answer}
        given = {"sequence": sequence, "config": self._config_with(merging), "window": answer.get("window")}
        found = self._run(find_events, {}, model=self.model, **given)
        return self._chosen(found, **answer)

    def _answer(self, result: VideoResult, request: ClipRequest, answer: dict[str, Any]) -> Events:
        if self.is_end_to_end:
            merging = {name: answer[name] for name in NMS_OPTIONS if name in answer}
            return self._chosen(find_window_events(self.model, result, self._config_with(merging)), **answer)
        timeline = result.seen.timeline
        if self.encoder is not None:
            sequence = FeatureSequence(result.vectors(), request.windows, timeline, self.encoder.digest)
            return self.detect(sequence, **answer)
        classes = self.classes(**answer)
        answer = {"smoothing": default_smoothing(request.windows), **answer}
        merged = classes.hysteresis(float(timeline[0, 1]), **answer)
        events = []
        for number, window in enumerate(result.seen):
            scores = classes.scores(result.views(number))
            events += merged.update(scores, sum(window.seconds) / 2)
        return self._chosen(events + merged.close(float(timeline[-1, 1])), **answer)

    def classes(self, **answer: Any) -> EventClasses:
        """The classes of a classifier, or the texts, by the options. Raises VideoOptionError."""
        function = answer.get("function_to_apply") or self.clips._function()
        background, config = answer.get("background"), self.model.config
        if self.kind == TEXT:
            if "candidate_labels" not in answer:
                raise VideoOptionError("candidate_labels is missing: pass the labels to find, a list of texts.")
            return EventClasses(answer["candidate_labels"], function, background=background, texts=True)
        labels = [label for _, label in sorted(config.id2label.items())]
        several = config.problem_type == "multi_label_classification"
        thresholds = thresholds_of(config, len(labels)) if several else None
        return EventClasses(labels, function, background=background, thresholds=thresholds)

    def _chosen(
        self,
        events: Sequence[Detection],
        *,
        threshold: float | None = None,
        top_k: int | None = None,
        min_length: float = 0.0,
        **_: Any,
    ) -> Events:
        kept = [
            one for one in events if one.end - one.start >= min_length and (threshold is None or one.score >= threshold)
        ]
        return Events(sorted(kept, key=lambda one: (-one.score, one.start, one.end, one.label))[:top_k])

    # transformers' own steps, for one video at a time.

    def preprocess(self, video: VideoSource, **options: Any) -> dict[str, torch.Tensor]:
        """As `VideoPipeline.preprocess`; of a detector that sees frames, `pixel_values` and `mask` of all windows."""
        if not self.is_end_to_end:
            return super().preprocess(video, **options)
        read = read_frame_windows(video, self.model.config.windows, self._request(**options), self._process)
        windows = [one.inputs for one in read if isinstance(one, ClipInputs)]
        return {name: torch.cat([one[name] for one in windows]) for name in windows[0]}

    def _forward(self, model_inputs: dict[str, torch.Tensor], **asked: Any) -> ModelOutput:
        if self.is_end_to_end:
            return ModelOutput(logits=self._run(lambda **inputs: window_rows(self.model, inputs), model_inputs))
        return self.clips._forward(model_inputs, **asked)

    def postprocess(self, model_outputs: ModelOutput, **answer: Any) -> np.ndarray:
        """Logits (views, classes) of one clip to the scores of the labels that make events."""
        return self.classes(**answer).scores(model_outputs["logits"])


def _are_features(one: object) -> bool:
    return isinstance(one, FeatureSequence) or (isinstance(one, (np.ndarray, torch.Tensor)) and one.ndim == 2)
