"""Whether something can be written where it is to go: asked before the work, not after it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hf_video.errors import OutputError

PICTURES = (".png", ".jpg", ".jpeg")


def check_output_folder(path: str | os.PathLike[str]) -> None:
    """Raises OutputError unless files can be written to this folder, or it can be made with those above it. Nothing is
    left behind."""
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file, and a folder is needed. Name another, or remove the file.")
    there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    if not there.is_dir():
        raise OutputError(f"{folder} can't be made: {there} is a file, not a folder.")
    _try_to_write(folder, there)


def check_output_file(path: str | os.PathLike[str], *, suffixes: tuple[str, ...] = ()) -> None:
    """Raises OutputError unless a file of this name can be written (its folder must be there) and it ends in one of
    `suffixes`, where some are given. A file that is there already may be replaced."""
    file = Path(path)
    if file.is_dir():
        raise OutputError(
            f"{file} is a folder, and a file is needed: {file / 'name'}{suffixes[0] if suffixes else ''}."
        )
    if suffixes and file.suffix.lower() not in suffixes:
        raise OutputError(f"{str(path)!r} must end in {', '.join(suffixes[:-1])} or {suffixes[-1]}.")
    folder = file.absolute().parent
    if not folder.is_dir():
        what = "it is a file" if folder.exists() else "make it first"
        raise OutputError(f"There is no folder {folder} for {file.name}: {what}.")
    if file.exists() and not os.access(file, os.W_OK):
        raise OutputError(f"{file} is there and can't be replaced: no permission to write it.")
    _try_to_write(file, folder)


def _try_to_write(path: Path, folder: Path) -> None:
    # Permissions, read-only disks and special folders all refuse in their own way: only trying tells.
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"{path} can't be written: {error.strerror or error} in {folder}.") from error
