"""Which frames of a stream the decoder may drop because no other frame refers to them."""

from __future__ import annotations

import re
from collections.abc import Callable

import av

# Codecs whose B-frames alone are unreferenced. In a stream without them, a frame that is marked as one is damaged.
B_ONLY = ("mpeg4", "mpeg1video", "mpeg2video")
# First bytes of NAL units that hold a slice: of any, and of those that nothing refers to (H.264: nal_ref_idc is 0;
# HEVC: an even type below 16).
SLICES = {
    "h264": [head for head in range(128) if 1 <= head & 31 <= 5],
    "hevc": list(range(64)),
}
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
