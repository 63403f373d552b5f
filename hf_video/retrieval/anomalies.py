"""Anomalies without labels: how far each moment of a video is from everything that was seen in normal ones.

    detector = AnomalyDetector.fit("normal/", "fingerprint", folder="detector")      # again later: only what is new
    curve = AnomalyDetector.load("detector").score("today.mp4")
    for event in curve.events:
        print(event.start, event.end, event.score)

The score of a moment is its distance to the k-th nearest moment of normal videos, of vectors of length 1 (0 the same, 2
opposite), smoothed over time. Moments are the clips of a `FeatureGrid`. What distance is unusual is learnt from the
normal videos themselves, each compared with all the others and never with itself, nor with a copy of it.

    detector/
      index/            a search index of the normal videos
      encoder/          the model and its processor, where there is a model
      anomalies.json    settings and threshold
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hf_video.base.detection.curve import AnomalyCurve, smooth_over_time
from hf_video.base.detection.types import Detection, merge_windows
from hf_video.base.version import __version__
from hf_video.base.written_files import check_output_folder, read_json, write_json, writing_into
from hf_video.clips.grid import FeatureGrid, parse_grid
from hf_video.clips.read import open_video
from hf_video.errors import DataError, OutputError, VideoIndexError, check_count, check_number
from hf_video.features.sequence_encoder import SequenceEncoder
from hf_video.features.sequences import FeatureSequence
from hf_video.features.vectors import unit_length
from hf_video.retrieval.encoders import ModelEncoder, find_encoder
from hf_video.retrieval.file_embedding import file_record
from hf_video.retrieval.index import VideoIndex
from hf_video.retrieval.normality import (
    Threshold,
    learn_threshold,
    nearest_distances,
    parse_threshold,
    without,
)
from hf_video.retrieval.store import IndexStore

if TYPE_CHECKING:
    from hf_video.clips.grid import GridLike
    from hf_video.data.types import VideoSource
    from hf_video.retrieval.encoders import Encoder, Model, Processor
    from hf_video.retrieval.update_plan import IndexReport

SETTINGS, INDEX, ENCODER = "anomalies.json", "index", "encoder"
DEFAULT_GRID, DEFAULT_K, DEFAULT_SMOOTH = "2s/0.5s", 5, 0.5
LABEL = "anomaly"
OFF = 0.7  # an event ends where the score is back to this part of the way from usual to the threshold


class AnomalyDetector:
    """See the module. Made by `fit` and `load`.

    Attributes:
        index: The search index of the normal videos.
        folder: Where it is kept.
        k: Which of the nearest normal moments counts.
        smooth: Deviation of the Gaussian that smooths scores, in seconds.
        threshold: See `Threshold`.
        report: What `fit` did to the index; None after `load`.
    """

    report: IndexReport | None = None

    def __init__(self, folder: Path, index: VideoIndex, *, k: int, smooth: float, threshold: Threshold):
        self.folder, self.index, self.k, self.smooth, self.threshold = folder, index, k, smooth, threshold

    @classmethod
    def fit(
        cls,
        normal: str | os.PathLike[str],
        model: Model | Encoder = "fingerprint",
        processor: Processor | None = None,
        *,
        folder: str | os.PathLike[str],
        grid: GridLike | None = None,
        k: int = DEFAULT_K,
        smooth: float = DEFAULT_SMOOTH,
        threshold: float | str = "auto",
        workers: int = 1,
        revision: str | None = None,
        device: str | None = None,
        batch_size: int | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> AnomalyDetector:
        """Learns from videos in which nothing unusual happens. Stopped, the same call goes on.

        Args:
            normal: Folder of normal videos, searched at any depth.
            model: "fingerprint", which needs no weights, a model's folder or name on the Hub, or a loaded one.
            processor: Of a loaded model.
            folder: Where the detector is kept: a new or empty one, or an earlier one that is brought up to date; normal
                videos of other folders stay in it.
            grid: What videos are cut into, see `hf_video.clips.grid.parse_grid`; default: the folder's,
                else clips as long as those that `hf-video train` trained the model on (`config.clip_seconds`), a new
                one at every quarter, else "2s/0.5s".
            k: Which of the nearest normal moments counts.
            smooth: Deviation of the Gaussian that smooths scores over time, in seconds; 0 leaves them as they are.
            threshold: "auto" (2 standard deviations above the mean peak of a normal video, and no less than the highest
                one), a quantile of the scores of normal videos such as "99.5%", or a number.
            workers: Processes that read and embed.
            revision, device, batch_size: Of the model.
            on_progress: Called with (done, all) normal videos.

        Returns:
            The detector, which is also written to `folder`; its `report` names videos that could not be read.

        Raises:
            DataError: There are no normal videos, or too few to learn a threshold from.
            VideoOptionError: An option that means nothing.
            VideoIndexError: The folder's videos were embedded by another model or on another grid.
            OutputError: The folder holds other things.
        """
        folder = Path(folder)
        check_count("k", k)
        check_number("smooth", smooth, least=0)
        rule = parse_threshold(threshold)
        _check_folder(folder)
        encoder = find_encoder(model, processor, revision=revision, device=device, batch_size=batch_size)
        window = grid
        if grid is None and not IndexStore(folder / INDEX).exists():
            window = _own_grid(encoder)
        report = VideoIndex.build(
            folder / INDEX,
            normal,
            encoder,
            window=None if window is None else parse_grid(window),
            workers=workers,
            on_progress=on_progress,
        )
        index = VideoIndex.open(folder / INDEX, encoder)
        if not len(index):
            named = "; ".join(str(one) for one in report.skipped[:3])
            raise DataError(f"None of the {report.videos} videos in {normal} can be read: {named}")
        detector = cls(
            folder, index, k=k, smooth=smooth, threshold=learn_threshold(index, k=k, smooth=smooth, rule=rule)
        )
        detector.report = report
        detector._write(folder)
        return detector

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        model: Model | Encoder | None = None,
        processor: Processor | None = None,
        *,
        device: str | None = None,
    ) -> AnomalyDetector:
        """Opens what `fit` or `save` wrote.

        Args:
            folder: The detector's.
            model: The encoder, if it is not to be loaded from the folder.
            processor: Of a loaded model.
            device: Where the model is put.

        Raises:
            VideoIndexError: There is no detector, it is damaged, or `model` is not the one that it was made with.
        """
        folder = Path(folder)
        try:
            facts = read_json(folder / SETTINGS)
            threshold = Threshold(**facts["threshold"])
            k, smooth = int(facts["k"]), float(facts["smooth"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise VideoIndexError(
                f"{folder} is not a detector of anomalies, or is damaged ({error}): make it with AnomalyDetector.fit "
                "or hf-video anomalies."
            ) from error
        if model is None and (folder / ENCODER).is_dir():
            model = os.fspath(folder / ENCODER)
        index = VideoIndex.open(folder / INDEX, model, processor, device=device)
        return cls(folder, index, k=k, smooth=smooth, threshold=threshold)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Copies the detector.

        Args:
            folder: A new or empty one.

        Raises:
            OutputError: The folder is not empty, or can't be written.
        """
        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise OutputError(f"{folder} is there and not empty: choose a new folder for the detector.")
        check_output_folder(folder)
        with writing_into(folder, OutputError):
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copytree(self.folder / INDEX, folder / INDEX, ignore=shutil.ignore_patterns(".*"))
        self._write(folder)

    def _write(self, folder: Path) -> None:
        if isinstance(self.index.encoder, ModelEncoder) and not (folder / ENCODER).is_dir():
            self.index.encoder.save_pretrained(folder / ENCODER)
        facts = {"hf_video": __version__, "k": self.k, "smooth": self.smooth, "threshold": vars(self.threshold)}
        with writing_into(folder, OutputError):
            write_json(folder / SETTINGS, facts)

    @property
    def grid(self) -> FeatureGrid:
        """What videos are cut into."""
        return self.index.windows

    def score(self, source: VideoSource | FeatureSequence) -> AnomalyCurve:
        """Compares a video with the normal ones. Where it is one of them, or a copy, with all the others.

        Args:
            source: Anything that `VideoReader` opens, or features that were made before.

        Raises:
            VideoError: The video can't be read.
            VideoIndexError: The features are another encoder's, or on another grid: distances would mean nothing.
            DataError: There are fewer than `k` moments to compare it with.
        """
        if isinstance(source, FeatureSequence):
            self._check_sequence(source)
            vectors, seconds = unit_length(source.vectors), source.seconds
            return self._curve(vectors, seconds, seconds[:, 0], source.bounds[1], own=None)
        vectors, seconds = self.index.encoder.embed(source, self.grid)
        with open_video(source, on_error="repeat") as video:
            times, end = np.array(video.timestamps), video.metadata.begin + video.metadata.duration
        return self._curve(vectors, seconds, times, end, own=self._digest_of(source))

    def with_threshold(self, threshold: float | str) -> AnomalyDetector:
        """Changes the threshold.

        Args:
            threshold: As in `fit`.

        Returns:
            The same detector with this threshold.

        Raises:
            DataError: There are too few normal videos to learn one.
            VideoOptionError: It is no threshold.
        """
        learnt = learn_threshold(self.index, k=self.k, smooth=self.smooth, rule=parse_threshold(threshold))
        return AnomalyDetector(self.folder, self.index, k=self.k, smooth=self.smooth, threshold=learnt)

    def detect(self, source: VideoSource) -> list[Detection]:
        """Finds the anomalies of a video.

        Args:
            source: A video, as for `score`.

        Returns:
            The anomalies by start.

        Raises:
            DataError: The detector has no threshold; and what `score` raises.
        """
        if self.threshold.value is None:
            raise DataError("This detector has no threshold: fit it with more normal videos, or with a number.")
        return list(self.score(source).events)

    def _curve(
        self, vectors: np.ndarray, seconds: np.ndarray, times: np.ndarray, end: float, *, own: str | None
    ) -> AnomalyCurve:
        distances = nearest_distances(without(self.index.segments, own), vectors, self.k)
        middles = seconds.mean(1)
        scores = smooth_over_time(distances, middles, self.smooth)
        events: Sequence[Detection] = ()
        on, usual = self.threshold.value, self.threshold.usual
        if on is not None:
            # Distances don't begin at 0: an event is over when its score is near what is usual.
            usual = min(0.0 if usual is None else usual, on)
            off = max(usual + OFF * (on - usual), np.finfo(float).tiny)
            bounds = (float(times[0]), end) if len(times) else None
            events = merge_windows(scores[:, None], middles, [LABEL], on=on, off=min(off, on), bounds=bounds)
        return AnomalyCurve(seconds, distances, scores, times, end, tuple(events), on)

    def _check_sequence(self, sequence: FeatureSequence) -> None:
        encoder = self.index.encoder
        if not isinstance(encoder, ModelEncoder):
            raise VideoIndexError("Features of a model came, and this detector works on fingerprints: give the video.")
        own = SequenceEncoder(encoder.model, encoder.processor, grid=self.grid)
        if sequence.encoder is None or not own.has_digest(sequence.encoder) or sequence.grid != self.grid:
            raise VideoIndexError(
                f"Features of the encoder {sequence.encoder} on the grid {sequence.grid} came, and this detector has "
                f"{own.digest} ({encoder.identity['name']}) on {self.grid}: make them with its own encoder."
            )

    def _digest_of(self, source: VideoSource) -> str | None:
        """The digest of a file that may be one of the normal videos."""
        if not isinstance(source, (str, os.PathLike)) or not os.path.isfile(source):
            return None
        size = os.stat(source).st_size
        if all(file.size != size for segment in self.index.segments for file in segment.files):
            return None
        return file_record(os.fspath(source)).digest


def _own_grid(encoder: Encoder) -> FeatureGrid | str:
    """Moments as long as the clips that `hf-video train` trained an encoder on; longer ones, whose frames are farther
    apart, are strange to it."""
    seconds = getattr(encoder.model.config, "clip_seconds", None) if isinstance(encoder, ModelEncoder) else None
    return DEFAULT_GRID if seconds is None else FeatureGrid(seconds / 4, seconds, 1.0)


def _check_folder(folder: Path) -> None:
    check_output_folder(folder)
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if there and not there <= {SETTINGS, INDEX, ENCODER}:
        raise OutputError(f"{folder} holds other things than a detector: choose a new folder for it.")
