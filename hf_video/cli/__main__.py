"""`python -m hf_video.cli`."""

import sys

from hf_video.cli import main

if __name__ == "__main__":
    sys.exit(main())
