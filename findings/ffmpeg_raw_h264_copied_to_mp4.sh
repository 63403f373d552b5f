#!/usr/bin/env bash
# FFmpeg: `ffmpeg -i raw.h264 -c copy out.mp4` reports success and makes a file that plays out of order and incompletely.
#
# Versions: the ffmpeg program of imageio-ffmpeg 0.6.0, read with PyAV 18.1.0.
# Guess:    a remux keeps every frame and its order; a raw stream only lacks times, which are made from the rate.
# Seen:     with B-frames each packet's pts is its dts, so presentation times contradict the decoder's order, and some
#           frames are not decoded any more.
# Output:   raw stream: 60 frames
#           copied to mp4: exit 0, 57 frames; every pts equals its dts: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 av==18.1.0 imageio-ffmpeg==0.6.0
cd "$folder"
venv/bin/python - <<'PY'
import subprocess

import av
import imageio_ffmpeg

ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error"]
picture = ["-f", "lavfi", "-i", "testsrc2=size=96x64:rate=30:duration=2"]
subprocess.run([*ffmpeg, *picture, "-c:v", "libx264", "-bf", "3", "-pix_fmt", "yuv420p", "raw.h264"], check=True)
copied = subprocess.run([*ffmpeg, "-i", "raw.h264", "-c", "copy", "out.mp4"], check=False)


def count(path: str) -> int:
    with av.open(path) as file:
        return sum(1 for _ in file.decode(video=0))


with av.open("out.mp4") as file:
    same = all(packet.pts == packet.dts for packet in file.demux(video=0))
raw, mp4 = count("raw.h264"), count("out.mp4")
print(f"raw stream: {raw} frames")
print(f"copied to mp4: exit {copied.returncode}, {mp4} frames; every pts equals its dts: {same}")
assert (raw, copied.returncode, same) == (60, 0, True)
assert mp4 < raw, mp4
PY
