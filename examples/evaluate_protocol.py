"""Evaluate a video classifier by a published protocol: the same as `hf-video evaluate`.

python examples/evaluate_protocol.py clips/ --model my-model --protocol paper --output evaluation
"""

from __future__ import annotations

import sys

from hf_video.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
