"""The frames of many clips of one video, such as overlapping windows, in bounded memory and with bounded work.

Clips are read in groups that share their frames. Each group starts at a keyframe of its own, so that what lies between
the keyframe and the group is decoded again; where that adds up to more than the video itself (one keyframe in an hour,
a container without a usable seek), the video is decoded once from its start, and each clip is given out as soon as its
last frame is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from hf_video.video.decode.collecting import damage, empty_frames, nearest_good
from hf_video.video.decode.sources import Source
from hf_video.video.frames.types import VideoFrames

# Groups that decode more than this many times what one decode of the video would are not used: one pass can't drop the
# frames that nothing refers to.
MOST_DECODED = 1.5


def clips_in_groups(
    get_frames: Callable[[np.ndarray], VideoFrames], groups: Sequence[Sequence[np.ndarray]]
) -> Iterator[VideoFrames]:
    """The frames of each clip, in ascending order, those of a group read together."""
    for group in groups:
        frames = get_frames(np.unique(np.concatenate(group)))
        for clip in group:
            rows = np.flatnonzero(np.isin(frames.indices, clip))
            repeated = tuple(index for index in frames.repeated if index in clip)
            yield VideoFrames(frames.data[rows], frames.indices[rows], frames.seconds[rows], repeated)


def groups_of(clips: Sequence[np.ndarray], limit: int) -> list[list[np.ndarray]]:
    """Consecutive clips that have at most `limit` different frames together, each at least one clip."""
    groups: list[list[np.ndarray]] = []
    numbers: set[int] = set()
    for clip in clips:
        new = set(clip.tolist()) - numbers
        if not groups or len(numbers) + len(new) > limit:
            groups.append([])
            numbers, new = set(), set(clip.tolist())
        groups[-1].append(clip)
        numbers |= new
    return groups


def is_better_in_one_pass(source: Source, groups: Sequence[Sequence[np.ndarray]], limit: int) -> bool:
    """Whether `clips_in_one_pass` decodes much less than the groups do, and holds at most twice `limit` frames."""
    if len(groups) < 2:
        return False
    wanted = [np.unique(np.concatenate(group)) for group in groups]
    decoded = sum(source.decoded_for(one.tolist()) for one in wanted)
    once = 1 + max(int(one[-1]) for one in wanted)
    return decoded > MOST_DECODED * once and _most_held([clip for group in groups for clip in group]) <= 2 * limit


def _most_held(clips: Sequence[np.ndarray]) -> int:
    """The most frames in memory at once where one pass keeps each until the last clip that needs it."""
    reached = np.maximum.accumulate([clip[-1] for clip in clips])  # how far the video has been read for each clip
    numbers = np.concatenate(clips)
    owner = np.repeat(np.arange(len(clips)), [len(clip) for clip in clips])
    order = np.lexsort((owner, numbers))
    last = order[np.append(np.diff(numbers[order]) > 0, True)]  # of each frame, where it is needed last
    change = np.zeros(len(clips) + 1, np.int64)
    np.add.at(change, np.searchsorted(reached, numbers[last]), 1)
    np.add.at(change, owner[last] + 1, -1)
    return int(np.cumsum(change).max())


def clips_in_one_pass(source: Source, clips: Sequence[np.ndarray], on_error: str) -> Iterator[VideoFrames]:
    """The same frames as `clips_in_groups` gives, from one sequential decode."""
    last_use: dict[int, int] = {}
    for number, clip in enumerate(clips):
        last_use.update(dict.fromkeys(clip.tolist(), number))
    frames = source.in_order(sorted(last_use))
    held: dict[int, np.ndarray | None] = {}
    for number, clip in enumerate(clips):
        mine = clip.tolist()
        while mine[-1] not in held:
            index, pixels = next(frames)
            held[index] = pixels
        lost = [index for index in mine if held[index] is None]
        if lost and on_error == "raise":
            raise damage(source, lost)
        if on_error == "repeat":
            held.update({index: nearest_good(source, index, set(lost)) for index in lost})
        shown = np.array([index for index in mine if held[index] is not None], np.int64)
        data = np.stack([held[index] for index in shown.tolist()]) if len(shown) else empty_frames(source)
        yield VideoFrames(data, shown, source.seconds[shown], tuple(lost) if on_error == "repeat" else ())
        held.update(dict.fromkeys(lost))  # lost to the next clip too
        for index in mine:
            if last_use[index] == number:
                del held[index]
