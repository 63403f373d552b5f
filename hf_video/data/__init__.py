"""Rows and labels: from a folder, a list, `datasets` or tar shards to batches.

    splits = load_videos("my_videos")                       # {"train": VideoRows, "test": VideoRows}
    data = VideoDataset(splits["train"], processor)         # clips of a torch data set
    batch = VideoCollator()([data[0], data[1]])             # {"pixel_values", "labels"}

Names are imported when they are first used.
"""

from __future__ import annotations

import lazy_loader

# The names and where they live are in `__init__.pyi`, which type checkers read too.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
