"""The features of a video on a uniform grid: vectors, where they lie in time, and how they are kept on disk."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from hf_video.base.written_files import atomic_write, writing_into
from hf_video.clips.grid import FeatureGrid, parse_grid
from hf_video.errors import DataError, VideoOptionError, check_count

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from hf_video.base.detection.anomaly import WeakAnomalyConfig
    from hf_video.base.detection.configuration import TemporalDetectionConfig
    from hf_video.clips.grid import GridLike

UNKNOWN_END = 1e8  # seconds, as the official code has it for videos of unknown duration


@dataclass(frozen=True)
class FeatureSequence:
    """The features of one video.

    Args:
        vectors: (T, D) float32, one for each clip of the grid.
        grid: Which frames each of them saw.
        timeline: (K, 2) float64, frames of the grid and the seconds at which they are shown, from the first frame to
            the end of the video; times between are on straight lines (`FeatureGrid.timeline`).
        encoder: What tells the encoder apart (`SequenceEncoder.digest`), None where it is not known.
    """

    vectors: np.ndarray
    grid: FeatureGrid
    timeline: np.ndarray
    encoder: str | None = None

    @classmethod
    def from_array(
        cls, vectors: np.ndarray, grid: GridLike, fps: float, duration: float | None = None
    ) -> FeatureSequence:
        """Takes ready-made features, such as the published ones of THUMOS14 or ActivityNet.

        Args:
            vectors: (T, D).
            grid: Its `num_frames` and `stride` in frames of a video of `fps`.
            fps: Frames per second of the video.
            duration: Of the video, in seconds; None where it is not known.

        Raises:
            DataError: `vectors` has another shape, or holds what is not finite.
        """
        grid = parse_grid(grid)
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        if vectors.ndim != 2 or not len(vectors) or not np.isfinite(vectors).all():
            raise DataError(
                f"Features of a video are (time, columns), one step or more, all finite; shape {vectors.shape} came."
            )
        end = UNKNOWN_END if duration is None else float(duration)
        return cls(vectors, replace(grid, fps=fps), np.array([[0.0, 0.0], [end * fps, end]]))

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def bounds(self) -> tuple[float, float]:
        """Start and end of the video in seconds."""
        return float(self.timeline[0, 1]), float(self.timeline[-1, 1])

    @property
    def seconds(self) -> np.ndarray:
        """(T, 2) float64, start and end of each clip."""
        first = np.arange(len(self)) * self.grid.stride
        return np.interp(np.stack([first, first + self.grid.num_frames], axis=1), *self.timeline.T)

    def to_seconds(self, positions: ArrayLike) -> np.ndarray:
        """Converts positions on the grid to seconds.

        Args:
            positions: Of any shape; the middle of clip g is position g.

        Returns:
            Seconds within the video, float64 of that shape.
        """
        frames = np.asarray(positions, dtype=np.float64) * self.grid.stride + 0.5 * self.grid.num_frames
        return np.interp(frames, *self.timeline.T)

    def to_steps(self, seconds: ArrayLike) -> np.ndarray:
        """Converts seconds to positions on the grid.

        Args:
            seconds: Of any shape; times beyond the video go on at its average rate.

        Returns:
            Positions, float64 of that shape.
        """
        seconds, (start, end) = np.asarray(seconds, dtype=np.float64), self.bounds
        rate = self.timeline[-1, 0] / (end - start)
        frames = np.interp(seconds, self.timeline[:, 1], self.timeline[:, 0])
        frames += (np.minimum(seconds - start, 0) + np.maximum(seconds - end, 0)) * rate
        return (frames - 0.5 * self.grid.num_frames) / self.grid.stride

    def every(self, step: int) -> FeatureSequence:
        """Takes every `step`th vector (`downsample_rate` of the official code).

        Args:
            step: 1 or more.

        Returns:
            A sequence with a stride `step` times as long.
        """
        check_count("step", step)
        return replace(self, vectors=self.vectors[::step], grid=replace(self.grid, stride=self.grid.stride * step))

    def resized(self, length: int) -> FeatureSequence:
        """Stretches or shrinks by linear interpolation, as ActionFormer does for ActivityNet (`force_upsampling`).

        Args:
            length: Vectors of the result, 1 or more.

        Returns:
            Its clips lie side by side over what the clips of this one cover.
        """
        check_count("length", length)
        rows = torch.from_numpy(self.vectors.T[None].copy())
        vectors = torch.nn.functional.interpolate(rows, size=length, mode="linear", align_corners=False)[0].T.numpy()
        stride = ((len(self) - 1) * self.grid.stride + self.grid.num_frames) / length
        return replace(self, vectors=vectors.copy(), grid=replace(self.grid, stride=stride, num_frames=stride))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a file, in one step.

        Args:
            path: Of a `.safetensors` file, whose folder is made where it is missing.

        Raises:
            DataError: The disk is full or may not be written.
        """
        about = json.dumps({"grid": vars(self.grid), "encoder": self.encoder})
        data = save({"vectors": self.vectors, "timeline": self.timeline}, metadata={"sequence": about})
        with writing_into(path, DataError):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(Path(path)) as draft:
                draft.write_bytes(data)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FeatureSequence:
        """Reads what `save` wrote.

        Args:
            path: A `.safetensors` file.

        Returns:
            The sequence.

        Raises:
            DataError: It is another file, or damaged.
        """
        try:
            with safe_open(path, framework="np") as file:
                about = json.loads((file.metadata() or {})["sequence"])
                vectors, timeline = file.get_tensor("vectors"), file.get_tensor("timeline")
            return cls(vectors, FeatureGrid(**about["grid"]), timeline, about["encoder"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError, VideoOptionError) as error:
            raise DataError(f"{os.fspath(path)} holds no features of a video, or is damaged: {error}.") from error


def grid_of(config: TemporalDetectionConfig | WeakAnomalyConfig) -> FeatureGrid:
    """The grid that a detector was trained on."""
    return FeatureGrid(config.feature_stride, config.feature_frames, config.feature_fps)


def check_sequence(sequence: FeatureSequence, config: TemporalDetectionConfig | WeakAnomalyConfig) -> None:
    """Compares features with what a detector was trained on, before it sees them.

    Raises:
        DataError: They have other columns, are of another encoder (where both are known) or on another grid.
    """
    width, expected = sequence.vectors.shape[1], sum(config.input_sizes)
    if width != expected:
        raise DataError(
            f"The features have {width:,} columns and the detector takes {expected:,}: use its own encoder."
        )
    trained_on = (config.encoder or {}).get("digest")
    if None not in (trained_on, sequence.encoder) and trained_on != sequence.encoder:
        raise DataError(
            f"The features are of another encoder ({sequence.encoder}) than the detector was trained on ({trained_on}, "
            f"{config.encoder.get('name')}): make them with that one, or train the detector on these."
        )
    grid, own = sequence.grid, grid_of(config)
    if own.fps is None:
        own = replace(own, fps=grid.fps)
    if grid != own:
        raise DataError(
            f"The features lie on the grid {grid} and the detector was trained on {own}: make features on that grid."
        )
