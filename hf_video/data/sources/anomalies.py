"""Annotations of anomalies, as the data sets publish them: which frames of a video are abnormal, and which videos are.

    read_anomalies("Temporal_Anomaly_Annotation.txt")       # UCF-Crime
    read_video_labels("Anomaly_Train.txt")                  # {"Abuse/Abuse001_x264.mp4": 1, …}

Frames are counted from 0, and a stretch [first, last) ends before its last frame.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np

from hf_video.data.sources.event_files import video_key
from hf_video.errors import BackendError, DataError, check_choice, near_path

# What says that a video without a line is normal, by data set.
_NORMAL_NAMES = {"xd-violence": r"label_A", "ubnormal": r"^normal_", "ucf-crime": r"Normal"}
_ABNORMAL = {"0": 0, "1": 1, "normal": 0, "abnormal": 1, "anomaly": 1}


@dataclass(frozen=True)
class AnomalyAnnotations:
    """Args:
    form: of `FORMS`.
    segments: for each video its abnormal stretches [first, last) in frames; none of a normal one.
    frames: numbers of frames, of the videos whose annotation tells them.
    """

    form: str
    segments: dict[str, list[tuple[int, int]]]
    frames: dict[str, int] = field(default_factory=dict)

    def find(self, video: str) -> str | None:
        """The name under which a video (a name or path) is annotated; its own where its name says that it is normal,
        None where nothing is known of it."""
        key = video_key(video, self.segments)
        if key in self.segments:
            return key
        stem = os.path.splitext(os.path.basename(video))[0]
        if stem in self.segments:
            return stem
        if stem.isdecimal():  # Avenue's videos are 01.avi, …, their masks 1_label.mat
            return next((one for one in self.segments if one.isdecimal() and int(one) == int(stem)), None)
        normal = _NORMAL_NAMES.get(self.form)
        return stem if normal and re.search(normal, stem) else None


def read_anomalies(path: str | os.PathLike[str], form: str | None = None) -> AnomalyAnnotations:
    """Reads annotations of anomalies.

    Args:
        path: a file or folder, by `form`:
            "ucf-crime", lines `name  class  start  end  start  end`, -1 for none;
            "xd-violence", lines `name start end [start end …]`, or with a class before each pair; videos of "label_A"
            have no line;
            "shanghaitech", a folder of `name.npy`, 0 or 1 for each frame;
            "avenue", a folder of `1_label.mat`, a mask of pixels for each frame (needs scipy);
            "ubnormal", a folder with `name_tracks.txt` at any depth, lines `object,first,last` with the last frame
            included; videos "normal_…" have none;
            "json", {name: {"frames": N, "segments": [[first, last], …]}}.
        form: None for what the path looks like.

    Raises:
        DataError: the path isn't there, or a line, named by its number, is not what it should be.
        BackendError: Avenue's masks without scipy.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"There is no {path}.{near_path(path)} Give the annotations of anomalies.")
    form = _recognize(path) if form is None else form
    check_choice("The form of annotations", form, FORMS, DataError)
    try:
        found = FORMS[form](path)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read as annotations of {form}: {error}.") from error
    if not found.segments:
        raise DataError(f"{path} holds no annotations of {form}.")
    return found


def _recognize(path: Path) -> str:
    if path.is_file():
        if path.suffix == ".json":
            return "json"
        first = next((line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()), [])
        by_class = len(first) == 6 and not re.fullmatch(r"-?\d+", first[1])
        return "ucf-crime" if by_class and "label_" not in first[0] else "xd-violence"
    for form, pattern in (("shanghaitech", "*.npy"), ("avenue", "*.mat"), ("ubnormal", "**/*_tracks.txt")):
        if next(path.glob(pattern), None) is not None:
            return form
    raise DataError(
        f"{path} holds no annotations that are known: frame masks (.npy, .mat) or *_tracks.txt. Say which it is: "
        f"{', '.join(FORMS)}."
    )


