#!/usr/bin/env bash
# transformers: the seconds of frames that load_video gives are wrong where a file's frame rate varies.
#
# Versions: transformers 5.24.0, PyAV 18.1.0 (no torch).
# Guess:    VideoMetadata.timestamps, which video processors write into prompts ("Frame from 00:07"), are the times at
#           which the frames are shown.
# Seen:     they are the frame's number divided by the mean rate. In a file whose first 2 seconds have 25 frames a second
#           and whose rest 2.5, the frame of second 1.5 is said to be of second 7.6.
# Output:   frames     [0, 19, 38, 57, 76]
#           shown at   [0.0, 0.76, 1.52, 4.8, 12.4]
#           timestamps [0.0, 3.78, 7.57, 11.35, 15.14]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 pillow av==18.1.0 transformers==5.24.0
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" -W ignore - <<'PY'
from fractions import Fraction

import av
import numpy as np
from transformers.video_utils import load_video

milliseconds = [*range(0, 2000, 40), *range(2000, 20000, 400)]
with av.open("variable.mp4", "w") as out:
    stream = out.add_stream("libx264", rate=25, width=64, height=48, pix_fmt="yuv420p")
    stream.codec_context.time_base = Fraction(1, 1000)
    for time in milliseconds:
        frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))
        frame.pts, frame.time_base = time, Fraction(1, 1000)
        out.mux(stream.encode(frame))
    out.mux(stream.encode())
with av.open("variable.mp4") as file:
    shown = sorted(float(frame.pts * frame.time_base) for frame in file.decode(video=0))
frames, about = load_video("variable.mp4", num_frames=5, backend="pyav")
numbers = [int(number) for number in about.frames_indices]
true = [round(shown[number], 2) for number in numbers]
said = [round(float(second), 2) for second in about.timestamps]
print(f"frames     {numbers}\nshown at   {true}\ntimestamps {said}")
assert true == [milliseconds[number] / 1000 for number in numbers], true
assert numbers == [0, 19, 38, 57, 76] and said == [0.0, 3.78, 7.57, 11.35, 15.14], (numbers, said)
PY
