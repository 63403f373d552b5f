#!/usr/bin/env bash
# PyAV: encoding one AV1 frame as root, as in most containers, leaves the process with real-time priority.
#
# Versions: PyAV 18.1.0 (its wheel's libsvtav1), Linux. To be run as root.
# Guess:    an encoder's threads end with it, and the program goes on as before.
# Seen:     SVT-AV1 sets the thread that opens it to SCHED_FIFO, priority 99, and leaves it there. Threads and processes
#           that this thread starts later inherit it: they go before everything else on the machine until they end.
#           libx264 does not.
# Output:   libx264: SCHED_OTHER 0 before, SCHED_OTHER 0 after closing the file
#           libsvtav1: SCHED_OTHER 0 before, SCHED_FIFO 99 after closing the file
#           a process started afterwards: SCHED_FIFO 99
set -euo pipefail
if [ "$(uname)" != Linux ] || [ "$(id -u)" != 0 ]; then
    echo "This is seen by root on Linux alone: sudo bash $0" >&2
    exit 2
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 av==18.1.0
cd "$folder"
SVT_LOG=0 venv/bin/python - <<'PY'
import os
import subprocess
import sys

import av
import numpy as np

TELL = (
    "import os; print({os.SCHED_OTHER: 'SCHED_OTHER', os.SCHED_FIFO: 'SCHED_FIFO'}[os.sched_getscheduler(0)], "
    "os.sched_getparam(0).sched_priority)"
)
NAMES = {os.SCHED_OTHER: "SCHED_OTHER", os.SCHED_FIFO: "SCHED_FIFO"}


def priority() -> str:
    return f"{NAMES[os.sched_getscheduler(0)]} {os.sched_getparam(0).sched_priority}"


seen = {}
for encoder in ("libx264", "libsvtav1"):
    before = priority()
    with av.open(f"{encoder}.mp4", "w") as file:
        stream = file.add_stream(encoder, rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))))
        file.mux(stream.encode())
    seen[encoder] = priority()
    print(f"{encoder}: {before} before, {seen[encoder]} after closing the file")
child = subprocess.run([sys.executable, "-c", TELL], capture_output=True, text=True, check=True).stdout.strip()
print(f"a process started afterwards: {child}")
assert seen == {"libx264": "SCHED_OTHER 0", "libsvtav1": "SCHED_FIFO 99"} and child == "SCHED_FIFO 99"
PY