def _lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """(place, words) of each line that is not empty."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if words := line.split():
            yield f"{path}, line {number}", words


def _stretch(place: str, start: str | float, end: str | float, *, included: bool = False) -> tuple[int, int]:
    try:
        first, last = int(start), int(end)
    except ValueError as error:
        raise DataError(f"{place}: {start!r} and {end!r} must be numbers of frames.") from error
    if not 0 <= first <= last:
        raise DataError(
            f"{place}: an anomaly from frame {first} to {last}; it must start at 0 or later, and not end before."
        )
    return first, last + included


def _ucf_crime(path: Path) -> AnomalyAnnotations:
    segments: dict[str, list[tuple[int, int]]] = {}
    for place, words in _lines(path):
        name, numbers = os.path.splitext(words[0])[0], words[2:]
        if len(words) < 4 or len(numbers) % 2:
            raise DataError(
                f"{place}: {len(words)} words; a name, a class and pairs of start and end are needed, -1 -1 for none."
            )
        if name in segments:
            raise DataError(f"{place}: {name} has a line already.")
        pairs = [pair for pair in zip(numbers[::2], numbers[1::2], strict=True) if pair != ("-1", "-1")]
        segments[name] = [_stretch(place, *pair) for pair in pairs]
    return AnomalyAnnotations("ucf-crime", segments)


def _xd_violence(path: Path) -> AnomalyAnnotations:
    segments: dict[str, list[tuple[int, int]]] = {}
    for place, (name, *words) in _lines(path):
        numbers = [word for word in words if not re.fullmatch(r"[A-Z]\d*", word)]  # classes: A, B1, …, G
        if len(numbers) % 2:
            raise DataError(f"{place}: {len(numbers)} numbers after the name; pairs of start and end are needed.")
        if name in segments:
            raise DataError(f"{place}: {name} has a line already.")
        segments[name] = [_stretch(place, *pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)]
    return AnomalyAnnotations("xd-violence", segments)


def runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """The stretches [first, last) of a mask (N,) that are not 0."""
    changes = np.flatnonzero(np.diff(np.concatenate(([0], (np.asarray(mask) != 0).astype(np.int8), [0]))))
    return [(int(first), int(last)) for first, last in changes.reshape(-1, 2)]


def _shanghaitech(path: Path) -> AnomalyAnnotations:
    masks = {}
    for file in sorted(path.glob("*.npy")):
        try:
            mask = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{file} is no mask of frames: {error}.") from error
        if mask.ndim != 1 or not len(mask) or not np.isin(mask, (0, 1)).all():
            raise DataError(f"{file} has shape {mask.shape}; one 0 or 1 for each frame is needed.")
        masks[file.stem] = mask
    return _of_masks("shanghaitech", masks)


def _avenue(path: Path) -> AnomalyAnnotations:
    masks = {}
    for file in sorted(path.glob("*.mat")):
        if not (number := re.match(r"\d+", file.stem)):
            raise DataError(f"{file} must be named by the number of its video, such as 1_label.mat.")
        try:
            frames = np.asarray(_scipy_io().loadmat(file)["volLabel"], dtype=object).ravel()
        except (OSError, ValueError, KeyError, NotImplementedError) as error:
            raise DataError(f"{file} holds no masks of frames (volLabel): {error}.") from error
        masks[number[0].zfill(2)] = np.array([np.any(frame) for frame in frames])
    return _of_masks("avenue", masks)


def _of_masks(form: str, masks: dict[str, np.ndarray]) -> AnomalyAnnotations:
    segments = {name: runs(mask) for name, mask in masks.items()}
    return AnomalyAnnotations(form, segments, {name: len(mask) for name, mask in masks.items()})


def _scipy_io() -> ModuleType:
    try:
        import scipy.io
    except ImportError as error:
        raise BackendError(
            'Avenue\'s masks are MATLAB files, which need scipy: pip install "hf_video[detection]".'
        ) from error
    return scipy.io


def _ubnormal(path: Path) -> AnomalyAnnotations:
    segments: dict[str, list[tuple[int, int]]] = {}
    for file in sorted(path.rglob("*_tracks.txt")):
        tracks = []
        for place, words in _lines(file):
            numbers = " ".join(words).replace(",", " ").split()
            if len(numbers) != 3:
                raise DataError(f"{place}: {len(numbers)} numbers; an object, its first and its last frame are needed.")
            try:
                tracks.append(_stretch(place, float(numbers[1]), float(numbers[2]), included=True))
            except (ValueError, OverflowError) as error:
                raise DataError(f"{place}: {' '.join(words)!r} are no numbers.") from error
        segments[file.stem.removesuffix("_tracks")] = tracks
    return AnomalyAnnotations("ubnormal", segments)


def _json(path: Path) -> AnomalyAnnotations:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        segments = {
            name: [_stretch(f"{path}, {name}", start, end) for start, end in one["segments"]]
            for name, one in about.items()
        }
        frames = {name: int(one["frames"]) for name, one in about.items() if one.get("frames") is not None}
    except (json.JSONDecodeError, AttributeError, TypeError, KeyError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f'{path} must hold {{video: {{"frames": N, "segments": [[first, last], …]}}}}: {error!r}.'
        ) from error
    return AnomalyAnnotations("json", segments, frames)


FORMS: dict[str, Callable[[Path], AnomalyAnnotations]] = {
    "ucf-crime": _ucf_crime,
    "xd-violence": _xd_violence,
    "shanghaitech": _shanghaitech,
    "avenue": _avenue,
    "ubnormal": _ubnormal,
    "json": _json,
}


def read_video_labels(path: str | os.PathLike[str]) -> dict[str, int]:
    """Which videos of a list are abnormal (1) and which normal (0), for training.

    Args:
        path: lines of names or paths, in one of the forms that data sets have: a 0 or 1, or "normal" or "abnormal",
            after each name (by a comma or a space); or names that tell, as UCF-Crime's ("Normal" in the path),
            XD-Violence's ("label_A") and UBnormal's ("normal_…", "abnormal_…").

    Raises:
        DataError: the list isn't there or is empty; a line, named by its number, says nothing or comes twice.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There is no list {path}.{near_path(path)} Give the videos, one on each line.")
    labels: dict[str, int] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        text, place = line.strip(), f"{path}, line {number}"
        if not text or (number == 1 and re.fullmatch(r"(video|name|path)\s*,\s*label", text)):
            continue
        parts = re.fullmatch(r"(.+?)[,\s]+(\w+)", text)
        if parts and parts[2].lower() in _ABNORMAL:
            name, label = parts[1].strip('"'), _ABNORMAL[parts[2].lower()]
        elif re.search(r"label_[A-G]|(^|/)(ab)?normal_|x264|Normal", text):
            name = text
            label = int(not re.search(r"label_A|(^|/)normal_|Normal", text))
        else:
            raise DataError(
                f"{place}: {text!r} doesn't tell whether the video is normal. Write 0 (normal) or 1 (abnormal) after "
                "its name."
            )
        if name in labels:
            raise DataError(f"{place}: {name} has a line already.")
        labels[name] = label
    if not labels:
        raise DataError(f"{path} names no videos.")
    return labels
