"""Every exception that hf_video raises on purpose.

All derive from `HFVideoError`; where Python has a word for the fault (ValueError, IndexError, TypeError) the class is
that too, so callers may catch either. Each message says what came, what is allowed and what to do.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from numbers import Integral, Real
from typing import TypeGuard, TypeVar

Value = TypeVar("Value")


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


class FederatedError(HFVideoError, ValueError):
    """Clients, rounds or rules of federated learning that don't go together, or an answer of a client that can't be
    used: other tensors than were sent, numbers that are not finite."""


class OutputError(HFVideoError, ValueError):
    """A file or folder that can't be written: no permission, no space, a file where a folder is needed."""


# Exceptions to the words for them in reports, the narrow ones first.
_KINDS = (
    (EmptyFileError, "empty"),
    ((NotAVideoError, VideoArrayError), "not a video"),
    (ShortVideoError, "short"),
    ((VideoSourceError, FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError), "missing"),
)


def fault_kind(error: BaseException) -> str:
    """What is wrong with a video that raised this: "empty", "not a video", "short", "missing" (not there, or not to be
    opened) or "damaged", the words that every report and list of skipped videos has."""
    return next((kind for faults, kind in _KINDS if isinstance(error, faults)), "damaged")


def error_entry(error: BaseException) -> dict[str, str]:
    """What stands in a list of results for a video that could not be read: the exception's name, its kind as in
    `fault_kind`, and its message."""
    return {"error": type(error).__name__, "kind": fault_kind(error), "message": str(error)}


# -- checks of arguments -----------------------------------------------------------------------------------------------


def is_whole(value: object) -> TypeGuard[int]:
    """Whether this is a whole number, Python's or NumPy's; True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Whether this is a finite real number, Python's or NumPy's; True and False are not."""
    real = isinstance(value, Real) and not isinstance(value, bool)
    return real and bool(-float("inf") < value < float("inf"))  # type: ignore[operator]


def check_choice(
    name: str, value: Value, allowed: Iterable[object], error: type[HFVideoError] = VideoOptionError, *, hint: str = ""
) -> Value:
    """Returns `value` if it is one of `allowed`, otherwise raises `error` with the choices and the nearest of them."""
    allowed = list(allowed)
    if value in allowed:
        return value
    near = did_you_mean(value, [one for one in allowed if isinstance(one, str)])
    raise error(f"{name}={value!r} must be one of {', '.join(map(repr, allowed))}.{near}{hint}")


def check_switch(name: str, value: object, error: type[HFVideoError] = VideoOptionError) -> bool:
    """Returns `value` as a bool if it is True or False, Python's or NumPy's, otherwise raises `error`."""
    if type(value).__name__ in ("bool", "bool_"):
        return bool(value)
    raise error(f"{name}={value!r} must be True or False.")


def check_count(
    name: str,
    value: Value,
    error: type[HFVideoError] = VideoOptionError,
    *,
    least: int = 1,
    most: int | None = None,
    unit: str = "",
    optional: bool = False,
    hint: str = "",
) -> Value:
    """Returns `value` as an int if it is a whole number from `least` to `most`, otherwise raises `error`. `unit`, such
    as "pixels", and `hint` go into the message; None is let through with `optional`."""
    if optional and value is None:
        return value
    if is_whole(value) and least <= value and (most is None or value <= most):
        return int(value)  # type: ignore[return-value]
    of, span = f" of {unit}" if unit else "", f"{least} or more" if most is None else f"from {least} to {most}"
    raise error(f"{name}={value!r} must be a whole number{of}, {span}{', or None' if optional else ''}.{hint}")


def check_number(
    name: str,
    value: Value,
    error: type[HFVideoError] = VideoOptionError,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    optional: bool = False,
    hint: str = "",
) -> Value:
    """Returns `value` if it is a finite number, at `least` or `above` one limit and at `most` or `below` another,
    otherwise raises `error`; None is let through with `optional`."""
    if optional and value is None:
        return value
    good = is_number(value) and (least is None or value >= least) and (above is None or value > above)
    if good and (most is None or value <= most) and (below is None or value < below):  # type: ignore[operator]
        return value
    limits = {"at least": least, "above": above, "at most": most, "below": below}
    span = " and ".join(f"{word} {limit:g}" for word, limit in limits.items() if limit is not None)
    or_none = ", or None" if optional else ""
    raise error(f"{name}={value!r} must be a number{span and ', '}{span}{or_none}.{hint}")


# -- wording of messages ----------------------------------------------------------------------------------------------


def nearest(name: object, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The known name that is most like this one, upper and lower case alike; None where none is near."""
    by_lower = {one.lower(): one for one in known}
    close = difflib.get_close_matches(str(name).lower(), by_lower, n=1, cutoff=cutoff)
    return by_lower[close[0]] if close else None


def did_you_mean(name: object, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """` Did you mean 'uniform'?` to put behind a sentence, or nothing where no known name is near."""
    close = nearest(name, known, cutoff=cutoff)
    return f" Did you mean {close!r}?" if close else ""


def unknown_name(begin: str, name: object, known: Iterable[str], *, cutoff: float = 0.6, also: str = "") -> str:
    """`unknown_name("There is no sampler", "unifrom", SAMPLERS)` is "There is no sampler 'unifrom'. Did you mean
    'uniform'? Known: …"; `also` follows the known names."""
    known = list(known)
    return f"{begin} {name!r}.{did_you_mean(name, known, cutoff=cutoff)} Known: {', '.join(known) or 'none'}{also}."


def pluralize(number: int, noun: str, plural: str | None = None) -> str:
    """`pluralize(1, "video")` is "1 video", `pluralize(2000, "video")` "2,000 videos"; `plural` where -s is wrong."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def near_path(path: str | os.PathLike[str], *, folders: bool = False) -> str:
    """` Is it 'videos'?` for a path where nothing is: the nearest name beside it (of a folder, with `folders`), or the
    first folder of it that isn't there."""
    path = os.fspath(path)
    if "\\" in path and os.path.exists(path.replace("\\", "/")):
        return f" Is it {path.replace(chr(92), '/')!r}?"
    above, last = os.path.split(os.path.expanduser(path).rstrip("/\\"))
    try:
        names = [one for one in os.listdir(above or ".") if not folders or os.path.isdir(os.path.join(above, one))]
    except OSError:
        return f" Nor is there {above!r}." if above else ""
    close = nearest(last, names)
    return f" Is it {os.path.join(above, close)!r}?" if close else ""


def without_name(reason: str, name: str) -> str:
    """A reason that begins with its file's name, such as "a.mp4 is empty", for a line that names the file first."""
    for begin in (f"{name} ", f"{name!r} ", f"{name}: "):
        if reason.startswith(begin):
            return reason.removeprefix(begin)
    return reason
