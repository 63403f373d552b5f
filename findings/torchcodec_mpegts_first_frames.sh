#!/usr/bin/env bash
# torchcodec: the first frames that a decoder returns from an MPEG-TS file are frames of the second keyframe interval.
#
# Versions: torchcodec 0.13.0 (and 0.17.0), torch 2.13.0, FFmpeg 5.1 libraries; the clip is written by PyAV 18.1.0.
# Guess:    seek_mode="exact" scans the file, so decoder[0] is the first frame.
# Seen:     len(decoder) is right (75), but decoder[0] of a new decoder is frame 12, decoder[1] frame 13, and so on: the
#           seek to the first time stamp lands on the second keyframe. The same stream in an MP4 file gives 0, 1, 2.
# Output:   mp4 75 [0, 1, 2, 3]
#           ts 75 [12, 13, 14, 15]
#
# Needs FFmpeg's shared libraries (for example Debian's package ffmpeg), which torchcodec does not bring.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 av==18.1.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torchcodec==0.13.0
cd "$folder"
venv/bin/python - <<'PY'
import av
import numpy as np
from torchcodec.decoders import VideoDecoder

# Frame i is a grey picture of brightness 3 * i, so that a decoded frame tells its own number.
with av.open("clip.mp4", "w") as file:
    stream = file.add_stream("libx264", rate=25, options={"g": "12", "keyint_min": "12", "bf": "2", "sc_threshold": "0"})
    stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
    for number in range(75):
        picture = np.full((64, 64, 3), 3 * number + 10, np.uint8)
        file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
    file.mux(stream.encode())
with av.open("clip.mp4") as source, av.open("clip.ts", "w") as copy:
    stream = copy.add_stream_from_template(source.streams.video[0])
    for packet in source.demux(video=0):
        if packet.dts is not None:
            packet.stream = stream
            copy.mux(packet)

seen = {}
for kind in ("mp4", "ts"):
    with av.open(f"clip.{kind}") as file:  # a plain decode finds all frames in order, in both files
        plain = [round((float(f.to_ndarray(format="rgb24").mean()) - 10) / 3) for f in file.decode(video=0)]
    assert plain == list(range(75)), plain
    decoder = VideoDecoder(f"clip.{kind}", seek_mode="exact")
    numbers = [round((float(decoder[i].float().mean()) - 10) / 3) for i in range(4)]
    seen[kind] = (len(decoder), numbers)
    print(kind, len(decoder), numbers)
assert seen == {"mp4": (75, [0, 1, 2, 3]), "ts": (75, [12, 13, 14, 15])}, seen
PY
