"""Exact frames of an encoded video while decoding as few of them as possible.

`Walker` reads what is wanted from keyframe to keyframe. Whatever does not go as the table says (a timestamp that is
not in it, frames out of order, a decoder that reports an error) ends in the one way that is right by definition:
decode from the start, and count.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import av
import numpy as np

from hf_video.errors import FrameIndexError
from hf_video.video.decode.container import OpenVideo
from hf_video.video.decode.frame_table import FrameTable
from hf_video.video.decode.media import Media
from hf_video.video.decode.packets import REORDER, build_table, decode_all
from hf_video.video.decode.walking import Deliver, Walker, WrongTableError, segments

# A short video whose frames had to be decoded to be counted is kept decoded, up to so many bytes, so that counting
# and reading cost one decode together.
KEPT_BYTES = 48 << 20


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
        self._walker: Walker | None = None
        self._kept = _Kept()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_video": None, "_walker": None, "_kept": _Kept()}

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
            self._make_table()
        return self._table

    def _make_table(self, *, trust_index: bool = True) -> None:
        self._kept, self._walker = _Kept(), None
        promised = self._table
        table = build_table(self.video, self.media.label, trust_index=trust_index, on_frame=self._kept.add)
        table = table if promised is None else promised.corrected(table)
        if self.video.decoder is not self.video.stream.codec_context:
            # Opacity has keyframes of its own, which the container doesn't list.
            table = dataclasses.replace(table, access="plain")
        self._table = table

    def _correct_table(self, last: int) -> None:
        """Make the table from the packets; raises `FrameIndexError` if frame `last` turns out not to be there."""
        self._make_table(trust_index=False)
        if last >= len(self.table):
            raise FrameIndexError(
                f"{self.media.label}: its index promises more frames than the {len(self.table)} that are there; "
                f"frame {last} is not"
            )

    def _walk(self) -> Walker:
        video = self.video
        if self._walker is None:
            self._walker = Walker(video, self.table)
        return self._walker

    @property
    def codec(self) -> str:
        """FFmpeg's name of the codec (not of the library that decodes it)."""
        return self.video.decoder.codec.canonical_name

    @property
    def stated_size(self) -> tuple[int, int]:
        """(height, width) in pixels that the container's header states, before rotation."""
        return self.video.stated_size

    def close(self) -> None:
        self._release()
        self._kept = _Kept()

    def _release(self) -> None:
        self._walker = None
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
            for key, indices in segments(self.table, wanted):
                doubtful += self._walk().read(key, indices, deliver)
        except WrongTableError:
            self._correct_table(wanted[-1])
            self.fetch(wanted, deliver)
            return
        if doubtful:
            self._from_start(doubtful, deliver)

    def decoded_for(self, wanted: list[int]) -> int:
        """How many frames `fetch` has to go through for these sorted indices, in frames decoded."""
        table = self.table
        if table.pts is None or table.access == "plain":
            return 0 if table.pts is None and len(self._kept.frames) == len(table) else wanted[-1] + 1
        parts = segments(table, wanted)
        decoded = sum(indices[-1] + 1 - int(table.keys[key]) for key, indices in parts)
        # Packets that are passed over are cheap, not free.
        return decoded + (int(table.keys[parts[0][0]]) // 8 if table.access == "pass" else 0)

    def in_order(self, last: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """(index, frame) of a sequential decode that goes as far as frame `last`, in a container of its own."""
        if self.table.origin == "index":
            self._correct_table(last)
        with contextlib.closing(OpenVideo(self.media, threads=self.threads, strict=False)) as video:
            yield from self._numbered(video, self.table)

    def nearest_keyframes(self, indices: np.ndarray) -> np.ndarray:
        """For each frame index that of the keyframe nearest in time; see `FrameTable.nearest_keyframes`."""
        keys = self.table.nearest_keyframes(indices)
        if self.table.origin == "index" and not all(map(self._walk().confirms, set(keys.tolist()))):
            self._correct_table(int(indices.max()))
            keys = self.table.nearest_keyframes(indices)
        return keys

    def fetch_keyframes(self, wanted: list[int], deliver: Deliver) -> None:
        """As `fetch`, for indices that are all keyframes: of each of them one packet is decoded."""
        table = self.table
        if table.pts is None or table.access in ("start", "plain"):
            self.fetch(wanted, deliver)
            return
        left = []
        for index in wanted:
            frame = self._walk().keyframe(index)
            if frame is None:
                left.append(index)
            else:
                deliver(index, frame)
        if left:
            self.fetch(left, deliver)

    def frames(self) -> Iterator[tuple[int, av.VideoFrame]]:
        """(index, frame) of a sequential decode, in a container of its own so that `fetch` may be called meanwhile."""
        if self.table.origin == "index":
            # A decode of everything is worth the certainty that one pass over the packets gives.
            self._make_table(trust_index=False)
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
        return self._walk().keyframe(index) is not None

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
                if not left or index >= last + REORDER:  # damaged streams give frames in disorder
                    break
        self._release()
