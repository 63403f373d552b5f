"""Events of a camera, or of a file as if it were one, as they end.

python examples/live_events.py FILE_OR_CAMERA --model MODEL [--grid 2s/0.5s] [--threshold 0.6] [--labels A,B]

A number names a camera, which OpenCV reads; anything else is a file or URL.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import numpy as np

from hf_video import LiveDetector, VideoReader


def frames_of(source: str) -> Iterator[tuple[np.ndarray, float]]:
    """Frames (height, width, 3) in RGB, and the seconds at which they are shown."""
    if source.isdigit():
        import cv2

        camera, begin = cv2.VideoCapture(int(source)), time.monotonic()
        while True:
            good, frame = camera.read()
            if not good:
                return
            yield frame[..., ::-1], time.monotonic() - begin
    with VideoReader(source) as reader:
        for first in range(0, len(reader), 16):
            part = reader.get_frames(np.arange(first, min(first + 16, len(reader))))
            yield from zip(part.data, part.seconds.tolist(), strict=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("--model", required=True)
    parser.add_argument("--grid", default="2s/0.5s")
    parser.add_argument("--threshold", type=float, default=0.6)
    parser.add_argument("--labels", help="for a model of video and text")
    options = parser.parse_args()
    texts = {} if options.labels is None else {"candidate_labels": options.labels}
    live = LiveDetector(options.model, grid=options.grid, threshold=options.threshold, **texts)
    try:
        for frame, second in frames_of(options.source):
            for event in live.push(frame, [second]):
                print(f"{event.start:8.2f} - {event.end:8.2f} s  {event.score:.0%}  {event.label}", flush=True)
    except KeyboardInterrupt:
        pass
    for event in live.close():
        print(f"{event.start:8.2f} - {event.end:8.2f} s  {event.score:.0%}  {event.label}")


if __name__ == "__main__":
    main()
