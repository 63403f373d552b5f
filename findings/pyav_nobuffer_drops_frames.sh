#!/usr/bin/env bash
# PyAV, FFmpeg, OpenCV: `fflags=nobuffer`, given for low latency, drops the frames that were read to find the streams.
#
# Versions: PyAV 18.1.0 with its own FFmpeg; OpenCV 5.0.0 loses the same frames of the MP4 file with the environment
#           variable OPENCV_FFMPEG_CAPTURE_OPTIONS="fflags;nobuffer".
# Guess:    FFmpeg's manual has "reduce the latency introduced by buffering during initial input streams analysis": the
#           same frames come, earlier.
# Seen:     Packets that are read while streams are analysed are handed out afterwards from a buffer; with the flag
#           there is none, and they are gone, without a word. How many depends on the container, and decoding begins at
#           the next keyframe: an MP4 or Matroska file loses its first group of pictures, an AVI file a frame, a raw
#           H.264 stream several groups, and of an FLV file of four seconds nothing is left. MPEG-TS loses nothing.
# Output:   mpegts: 100 frames; with nobuffer 100, the first is number 0
#           mp4: 100 frames; with nobuffer 88, the first is number 12
#           matroska: 100 frames; with nobuffer 88, the first is number 12
#           avi: 100 frames; with nobuffer 99, the first is number 1
#           h264: 100 frames; with nobuffer 41, the first is number 59
#           flv: 100 frames; with nobuffer 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 av==18.1.0
cd "$folder"
venv/bin/python - <<'PY'
import av
import numpy as np

CODECS = {
    "mpegts": "libx264", "mp4": "libx264", "matroska": "libx264", "avi": "mpeg4", "h264": "libx264", "flv": "libx264",
}


def numbers(path, options):
    """The grey level of each frame, which is twice its number."""
    with av.open(path, options=options) as video:
        return [round(frame.to_ndarray(format="gray").mean() / 2) for frame in video.decode(video=0)]


seen = {}
for container, codec in CODECS.items():
    with av.open("clip", "w", format=container) as file:
        stream = file.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 320, 240, "yuv420p", 12
        for number in range(100):
            frame = av.VideoFrame.from_ndarray(np.full((240, 320, 3), 2 * number, np.uint8), format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    whole, quick = numbers("clip", {}), numbers("clip", {"fflags": "nobuffer"})
    first = f", the first is number {quick[0]}" if quick else ""
    print(f"{container}: {len(whole)} frames; with nobuffer {len(quick)}{first}")
    assert len(whole) == 100, whole
    seen[container] = len(quick)
assert seen == {"mpegts": 100, "mp4": 88, "matroska": 88, "avi": 99, "h264": 41, "flv": 0}, seen
PY
