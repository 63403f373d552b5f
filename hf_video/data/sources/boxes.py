"""Key frames with people in boxes, by split: what classifiers of boxes are trained and measured on.

splits = load_boxes("videos/", "ava.csv")     # {"train": VideoRows of BoxRow, "test": …}
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hf_video.data.rows import ListedVideo, Skipped, SourceListing, VideoRow, VideoRows
from hf_video.data.sources.box_files import Box, BoxFile, BoxLine, read_actions, read_boxes, read_excluded
from hf_video.data.sources.division import assign_groups, choose_test
from hf_video.data.sources.files import is_video, locate, split_name
from hf_video.data.sources.inspection import inspect_all
from hf_video.data.sources.load import TEST_SIZE, rows_by_split
from hf_video.errors import DataError, near_path


@dataclass(frozen=True, slots=True)
class BoxRow(VideoRow):
    """A key frame. `second` is its time in the video, `clock` that of the annotations; `boxes` are shares of the frame
    (x1, y1, x2, y2), and `actions` the class numbers that each of them shows; `label` are those of all of them."""

    video: str = ""
    second: float = 0.0
    clock: float = 0.0
    boxes: tuple[Box, ...] = ()
    actions: tuple[tuple[int, ...], ...] = ()


class BoxRows(VideoRows):
    """`VideoRows` of `BoxRow`, with the numbers that their classes have in the annotations (`action_ids`)."""

    action_ids: list[int]

    def ground_truth(self) -> list[tuple[str | float | int, ...]]:
        """Rows of `hf_video.evaluation.detection.spatio_temporal.frame_map`."""
        return [
            (row.video, row.clock, *box, self.action_ids[action])
            for row in self.rows
            if isinstance(row, BoxRow)
            for box, actions in zip(row.boxes, row.actions, strict=True)
            for action in actions
        ]


def load_boxes(
    folder: str | os.PathLike[str],
    annotations: str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]],
    *,
    actions: str | os.PathLike[str] | Mapping[int, str] | None = None,
    excluded: str | os.PathLike[str] | Sequence[tuple[str, float]] | None = None,
    first_second: float = 0.0,
    invalid: str = "raise",
    test_size: float | None = None,
    seed: int = 0,
    group_pattern: str | None = None,
    labels: Sequence[str] | None = None,
) -> dict[str, BoxRows]:
    """The annotated key frames of a folder's videos.

    Args:
        folder: Of videos, named as the annotations name them, with or without an ending.
        annotations: A CSV (see `hf_video.data.sources.box_files`), or one for each split: a dict, or a folder of files
            such as `ava_train_v2.2.csv` and `ava_val_v2.2.csv`.
        actions: The list of actions, a `.pbtxt` or numbers and names. Default: those that are found, named after their
            numbers.
        excluded: Frames that are left out, a CSV or pairs of video and second.
        first_second: The second of the annotations at which the videos begin; 900 for the cut videos of AVA.
        invalid: "raise", or "drop" leaves out lines with boxes beyond the frame, reversed ones, and unknown actions.
        test_size: Share of the videos that becomes "test" where there is one file for all; default .2. Videos of one
            recording (`group_pattern`, see `load_videos`) stay together.
        seed: Of that division.
        labels: Names of the classes in another order, of a model that exists already.

    Returns:
        `BoxRows` by split; what was left out is in the first split's `skipped`.

    Raises:
        DataError: A file or the folder isn't there, none of the videos is, a line is wrong, or its second lies beyond
            the video.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{root} is no folder (looked in {os.getcwd()}).{near_path(root)} Give a folder of videos.")
    files = _files(annotations)
    known = read_actions(actions) if isinstance(actions, (str, os.PathLike)) else actions
    read = {split: read_boxes(path, actions=known, invalid=invalid) for split, path in files.items()}
    if known is None:
        found = {line.action for file in read.values() for line in file.lines if line.action is not None}
        known = {number: str(number) for number in sorted(found)}
    if not known:
        raise DataError(f"{next(iter(files.values()))} has no box with an action: there is nothing to learn.")
    names = list(known.values()) if labels is None else list(labels)
    ids = {name: number for number, name in known.items()}
    numbers = {ids[name]: place for place, name in enumerate(names)}
    left_out = set(read_excluded(excluded) if isinstance(excluded, (str, os.PathLike)) else excluded or ())
    listing = SourceListing(str(root), skipped=[fault for file in read.values() for fault in file.faults])
    for split, file in read.items():
        _list_videos(listing, root, file, split)
    if not listing.videos:
        example = next(iter(read.values())).lines[0].video
        raise DataError(
            f"None of the videos of {', '.join(map(str, files.values()))}, such as {example!r}, is in {root}."
        )
    if list(files) == [""]:
        assign_groups(listing.videos, group_pattern)
        share = TEST_SIZE if test_size is None else test_size
        for listed, test in zip(listing.videos, choose_test(listing.videos, share, seed), strict=True):
            listed.split = "test" if test else "train"

    def rows_of(video: ListedVideo) -> Iterable[BoxRow]:
        file, frames = video.annotations
        for clock, boxes in sorted(frames.items()):
            if (video.name, clock) not in left_out and boxes:
                yield _row(video, file, clock, clock - first_second, boxes, numbers)

    made: dict[str, BoxRows] = {}
    for split, rows in rows_by_split(listing, rows_of, names).items():
        made[split] = BoxRows(rows.rows, rows.labels, rows.skipped, root=rows.root)
        made[split].action_ids = [ids[name] for name in names]
    return made


