"""torchcodec as decoder, for those who ask for it by name.

It is used only where its frames were measured to be those of a sequential decode: progressive 8-bit 4:2:0 video in
mp4/mov or matroska/webm whose frames have a timestamp each, with clean keyframes, without rotation and without a change
of size. It is wrong or fails on avi with B-frames, mpeg-ts, mpeg-ps, raw streams, intra refresh and joined sizes, and
converts 10-bit and interlaced colour in its own way; there the frames come from PyAV, and `VideoReader.backend` says
so.

One difference can't be seen beforehand: in a file with damaged bits inside, what can't be decoded is guessed in its own
way. PyAV, the default, gives what a sequential decode gives there too.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from hf_video.errors import BackendError
from hf_video.video.decode.container import Media
from hf_video.video.decode.encoded import DeliverPixels, EncodedSource

EXACT_CONTAINERS = ("mov", "matroska")
EXACT_CODECS = frozenset({"h264", "hevc", "vp9", "av1"})
EXACT_FORMATS = frozenset({"yuv420p"})


def load_torchcodec() -> Any:
    """`torchcodec.decoders.VideoDecoder`. The package can be installed and still not load (it needs an FFmpeg of the
    system), so it is imported to find out. Raises `BackendError`."""
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, OSError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise BackendError(
            f"backend='torchcodec' can't be used here ({reason}); install torchcodec and FFmpeg, or leave "
            "backend='auto', which is exact on every file and needs neither"
        ) from None
    return VideoDecoder


class TorchcodecSource(EncodedSource):
    """Frames from torchcodec where it is exact, else from PyAV; times and counts are always those of the table."""

    def __init__(self, media: Media, **options: Any):
        load_torchcodec()
        super().__init__(media, **options)
        self._decoder: Any = None
        self._decoder_pid: int | None = None
        self._exact: bool | None = None

    @property
    def backend(self) -> str:
        return "torchcodec" if self._is_exact() else "pyav"

    def _is_exact(self) -> bool:
        if self._exact is None:
            self._exact = self._looks_exact() and self._agrees()
        return self._exact

    def _looks_exact(self) -> bool:
        video, table = self._video.video, self._video.table
        return (
            video.kind.startswith(EXACT_CONTAINERS)
            and self._video.codec in EXACT_CODECS
            and getattr(video.decoder.format, "name", "") in EXACT_FORMATS
            and table.pts is not None
            and table.access == "seek"
            and len(table.keys) > 0
            and int(table.keys[0]) == 0
            and self._scaler == "exact"
            and video.media.kind != "url"
        )

    def _agrees(self) -> bool:
        """Whether it counts the same frames, of the same size and upright."""
        height, width, rotation = self._first_frame()
        keys = self._video.table.keys
        if rotation or self._interlaced or (height, width) != self._video.stated_size:
            return False
        if not all(self._video.starts_cleanly(int(key)) for key in {keys[len(keys) // 2], keys[-1]}):
            return False
        try:
            about = self._open().metadata
        except (RuntimeError, ValueError):
            return False
        same_start = abs((about.begin_stream_seconds or 0.0) - float(self.seconds[0])) < 1e-3
        same_size = (about.height, about.width) == (height, width)
        return about.num_frames == len(self.seconds) and same_size and same_start and self._shows_the_same()

    def _shows_the_same(self) -> bool:
        """Whether a few frames have PyAV's pixels: that tells mirrors, first frames of a cut, and colours."""
        count = len(self.seconds)
        chosen = sorted({0, min(1, count - 1), count // 2, count - 1})
        expected: dict[int, np.ndarray] = {}
        super().fetch(chosen, lambda index, pixels: expected.update({index: pixels.copy()}))
        try:
            decoder = self._open()
            found = {i: self._sizing.apply(decoder.get_frame_at(i).data.numpy(), self._aspect) for i in chosen}
        except RuntimeError:
            return False
        return all(index in expected and np.array_equal(expected[index], found[index]) for index in chosen)

    def _open(self) -> Any:
        if self._decoder is None or self._decoder_pid != os.getpid():
            media = self._video.media
            source = media.value if media.kind in ("path", "bytes") else media.stream()
            threads = self._video.threads
            self._decoder_pid = os.getpid()
            self._decoder = load_torchcodec()(
                source, stream_index=self._video.video.stream.index, dimension_order="NHWC",
                num_ffmpeg_threads=threads, seek_mode="exact",
            )  # fmt: skip
        return self._decoder

    def fetch(self, indices: list[int], deliver: DeliverPixels, *, keyframes: bool = False) -> None:
        if keyframes or not self._is_exact():
            super().fetch(indices, deliver, keyframes=keyframes)
            return
        decoder = self._open()
        for done, index in enumerate(indices):
            try:
                pixels = decoder.get_frame_at(index).data.numpy()
            except RuntimeError:  # a damaged part: PyAV says which frames are lost
                super().fetch(indices[done:], deliver)
                return
            deliver(index, self._sizing.apply(pixels, self._aspect))

    def decoded_for(self, indices: list[int]) -> int:
        return 0 if self._is_exact() else super().decoded_for(indices)  # it goes on from where it stands

    def close(self) -> None:
        self._decoder = None
        super().close()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_decoder": None}
