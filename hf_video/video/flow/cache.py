"""Flow fields on disk, so that a second epoch does not compute them again.

One small PNG for each pair of frames: x above y, 8 bits, as `flow.quantize` makes them (lossless: what is read is what
was computed). A file's fields lie under a name made of its path, size and time of change, and of everything that the
numbers depend on (method, options, size, bound); another file or setting never meets them. A field is written beside
its place and moved there, so that workers may share a folder and a killed one leaves no half file.

Nothing is ever deleted: remove the folder when the data set is done with.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

VERSION = 1  # of what is stored: another number, and older files are not found


def file_identity(source: object) -> str | None:
    """What tells a source from every other: a local file by its real path, size and time of change, bytes by what they
    are. None for anything else (URLs, arrays, readers), which is then not cached."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"bytes:{hashlib.sha256(source).hexdigest()}"
    if isinstance(source, (str, os.PathLike)) and os.path.isfile(source):
        known = os.stat(source)
        return f"file:{os.path.realpath(source)}:{known.st_size}:{known.st_mtime_ns}"
    return None


class FlowCache:
    """The fields of one source under one setting, in `folder`.

    `settings` is all that the numbers depend on: method, options, bound, the size in pixels of the frames.
    """

    def __init__(self, folder: str | os.PathLike[str], identity: str, settings: Mapping[str, Any]):
        text = json.dumps([VERSION, identity, dict(settings)], sort_keys=True, default=str)
        key = hashlib.sha256(text.encode()).hexdigest()[:40]
        self.folder = Path(folder) / key[:2] / key

    def path(self, pair: tuple[int, int]) -> Path:
        return self.folder / f"{pair[0]:07d}-{pair[1]:07d}.png"

    def read(self, pair: tuple[int, int]) -> np.ndarray | None:
        """(H, W, 2) uint8, or None where it is not there or can't be read (it is then computed and written anew)."""
        try:
            image = np.asarray(Image.open(io.BytesIO(self.path(pair).read_bytes())))
        except (OSError, SyntaxError, ValueError):  # what PIL says of a broken file
            return None
        if image.ndim != 2 or len(image) % 2 or image.dtype != np.uint8:
            return None
        return np.stack(np.split(image, 2), axis=-1)

    def write(self, pair: tuple[int, int], field: np.ndarray) -> None:
        """Stores (H, W, 2) uint8. Raises OSError where the folder can't be written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(np.concatenate([field[..., 0], field[..., 1]]))
        handle, beside = tempfile.mkstemp(dir=self.folder, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                image.save(file, format="PNG", compress_level=1)
            os.replace(beside, self.path(pair))
        except BaseException:
            os.unlink(beside)
            raise
