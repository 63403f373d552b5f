"""The frames of many clips of one video, such as overlapping windows, in bounded memory and with bounded work.

Clips are read in groups that share their frames. Each group starts at a keyframe of its own, so that what lies between
the keyframe and the group is decoded again; where that adds up to more than the video itself (one keyframe in an hour,
a container without a usable seek), the video is decoded once from its start, and each clip is given out as soon as its
last frame is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from hf_video.errors import DamagedVideoError, VideoError
from hf_video.video.decode.sources import Source
from hf_video.video.frames.types import VideoFrames

# Groups that decode more than this many times what one decode of the video would are not used: one pass can't drop the
# frames that nothing refers to.
MOST_DECODED = 1.5
NAMED_IN_MESSAGE = 5  # lost frames, at most


def clips_in_groups(
    get_frames: Callable[[np.ndarray], VideoFrames], groups: Sequence[Sequence[np.ndarray]]
) -> Iterator[VideoFrames]:
    """The frames of each clip, in ascending order, those of a group read together."""
    for group in groups:
        frames = get_frames(np.unique(np.concatenate(group)))
        if len(group) == 1 and np.array_equal(frames.indices, group[0]):
            yield frames
            continue
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


def apart_where_possible(source: Source, groups: Sequence[list[np.ndarray]]) -> list[list[np.ndarray]]:
    """The same groups, but for those whose clips share no frame and are decoded no cheaper together. These become
    groups of one, so that neither their frames nor copies of them wait in memory."""
    found = []
    for group in groups:
        together = np.unique(np.concatenate(group))
        is_shared = len(together) < sum(map(len, group))
        alone = 0 if is_shared else sum(source.decoded_for(clip.tolist()) for clip in group)
        found += [group] if is_shared or source.decoded_for(together.tolist()) < alone else [[clip] for clip in group]
    return found


def is_better_in_one_pass(source: Source, groups: Sequence[Sequence[np.ndarray]], limit: int) -> bool:
    """Whether `clips_in_one_pass` decodes much less than the groups do, and holds at most twice `limit` frames."""
    if len(groups) < 2:
        return False
    numbers = [np.unique(np.concatenate(group)) for group in groups]
    decoded = sum(source.decoded_for(one.tolist()) for one in numbers)
    once = 1 + max(int(one[-1]) for one in numbers)
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
            raise damaged_video_error(source, lost)
        if on_error == "repeat":
            held.update({index: nearest_good(source, index, set(lost)) for index in lost})
        shown = np.array([index for index in mine if held[index] is not None], np.int64)
        data = np.stack([held[index] for index in shown.tolist()]) if len(shown) else empty_frames(source)
        yield VideoFrames(data, shown, source.seconds[shown], tuple(lost) if on_error == "repeat" else ())
        held.update(dict.fromkeys(lost))  # lost to the next clip too
        for index in mine:
            if last_use[index] == number:
                del held[index]


def empty_frames(source: Source) -> np.ndarray:
    """No frames, of the size that frames would have: (0, height, width, 3)."""
    meta = source.describe()
    return np.empty((0, *source.target(meta.height, meta.width), 3), np.uint8)


def nearest_good(source: Source, index: int, missing: set[int]) -> np.ndarray:
    """Pixels of the good frame nearest to a lost one; the earlier of two equally near."""
    best: tuple[int, int, np.ndarray] | None = None

    def keep(candidate: int, pixels: np.ndarray) -> None:
        nonlocal best
        key = abs(candidate - index), candidate
        if best is None or key <= best[:2]:
            best = (*key, pixels.copy())

    count, reach = len(source.seconds), 1
    while best is None:
        near = range(max(0, index - reach), min(count, index + reach + 1))
        source.fetch([i for i in near if i not in missing], keep)
        if best is None and len(near) == count:
            raise damaged_video_error(source, list(near))
        reach *= 8
    return best[2]


def damaged_video_error(source: Source, missing: list[int]) -> VideoError:
    """The exception that names lost frames by number and by second."""
    seconds = source.seconds[missing]
    pairs = list(zip(missing, seconds, strict=True))
    named = ", ".join(f"{i} ({t:.3f} s)" for i, t in pairs[:NAMED_IN_MESSAGE])
    rest = len(pairs) - NAMED_IN_MESSAGE
    more = f" and {rest} more, up to {seconds[-1]:.3f} s," if rest > 0 else ""
    return DamagedVideoError(
        f"{source.label} is damaged: frame {named}{more} can't be decoded; "
        'read it with on_error="skip" or on_error="repeat", or repair the file',
        seconds=tuple(seconds.tolist()),
        indices=tuple(missing),
    )
