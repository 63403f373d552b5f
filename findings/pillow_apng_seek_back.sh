#!/usr/bin/env bash
# Pillow: an animated PNG that FFmpeg wrote can be read forwards, but not backwards.
#
# Versions: Pillow 13.0.0; the file is written by PyAV 18.1.0 (FFmpeg's encoder and muxer "apng").
# Guess:    seek() goes to any frame, as it does in a GIF: going back decodes from the start again.
# Seen:     all frames are read in order; after frame 5, seek(2) raises SyntaxError. A newly opened image seeks to 2.
# Output:   forwards [0, 1, 2, 3, 4, 5, 6, 7]
#           back from 5 to 2: SyntaxError: APNG contains frame sequence errors
#           newly opened: frame 2
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 av==18.1.0 pillow==13.0.0
cd "$folder"
venv/bin/python - <<'PY'
import av
import numpy as np
from PIL import Image

with av.open("moving.apng", "w", format="apng") as file:
    stream = file.add_stream("apng", rate=10)
    stream.width, stream.height, stream.pix_fmt = 32, 24, "rgb24"
    for level in range(8):
        frame = av.VideoFrame.from_ndarray(np.full((24, 32, 3), 30 * level, np.uint8), format="rgb24")
        file.mux(stream.encode(frame))
    file.mux(stream.encode())


def number(image: Image.Image, index: int) -> int:
    image.seek(index)
    return image.convert("L").getpixel((0, 0)) // 30


with Image.open("moving.apng") as image:
    forwards = [number(image, index) for index in range(image.n_frames)]
print("forwards", forwards)
assert forwards == list(range(8)), forwards
with Image.open("moving.apng") as image:
    number(image, 5)
    try:
        raise SystemExit(f"went back to frame {number(image, 2)}: this has changed")
    except SyntaxError as error:
        print("back from 5 to 2: SyntaxError:", error)
with Image.open("moving.apng") as image:
    print("newly opened: frame", number(image, 2))
PY
