#!/usr/bin/env bash
# PyAV: `frame.rotation` says half a turn for a video that is only mirrored.
#
# Versions: PyAV 18.1.0 (FFmpeg's av_display_rotation_get underneath).
# Guess:    rotation is 0 where the display matrix of an MP4 flips left and right and turns nothing.
# Seen:     it is -180, as for a half turn, though the pictures of the two differ; and for a matrix of zeros, which some
#           recorders write, it is the lowest 32-bit integer.
# Output:   mirror -180
#           half turn -180
#           zeros -2147483648
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 av==18.1.0
cd "$folder"
venv/bin/python - <<'PY'
import struct

import av
import numpy as np

with av.open("plain.mp4", "w") as file:
    stream = file.add_stream("libx264", rate=10)
    stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
    for _ in range(3):
        file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
    file.mux(stream.encode())
data = open("plain.mp4", "rb").read()
# The display matrix of the track header: nine numbers, the first four (16.16 fixed point) turn and flip.
identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 0x40000000)
at = data.index(b"tkhd")
at = data.index(identity, at)
seen = {}
matrices = {"mirror": (-65536, 0, 0, 65536), "half turn": (-65536, 0, 0, -65536), "zeros": (0, 0, 0, 0)}
for name, (a, b, c, d) in matrices.items():
    matrix = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 0x40000000)
    with open(f"{name}.mp4", "wb") as file:
        file.write(data[:at] + matrix + data[at + len(matrix) :])
    with av.open(f"{name}.mp4") as file:
        seen[name] = next(file.decode(video=0)).rotation
    print(name, seen[name])
assert seen == {"mirror": -180, "half turn": -180, "zeros": -2147483648}, seen
PY
