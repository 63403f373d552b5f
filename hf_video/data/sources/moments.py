"""Moments that sentences describe, in files of QVHighlights' form: one JSON object on each line (Lei et al., NeurIPS
2021; jayleicn/moment_detr, data/README.md)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_video.data.rows import ListedVideo, Skipped, SourceListing, VideoRow, VideoRows
from hf_video.data.sources.division import choose_test
from hf_video.data.sources.event_files import video_key
from hf_video.data.sources.files import split_name, videos_below
from hf_video.data.sources.load import TEST_SIZE, rows_by_split
from hf_video.errors import DataError, is_number, near_path, pluralize


def read_moments(path: str | os.PathLike[str], *, needed: Sequence[str] = ("qid",)) -> list[dict[str, Any]]:
    """Reads the queries of a file, annotations or predictions.

    Args:
        path: a file with one object on each line, such as {"qid": 7803, "query": "A man walks inside.", "vid": "a",
            "duration": 150, "relevant_windows": [[26, 36]]}; predictions have "pred_relevant_windows", [start, end,
            score] in seconds, and may have "pred_saliency_scores".
        needed: fields that every line must have.

    Returns:
        The objects in the order of their lines.

    Raises:
        DataError: The file can't be read, or a line of it is no such object, lacks a field, repeats a "qid", or has
            windows that are none. The message names the line.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or error}.{near_path(path)}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text in UTF-8, so it holds no queries.") from error
    queries, seen = [], {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        query = _query(line, f"{path}, line {number}", needed)
        if "qid" in query:
            if query["qid"] in seen:
                raise DataError(f"{path}, line {number}: qid {query['qid']!r} stands in line {seen[query['qid']]} too.")
            seen[query["qid"]] = number
        queries.append(query)
    if not queries:
        raise DataError(f'{path} holds no query; each line is an object such as {{"qid": 1, "query": "…", …}}.')
    return queries


def _query(line: str, place: str, needed: Sequence[str]) -> dict[str, Any]:
    try:
        query = json.loads(line)
    except ValueError as error:
        raise DataError(f"{place} is no JSON ({error}); each line holds one object.") from error
    if not isinstance(query, dict):
        raise DataError(f"{place} is {line.strip()[:40]!r}; each line holds one object.")
    if missing := [name for name in needed if name not in query]:
        raise DataError(f"{place} has no {missing[0]!r}; it has {', '.join(map(repr, query)) or 'nothing'}.")
    if not isinstance(query.get("qid", 0), (int, str)):
        raise DataError(f"{place}: qid is {query['qid']!r}; it must be a whole number or a text.")
    for name, numbers in (("relevant_windows", 2), ("pred_relevant_windows", 3)):
        windows = query.get(name, [])
        good = isinstance(windows, list) and all(
            isinstance(one, list) and len(one) == numbers and all(map(is_number, one)) and one[0] <= one[1]
            for one in windows
        )
        if not good:
            form = "[start, end]" if numbers == 2 else "[start, end, score]"
            raise DataError(
                f"{place}: {name} must be a list of {form} in seconds, each ending no earlier than it starts."
            )
    return query


@dataclass(frozen=True, slots=True)
class MomentRow(VideoRow):
    """A video and a sentence about it; `label` is None. `query` is the line of the file: "qid", "query",
    "relevant_windows" (seconds), and where there are any "relevant_clip_ids" and "saliency_scores"."""

    query: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return str(self.query["query"])


def load_moments(
    folder: str | os.PathLike[str],
    annotations: str | os.PathLike[str],
    *,
    test_size: float | None = None,
    seed: int = 0,
) -> dict[str, VideoRows]:
    """The videos of a folder with the sentences about them, by the "split" of each line.

    Args:
        folder: Of videos, named as "vid" names them, with or without an ending.
        annotations: A file of QVHighlights' form, see `read_moments`; "query", "vid" and "relevant_windows" are needed.
        test_size: Share of the videos that becomes "test" where no line has a "split"; default .2.
        seed: Of that division.

    Returns:
        `VideoRows` of `MomentRow`, one for each sentence; videos that are not there are in `skipped`.

    Raises:
        DataError: The folder or the file can't be read, none of the videos is there, two files fit one name, a moment
            reaches beyond the "duration", or some lines have a split and others none.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{root} is no folder (looked in {os.getcwd()}).{near_path(root)} Give a folder of videos.")
    queries = read_moments(annotations, needed=("qid", "query", "vid", "relevant_windows"))
    by_video: dict[str, list[dict[str, Any]]] = {}
    for query in queries:
        end = query.get("duration", float("inf"))
        if not isinstance(query["query"], str) or not query["query"].strip():
            raise DataError(f"{annotations}: query {query['qid']!r} is {query['query']!r}; it must be a sentence.")
        if beyond := [window for window in query["relevant_windows"] if window[0] < 0 or window[1] > end]:
            raise DataError(f"{annotations}: query {query['qid']!r} has the moment {beyond[0]}, and the video {end} s.")
        by_video.setdefault(str(query["vid"]), []).append(query)
    paths: dict[str, str] = {}
    for file in videos_below(root)[0]:
        name = video_key(file, by_video)
        if name in paths:
            raise DataError(f"{paths[name]} and {file} could both be the video {name!r} of {annotations}.")
        paths[name] = file
    listing = SourceListing(str(root))
    for name, about in by_video.items():
        if name not in paths:
            listing.skipped.append(Skipped(name, f"is in {annotations}, and not in {root}", "missing"))
            continue
        listed = ListedVideo(str(root / paths[name]), name, ())
        given = {str(query.get("split") or query.get("subset") or "") for query in about}
        listed.split = split_name(given.pop()) if len(given) == 1 else None
        listed.annotations = about
        listing.videos.append(listed)
    if not listing.videos:
        many = pluralize(len(by_video), "video")
        raise DataError(f"None of the {many} of {annotations}, such as {next(iter(by_video))!r}, is in {root}.")
    without = [video.name for video in listing.videos if video.split is None]
    if without and len(without) < len(listing.videos):
        raise DataError(f"{annotations}: {without[0]!r} has no split, or several, and others have one.")
    if without:
        share = TEST_SIZE if test_size is None else test_size
        for video, test in zip(listing.videos, choose_test(listing.videos, share, seed), strict=True):
            video.split = "test" if test else "train"

    def rows(video: ListedVideo) -> Iterable[MomentRow]:
        return (MomentRow(video.source, None, video.name, None, query) for query in video.annotations)

    return rows_by_split(listing, rows)
