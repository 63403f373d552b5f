"""Encoders of moments, examples and sentences: any model with features, or the fingerprint.

An index remembers the `identity` of its encoder, and only the same one may add to it or ask it.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from hf_video.base.loading import check_pair, loading
from hf_video.base.processing_config import pixel_processor
from hf_video.base.saved_model import joins_images_and_texts
from hf_video.base.written_files import writing_model_folder
from hf_video.clips.batching import run_videos
from hf_video.clips.grid import FeatureGrid
from hf_video.clips.read import Event, clip_processor, read_events
from hf_video.clips.request import ClipRequest, Windows
from hf_video.errors import CheckpointError, VideoOptionError
from hf_video.features.digests import changed_fields, facts_digest, fields_of_0_1_0, weights_digest
from hf_video.features.embed import ModelLoader
from hf_video.features.extraction import ClipVectors
from hf_video.features.vectors import unit_length
from hf_video.pipelines.matching import is_dual_encoder, text_vectors, texts_of, tokenize
from hf_video.retrieval import fingerprint
from hf_video.retrieval.frame_vectors import encodes_frames_apart, moment_vectors

if TYPE_CHECKING:
    from typing import TypeAlias

    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

    from hf_video.data.types import FrameProcessor, VideoSource

    Model: TypeAlias = PreTrainedModel | str | os.PathLike[str]
    Processor: TypeAlias = FrameProcessor | ProcessorMixin

FINGERPRINT = "fingerprint"


@dataclass(frozen=True)
class Query:
    """A query: `vectors` (n, D) of length 1, of which a moment's best product counts. With `compare` the best moments
    are scored anew by it, from their vectors (N, D) to scores (N,)."""

    vectors: np.ndarray
    compare: Callable[[np.ndarray], np.ndarray] | None = None


class Encoder:
    """What an index needs of its encoder: `identity`, which tells encoders apart, whether it `reads_text`, whether it
    `uses_device` (an accelerator), and whether its `embed` can `snap` to keyframes (an argument)."""

    identity: dict[str, Any]
    reads_text: bool = False
    uses_device: bool = False
    snaps: bool = False

    def identities(self) -> Iterator[dict[str, Any]]:
        """Yields its identity, and those by which earlier versions knew it."""
        yield self.identity

    def prepare(self, number: int = 0) -> None:
        """Loads what is needed, in process `number`."""

    def embed(self, source: VideoSource, windows: Windows | FeatureGrid) -> tuple[np.ndarray, np.ndarray]:
        """Returns vectors (N, D) float32 of length 1 and the (start, end) seconds (N, 2) of a video's windows. Damaged
        frames are replaced by their neighbours. Raises what reading raises."""
        raise NotImplementedError

    def video_queries(self, source: VideoSource, windows: Windows | FeatureGrid) -> list[Query]:
        """Returns the queries of an example."""
        return [Query(self.embed(source, windows)[0])]

    def text_query(self, text: str) -> Query:
        """Returns the query of a sentence. Raises VideoOptionError without `reads_text`."""
        raise NotImplementedError


class FingerprintEncoder(Encoder):
    """See `hf_video.retrieval.fingerprint`: no model, no weights, examples but no sentences."""

    @property
    def identity(self) -> dict[str, Any]:
        return {"name": FINGERPRINT, "config": f"{fingerprint.STEPS}x{fingerprint.SIDE}x{fingerprint.SIDE}"}

    def embed(self, source: VideoSource, windows: Windows | FeatureGrid) -> tuple[np.ndarray, np.ndarray]:
        prints, seconds = fingerprint.window_prints(source, windows)
        return fingerprint.unit(prints), seconds

    def video_queries(self, source: VideoSource, windows: Windows | FeatureGrid) -> list[Query]:
        prints = fingerprint.query_prints(source, windows)
        return [Query(fingerprint.search_vectors(one), functools.partial(fingerprint.compare, one)) for one in prints]

    def text_query(self, text: str) -> Query:
        raise VideoOptionError(
            "This index was made with fingerprints, which can't read text: search it by an example video, or index "
            "the folder with a model of video and text (--model)."
        )


class ModelEncoder(Encoder):
    """A model's vectors of clips, and of sentences where it has `get_text_features`.

    `model` is a name or folder, loaded when first needed and again in each process that embeds, or a loaded model with
    its `processor` (an image or video processor, or one of both and a tokenizer). Vectors are brought to length 1.
    """

    uses_device = True
    snaps = True

    def __init__(
        self,
        model: Model,
        processor: Processor | None = None,
        *,
        revision: str | None = None,
        device: str | None = None,
        batch_size: int | None = None,
    ):
        self.batch_size = batch_size
        self._loader = _Loader(model, revision, device) if isinstance(model, (str, os.PathLike)) else None
        self._loaded = None if self._loader else (model, processor)
        if self._loader is None and device is not None:
            model.to(device)
        if self._loader is None and processor is None:
            raise VideoOptionError("A loaded model needs its processor: pass processor=, or the name of a saved model.")

    def prepare(self, number: int = 0) -> None:
        """Loads the model, in process `number`, which decides the device. Raises CheckpointError."""
        if self._loaded is None:
            self._loaded = self._loader(number)

    @property
    def model(self) -> PreTrainedModel:
        self.prepare()
        return self._loaded[0]

    @property
    def processor(self) -> Processor | _Both:
        self.prepare()
        return self._loaded[1]

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """`name`, and hashes of what decides the vectors: configuration, processor, weights."""
        # X-CLIP has vectors of videos, and can be searched by examples.
        if hasattr(self.model, "get_text_features") and not (
            is_dual_encoder(self.model) or self.model.config.model_type == "xclip"
        ):
            raise CheckpointError(
                f"{type(self.model).__name__} looks at video and text together and has no vectors to search by: use a "
                "model with a tower for each, such as a VideoCLIPModel or any CLIP."
            )
        name = self._loader.model if self._loader else getattr(self.model, "name_or_path", "")
        return {
            "name": str(name) or type(self.model).__name__,
            "config": facts_digest(changed_fields(self.model.config)),
            "processor": facts_digest(changed_fields(pixel_processor(self.processor))),
            "weights": weights_digest(self.model),
        }

    def identities(self) -> Iterator[dict[str, Any]]:
        yield self.identity
        yield {
            **self.identity,
            "config": facts_digest(fields_of_0_1_0(self.model.config)),
            "processor": facts_digest(fields_of_0_1_0(pixel_processor(self.processor))),
        }

    @property
    def reads_text(self) -> bool:
        return is_dual_encoder(self.model) and self._tokenizer is not None

    @property
    def _tokenizer(self) -> PreTrainedTokenizerBase | None:
        return getattr(self.processor, "tokenizer", None)

    def embed(
        self, source: VideoSource, windows: Windows | FeatureGrid, snap: str | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        return self.vectors(self.read(source, windows, snap), snap)

    def read(self, source: VideoSource, windows: Windows | FeatureGrid, snap: str | None = None) -> Iterator[Event]:
        """Reads what `vectors` takes, in any thread: the first half of `embed`."""
        processor = pixel_processor(self.processor)
        check_pair(self.model, processor)
        request = ClipRequest.resolve(processor, self.model.config, windows=windows, on_error="repeat", snap=snap)
        request = replace(request, single_frames=self._frame_by_frame(snap))
        return read_events(source, request, clip_processor(processor))

    def _frame_by_frame(self, snap: str | None) -> bool:
        """Whether what is read are single frames: of exact moments few are shared."""
        apart = getattr(pixel_processor(self.processor), "sees_frames_apart", False)
        return snap is not None and apart and encodes_frames_apart(self.model)

    def vectors(self, events: Iterable[Event], snap: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The second half of `embed`, and so what it returns and raises."""
        if self._frame_by_frame(snap):
            vectors, windows = moment_vectors(self.model, events, self.batch_size)
            return unit_length(vectors), np.array([seen.seconds for seen in windows], dtype=np.float64)
        with ClipVectors(self.model) as forward:
            # Each video on its own: its vectors are the same to the bit whatever was embedded before it.
            (result,) = run_videos([events], forward, batch_size=self.batch_size)
        return unit_length(result.vectors()), np.array([seen.seconds for seen in result.seen], dtype=np.float64)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Saves the model with its processor, from which the same encoder is loaded."""
        with writing_model_folder(folder) as draft:
            self.model.save_pretrained(draft)
            pixel_processor(self.processor).save_pretrained(draft)
            if self._tokenizer is not None:
                self._tokenizer.save_pretrained(draft)

    def text_query(self, text: str) -> Query:
        if self.model.config.model_type == "xclip":
            raise VideoOptionError(
                "X-CLIP's vectors of a text are made anew for each video, so an index has none to compare: search by "
                'an example (--video, --image), or compare by pipeline("video-text-retrieval").'
            )
        if not self.reads_text:
            raise VideoOptionError(
                f"{type(self.model).__name__} can't read text: search by an example (--video, --image), or "
                "index the folder with a model of video and text, saved with its tokenizer."
            )
        tokens = tokenize(self._tokenizer, texts_of("text", text), self.model)
        return Query(unit_length(text_vectors(self.model, tokens).float().cpu().numpy()))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ if self._loader is None else {**self.__dict__, "_loaded": None}


class VectorEncoder(Encoder):
    """The encoder of an index of ready-made vectors, which can only be searched by vectors."""

    def __init__(self, name: str = "vectors"):
        self.identity = {"name": name, "config": "ready-made"}

    def text_query(self, text: str) -> Query:
        raise VideoOptionError("This index holds ready-made vectors of a model that it doesn't know: search by vector.")

    def video_queries(self, source: VideoSource, windows: Windows | FeatureGrid) -> list[Query]:
        return [self.text_query("")]


def kind_of_query(query: object, **given: object) -> tuple[str, Any]:
    """Returns the one query that was given, and its kind: "text", "video", "vector" or "image". Raises VideoOptionError
    for none or several."""
    found = [(kind, value) for kind, value in {"query": query, **given}.items() if value is not None]
    if len(found) != 1:
        raise VideoOptionError("Give one query: a text, an example video, an image or a vector.")
    if query is None:
        return found[0]
    if isinstance(query, str) and not os.path.isfile(query):
        return "text", query
    if getattr(query, "ndim", None) in (1, 2):
        return "vector", query
    return "image" if isinstance(query, Image.Image) else "video", query


def find_encoder(model: Model | Encoder, processor: Processor | None = None, **options: Any) -> Encoder:
    """Returns the encoder of a name ("fingerprint", a folder, a name on the Hub) or of a loaded model with its
    processor; an encoder is returned as it is. `options` are those of `ModelEncoder`."""
    if isinstance(model, str) and model == FINGERPRINT:
        return FingerprintEncoder()
    if hasattr(model, "video_queries"):
        return model
    return ModelEncoder(model, processor, **options)


@dataclass(frozen=True)
class _Loader:
    model: str | os.PathLike[str]
    revision: str | None = None
    device: str | None = None

    def __call__(self, number: int) -> tuple[PreTrainedModel, Processor | _Both]:
        name = os.fspath(self.model)
        from transformers import MODEL_MAPPING, AutoConfig, AutoTokenizer

        from hf_video.models.videoclip.from_image_text import video_clip
        from hf_video.registry import MODELS

        loader = ModelLoader(name, revision=self.revision, device=self.device)
        with loading(name, words=("fingerprint",)):
            config = AutoConfig.from_pretrained(name, revision=self.revision)
            if config.model_type not in MODELS and joins_images_and_texts(MODEL_MAPPING.get(type(config), None)):
                model, processor = video_clip(name, revision=self.revision)
                return model.to(loader.device_of(number)), processor
            model, pixels = loader(number)
            reads = is_dual_encoder(model)
            return model, _Both(pixels, AutoTokenizer.from_pretrained(name, revision=self.revision) if reads else None)


@dataclass(frozen=True)
class _Both:
    image_processor: FrameProcessor
    tokenizer: PreTrainedTokenizerBase | None
