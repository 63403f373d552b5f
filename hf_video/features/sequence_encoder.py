"""Makes sequences of features with any video model; detectors of events work on them.

    encoder = SequenceEncoder("videomae-folder", grid="16/4", cache="features")
    sequence = encoder("match.mp4")
    sequence.vectors                # float32 (T, D)
    sequence.to_seconds([0, 10.5])  # positions of the grid, in seconds of the video

Each frame is decoded once, however many clips share it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from huggingface_hub import snapshot_download
from tqdm.auto import tqdm

from hf_video.base.loading import check_pair, loading
from hf_video.base.processing_config import pixel_processor
from hf_video.base.written_files import writing_model_folder
from hf_video.clips.batching import DEFAULT_BATCH, run_videos
from hf_video.clips.grid import FeatureGrid, parse_grid
from hf_video.clips.read import clip_processor, open_video, read_events
from hf_video.clips.request import ClipRequest
from hf_video.data.rows import VideoRows
from hf_video.errors import CheckpointError, DataError, VideoError, VideoOptionError, check_choice, check_count
from hf_video.features.digests import changed_fields, facts_digest, fields_of_0_1_0, weights_digest
from hf_video.features.embed import ModelLoader
from hf_video.features.extraction import ClipVectors, skipped_video
from hf_video.features.processes import process_pool, run_prepared
from hf_video.features.sequences import FeatureSequence, grid_of
from hf_video.video.flow.cache import file_identity

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hf_video.base.detection.anomaly import WeakAnomalyConfig
    from hf_video.base.detection.configuration import TemporalDetectionConfig
    from hf_video.clips.grid import GridLike
    from hf_video.data.types import FrameProcessor
    from hf_video.video.frames.types import VideoSource

ENCODER_FOLDER = "encoder"
FRAME_CHOICE = ("num_frames", "sampler", "sampler_options")
Made = TypeVar("Made")
VERSION = 1  # of what a cache holds: another number, and older files are not found


class SequenceEncoder:
    """Makes the `FeatureSequence` of a video with any video model, ours or stock.

    Args:
        model: A folder or a name on the Hub, loaded when it is first needed, or a loaded model.
        processor: Of a loaded model: its image or video processor, or a processor that holds one.
        grid: See `parse_grid`. None takes clips as long as the model's own (its frames at its processor's stride), a
            new one at every quarter of it.
        num_frames, sampler, sampler_options: Of a clip, where they are not the model's; a grid's clips give evenly
            spread frames.
        batch_size: Clips of one forward.
        device: Where the model is put; None leaves a loaded one where it is, and takes an accelerator if there is one.
        revision: Of a model on the Hub.
        backend, on_error: Of `VideoReader`.
        fps: Frames per second of videos without times.
        cache: A folder where sequences are kept, named by the file (its path, size and time of change), the encoder and
            the grid; what is there is not made again. Sources that are no local file are not kept.

    Raises:
        VideoOptionError: For options.
        CheckpointError: A model without features, or that doesn't go with its processor; when it is first needed.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | PreTrainedModel,
        processor: FrameProcessor | None = None,
        *,
        grid: GridLike | None = None,
        num_frames: int | None = None,
        sampler: str | Callable[..., Any] | None = None,
        sampler_options: dict[str, Any] | None = None,
        batch_size: int = DEFAULT_BATCH,
        device: str | torch.device | None = None,
        revision: str | None = None,
        backend: str = "auto",
        on_error: str = "raise",
        fps: float | None = None,
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        check_count("batch_size", batch_size)
        named = isinstance(model, (str, os.PathLike))
        if not named and processor is None:
            raise VideoOptionError("A loaded model needs its processor: pass processor=, or the name of a saved model.")
        self._grid = None if grid is None else parse_grid(grid)
        self._loader = ModelLoader(os.fspath(model), revision=revision, device=device) if named else None
        self._loaded = None if named else (model if device is None else model.to(device), processor)
        self._asked = {
            "num_frames": num_frames,
            "sampler": sampler,
            "sampler_options": sampler_options,
            "backend": backend,
            "on_error": on_error,
            "fps": fps,
        }
        self.batch_size = batch_size
        self.cache = None if cache is None else Path(cache)
        self._request: ClipRequest | None = None
        self._digest: str | None = None

    def prepare(self, number: int = 0) -> SequenceEncoder:
        """Loads the model, unless it is loaded.

        Args:
            number: Of the process, which decides the device where none was asked for.

        Returns:
            Itself.
        """
        if self._loaded is None:
            self._loaded = self._loader(number)
        if self._request is None:
            model, processor = self._loaded
            pixels = pixel_processor(processor)
            check_pair(model, pixels, num_frames=self._asked["num_frames"])
            grid = self._grid
            if grid is None:
                chosen = {name: self._asked[name] for name in FRAME_CHOICE}
                own = ClipRequest.resolve(pixels, model.config, **chosen)
                span = own.num_frames * own.frame_distance
                grid = FeatureGrid(max(span // 4, 1), span)
            self._request = ClipRequest.resolve(pixels, model.config, windows=grid, **self._asked)
        return self

    @property
    def model(self) -> PreTrainedModel:
        return self.prepare()._loaded[0]

    @property
    def processor(self) -> FrameProcessor:
        return self.prepare()._loaded[1]

    @property
    def request(self) -> ClipRequest:
        """Which frames of a video are read, and how."""
        return self.prepare()._request

    @property
    def grid(self) -> FeatureGrid:
        return self.request.windows

    @property
    def name(self) -> str:
        """What the model was loaded by, or the name of its class."""
        return str(getattr(self.model, "name_or_path", "")) or type(self.model).__name__

    @property
    def digest(self) -> str:
        """16 hex digits of all that decides a vector besides the frames' own pixels: weights, configuration, processor,
        and how the frames of a clip are chosen."""
        if self._digest is None:
            self._digest = self._digest_by(changed_fields)
        return self._digest

    def _digest_by(self, fields: Callable[[Any], dict[str, Any]]) -> str:
        sampling = self.request.sampling
        facts = {
            "config": fields(self.model.config),
            "processor": fields(pixel_processor(self.processor)),
            "weights": weights_digest(self.model),
            "sampling": [sampling.num_frames, str(sampling.sampler), sampling.stride, dict(sampling.options)],
        }
        return facts_digest(facts)

    def has_digest(self, known: str | None) -> bool:
        """Whether this is the encoder of a digest. Where version 0.1.0 made the digest, it is this encoder's from then
        on, so that features made before and after go together.

        Args:
            known: The digest; None is anyone's.

        Returns:
            True where it is this encoder's.
        """
        if known not in (None, self.digest) and known == self._digest_by(fields_of_0_1_0):
            self._digest = known
        return known in (None, self.digest)

    @property
    def facts(self) -> dict[str, Any]:
        """A detector's `config.encoder`: `name` and `digest`, and what was asked for of the frames of clips."""
        chosen = {name: self._asked[name] for name in FRAME_CHOICE if self._asked[name] is not None}
        return {"name": self.name, "digest": self.digest, **chosen}

    def cached_path(self, source: VideoSource) -> Path | None:
        """Says where the features of a file are kept.

        Args:
            source: A video.

        Returns:
            The path; None without a cache, and for what is no local file.
        """
        identity = None if self.cache is None else file_identity(source)
        if identity is None:
            return None
        facts = [VERSION, identity, self.digest, vars(self.grid), self.request.on_error, self.request.fps]
        key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:40]
        return self.cache / key[:2] / f"{key}.safetensors"

    def __call__(self, source: VideoSource) -> FeatureSequence:
        """Returns the features of a video of any form, from the cache where they are there.

        Raises what `VideoReader` raises, and DataError where the cache can't be written.
        """
        path = self.cached_path(source)
        if path is not None and path.exists():
            try:
                return FeatureSequence.load(path)
            except DataError:
                pass  # damaged: it is made again
        request = self.request
        options = {"on_error": request.on_error, "backend": request.backend, **request.decode}
        with open_video(source, fps=request.fps, **options) as video, ClipVectors(self.model) as forward:
            process = clip_processor(pixel_processor(self.processor))
            (result,) = run_videos([read_events(video, request, process)], forward, batch_size=self.batch_size)
            sequence = FeatureSequence(result.vectors(), self.grid, self.grid.timeline(video), self.digest)
        if path is not None:
            sequence.save(path)
        return sequence

    def __getstate__(self) -> dict[str, Any]:
        # Every process loads a named model itself.
        return self.__dict__ if self._loader is None else {**self.__dict__, "_loaded": None, "_request": None}


def save_encoder(encoder: SequenceEncoder, folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Puts an encoder beside the detector that was trained on its features, so that one folder makes events of files.

    Args:
        encoder: Its model and processor go into the sub-folder `encoder/`.
        folder: Of the detector.

    Returns:
        The detector's `config.encoder`: the `name` and the `digest` of the encoder, and what was asked for of
        the frames of its clips.
    """
    with writing_model_folder(Path(folder) / ENCODER_FOLDER) as path:
        encoder.model.save_pretrained(path)
        encoder.processor.save_pretrained(path)
    return encoder.facts


def load_encoder(
    detector: str | os.PathLike[str],
    config: TemporalDetectionConfig | WeakAnomalyConfig,
    *,
    revision: str | None = None,
    **options: Any,
) -> SequenceEncoder:
    """Finds the encoder of a saved detector: in its sub-folder `encoder/`, or by the name that its configuration has.

    Args:
        detector: A folder or a name on the Hub.
        config: The detector's; the grid is its own.
        revision: Of the detector on the Hub.
        options: Of `SequenceEncoder`.

    Raises:
        CheckpointError: There is none, or it isn't the one that the detector was trained on.
    """
    known, folder = config.encoder or {}, Path(detector)
    if os.fspath(detector) and not folder.is_dir():
        with loading(detector):
            files = snapshot_download(str(detector), revision=revision, allow_patterns=[f"{ENCODER_FOLDER}/*"])
        folder = Path(files)
    model: str | Path | None = folder / ENCODER_FOLDER
    if not os.fspath(detector) or not (folder / ENCODER_FOLDER / "config.json").is_file():
        model = known.get("name")
    if not model:
        raise CheckpointError(
            f"{os.fspath(detector)!r} has no sub-folder {ENCODER_FOLDER!r} and its configuration names no encoder: it "
            "takes ready-made features only. Pass encoder=, the model that its features were made with."
        )
    chosen = {name: known[name] for name in FRAME_CHOICE if name in known}
    encoder = SequenceEncoder(model, grid=grid_of(config), **{**chosen, **options})
    if not encoder.has_digest(known.get("digest")):
        raise CheckpointError(
            f"The encoder {os.fspath(model)!r} is not the one whose features the detector was trained on: its digest "
            f"is {encoder.digest} and the detector's configuration says {known['digest']}."
        )
    return encoder


def extract_sequences(
    encoder: SequenceEncoder,
    sources: Sequence[VideoSource],
    *,
    processes: int = 1,
    on_error: str = "raise",
) -> Iterator[FeatureSequence | VideoError | OSError]:
    """Yields the features of videos, in order.

    Args:
        encoder: With a cache, an interrupted call goes on where it was.
        sources: The videos.
        processes: How many work on them, each with a model of its own, which must then be given by its name.
        on_error: "raise", or "return" to get the error in the place of a video that can't be read.

    Raises:
        VideoOptionError: For options.
        DataError: The cache can't be written, or a process died.
    """
    check_choice("on_error", on_error, ("raise", "return"))
    check_count("processes", processes)
    if processes == 1:
        found = map(_Attempt(encoder), sources)
    elif encoder._loader is None:
        raise VideoOptionError("A loaded model can't go to other processes: give its folder or name, or processes=1.")
    else:
        found = _in_processes(encoder, sources, processes)
    for one in found:
        if isinstance(one, Exception) and on_error == "raise":
            raise one
        yield one


def featured_rows(
    encoder: SequenceEncoder, rows: VideoRows, make: Callable[[FeatureSequence], Made]
) -> tuple[VideoRows, list[Made], list[str]]:
    """Makes what a detector trains on from the videos of a split.

    Args:
        encoder: As for `extract_sequences`.
        rows: Of one split; videos that can't be read are added to its `skipped`.
        make: What is kept of the features of a video.

    Returns:
        The rows of the videos that can be read, what `make` returned for the video of each of them, and a sentence for
        each video that can't be read.
    """
    sources = {row.name: row.source for row in rows}  # rows of one name are one video
    found = extract_sequences(encoder, list(sources.values()), on_error="return")
    bar = tqdm(found, total=len(sources), desc="features", unit="video", disable=None)
    made, remarks = {}, []
    for (name, source), one in zip(sources.items(), bar, strict=True):
        if isinstance(one, FeatureSequence):
            made[name] = make(one)
        else:
            rows.skipped.append(skipped_video(name, one, source))
            remarks.append(f"{name} is left out: {rows.skipped[-1].reason}")
    kept = rows.select(number for number, row in enumerate(rows) if row.name in made)
    return kept, [made[row.name] for row in kept], remarks


class _Attempt:
    """Calls an encoder; the fault of a video is returned, so that it can cross from another process."""

    def __init__(self, encoder: SequenceEncoder, number: int = 0) -> None:
        self.encoder = encoder.prepare(number)

    def __call__(self, source: VideoSource) -> FeatureSequence | VideoError | OSError:
        try:
            return self.encoder(source)
        except VideoOptionError:
            raise
        except (VideoError, OSError) as error:
            return error


@dataclass
class _Prepare:
    encoder: SequenceEncoder

    def __call__(self, number: int) -> Callable[[VideoSource], FeatureSequence | VideoError | OSError]:
        return _Attempt(self.encoder, number)


def _in_processes(
    encoder: SequenceEncoder, sources: Sequence[VideoSource], processes: int
) -> Iterator[FeatureSequence | VideoError | OSError]:
    pool = process_pool(min(processes, max(len(sources), 1)), _Prepare(encoder))
    try:
        for future in [pool.submit(run_prepared, source) for source in sources]:
            yield future.result()
    except BrokenProcessPool as error:
        raise DataError(
            "A process that made features died; it may have run out of memory. What a cache holds stays: run the same "
            "again, with fewer processes."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
