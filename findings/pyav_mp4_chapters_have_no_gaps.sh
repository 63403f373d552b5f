#!/usr/bin/env bash
# PyAV, FFmpeg: chapters written to an MP4 come back without their gaps and overlaps; in Matroska they stay.
#
# Versions: PyAV 18.1.0 with its own FFmpeg; the ffmpeg command 5.1.9 does the same with `-map_chapters`.
# Guess:    chapters that are set with start and end are read back with these, in every container that has chapters.
# Seen:     in MP4 (and MOV) the first chapter begins at 0 and each one ends where the next begins, since chapters are
#           stored there as samples of a text track: "jump" from 1 to 2 seconds is read as 0 to 1.5. Nothing warns.
# Output:   mp4 jump 0-1.5, run 1.5-6, throw 6-7
#           mkv jump 1-2, run 1.5-3.5, throw 6-7
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 av==18.1.0
cd "$folder"
venv/bin/python - <<'PY'
from fractions import Fraction

import av
import numpy as np

EVENTS = [("jump", 1000, 2000), ("run", 1500, 3500), ("throw", 6000, 7000)]
chapters = [
    {"id": number, "start": start, "end": end, "time_base": Fraction(1, 1000), "metadata": {"title": title}}
    for number, (title, start, end) in enumerate(EVENTS)
]
seen = {}
for kind in ("mp4", "mkv"):
    with av.open(f"events.{kind}", "w") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        file.set_chapters(chapters)
        for _ in range(100):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        file.mux(stream.encode())
    with av.open(f"events.{kind}") as file:
        read = [(c["metadata"]["title"], c["start"] * c["time_base"], c["end"] * c["time_base"]) for c in file.chapters()]
    seen[kind] = ", ".join(f"{title} {float(start):g}-{float(end):g}" for title, start, end in read)
    print(kind, seen[kind])
assert seen["mp4"] == "jump 0-1.5, run 1.5-6, throw 6-7", seen
assert seen["mkv"] == "jump 1-2, run 1.5-3.5, throw 6-7", seen
PY
