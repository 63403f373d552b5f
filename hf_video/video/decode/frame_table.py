"""The table of a video's frames, made from its packets without decoding them.

Frame *i* is the *i*-th frame that a full sequential decode yields. Containers don't say which one that is: they store
packets in decoding order, with presentation times (pts) that may be missing, repeated, wrong or cut by an edit list.
`build_table` finds the cheapest way that is still right:

1. mp4/mov whose sample table is complete and regular: no packet is read (only the last few, to check the end).
2. one pass over the packets, no decoding: pts in display order, and which of them are keyframes.
3. one full decode, where packets and frames are known to disagree: no or repeated pts, avi with B-frames, timestamps
   that jump back or that are decoding times. Then frames can only be told apart by counting them.

A cut-off end, or a beginning that is no clean keyframe, is settled by decoding just that part.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace

import av
import numpy as np

from hf_video.errors import NoFramesError
from hf_video.video.decode.container import OpenVideo

# Demuxers whose seek was measured to land on, or before, the keyframe that was asked for.
SEEKABLE = ("mov", "matroska", "avi", "flv", "asf")
# Demuxers that can't seek exactly, but whose keyframe flags are right: packets before the keyframe are passed over.
PASSABLE = ("mpegts", "mpeg", "ivf")
# Decoders that carry something over from one keyframe to the next. So do pictures with a palette: it comes with the
# first packet.
STATEFUL = ("dirac",)
# More frames than any codec may hold back for reordering; what lies further apart was not reordered by a codec.
REORDER = 32
# Stretches of a video, and frames of each, that are decoded where the order of its timestamps is in doubt.
PROBES, PROBED_FRAMES = 4, 2 * REORDER
# A coded MPEG-4 frame of this size or less may be a placeholder that yields no frame of its own.
PLACEHOLDER_BYTES = 16


@dataclass(frozen=True)
class FrameTable:
    """`pts` (int64, in display order) names frames by timestamp; it is None if they can only be counted.

    `seconds` (float64) are presentation times, `keys` (int64) the indices of keyframes, `end` is when the last frame
    ends, in seconds. `access` says how to start at a keyframe: `seek` to it, `pass` over the packets before it, or
    decode from the `start`; `plain` is for streams with damage inside: decode from the start and skip nothing, because
    what is concealed depends on everything before it. `origin` is what the table was made from: `index`, `packets` or
    `decode`. `rebuilt` is True if the file's times contradict the decoder's order, so that `seconds` are counted from
    the rate.
    """

    pts: np.ndarray | None
    seconds: np.ndarray
    keys: np.ndarray
    end: float
    access: str
    origin: str
    rebuilt: bool = False

    def __len__(self) -> int:
        return len(self.seconds)

    def key_before(self, index: int) -> int:
        """Position in `keys` of the last keyframe at or before frame `index`."""
        return int(np.searchsorted(self.keys, index, side="right")) - 1

    def nearest_keyframes(self, indices: np.ndarray) -> np.ndarray:
        """For each frame index the keyframe whose time is nearest; of two equally near ones the earlier.

        A video without keyframes (some recordings refresh a part of every picture instead) keeps the frames asked
        for.
        """
        if not len(self.keys):
            return indices
        times, goal = self.seconds[self.keys], self.seconds[indices]
        after = np.clip(np.searchsorted(times, goal), 0, len(times) - 1)
        before = np.maximum(after - 1, 0)
        return self.keys[np.where(goal - times[before] <= times[after] - goal, before, after)]

    def corrected(self, seen: FrameTable) -> FrameTable:
        """This table, made from an index, after the packets were `seen`.

        Where they only lack some of the frames, the index was right and the file is damaged: frames keep their numbers,
        and the lost ones are found out when they are read.
        """
        if self.pts is None or seen.pts is None or len(seen) >= len(self) or not np.isin(seen.pts, self.pts).all():
            return seen
        keys = np.searchsorted(self.pts, seen.pts[seen.keys])
        return FrameTable(self.pts, self.seconds, keys, self.end, "plain", seen.origin)


def build_table(
    video: OpenVideo,
    label: str,
    *,
    trust_index: bool = True,
    on_frame: Callable[[av.VideoFrame], None] = lambda _: None,
) -> FrameTable:
    """The table of an opened video; packets may be read, so the video stands anywhere afterwards.

    If all frames have to be decoded for it, `on_frame` sees them in order.
    Raises `NoFramesError` if there is nothing to decode.
    """
    table = _from_index(video) if trust_index else None
    if table is None:
        table = _from_packets(video)
    if table is None:
        table = _from_decode(video, on_frame)
    if not video.strict:
        video.reopen(strict=True)
    if not len(table):
        raise NoFramesError(f"{label}: not one frame of its {video.decoder.name} video stream can be decoded")
    return table


def _from_index(video: OpenVideo) -> FrameTable | None:
    """The sample table of mp4 and mov, which FFmpeg has parsed already, or None if it leaves a doubt."""
    stream = video.stream
    count = stream.frames
    if not video.kind.startswith("mov") or not count or stream.start_time is None or video.touched:
        return None
    entries = stream.index_entries
    if len(entries) != count:
        return None
    size = video.container.size
    stamps = np.empty(count, np.int64)
    keys = []
    for number, entry in enumerate(entries):
        stamps[number] = entry.timestamp
        if entry.is_discard or (size > 0 and entry.pos + entry.size > size):
            return None
        if entry.is_keyframe:
            keys.append(number)
    step = int(stamps[1] - stamps[0]) if count > 1 else int(stream.duration or 1)
    if step <= 0 or np.any(np.diff(stamps) != step) or not keys or keys[0] != 0:
        return None
    pts = stream.start_time + step * np.arange(count, dtype=np.int64)
    if not _end_is_regular(video, pts):
        return None
    # Index entries are in decoding order. For a keyframe that is its display rank too, unless frames that follow it
    # in the file are shown before it (open GOP); the decoder notices that and asks for a table from the packets.
    return _timed(video, pts, np.array(keys, np.int64), int(step), "index")


def _end_is_regular(video: OpenVideo, pts: np.ndarray) -> bool:
    """Decoding times are presentation times shifted by the reorder delay, so equal steps of the first leave only the
    last few presentation times open; those are read. Where they are in decoding order although the codec reorders,
    all packets have to be looked at."""
    near = max(0, len(pts) - 2 * REORDER)
    video.touched = True
    try:
        video.container.seek(int(pts[near]), stream=video.stream, backward=True, any_frame=True)
        read = [p.pts for p in video.packets() if p.size and p.pts is not None]
    except av.FFmpegError:
        return False
    found = sorted(read)
    if len(found) > 1 and found == read and video.decoder.has_b_frames:
        return False
    # Frames near the seek point may lie on either side of it; the last ones are all there.
    tail = pts[-min(REORDER, len(pts)) :].tolist()
    return found[-len(tail) :] == tail


def _timed(video: OpenVideo, pts: np.ndarray, keys: np.ndarray, last: int, origin: str) -> FrameTable:
    tick = video.stream.time_base
    seconds = pts * tick.numerator / tick.denominator
    end = float((int(pts[-1]) + last) * tick) if len(pts) else 0.0
    kind = video.kind  # below, `format` and not `pix_fmt`, with which PyAV 17 may end the interpreter
    if video.decoder.name in STATEFUL or getattr(video.decoder.format, "name", "") == "pal8":
        return FrameTable(pts, seconds, keys, end, "start", origin)
    access = "seek" if kind.startswith(SEEKABLE) else "pass" if kind.startswith(PASSABLE) else "start"
    return FrameTable(pts, seconds, keys, end, access, origin)


@dataclass
class _Scan:
    """What one pass over the packets saw, in decoding order. `whole` is False if the file is cut off or damaged;
    `countable` is False if a packet showed that packets and frames can't be told to agree; `damaged_inside` is True if
    the demuxer marked a packet before the last one as corrupt."""

    pts: np.ndarray
    keys: np.ndarray
    durations: np.ndarray
    whole: bool
    countable: bool
    damaged_inside: bool


def _from_packets(video: OpenVideo) -> FrameTable | None:
    """A table from one demuxing pass, or None if frames have to be counted by decoding."""
    scan = _scan(video)
    pts, keys = scan.pts, scan.keys
    if not scan.countable or len(np.unique(pts)) != len(pts):
        return None
    if not len(pts):
        return _timed(video, pts, np.empty(0, np.int64), 0, "packets")
    if video.kind == "avi" and not keys.all() and (video.decoder.has_b_frames or np.any(np.diff(pts) <= 0)):
        return None  # avi stores no presentation times; what FFmpeg guesses is wrong for reordered frames
    order = np.argsort(pts)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    if not _is_codec_order(pts, keys, rank) or not _decoder_agrees(video, pts, keys):
        return None
    key_ranks = np.sort(rank[keys])
    table = _timed(video, pts[order], key_ranks, _last_duration(pts[order], scan), "packets")
    if scan.damaged_inside:
        table = replace(table, access="plain")
    clean_start = bool(keys[0]) and rank[0] == 0
    if clean_start and scan.whole:
        return table
    return _trim(video, table, head=not clean_start, tail=not scan.whole)


def _scan(video: OpenVideo) -> _Scan:
    pts: list[int] = []
    keys: list[bool] = []
    whole = countable = True
    damaged_inside = False
    durations: list[int] = []
    codec = video.decoder.codec.canonical_name
    if video.touched:
        video.reopen()
    try:
        for packet in video.packets():
            if packet.size == 0:
                countable &= packet.dts is None  # an empty packet that is not the last one stops some decoders
                continue
            # VP8 stores frames that are only referred to as packets of their own (RFC 6386, 9.1: show_frame is bit 4).
            if packet.is_discard or (codec == "vp8" and not memoryview(packet)[0] & 0x10):
                continue
            if packet.pts is None or (codec == "mpeg4" and packet.size <= PLACEHOLDER_BYTES):
                countable = False
                break
            damaged_inside |= not whole
            whole &= not packet.is_corrupt
            pts.append(packet.pts)
            keys.append(packet.is_keyframe)
            durations.append(packet.duration or 0)
    except av.FFmpegError:
        whole = False
    # The sample table of an mp4 or mov may promise bytes past the end of the file.
    size = video.container.size if video.kind.startswith("mov") else 0
    is_cut = size > 0 and any(entry.pos + entry.size > size for entry in video.stream.index_entries)
    return _Scan(
        pts=np.array(pts, np.int64),
        keys=np.array(keys, bool),
        durations=np.array(durations, np.int64),
        whole=whole and not is_cut and video.kind != "obu",  # a bare stream doesn't say where it ends
        countable=countable,
        damaged_inside=damaged_inside,
    )


def _is_codec_order(pts: np.ndarray, keys: np.ndarray, rank: np.ndarray) -> bool:
    """Whether decoding and display order differ only as codecs make them differ.

    Streams joined without care have timestamps that jump back; sorting them would not give the order of a decode.
    Nothing before a keyframe in the file may be shown after it, and no frame may move further than codecs allow.
    """
    if np.abs(rank - np.arange(len(rank))).max() > REORDER:
        return False
    latest = np.maximum.accumulate(pts)
    return bool(np.all(latest[:-1][keys[1:]] < pts[1:][keys[1:]]))


def _decoder_agrees(video: OpenVideo, pts: np.ndarray, keys: np.ndarray) -> bool:
    """Whether frames come out of the decoder in the order of their timestamps.

    Containers that were filled from a bare stream often carry decoding times as presentation times. They can't be told
    from those of a stream without B-frames, so where a codec that reorders shows no reordered packet from one keyframe
    to the next, a few of these stretches are decoded.
    """
    if not video.decoder.has_b_frames:
        return True
    starts = np.union1d(np.flatnonzero(keys), [0])
    bounds = np.append(starts, len(pts))
    late = np.append(np.diff(pts) < 0, False)
    plain = [a for a, b in itertools.pairwise(bounds.tolist()) if b - a > 1 and not late[a : b - 1].any()]
    if not plain:
        return True
    if video.kind.startswith(SEEKABLE):
        plain = [plain[i] for i in sorted({len(plain) * k // PROBES for k in range(PROBES)})]
    else:
        plain = [0]
    for start in plain:
        with contextlib.closing(_decoded_from(video, int(pts[start]) if start else None)) as frames:
            stamps = [frame.pts for frame in itertools.islice(frames, PROBED_FRAMES)]
        if None in stamps or any(a >= b for a, b in itertools.pairwise(stamps)):
            return False
    return True


def _last_duration(pts: np.ndarray, scan: _Scan) -> int:
    """How long the last frame is shown: what its packet says, if what packets say fits the times from one to the next
    (avi counts in ticks of a rate that may be a multiple of the video's)."""
    stated = int(scan.durations[np.argmax(scan.pts)])
    if len(pts) < 2:
        return max(stated, 1)
    step = float(np.median(np.diff(pts)))
    fits = step * 0.6 <= np.median(scan.durations) <= step * 1.6
    return stated if stated > 0 and fits else max(int(step), 1)


def _trim(video: OpenVideo, table: FrameTable, *, head: bool, tail: bool) -> FrameTable:
    """Leave out the packets at either end that yield no frame in a sequential decode."""
    keep = np.ones(len(table), bool)
    if head:
        until = int(table.keys[1]) if len(table.keys) > 1 else len(table)
        keep[:until] &= np.isin(table.pts[:until], _decoded_pts(video, None, int(table.pts[until - 1])))
    if tail and len(table.keys):
        start = int(table.keys[-2]) if len(table.keys) > 1 else 0
        keep[start:] &= np.isin(table.pts[start:], _decoded_pts(video, start and int(table.pts[start]), None))
    keys = np.zeros(len(table), bool)
    keys[table.keys] = True
    last = table.end - table.seconds[-1]
    seconds = table.seconds[keep]
    end = float(seconds[-1] + last) if len(seconds) else 0.0
    keys = np.flatnonzero(keys[keep])
    # What is shown before the first keyframe can only be had from the first packet on.
    access = table.access if len(keys) and keys[0] == 0 else "plain"
    return FrameTable(table.pts[keep], seconds, keys, end, access, table.origin)


def _decoded_pts(video: OpenVideo, start: int | None, until: int | None) -> np.ndarray:
    """Timestamps of the frames that come out between two times (None: from the first packet, to the last)."""
    found = []
    for frame in _decoded_from(video, start):
        if frame.pts is not None:
            found.append(frame.pts)
            if until is not None and frame.pts > until:
                break
    return np.array(found, np.int64)


def _decoded_from(video: OpenVideo, start: int | None) -> Generator[av.VideoFrame, None, None]:
    video.reopen(strict=False)
    if start and video.kind.startswith(SEEKABLE):
        try:
            video.seek(start)
        except av.FFmpegError:
            video.reopen()
    return video.frames()


def _from_decode(video: OpenVideo, on_frame: Callable[[av.VideoFrame], None]) -> FrameTable:
    """Count the frames by decoding them all."""
    video.reopen(strict=False)
    stamps, keys = [], []
    for frame in video.frames():
        stamps.append(frame.pts)
        keys.append(bool(frame.key_frame))
        on_frame(frame)
    keys = np.flatnonzero(np.array(keys, bool))
    seconds, step, rebuilt = _decoded_times(video, stamps)
    end = float(seconds[-1]) + step if len(stamps) else 0.0
    return FrameTable(None, seconds, keys, end, "start", "decode", rebuilt)


def _decoded_times(video: OpenVideo, stamps: list[int | None]) -> tuple[np.ndarray, float, bool]:
    """(seconds, step in seconds, rebuilt) of frames that carry these timestamps in the order of their decoding.

    Times that contradict that order are counted from the rate. Where equal steps would miss what the timestamps show,
    and these are only shuffled as codecs shuffle frames, they are put into order.
    """
    tick, count = float(video.stream.time_base), len(stamps)
    begin = (video.stream.start_time or 0) * tick
    step = float(1 / (video.stream.guessed_rate or video.stream.average_rate or 25))
    known = np.sort(np.array([stamp for stamp in stamps if stamp is not None], np.int64))
    if len(known) < max(2, 0.9 * count):
        return begin + step * np.arange(count), step, count > 1
    usual, mean = float(np.median(np.diff(np.unique(known)))), float(np.ptp(known)) / (len(known) - 1)
    likely = [ticks for ticks in (step / tick, usual, mean) if 0.1 * step < ticks * tick < 10 * step]
    equal = next((ticks for ticks in likely if _lie_evenly(known, ticks)), None)
    ordered = len(known) == count and bool(np.all(np.diff(stamps) > 0))
    if video.kind == "avi" and video.decoder.has_b_frames:
        ordered &= equal is None  # avi stores no presentation times; equal steps are the rate's
    if equal is not None:
        step = equal * tick
    elif usual in likely and abs(usual * tick - step) > tick:
        step = usual * tick
    if ordered:
        return np.array(stamps, np.float64) * tick, step, False
    shuffled = len(known) == count and np.abs(np.argsort(stamps) - np.arange(count)).max() <= REORDER
    if equal is None and shuffled and len(np.unique(known)) == count:
        return begin + (known - known[0]) * tick, step, True
    return begin + step * np.arange(count), step, True


def _lie_evenly(known: np.ndarray, ticks: float) -> bool:
    """Whether sorted timestamps are `ticks` apart, but for rounding and a few at the ends."""
    each = np.abs(np.diff(known) - ticks) <= (1 if ticks >= 4 else 0.4)
    return each.mean() >= 0.9 and abs(np.ptp(known) - ticks * (len(known) - 1)) <= max(2.5, ticks)
