"""VideoMAE pretraining on a folder of unlabelled clips.

    python examples/pretrain_videomae.py clips/ --output my-encoder

The same as `hf-video pretrain`, which trains V-JEPA 2 too (`--model vjepa2:large`); all options: --help.
"""

from __future__ import annotations

import sys

from hf_video.cli import main

if __name__ == "__main__":
    sys.exit(main(["pretrain", *sys.argv[1:]]))
