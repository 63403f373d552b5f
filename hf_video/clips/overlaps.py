"""Of many scored stretches of videos, which overlap as windows do, the few that are worth showing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from hf_video.errors import check_count

CLOSE = 0.9  # of the score of the best window of a moment: others that reach it belong to the moment


class Stretch(NamedTuple):
    """From `start` to `end` seconds of a video, which is a path or whatever names it."""

    video: Any
    start: float
    end: float
    score: float


def join_overlapping(stretches: Sequence[Stretch]) -> list[Stretch]:
    """Stretches of one video that overlap as one, with the best score among them; the best first."""
    by_video: dict[Any, list[Stretch]] = defaultdict(list)
    for one in sorted(stretches, key=lambda one: one.start):
        mine = by_video[one.video]
        if mine and one.start < mine[-1].end:
            last = mine[-1]
            mine[-1] = last._replace(end=max(last.end, one.end), score=max(last.score, one.score))
        else:
            mine.append(one)
    return sorted((one for mine in by_video.values() for one in mine), key=lambda one: -one.score)


def choose(
    ranked: Sequence[Stretch],
    count: int | None,
    *,
    joining: int | None = None,
    merge: bool = True,
    per_video: int | None = None,
) -> list[Stretch]:
    """At most `count` (None: all) of the stretches, which are given best first, with at most `per_video` of a video.

    With `merge` no two chosen ones overlap. Of the best `joining` (default `count`) those that overlap a better one and
    come near its score make it longer; others that overlap a better one are passed over, or in a small library each
    moment would grow into its whole video. What that leaves free goes to the next ones. A larger `count` with the same
    `joining` goes on with the same list.

    Raises VideoOptionError for a `per_video` below 1.
    """
    check_count("per_video", per_video, optional=True)
    count = len(ranked) if count is None else count
    joining = count if joining is None else joining
    chosen: list[Stretch] = []
    for rank, one in enumerate(ranked):
        if rank >= joining and len(chosen) == count:
            break
        mine = [other for other in chosen if other.video == one.video]
        near = [other for other in mine if merge and one.start < other.end and other.start < one.end]
        if near:
            if rank < joining and one.score >= CLOSE * near[0].score:
                start, end = min(o.start for o in (one, *near)), max(o.end for o in (one, *near))
                chosen[chosen.index(near[0])] = near[0]._replace(start=start, end=end)
                chosen = [other for other in chosen if other not in near[1:]]
        elif per_video is None or len(mine) < per_video:
            chosen.append(one)
    return chosen[:count]
