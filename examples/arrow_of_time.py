"""Does a frozen model see which way time runs? A linear probe on clips played forwards and backwards.

    python examples/arrow_of_time.py clips/ --model my-encoder

Each video gives two vectors, of its frames and of the same frames in reverse. A logistic regression learns on two
thirds of the videos which is which, and is tested on the others. An accuracy of 0.5 says that the vectors hold
nothing of the order of frames (a mean over frames can't), or that the videos look alike both ways; 1.0 that every one
tells. Something-Something shows more of it than Kinetics, whose scenes tell the class by themselves.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from transformers import pipeline

import hf_video
from hf_video.data.sources.files import videos_below
from hf_video.training.runs.probe import fit_head


def arrow_of_time(videos: list[Path], model: str, *, seed: int = 0, num_frames: int = 16) -> float:
    """The accuracy on videos that the probe didn't learn from, from 0 to 1.

    Args:
        videos: Files, six or more.
        model: A folder, or a name on the Hub.
        seed: Of the choice of videos to test on.
        num_frames: Evenly spread frames of each video that are played both ways.
    """
    embed = pipeline("video-feature-extraction", model=model, num_frames=num_frames)
    vectors = []
    for video in videos:
        with hf_video.VideoReader(video) as reader:
            spread = np.linspace(0, len(reader) - 1, num_frames).round().astype(int)
            frames = reader.get_frames(spread).data
        vectors += [embed(frames), embed(frames[::-1].copy())]
    order = np.random.default_rng(seed).permutation(len(videos))
    part = np.empty(len(videos), dtype=int)
    # Two sixths are tested on, one chooses the penalty, three are learnt from.
    part[order] = np.array([0, 0, 1, 2, 2, 2])[np.arange(len(videos)) % 6]
    both = np.repeat(part, 2)
    forwards = np.tile([0, 1], len(videos))
    rows, known = np.stack(vectors), both > 0
    head = fit_head(rows[known], forwards[known], both[known] == 1, 2)
    return head.accuracy(rows[~known], forwards[~known])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="of videos")
    parser.add_argument("--model", required=True, help="a folder, or a name on the Hub")
    parser.add_argument("--num-frames", type=int, default=16)
    options = parser.parse_args(argv)
    names, _ = videos_below(options.folder)
    if len(names) < 6:
        print(f"{options.folder} holds {len(names)} videos; six or more are needed", file=sys.stderr)
        return 2
    videos = [Path(options.folder) / name for name in names]
    accuracy = arrow_of_time(videos, options.model, num_frames=options.num_frames)
    print(f"{accuracy:.1%} of unseen clips were told from their reverse ({len(videos)} videos; chance is 50 %)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
