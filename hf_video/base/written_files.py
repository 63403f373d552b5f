"""Files that can be trusted: asked for before the work, written under another name and moved into place, with checksums
that notice one bit.

Checksums are CRC-32 of whole files (zlib's, about 1 GB a second). A JSON file carries its own as its last entry. In a
folder that holds a model, `UNFINISHED` says that it is being written, or that writing broke off; it is the first thing
there and the last to go. `checksums.json` holds size and CRC-32 of the files; plain transformers passes over both.
"""

from __future__ import annotations

import json
import os
import secrets
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hf_video.errors import CheckpointError, OutputError

PICTURES = (".png", ".jpg", ".jpeg")
EVENT_FILES = (".json", ".csv", ".vtt", ".srt")
SUBTITLES = (".vtt", ".srt")  # of one video


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


DRAFT_PREFIX = ".writing-"
_BLOCK = 2**20
_SUM = ',\n "crc32": '


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Gives a path to write to, which replaces `path` in one step when the block ends without an error."""
    draft = path.with_name(f"{DRAFT_PREFIX}{secrets.token_hex(4)}{path.suffix}")
    try:
        yield draft
        with draft.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def writing_into(folder: str | os.PathLike[str], error: type[Exception]) -> Iterator[None]:
    """Faults of the disk (full, read-only, no right, a file in the way) become `error`, in words."""
    try:
        yield
    except OSError as fault:
        reason = fault.strerror or str(fault)
        raise error(
            f"{fault.filename or folder} can't be written: {reason}. What was complete before stays; free space or "
            "choose another folder, and run the same again."
        ) from fault


def file_crc32(path: str | os.PathLike[str]) -> int:
    """Of a whole file."""
    found = 0
    with open(path, "rb", buffering=0) as file:
        while part := file.read(_BLOCK):
            found = zlib.crc32(part, found)
    return found


def verify_checksum(path: str | os.PathLike[str], expected: int) -> None:
    """Raises ValueError where a file is not what it was when its checksum was taken."""
    found = file_crc32(path)
    if found != expected:
        raise ValueError(f"its checksum is {found:08x} and was {expected:08x}: bits have changed")


def write_json(path: Path, facts: dict[str, Any]) -> None:
    """Replaces `path` by these facts and their checksum."""
    with atomic_write(path) as draft:
        text = json.dumps({"checked": True, **facts}, indent=1, ensure_ascii=False)
        draft.write_bytes(_with_sum(text.removesuffix("\n}").encode("utf-8", "surrogateescape")))


def _with_sum(body: bytes) -> bytes:
    """`body` lacks its closing brace."""
    return body + f"{_SUM}{zlib.crc32(body)}\n}}\n".encode()


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote, or a file without a checksum, as earlier versions did. Raises OSError and ValueError."""
    raw = path.read_bytes()
    facts = json.loads(raw.decode("utf-8", "surrogateescape"))
    if not isinstance(facts, dict):
        raise ValueError("it holds no facts by name")
    if (facts.pop("crc32", None), facts.pop("checked", None)) != (None, None):
        body = raw[: max(raw.rfind(_SUM.encode()), 0)]
        if raw != _with_sum(body):
            raise ValueError("it does not match its checksum: bits have changed")
    return facts


UNFINISHED = "UNFINISHED"
CHECKSUMS = "checksums.json"
_CHECKED_FILES: tuple[str, ...] = (
    "*.safetensors",
    "*.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
    "*.jinja",
    "*.pt",
    "*.pth",
)
_CHECKED_FILES += ("openvino_*.xml", "openvino_*.bin", "*.onnx", "*.onnx.data")  # of `hf-video export`
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
        saved = super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]
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