def _files(annotations: str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]]) -> dict[str, Path]:
    """The file of each split; one without a split has ""."""
    if isinstance(annotations, Mapping):
        return {str(split): Path(path) for split, path in annotations.items()}
    path = Path(annotations)
    if path.is_file():
        return {"": path}
    if not path.is_dir():
        raise DataError(f"There is no {path}.{near_path(path)} Give AVA's CSV, or a folder with one for each split.")
    found: dict[str, Path] = {}
    for file in sorted(path.glob("*.csv")):
        words = file.stem.replace("-", "_").split("_")
        splits = [split for word in words if (split := split_name(word)) is not None]
        if splits and "excluded" not in file.stem and "detection" not in file.stem:
            if splits[0] in found:
                raise DataError(
                    f"{found[splits[0]].name} and {file.name} of {path} could both be the split {splits[0]}."
                )
            found[splits[0]] = file
    if "train" not in found:
        raise DataError(f"{path} has no CSV with train in its name; it has {[one.name for one in path.glob('*.csv')]}.")
    return found


def _list_videos(listing: SourceListing, root: Path, file: BoxFile, split: str) -> None:
    frames = file.frames()
    paths = {name: path for name in frames if (path := locate(root, name)) is not None and is_video(path)}
    listing.skipped += [
        Skipped(name, f"is in {file.path}, and no file of that name is in {root}", "missing")
        for name in frames
        if name not in paths
    ]
    for (name, path), about in zip(paths.items(), inspect_all(list(paths.values()), root=str(root)), strict=True):
        if about.kind is not None:
            listing.skipped.append(Skipped(name, about.reason, about.kind, used=about.usable))
        if about.usable:
            shown = sorted(
                {str(line.action) for boxes in frames[name].values() for lines in boxes.values() for line in lines}
            )
            listed = ListedVideo(path, name, tuple(shown), split or None, inspection=about)
            listed.annotations = [file, frames[name]]
            listing.videos.append(listed)


def _row(
    video: ListedVideo,
    file: BoxFile,
    clock: float,
    second: float,
    boxes: Mapping[Box, list[BoxLine]],
    numbers: Mapping[int, int],
) -> BoxRow:
    duration = video.inspection.seconds if video.inspection is not None else None
    if second < 0 or (duration is not None and second > duration):
        place = next(iter(boxes.values()))[0].place
        raise DataError(
            f"{file.path}, {place}: second {clock:g} is second {second:g} of {video.name}, which lasts "
            f"{duration or 0:.2f} s. Does the file begin at another second (first_second)?"
        )
    actions = tuple(
        tuple(sorted({numbers[one.action] for one in lines if one.action is not None})) for lines in boxes.values()
    )
    shown = tuple(sorted({action for one in actions for action in one}))
    name = f"{video.name}@{clock:g}"
    return BoxRow(video.source, shown, name, video.group, video.name, second, clock, tuple(boxes), actions)
