"""`pipeline("video-moment-retrieval")`: when a sentence comes true in a video, by any model of video and text."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers.modeling_outputs import ModelOutput

from hf_video.base.detection.events import Events
from hf_video.base.detection.peaks import find_peaks
from hf_video.base.detection.types import Detection
from hf_video.base.processing_config import pixel_processor
from hf_video.clips.batching import VideoResult
from hf_video.clips.grid import FeatureGrid, parse_grid
from hf_video.clips.request import ClipRequest
from hf_video.errors import VideoOptionError, check_count, check_number
from hf_video.features.sequence_encoder import SequenceEncoder, load_encoder
from hf_video.models.moment_detr.features import moment_features, sentence_features
from hf_video.models.moment_detr.modeling_moment_detr import MomentDetrForMomentRetrieval
from hf_video.pipelines import matching
from hf_video.pipelines.base import READING_OPTIONS, VideoPipeline
from hf_video.pipelines.video_classification import NOT_GIVEN
from hf_video.pipelines.video_feature_extraction import VideoFeatureExtractionPipeline
from hf_video.video.frames.types import Videos

if TYPE_CHECKING:
    from hf_video.clips.grid import GridLike
    from hf_video.clips.read import ClipProcessor

DEFAULT_GRID = FeatureGrid(stride=1.0, num_frames=2.0, fps=1.0)
PEAKS, SPANS = ("level", "least", "smoothing"), ("rounding",)


class VideoMomentRetrievalPipeline(VideoPipeline):
    """Moments of a video that sentences describe, with their boundaries in seconds.

        find = pipeline("video-moment-retrieval", model="folder or Hub name")
        find("match.mp4", sentences="a player scores")     # [Detection("a player scores", 0.31, 41.5, 47.0), ...]
        find(["a.mp4", "b.mp4"], sentences=["a goal", "the crowd cheers"], top_k=3)    # one such list for each file

    **Without training**, any model of video and text (VideoCLIP; of CLIP and its kin by `hf_video.video_clip`) compares
    the sentence with every clip of a grid, and peaks of that line are moments, from where it rises to half of their
    height to where it falls below it; see `hf_video.base.detection.peaks.find_peaks`. The score is the mean over the
    moment, a cosine.

    **Moment-DETR** works on the vectors of the encoder in its sub-folder `encoder/`, a clip of `clip_seconds` after the
    other, and on the states of the sentence's words; the score is a probability.

    Videos, workers and files that can't be read are as in `VideoClassificationPipeline`; so are views, samplers and
    frames of a clip, but for Moment-DETR, which has those that it was trained on.

    Options, of the pipeline or of a call:
        sentences: A text or a list of them.
        top_k: At most so many moments for each sentence; default 10, as benchmarks count; None for all.
        threshold: Only moments that reach this score; default none.
        grid: Without Moment-DETR: length and step of clips, see `parse_grid`; default "2s/1s".
        level, least, smoothing: Without Moment-DETR: how far down a peak a moment goes, which peaks count, and what is
            smoothed; see `find_peaks`.
        rounding: Of Moment-DETR: boundaries are rounded to multiples of so many seconds; default its `clip_seconds`, as
            QVHighlights is evaluated; 0 leaves them as they are.

    Of the pipeline alone: `encoder`, a `SequenceEncoder` of a model of video and text, for a Moment-DETR that has none.

    Results are `Events`, lists of `Detection` whose label is the sentence, best first.

    Raises VideoOptionError (options), CheckpointError (a model without text, no encoder), DataError (an encoder of
    another width) and the exceptions of `VideoReader` (files).
    """

    reading_names = ("grid", *(name for name in READING_OPTIONS if name != "windows"))

    def __init__(self, *args: Any, encoder: SequenceEncoder | None = None, **kwargs: Any) -> None:
        self.encoder = encoder
        super().__init__(*args, **kwargs)

    def _prepare(self) -> None:
        if not self.trained:
            if self.encoder is not None:
                raise VideoOptionError(f"encoder= is for Moment-DETR; {type(self.model).__name__} has its own.")
            matching.check_matches(self.model)
            super()._prepare()
            self.tokenizer = matching.find_tokenizer(self.model, self.tokenizer)
            return
        if self.encoder is None:
            self.encoder = load_encoder(self.model.name_or_path, self.model.config, device=self.device)
        matching.check_matches(self.encoder.model)
        self.tokenizer = self.tokenizer or getattr(self.encoder.processor, "tokenizer", None)
        self.tokenizer = matching.find_tokenizer(self.encoder.model, self.tokenizer)
        self.clips = VideoFeatureExtractionPipeline(
            self.encoder.model, image_processor=pixel_processor(self.encoder.processor), device=self.device
        )

    @property
    def trained(self) -> bool:
        """Whether the model was trained to find moments."""
        return isinstance(self.model, MomentDetrForMomentRetrieval)

    @property
    def clip_model(self) -> Any:
        return self.model if self.encoder is None else self.encoder.model

    # -- options ----------------------------------------------------------------------------------------------------

    def _sanitize_parameters(
        self, grid: GridLike | None = None, **options: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if options.get("windows") is not None:
            raise VideoOptionError('Moments have no windows=: say with grid= which clips are seen, such as "2s/1s".')
        of_clips = ("views", "num_frames", "frame_sampling_rate", "sampler", "sampler_options")
        refused = ("grid", *PEAKS, *of_clips) if self.trained else SPANS
        for name, value in {"grid": grid, **options}.items():
            if name in refused and value is not None:
                kind = "is trained, and has its own" if self.trained else "is not trained to find moments, and has no"
                raise VideoOptionError(f"{name}={value!r} can't be asked: {type(self.model).__name__} {kind} {name}.")
        reading, asked, answer = super()._sanitize_parameters(**options)
        return {**reading, **({} if grid is None else {"windows": parse_grid(grid)})}, asked, answer

    def _options(
        self,
        *,
        sentences: str | list[str] | None = None,
        top_k: int | None = NOT_GIVEN,
        threshold: float | None = None,
        level: float | None = None,
        least: float | None = None,
        smoothing: float | None = None,
        rounding: float | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        check_count("top_k", None if top_k is NOT_GIVEN else top_k, optional=True)
        check_number("threshold", threshold, optional=True)
        check_number("level", level, above=0, below=1, optional=True)
        check_number("least", least, least=0, most=1, optional=True)
        check_number("smoothing", smoothing, least=0, optional=True)
        check_number("rounding", rounding, least=0, optional=True)
        asked = {} if sentences is None else {"sentences": matching.texts_of("sentences", sentences)}
        given = {"threshold": threshold, "level": level, "least": least, "smoothing": smoothing, "rounding": rounding}
        answer = {name: value for name, value in given.items() if value is not None}
        return asked, {**answer, **({} if top_k is NOT_GIVEN else {"top_k": top_k})}

    # -- clips ------------------------------------------------------------------------------------------------------

    def _request(self, **asked: Any) -> ClipRequest:
        if self.trained:
            return dataclasses.replace(self.encoder.request, **asked)
        return super()._request(**{"windows": DEFAULT_GRID, **asked})

    @property
    def _process(self) -> ClipProcessor:
        return self.clips._process if self.trained else super()._process

    def _ask(self, *, sentences: list[str] | None = None) -> dict[str, Any]:
        """The sentences, with their vectors, the states of their words, or for pair scorers their tokens."""
        if sentences is None:
            raise VideoOptionError("sentences is missing: pass a text or a list of them.")
        model = self.clip_model
        tokens = matching.tokenize(self.tokenizer, sentences, model)
        found: dict[str, Any]
        if self.trained:
            found = {"states": sentence_features(model, tokens, self.model.config.max_text_length)}
        elif matching.is_dual_encoder(model):
            found = {"vectors": matching.text_vectors(model, tokens)}
        else:
            found = {"tokens": tokens}
        return {"sentences": sentences, **found}

    def _rows(self, asked: dict[str, Any], clips: dict[str, torch.Tensor]) -> torch.Tensor:
        if self.trained:
            return self.clips._rows({}, clips)
        return super()._rows({name: asked[name] for name in ("vectors", "tokens") if name in asked}, clips)

    def _forward(self, model_inputs: dict[str, torch.Tensor], **asked: Any) -> ModelOutput:
        """Scores (clips, sentences)."""

        def scores(**clips: torch.Tensor) -> torch.Tensor:
            function = matching.similarity if "vectors" in asked else matching.pair_logits
            return function(self.model, clips, **asked)

        return ModelOutput(logits=self._run(scores, model_inputs))

    # -- moments ----------------------------------------------------------------------------------------------------

    def _results(
        self, videos: Videos, request: ClipRequest, batch_size: int | None, num_workers: int | None,
        asked: dict[str, Any], **answer: Any,
    ) -> Iterator[Any]:  # fmt: skip
        texts = {name: asked[name] for name in ("sentences", "states") if name in asked}
        return super()._results(videos, request, batch_size, num_workers, asked, **answer, **texts)

    def _answer(self, result: VideoResult, request: ClipRequest, answer: dict[str, Any]) -> Events:
        return self.postprocess(result, **answer)

    def postprocess(
        self,
        model_outputs: VideoResult,
        *,
        sentences: list[str],
        states: list[torch.Tensor] | None = None,
        top_k: int | None = 10,
        threshold: float = -np.inf,
        rounding: float | None = None,
        **peaks: float,
    ) -> Events:
        """The moments of one video, from the scores or vectors of its clips."""
        result = model_outputs
        rows, bounds = result.vectors().astype(np.float32), tuple(result.seen.timeline[[0, -1], 1].tolist())
        found: list[Detection] = []
        for number, sentence in enumerate(sentences):
            if states is not None:
                moments = self._spans(rows, states[number], bounds, sentence, rounding)
            else:
                middles = np.array([seen.seconds for seen in result.seen]).mean(axis=1)
                moments = find_peaks(rows[:, number], middles, sentence, bounds=bounds, **peaks)
            found += [one for one in moments if one.score >= threshold][:top_k]
        return Events(sorted(found, key=lambda one: -one.score), labels=sentences)

    @torch.inference_mode()
    def _spans(
        self, vectors: np.ndarray, states: torch.Tensor, bounds: tuple[float, float], label: str, rounding: float | None
    ) -> list[Detection]:
        """The moments that a trained model finds for one sentence."""
        model, (begin, end) = self.model, bounds
        video = moment_features(torch.from_numpy(vectors), model.config.video_size)
        inputs = {"video_features": video[None].to(self.device), "text_features": states[None].to(self.device)}
        output = self._run(model, inputs, return_dict=True)
        seen = min(len(vectors) * model.config.clip_seconds, end - begin)
        (found,) = model.find_moments(output, [seen], limits=(0.0, end - begin), rounding=rounding)
        return [Detection(label, score, begin + first, begin + last) for first, last, score in found.tolist()]
