"""Moments that sentences describe, in files of QVHighlights' form: one JSON object on each line (Lei et al., NeurIPS
2021; jayleicn/moment_detr, data/README.md)."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_video.errors import DataError, is_number, near_path


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
