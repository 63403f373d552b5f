#!/usr/bin/env bash
# imageio: `iio.imread("video", index=n)` gives another frame than the n-th in MPEG-TS, and in MP4 where the file
# begins late or its rate varies.
#
# Versions: imageio 2.38.1, PyAV 18.1.0.
# Guess:    index=n is the n-th frame that imiter() gives; whether the rate is constant is "read from the container".
# Seen:     The index is divided by the mean rate and sought as a time from 0 on, in MPEG-TS and MP4 alike, which are
#           both counted among the formats of constant rate. FFmpeg's MPEG-TS files begin at 1.4 s, and an MP4 file
#           whose sound begins first at any time: small indices all give the first frame, or one further on. Nothing is
#           said. constant_framerate=False gives the frames of imiter().
# Output:   MP4: frames 0, 2, 10, 30 are 0, 2, 10, 30
#           MP4 of varying rate: frames 0, 2, 10, 30 are 0, 1, 9, 29
#           MP4 that begins at 2 s: frames 0, 2, 10, 30 are 0, 0, 0, 0
#           MPEG-TS: frames 0, 2, 10, 30 are 0, 12, 12, 36
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 pillow==13.0.0 \
    av==18.1.0 imageio==2.38.1
cd "$folder"
venv/bin/python - <<'PY'
from fractions import Fraction

import av
import imageio.v3 as iio
import numpy as np

ASKED = (0, 2, 10, 30)


def write(path, milliseconds):
    """Frame n has the grey level 4n."""
    with av.open(path, "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 64, "yuv420p", 12
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, shown in enumerate(milliseconds):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 4 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = int(shown), Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def number_of(image):
    return round(image.mean() / 4)


regular = 40 * np.arange(60)
varying = np.cumsum(np.where(np.arange(60) < 30, 20, 100))
seen = {}
for name, path, times in (
    ("MP4", "regular.mp4", regular),
    ("MP4 of varying rate", "varying.mp4", varying),
    ("MP4 that begins at 2 s", "late.mp4", regular + 2000),
    ("MPEG-TS", "regular.ts", regular),
):
    write(path, times)
    assert [number_of(image) for image in iio.imiter(path, plugin="pyav")] == list(range(60))
    seen[name] = [number_of(iio.imread(path, plugin="pyav", index=index)) for index in ASKED]
    print(f"{name}: frames {', '.join(map(str, ASKED))} are {', '.join(map(str, seen[name]))}")
    exact = [number_of(iio.imread(path, plugin="pyav", index=index, constant_framerate=False)) for index in ASKED]
    assert exact == list(ASKED), exact
assert list(seen.values()) == [[0, 2, 10, 30], [0, 1, 9, 29], [0, 0, 0, 0], [0, 12, 12, 36]], seen
PY
