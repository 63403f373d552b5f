"""Which frames of a stream the decoder may drop because no other frame refers to them."""

from __future__ import annotations

import av

# Codecs whose B-frames alone are unreferenced. In a stream without them, a frame that is marked as one is damaged.
B_ONLY = ("mpeg4", "mpeg1video", "mpeg2video")


def may_skip_unreferenced(decoder: av.VideoCodecContext) -> bool:
    """Whether frames that the stream calls unreferenced are so. HEVC says it per temporal layer only: with more than
    one layer, such a frame may still be referred to from a higher layer."""
    if decoder.name in B_ONLY:
        return bool(decoder.has_b_frames)
    if decoder.name != "hevc":
        return True
    return hevc_layers(bytes(decoder.extradata or b"")) == 1


def hevc_layers(extradata: bytes) -> int:
    """Number of temporal layers, from an hvcC box or from the video parameter set; 0 if it isn't there."""
    if len(extradata) > 22 and extradata[0] == 1:
        return extradata[21] >> 3 & 7
    start = extradata.find(b"\x00\x00\x01\x40\x01")
    if start < 0 or len(extradata) < start + 7:
        return 0
    return (extradata[start + 6] >> 1 & 7) + 1
