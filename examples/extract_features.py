"""Feature vectors of a folder of videos, in shards that survive being killed.

    python examples/extract_features.py clips/ --model my-encoder --output features --windows 2s/1s

The same as `hf-video embed`; all options: --help.
"""

from __future__ import annotations

import sys

from hf_video.cli import main

if __name__ == "__main__":
    sys.exit(main(["embed", *sys.argv[1:]]))
