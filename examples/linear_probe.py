"""How good are the features of a frozen video model? A linear probe on labelled clips.

    python examples/linear_probe.py labelled/ --model my-encoder --random --output my-probe

The same as `hf-video probe`; all options: --help.
"""

from __future__ import annotations

import sys

from hf_video.cli import main

if __name__ == "__main__":
    sys.exit(main(["probe", *sys.argv[1:]]))
