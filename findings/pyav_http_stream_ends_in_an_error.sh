#!/usr/bin/env bash
# PyAV, FFmpeg: the regular end of a video that a server sends without its length is an input/output error.
#
# Versions: PyAV 18.1.0 with its own FFmpeg.
# Guess:    A server may leave out Content-Length and close the connection behind the last byte (HTTP/1.0, and live
#           streams of MPEG-TS): demuxing ends as at the end of a file.
# Seen:     Behind the last packet decode() raises OSError (EIO), as for a connection that broke off, before the decoder
#           hands out the frame it still holds; with a Content-Length the loop simply ends. A program that reconnects at
#           errors never sees the end.
# Output:   with Content-Length: 20 frames, then the end
#           without: 19 frames, then OSError 5
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 av==18.1.0
cd "$folder"
venv/bin/python - <<'PY'
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np

with av.open("clip.ts", "w") as file:
    stream = file.add_stream("mpeg2video", rate=25)
    stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
    for number in range(20):
        file.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), 10 * number, np.uint8), format="rgb24")))
    file.mux(stream.encode())
data = Path("clip.ts").read_bytes()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "video/mp2t")
        if self.path == "/with":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
seen = {}
for path, said in (("/with", "with Content-Length"), ("/without", "without")):
    frames, end = 0, "the end"
    with av.open(f"http://127.0.0.1:{server.server_port}{path}", format="mpegts") as video:
        try:
            for frame in video.decode(video=0):
                frames += 1
        except OSError as error:
            end = f"OSError {error.errno}"
    seen[said] = (frames, end)
    print(f"{said}: {frames} frames, then {end}")
server.shutdown()
assert seen == {"with Content-Length": (20, "the end"), "without": (19, "OSError 5")}, seen
PY
