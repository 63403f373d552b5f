"""Exact frames of an encoded video while decoding as few of them as possible.

Between the keyframe and a frame that is wanted, everything that other frames refer to has to be decoded; frames that
nothing refers to are dropped by the decoder (`skip_frame = NONREF`), which changes no pixel of the others. A new
start at a keyframe is worth it only if the keyframe lies between two wanted frames. Once the packets of all wanted
frames are in the decoder, it is drained instead of being fed on.

Whatever does not go as the table says (a timestamp that is not in it, frames out of order, a decoder that reports an
error) ends in the one way that is right by definition: decode from the start, and count.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Any

import av
import numpy as np

from hf_video.errors import FrameIndexError
from hf_video.video.container import OpenVideo
from hf_video.video.media import Media
from hf_video.video.packets import FrameTable, build_table, decode_all

Deliver = Callable[[int, av.VideoFrame], None]

# A short video whose frames had to be decoded to be counted is kept decoded, up to so many bytes, so that counting
# and reading cost one decode together.
KEPT_BYTES = 48 << 20


class _DoubtError(Exception):
    """Something is not as the table says."""


class _WrongTableError(_DoubtError):
    """The table itself is wrong: it was made from an index that hides something."""


class _Kept:
    """Decoded frames of a short video, or none if they are too large to keep."""

    def __init__(self) -> None:
        self.frames: list[av.VideoFrame] = []
        self._room = KEPT_BYTES

    def add(self, frame: av.VideoFrame) -> None:
        self._room -= sum(plane.buffer_size for plane in frame.planes)
        if self._room < 0:
            self.frames = []
        else:
            self.frames.append(frame)


class EncodedVideo:
    """An encoded video: its frame table, and frames by index.

    `table` may be given if it is known already (from an earlier reader of the same source).
    """

    def __init__(self, media: Media, *, threads: int = 1, table: FrameTable | None = None):
        self.media = media
        self.threads = threads
        self._table = table
        self._video: OpenVideo | None = None
        self._packets: Iterator[av.Packet] | None = None
        self._passed: int | None = None
        self._skip = "DEFAULT"
        self._kept = _Kept()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_video": None, "_packets": None, "_kept": _Kept()}

    @property
    def video(self) -> OpenVideo:
        """The open container of this process; after a fork or `close`, a new one."""
        if self._video is None or not self._video.usable():
            self._release()
            self._video = OpenVideo(self.media, threads=self.threads)
        return self._video

    @property
    def table(self) -> FrameTable:
        if self._table is None:
            self._kept = _Kept()
            self._table = build_table(self.video, self.media.label, on_frame=self._kept.add)
        return self._table

    @property
    def codec(self) -> str:
        """FFmpeg's name of the codec (not of the library that decodes it)."""
        return self.video.decoder.codec.canonical_name

    @property
    def stated_size(self) -> tuple[int, int]:
        """(height, width) in pixels that the container's header states, before rotation."""
        decoder = self.video.decoder
        return decoder.height, decoder.width

    def close(self) -> None:
        self._release()
        self._kept = _Kept()

    def _release(self) -> None:
        self._packets = None
        if self._video is not None:
            self._video.close()
            self._video = None

    def fetch(self, wanted: list[int], deliver: Deliver) -> None:
        """Call `deliver(index, frame)` for each of the sorted, distinct indices `wanted`.

        An index may be delivered twice; the second frame is the right one. One that can't be decoded is not delivered.
        """
        if self.table.pts is None:
            if len(self._kept.frames) == len(self.table):
                for index in wanted:
                    deliver(index, self._kept.frames[index])
            else:
                self._from_start(wanted, deliver)
            return
        if self.table.access == "plain":
            self._from_start(wanted, deliver)
            return
        doubtful = []
        try:
            for key, indices in self._segments(wanted):
                doubtful += self._segment(key, indices, deliver)
        except _WrongTableError:
            self._kept = _Kept()
            self._table = build_table(self.video, self.media.label, trust_index=False, on_frame=self._kept.add)
            if wanted[-1] >= len(self._table):
                raise FrameIndexError(
                    f"{self.media.label}: its index promises more frames than the {len(self._table)} that are there; "
                    f"frame {wanted[-1]} is not"
                ) from None
            self.fetch(wanted, deliver)
            return
        if doubtful:
            self._from_start(doubtful, deliver)

    def fetch_keyframes(self, wanted: list[int], deliver: Deliver) -> None:
        """As `fetch`, for indices that are all keyframes: of each of them one packet is decoded."""
        table = self.table
        if table.pts is None or table.access in ("start", "plain"):
            self.fetch(wanted, deliver)
            return
        left = []
        for index in wanted:
            try:
                frame = self._single(int(table.pts[index]), table.key_before(index))
            except (_DoubtError, av.FFmpegError):
                frame = None
            if frame is None:
                left.append(index)
            else:
                deliver(index, frame)
        if left:
            self.fetch(left, deliver)

    def frames(self) -> Iterator[tuple[int, av.VideoFrame]]:
        """(index, frame) of a sequential decode, in a container of its own so that `fetch` may be called meanwhile."""
        table = self.table
        video = OpenVideo(self.media, threads=self.threads, strict=False)
        try:
            yield from self._numbered(video, table)
        finally:
            video.close()

    def first_frame(self) -> av.VideoFrame | None:
        """The first frame that can be decoded, or None."""
        found: list[av.VideoFrame] = []
        self.fetch([0], lambda _, frame: found.append(frame))
        if found:
            return found[-1]
        return next((frame for _, frame in self.frames()), None)

    def starts_cleanly(self, index: int) -> bool:
        """Whether keyframe `index` can be decoded from its own packet alone."""
        try:
            return self._single(int(self.table.pts[index]), self.table.key_before(index)) is not None
        except (_DoubtError, av.FFmpegError):
            return False

    # -- ways to get at frames ------------------------------------------------------------------------------------

    def _numbered(self, video: OpenVideo, table: FrameTable) -> Iterator[tuple[int, av.VideoFrame]]:
        by_pts = None if table.pts is None else {int(p): i for i, p in enumerate(table.pts)}
        for count, frame in enumerate(decode_all(video)):
            index = count if by_pts is None else by_pts.get(frame.pts)
            if index is not None and index < len(table):
                yield index, frame

    def _from_start(self, wanted: list[int], deliver: Deliver) -> None:
        left, last = set(wanted), max(wanted, default=-1)
        self.video.reopen(strict=False)
        with contextlib.closing(self._numbered(self.video, self.table)) as numbered:
            for index, frame in numbered:
                if index in left:
                    left.discard(index)
                    deliver(index, frame)
                if index >= last:
                    break
        self._release()

    def _segments(self, wanted: list[int]) -> list[tuple[int, list[int]]]:
        """(position in `keys`, indices): what is read from one start."""
        table = self.table
        segments: list[tuple[int, list[int]]] = []
        latest = -1
        for index in wanted:
            key = 0 if table.access == "start" else table.key_before(index)
            if segments and (table.access == "start" or table.keys[key] <= latest):
                segments[-1][1].append(index)
            else:
                segments.append((key, [index]))
            latest = index
        return segments

    def _segment(self, key: int, indices: list[int], deliver: Deliver) -> list[int]:
        """Read one segment; returns the indices that have to be read in another way."""
        left = {int(self.table.pts[i]): i for i in indices}
        # Where a keyframe is no clean start after all, the one before it usually is.
        for start in (key, key - 1) if key > 0 else (key,):
            try:
                self._walk(start, left, deliver)
            except _WrongTableError:
                raise
            except (_DoubtError, av.FFmpegError):
                left = {int(self.table.pts[i]): i for i in indices}
                continue
            if not left:
                return []
        return list(indices)

    def _walk(self, key: int, left: dict[int, int], deliver: Deliver) -> None:
        """Decode from keyframe number `key` until every pts in `left` was delivered and removed."""
        _, decoder = self._at(key)
        start = int(self.table.pts[self.table.keys[key]])
        targets = set(left)
        first_target = min(targets)
        to_send = len(targets)
        previous = None
        arrived = False
        for packet in self._packets:
            pts = packet.pts
            if packet.size:
                arrived = self._check_packet(packet, pts, first_target, arrived)
                wanted = pts in targets
                to_send -= wanted
                decoder.skip_frame = "DEFAULT" if wanted else self._skip
            try:
                frames = packet.decode()
            except av.FFmpegError:
                if packet.size and pts < start:
                    continue  # shown before the keyframe, refers to what came before it: expected, and not wanted
                raise
            previous = _take(frames, left, deliver, previous)
            if not left:
                break
            if to_send == 0:
                _take(decoder.decode(None), left, deliver, previous)
                break
        decoder.skip_frame = "DEFAULT"

    def _check_packet(self, packet: av.Packet, pts: int | None, first_target: int, arrived: bool) -> bool:
        if pts is None or (not arrived and pts > first_target):
            raise _DoubtError  # landed behind the target
        if self.table.origin == "index" and not packet.is_discard:
            self._check_against_index(packet, pts)
        if packet.is_keyframe:
            self._passed = pts
        return True

    def _check_against_index(self, packet: av.Packet, pts: int) -> None:
        stamps, keys = self.table.pts, self.table.keys
        rank = bisect_left(stamps, pts)
        if rank == len(stamps) or stamps[rank] != pts:
            raise _WrongTableError
        if packet.is_keyframe and keys[self.table.key_before(rank)] != rank:
            raise _WrongTableError

    def _single(self, pts: int, key: int) -> av.VideoFrame | None:
        """The keyframe with this pts, decoded from its own packet alone."""
        _, decoder = self._at(key)
        for packet in self._packets:
            if not packet.size or packet.pts is None or packet.pts > pts:
                return None
            if packet.pts == pts:
                frames = packet.decode() + decoder.decode(None)
                return next((f for f in frames if f.pts == pts and not f.is_corrupt), None)
        return None

    def _at(self, key: int) -> tuple[OpenVideo, av.VideoCodecContext]:
        """Stand at keyframe number `key` with an empty decoder."""
        video, table = self.video, self.table
        pts = int(table.pts[table.keys[key]])
        if table.access == "seek" and (video.touched or key > 0):
            video.seek(pts)
            self._packets = video.packets()
        elif table.access == "pass" and key > 0:
            self._pass_to(pts)
        else:
            if video.touched:
                video.reopen()
            self._packets, self._passed = video.packets(), None
        self._skip = "NONREF" if _may_skip(video.decoder) else "DEFAULT"
        return video, video.decoder

    def _pass_to(self, pts: int) -> None:
        """Demux, without decoding, up to the keyframe with this pts."""
        video = self.video
        behind = self._packets is not None and self._passed is not None and self._passed < pts
        if not behind or not video.touched:
            video.reopen()
            self._packets = video.packets()
        else:
            video.decoder.flush_buffers()
        for packet in self._packets:
            if packet.is_keyframe and packet.pts == pts:
                self._passed = pts
                self._packets = _chain(packet, self._packets)
                return
        self._packets, self._passed = None, None
        raise _DoubtError


