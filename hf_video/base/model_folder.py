"""A folder on disk that holds a model: whether it is finished, and whether its files are still what was written.

A file `UNFINISHED` says that a folder is being written, or that writing broke off; it is the first thing there and the
last to go. `checksums.json` holds size and CRC-32 of the files; plain transformers passes over both.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hf_video.base.output_paths import check_output_folder
from hf_video.base.written_files import atomic_write, file_crc32
from hf_video.errors import CheckpointError

UNFINISHED = "UNFINISHED"
CHECKSUMS = "checksums.json"
_CHECKED_FILES = ("*.safetensors", "*.json", "vocab.txt", "merges.txt", "*.model", "*.jinja", "*.pt", "*.pth")
_SUMMARY = "training_summary.json"


def mark_unfinished(folder: Path, text: str) -> None:
    """Puts `UNFINISHED` into a folder, which is made, with a sentence for whoever finds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / UNFINISHED) as path:
        path.write_text(text + "\n", encoding="utf-8")


def check_finished(folder: str | os.PathLike[str]) -> None:
    """Raises CheckpointError for a folder whose writing has not ended. Anything else passes, also what is no folder."""
    folder = Path(folder)
    try:
        text = (folder / UNFINISHED).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        # What 0.1.0 left where --overwrite was interrupted: the old weights beside the new run's description.
        if not (folder / "run.json").exists() or any((folder / name).exists() for name in (_SUMMARY, CHECKSUMS)):
            return
        text = f"It has a run.json and no {_SUMMARY}: a training broke off. Go on with it: the same with --resume."
    raise CheckpointError(f"{folder} is not finished. {text}")


def write_checksums(folder: Path) -> None:
    """Writes `checksums.json` over the files of a model or a checkpoint at the top of a folder, and takes `UNFINISHED`
    away."""
    paths = sorted({path for pattern in _CHECKED_FILES for path in folder.glob(pattern)} - {folder / CHECKSUMS})
    files = {path.name: {"bytes": path.stat().st_size, "crc32": f"{file_crc32(path):08x}"} for path in paths}
    with atomic_write(folder / CHECKSUMS) as path:
        path.write_text(json.dumps({"crc32": _of_table(files), "files": files}, indent=1) + "\n", encoding="utf-8")
    (folder / UNFINISHED).unlink(missing_ok=True)


def mark_being_written(folder: Path, text: str) -> None:
    """Says that a folder is being written: `UNFINISHED` comes, `checksums.json` goes."""
    mark_unfinished(folder, text)
    (folder / CHECKSUMS).unlink(missing_ok=True)


@contextmanager
def writing_model_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """The folder, unfinished until the block has ended without an error, and then with its checksums."""
    check_output_folder(folder)
    folder = Path(folder)
    mark_being_written(folder, "It was being written, and that broke off: make it anew.")
    yield folder
    write_checksums(folder)


def update_checksums(folder: str | os.PathLike[str]) -> None:
    """New checksums for a folder that has some, after files in it were meant to change."""
    if (Path(folder) / CHECKSUMS).is_file():
        write_checksums(Path(folder))


class ChecksumsOnSave:
    """Mixed in before a class with `save_pretrained`: saving into a folder that has checksums makes them anew."""

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        saved = super().save_pretrained(save_directory, *args, **kwargs)
        update_checksums(save_directory)
        return saved


def verify_checksums(folder: str | os.PathLike[str]) -> None:
    """Compares a folder with its `checksums.json`, where it has one, at about the speed of reading it.

    Raises CheckpointError naming the file that is missing, cut off or changed.
    """
    for name, what in find_damaged_files(Path(folder)):
        raise CheckpointError(
            f"{Path(folder) / name} {what}. Copy or download it again, or make it anew; if you changed it on purpose, "
            f"delete {Path(folder) / CHECKSUMS}."
        )


def check_model_folder(folder: str | os.PathLike[str]) -> None:
    """Runs `check_finished` and `verify_checksums`, before weights are loaded from a local folder."""
    check_finished(folder)
    verify_checksums(folder)


def find_damaged_files(folder: Path) -> Iterator[tuple[str, str]]:
    """Names of files that are not what `checksums.json` says, and what is wrong with each."""
    try:
        text = (folder / CHECKSUMS).read_bytes()
    except FileNotFoundError:
        return
    try:
        table = json.loads(text)
        files = {str(name): (int(one["bytes"]), str(one["crc32"])) for name, one in table["files"].items()}
        whole = table["crc32"] == _of_table(table["files"])
    except (ValueError, TypeError, KeyError, AttributeError):
        whole = False
    if not whole:
        yield CHECKSUMS, "is damaged: it is not what was written"
        return
    for name, (size, crc) in files.items():
        path = folder / name
        if not path.is_file():
            yield name, "is missing"
        elif path.stat().st_size != size:
            yield name, f"is cut off or changed: it has {path.stat().st_size} bytes, and {size} were written"
        elif f"{file_crc32(path):08x}" != crc:
            yield name, "is damaged: its checksum is not that of what was written"


def _of_table(files: object) -> str:
    return f"{zlib.crc32(json.dumps(files, sort_keys=True).encode()):08x}"
