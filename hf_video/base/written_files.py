"""Files that can be trusted: written under another name and moved into place, with checksums that notice one bit.

Checksums are CRC-32 of whole files (zlib's, about 1 GB a second). A JSON file carries its own as its last entry.
"""

from __future__ import annotations

import json
import os
import secrets
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