def _chain(first: av.Packet, rest: Iterator[av.Packet]) -> Iterator[av.Packet]:
    yield first
    yield from rest


def _take(frames: list[av.VideoFrame], left: dict[int, int], deliver: Deliver, previous: int | None) -> int | None:
    """Deliver what was asked for; returns the pts of the last frame."""
    for frame in frames:
        pts = frame.pts
        if pts is None or (previous is not None and pts <= previous) or (frame.is_corrupt and pts in left):
            raise _DoubtError
        previous = pts
        index = left.pop(pts, None)
        if index is not None:
            deliver(index, frame)
    return previous


def _may_skip(decoder: av.VideoCodecContext) -> bool:
    """Whether frames that the stream calls unreferenced are so. HEVC says it per temporal layer only: with more than
    one layer, such a frame may still be referred to from a higher layer."""
    if decoder.name != "hevc":
        return True
    return _hevc_layers(bytes(decoder.extradata or b"")) == 1


def _hevc_layers(extradata: bytes) -> int:
    """Number of temporal layers, from an hvcC box or from the video parameter set; 0 if it isn't there."""
    if len(extradata) > 22 and extradata[0] == 1:
        return extradata[21] >> 3 & 7
    start = extradata.find(b"\x00\x00\x01\x40\x01")
    if start < 0 or len(extradata) < start + 7:
        return 0
    return (extradata[start + 6] >> 1 & 7) + 1


def nearest_keyframes(table: FrameTable, indices: np.ndarray) -> np.ndarray:
    """For each frame index the keyframe whose time is nearest; of two equally near ones the earlier.
    A video without keyframes (some recordings refresh a part of every picture instead) keeps the frames asked for."""
    if not len(table.keys):
        return indices
    times = table.seconds[table.keys]
    after = np.clip(np.searchsorted(times, table.seconds[indices]), 0, len(times) - 1)
    before = np.maximum(after - 1, 0)
    goal = table.seconds[indices]
    nearer = np.where(goal - times[before] <= times[after] - goal, before, after)
    return table.keys[nearer]
