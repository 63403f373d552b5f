"""From keyframe to wanted frames, through as few packets as possible.

Between a keyframe and a frame that is wanted, everything that other frames refer to has to be decoded; frames that
nothing refers to are dropped by the decoder (`skip_frame = NONREF`), which changes no pixel of the others. A new
start at a keyframe is worth it only if the keyframe lies between two wanted frames. Once the packets of all wanted
frames are in the decoder, it is drained instead of being fed on.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import av
from av.video.frame import PictureType

from hf_video.video.decode.container import OpenVideo
from hf_video.video.decode.frame_table import FrameTable

# Codecs whose B-frames alone are unreferenced. In a stream without them, a frame that is marked as one is damaged.
B_ONLY = ("mpeg4", "mpeg1video", "mpeg2video")
# First bytes of NAL units that hold a slice: of any, and of those that nothing refers to (H.264: nal_ref_idc is 0;
# HEVC: an even type below 16).
SLICES = {"h264": [head for head in range(128) if 1 <= head & 31 <= 5], "hevc": list(range(64))}
UNREFERENCED = {
    "h264": [head for head in SLICES["h264"] if head < 32],
    "hevc": [head for head in range(32) if not head & 2],
}


def unreferenced_check(decoder: av.VideoCodecContext) -> Callable[[av.Packet], bool]:
    """A function that says of a packet whether the decoder may be told to drop it if no other frame refers to it.

    For H.264 and HEVC these are only the packets whose own header says so: told to drop such frames, FFmpeg's H.264
    decoder no longer reports a packet in which it finds no frame. HEVC says it per temporal layer: with more than one
    layer, such a frame may still be referred to from a higher layer.
    """
    codec, extradata = decoder.name, bytes(decoder.extradata or b"")
    if codec in B_ONLY:
        has_b_frames = bool(decoder.has_b_frames)
        return lambda packet: has_b_frames
    if codec == "hevc" and hevc_layers(extradata) != 1:
        return lambda packet: False
    if codec not in SLICES:
        return lambda packet: True
    slices, unreferenced = frozenset(SLICES[codec]), frozenset(UNREFERENCED[codec])
    if extradata[:1] != b"\x01":  # NAL units are announced by a start code
        first_slice = re.compile(b"\x00\x00\x01([" + re.escape(bytes(slices)) + b"])").search
        return lambda packet: (found := first_slice(packet)) is not None and found[1][0] in unreferenced
    length_bytes = (extradata[4 if codec == "h264" else 21] & 3) + 1  # NAL units are announced by their length

    def check(packet: av.Packet) -> bool:
        data, place = memoryview(packet), length_bytes
        while place < len(data):
            if data[place] in slices:
                return data[place] in unreferenced
            place += int.from_bytes(data[place - length_bytes : place], "big") + length_bytes
        return False

    return check


def hevc_layers(extradata: bytes) -> int:
    """Number of temporal layers, from an hvcC box or from the video parameter set; 0 if it isn't there."""
    if len(extradata) > 22 and extradata[0] == 1:
        return extradata[21] >> 3 & 7
    start = extradata.find(b"\x00\x00\x01\x40\x01")
    if start < 0 or len(extradata) < start + 7:
        return 0
    return (extradata[start + 6] >> 1 & 7) + 1


PREDICTED = (PictureType.P, PictureType.B)

Deliver = Callable[[int, av.VideoFrame], None]


class DoubtError(Exception):
    """Something is not as the table says."""


class WrongTableError(DoubtError):
    """The table itself is wrong: it was made from an index that hides something."""


def segments(table: FrameTable, indices: list[int]) -> list[tuple[int, list[int]]]:
    """(position in `keys`, indices): what is read from one start."""
    segments: list[tuple[int, list[int]]] = []
    latest = -1
    for index in indices:
        key = 0 if table.access == "start" else table.key_before(index)
        if segments and (table.access == "start" or table.keys[key] <= latest):
            segments[-1][1].append(index)
        else:
            segments.append((key, [index]))
        latest = index
    return segments


def read_side_by_side(
    reader: SegmentReader, parts: list[tuple[int, list[int]]], threads: int, deliver: Deliver
) -> list[int]:
    """Reads segments in several threads: one with `reader`, the others each with a container and a decoder of its own;
    one segment alone by a decoder of several threads. Returns the indices that have to be read in another way.
    `deliver` is called by one thread at a time."""
    media, table = reader.video.media, reader.table
    if len(parts) == 1:
        with contextlib.closing(OpenVideo(media, threads=threads)) as video:
            return SegmentReader(video, table).read(*parts[0], deliver)
    # The longest first, so that the threads end at about the same time.
    longest = sorted(parts, key=lambda part: int(table.keys[part[0]]) - part[1][-1])
    left, lock = iter(longest), threading.Lock()

    def deliver_alone(index: int, frame: av.VideoFrame) -> None:
        with lock:
            deliver(index, frame)

    def read(number: int) -> list[int]:
        doubtful: list[int] = []
        with contextlib.ExitStack() as own:
            mine = reader
            if number:
                mine = SegmentReader(own.enter_context(contextlib.closing(OpenVideo(media))), table)
            while True:
                with lock:
                    part = next(left, None)
                if part is None:
                    return doubtful
                doubtful += mine.read(*part, deliver_alone)

    count = min(threads, len(parts))
    with ThreadPoolExecutor(count, "hf_video-decoder") as pool:
        try:
            return sorted(itertools.chain.from_iterable(pool.map(read, range(count))))
        finally:
            deque(left, maxlen=0)  # after an error, or an interrupt, none is begun


