"""Every exception that hf_video raises on purpose.

All derive from `HFVideoError`; where Python has a word for the fault (ValueError, IndexError, TypeError) the class is
that too, so callers may catch either. Each message says what came, what is allowed and what to do.
"""

from __future__ import annotations


class HFVideoError(Exception):
    """Base class: `except hf_video.HFVideoError` catches everything that is our verdict and not a bug."""


class VideoError(HFVideoError):
    """A video source that can't be read as asked."""


class NotAVideoError(VideoError, ValueError):
    """The bytes are there, but no demuxer recognises them (a text file named .mp4, garbage, a cut-off header)."""


class EmptyFileError(NotAVideoError):
    """The file or buffer has zero bytes."""


class NoVideoStreamError(NotAVideoError):
    """A media file without a video stream (audio only, or only cover art)."""


class NoFramesError(VideoError, ValueError):
    """A video stream of which not one frame can be decoded."""


class FrameIndexError(VideoError, IndexError):
    """A frame index or a time outside the video."""


class DamagedVideoError(VideoError, ValueError):
    """Frames that were asked for could not be decoded. `seconds` are their times, `indices` their numbers."""

    def __init__(self, message: str, *, seconds: tuple[float, ...] = (), indices: tuple[int, ...] = ()):
        super().__init__(message)
        self.seconds = tuple(seconds)
        self.indices = tuple(indices)


class VideoArrayError(VideoError, ValueError):
    """An array given as a video has the wrong shape or dtype."""


class VideoSourceError(VideoError, TypeError):
    """The source is of a kind that can't be a video, or a path or URL that does not answer."""


class VideoOptionError(VideoError, ValueError):
    """An option that has no meaning here: an unknown name, or a number out of its range."""


class BackendError(VideoError, ImportError):
    """A decoding backend was asked for by name and can't be used in this environment."""


class SamplingError(HFVideoError, ValueError):
    """Sampler arguments that describe no choice of frames: an unknown name, a count below 1."""


class ShortVideoError(VideoError, ValueError):
    """The video has fewer frames than the sampler needs and `short="error"` was asked for."""


class VideoWriteError(VideoError, ValueError):
    """A video file that can't be written as asked: suffix, codec, option, rate or folder."""


class CheckpointError(HFVideoError):
    """A checkpoint that does not fit: keys left over or missing, shapes that differ, a file kind that is refused, a
    folder that is damaged or not finished. No ValueError: a pipeline answers one by trying transformers' own class,
    which would load the folder without a word."""


class PublishError(HFVideoError):
    """A model that can't be put on the Hub as asked: not complete, no right to write there, cut off on the way."""


class UnsafeWeightsError(HFVideoError):
    """Weights that are a pickle. No ValueError: a pipeline answers one by trying transformers' own class, which would
    open the file."""


class ModelInputError(HFVideoError, ValueError):
    """A tensor that the model can't take: wrong rank, channels, size or mask."""


class ConfigError(HFVideoError, ValueError):
    """A configuration value that makes no model."""


class DataError(HFVideoError, ValueError):
    """Rows and labels that make no data set: a folder without videos, a list that can't be read, too many bad files."""


class MetricError(HFVideoError, ValueError):
    """Scores and labels that can't be compared: other shapes, a label outside the classes, NaN."""


class VideoIndexError(HFVideoError, ValueError):
    """A search index that can't be used as asked: none there, damaged, of another model, or being written."""


class OutputError(HFVideoError, ValueError):
    """A file or folder that can't be written: no permission, no space, a file where a folder is needed."""


# Exceptions to the words for them in reports, the narrow ones first.
_KINDS = (
    (EmptyFileError, "empty"),
    (NotAVideoError, "not a video"),
    (ShortVideoError, "short"),
    ((VideoSourceError, FileNotFoundError), "missing"),
)


def fault_kind(error: BaseException) -> str:
    """What is wrong with a video that raised this: "empty", "not a video", "short", "missing" or "damaged", the words
    that every report and list of skipped videos has."""
    return next((kind for faults, kind in _KINDS if isinstance(error, faults)), "damaged")