class SegmentReader:
    """Reads an open video along its frame table."""

    def __init__(self, video: OpenVideo, table: FrameTable):
        self.video = video
        self.table = table
        self._packets: Iterator[av.Packet] | None = None
        self._passed: int | None = None  # pts of the last keyframe whose packet was read
        self._is_unreferenced = unreferenced_check(video.decoder)

    def read(self, key: int, indices: list[int], deliver: Deliver) -> list[int]:
        """Read one segment; returns the indices that have to be read in another way."""
        left = {int(self.table.pts[i]): i for i in indices}
        # Where a keyframe is no clean start after all, the one before it usually is.
        for start in (key, key - 1) if key > 0 else (key,):
            try:
                self._decode_segment(start, left, deliver)
            except WrongTableError:
                raise
            except (DoubtError, av.FFmpegError):
                left = {int(self.table.pts[i]): i for i in indices}
                self.video.reopen()  # some decoders keep damaged headers beyond a seek
                continue
            if not left:
                return []
        return list(indices)

    def _decode_segment(self, key: int, left: dict[int, int], deliver: Deliver) -> None:
        """Decode from keyframe number `key` until every pts in `left` was delivered and removed."""
        decoder = self._at(key)
        start = int(self.table.pts[self.table.keys[key]])
        targets = set(left)
        first_target = min(targets)
        to_send = len(targets)
        previous = None
        arrived = False
        skip = None
        is_unreferenced = self._is_unreferenced
        pending: set[int] = set()  # pts of frames that were sent and have not come out
        for packet in self._packets:
            pts = packet.pts
            if packet.size:
                arrived = self._check_packet(packet, pts, first_target, arrived)
                is_target = pts in targets
                to_send -= is_target
                dropped = not is_target and is_unreferenced(packet)
                if skip != (skip := "NONREF" if dropped else "DEFAULT"):
                    decoder.skip_frame = skip
                if not dropped and pts >= start:
                    pending.add(pts)
            try:
                frames = decoder.decode(packet)
            except av.FFmpegError:
                if packet.size and pts < start:
                    continue  # shown before the keyframe, refers to what came before it: expected, and not wanted
                raise
            _check_start(frames, start)
            previous = _take(frames, left, pending, deliver, previous)
            if not left:
                break
            if to_send == 0:
                _take(decoder.decode(None), left, pending, deliver, previous)
                break
        decoder.skip_frame = "DEFAULT"

    def _check_packet(self, packet: av.Packet, pts: int | None, first_target: int, arrived: bool) -> bool:
        if pts is None or (not arrived and pts > first_target):
            raise DoubtError  # landed behind the target
        if self.table.origin == "index" and not packet.is_discard:
            stamps, keys = self.table.pts, self.table.keys
            rank = bisect_left(stamps, pts)
            if rank == len(stamps) or stamps[rank] != pts:
                raise WrongTableError
            if packet.is_keyframe and keys[self.table.key_before(rank)] != rank:
                raise WrongTableError
        if packet.is_keyframe:
            self._passed = pts
        return True

    def confirms(self, index: int) -> bool:
        """Whether the file has a keyframe at the time of frame `index`."""
        try:
            self._at(self.table.key_before(index))
            packet = next(self._packets)
        except (DoubtError, av.FFmpegError, StopIteration):
            return False
        return packet.is_keyframe and packet.pts == self.table.pts[index]

    def keyframe(self, index: int) -> av.VideoFrame | None:
        """Keyframe `index` decoded from its own packet alone, or None if that can't be done."""
        pts = int(self.table.pts[index])
        try:
            decoder = self._at(self.table.key_before(index))
            for packet in self._packets:
                if not packet.size or packet.pts is None or packet.pts > pts:
                    return None
                if packet.pts == pts:
                    frames = decoder.decode(packet) + decoder.decode(None)
                    _check_start(frames, pts)
                    return next((f for f in frames if f.pts == pts and not f.is_corrupt), None)
        except (DoubtError, av.FFmpegError):
            pass
        return None

    def _at(self, key: int) -> av.VideoCodecContext:
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
        video.decoder.skip_frame = "DEFAULT"
        return video.decoder

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
                self._packets = itertools.chain([packet], self._packets)
                return
        self._packets, self._passed = None, None
        raise DoubtError


def _check_start(frames: list[av.VideoFrame], start: int) -> None:
    """A frame that others are needed for is no keyframe, whatever the container says of its packet."""
    if any(frame.pts == start and frame.pict_type in PREDICTED for frame in frames):
        raise DoubtError


def _take(
    frames: list[av.VideoFrame], left: dict[int, int], pending: set[int], deliver: Deliver, previous: int | None
) -> int | None:
    """Deliver what was asked for; returns the pts of the last frame.

    A damaged frame, and one that did not come out in its turn, put those that may refer to it in doubt.
    """
    for frame in frames:
        pts = frame.pts
        if pts is None or (previous is not None and pts <= previous):
            raise DoubtError
        previous = pts
        if pts in pending:
            pending.remove(pts)
            if frame.is_corrupt:
                raise DoubtError
        index = left.pop(pts, None)
        if index is not None:
            if pending and min(pending) < pts:
                raise DoubtError
            deliver(index, frame)
    return previous
