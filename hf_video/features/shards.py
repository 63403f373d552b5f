"""Shards of features on disk, safetensors or Parquet, and the manifest beside them.

Whatever is written is written under another name and moved into place: a file that is there is whole. The manifest
keeps the checksum of each shard as soon as it is there, and its own: what has changed by a bit since is not used.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from hf_video.base.version import __version__
from hf_video.base.written_files import (
    DRAFT_PREFIX,
    atomic_write,
    file_crc32,
    read_json,
    verify_checksum,
    write_json,
    writing_into,
)
from hf_video.data.rows import Skipped
from hf_video.errors import BackendError, DataError
from hf_video.features.extraction import Features

FORMATS = ("safetensors", "parquet")
MANIFEST = "manifest.json"


def shard_path(folder: Path, number: int, data_format: str) -> Path:
    return folder / f"features-{number:05d}.{data_format}"


def write_shard(path: Path, features: Features, settings: str = "") -> int:
    """Writes a shard in the format of the path's suffix, made with the settings of this digest, and returns its
    checksum. Raises DataError where the disk is full or may not be written."""
    skipped = json.dumps([one.as_dict() for one in features.skipped], ensure_ascii=False)
    facts = {"skipped": skipped, "proof": _proof(path, features, settings)}
    with writing_into(path, DataError), atomic_write(path) as name:
        if path.suffix == ".parquet":
            _write_parquet(name, features, facts)
        else:
            arrays = {"embeddings": features.embeddings, "labels": features.labels, "seconds": features.seconds}
            names = json.dumps(features.names, ensure_ascii=False)
            name.write_bytes(save(arrays, metadata={"names": names, **facts}))
        return file_crc32(name)


def _proof(path: Path, features: Features, settings: str) -> str:
    """The digest of a shard's place, content and settings, by which it is known where the manifest is damaged."""
    digest = hashlib.blake2b(f"{path.name} {settings}".encode(), digest_size=8)
    for array in (features.embeddings, features.labels, features.seconds):
        digest.update(np.ascontiguousarray(array))
    digest.update(json.dumps([features.names, [one.as_dict() for one in features.skipped]]).encode())
    return digest.hexdigest()


def read_shard(path: Path, checksum: int | None = None) -> Features:
    """Reads a shard. Raises DataError, with its name, where it is damaged or not the one of the checksum."""
    return _read(path, checksum)[0]


def _read(path: Path, checksum: int | None = None) -> tuple[Features, str | None]:
    """Reads a shard and its proof, which those of version 0.1.0 don't have."""
    try:
        if checksum is not None:
            verify_checksum(path, checksum)
        if path.suffix == ".parquet":
            return _read_parquet(path)
        with safe_open(path, framework="np") as file:
            facts = file.metadata()
            arrays = {name: file.get_tensor(name) for name in ("embeddings", "labels", "seconds")}
        features = Features(**arrays, names=json.loads(facts["names"]), skipped=_skipped(facts["skipped"]))
        return features, facts.get("proof")
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(f"{path} is damaged ({reason}): delete it and run hf-video embed again.") from error


def _skipped(text: str) -> list[Skipped]:
    return [Skipped(**one) for one in json.loads(text)]


def import_pyarrow(user: str, extra: str) -> ModuleType:
    """Imports pyarrow with its Parquet module. Raises BackendError that names its `user` and the extra of hf_video that
    installs it."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise BackendError(f'{user} needs pyarrow, which is not installed: pip install "hf_video[{extra}]".') from error
    return pyarrow


def _write_parquet(name: Path, features: Features, facts: dict[str, str]) -> None:
    arrow = import_pyarrow("Parquet", "train")
    width = features.embeddings.shape[1] if len(features) else 0
    flat = arrow.array(features.embeddings.reshape(-1), type=arrow.float32())
    vectors = (
        arrow.FixedSizeListArray.from_arrays(flat, width) if width else arrow.array([], arrow.list_(arrow.float32()))
    )
    table = arrow.table(
        {
            "name": arrow.array(features.names, type=arrow.string()),
            "label": arrow.array(features.labels, type=arrow.int64()),
            "start": arrow.array(features.seconds[:, 0], type=arrow.float64()),
            "end": arrow.array(features.seconds[:, 1], type=arrow.float64()),
            "embedding": vectors,
        }
    )
    arrow.parquet.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), **facts}), name)


def _read_parquet(path: Path) -> tuple[Features, str | None]:
    table = import_pyarrow("Parquet", "train").parquet.read_table(path)
    vectors = table["embedding"].combine_chunks()
    count = len(table)
    flat = np.asarray(vectors.flatten(), dtype=np.float32)
    facts = table.schema.metadata
    features = Features(
        embeddings=flat.reshape(count, -1) if count else np.zeros((0, 0), np.float32),
        names=table["name"].to_pylist(),
        labels=table["label"].to_numpy(),
        seconds=np.stack([table["start"].to_numpy(), table["end"].to_numpy()], axis=1),
        skipped=_skipped(facts[b"skipped"].decode()),
    )
    return features, facts[b"proof"].decode() if b"proof" in facts else None


def open_manifest(folder: Path, settings: dict[str, Any], labels: list[str]) -> tuple[dict[str, int] | None, list[str]]:
    """Writes the manifest of a new folder, or compares with the one that is there.

    Returns the checksums of the shards that are there, by file name (None for a folder of version 0.1.0, which has
    none), and what is wrong with the manifest. A damaged one is written anew, and shards that don't prove that they
    were made with these settings are deleted.

    Raises DataError where the folder is of other settings: its shards and new ones would not belong together."""
    settings = json.loads(json.dumps(settings))  # as they come back from the file: lists for tuples
    path = folder / MANIFEST
    faults = []
    checksums: dict[str, int] = {}
    if path.exists():
        try:
            known = read_json(path)
            found = known["settings"]
        except (OSError, ValueError, KeyError) as error:
            faults.append(f"{path} is damaged ({error}): it is made again")
            for shard in folder.glob("features-*"):
                try:
                    features, proof = _read(shard)
                except DataError:
                    proof = None
                if proof is None or proof != _proof(shard, features, settings_digest(settings)):
                    faults.append(f"{shard} can't be proven to be of these settings: it is made again")
                    shard.unlink()
                else:
                    checksums[shard.name] = file_crc32(shard)
        else:
            changed = [name for name in settings if found.get(name) != settings[name]]
            if changed:
                what = "; ".join(f"{name} was {found.get(name)!r} and is {settings[name]!r}" for name in changed)
                raise DataError(
                    f"{folder} holds features made otherwise: {what}. Choose another folder, or delete this one."
                )
            return known.get("checksums"), []
    elif any(folder.glob("features-*")):
        raise DataError(f"{folder} holds features without a {MANIFEST}: choose another folder.")
    about = {"hf_video": __version__, "settings": settings, "labels": labels, "complete": False, "checksums": checksums}
    with writing_into(folder, DataError):
        write_json(path, about)
    return checksums, faults


def settings_digest(settings: dict[str, Any]) -> str:
    """Computes 16 hex digits of settings, lists and tuples alike."""
    return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8).hexdigest()


def record_checksums(folder: Path, checksums: dict[str, int]) -> None:
    """Adds the checksums of shards, by file name, to the manifest."""
    facts = read_json(folder / MANIFEST)
    facts["checksums"] = {**(facts.get("checksums") or {}), **checksums}
    with writing_into(folder, DataError):
        write_json(folder / MANIFEST, facts)


def complete_manifest(folder: Path, count: int, data_format: str) -> dict[str, Any]:
    """Marks the manifest as complete and returns what the `count` shards hold: `found`, `vectors`, `dim`, `skipped`."""
    totals: dict[str, Any] = {"found": 0, "vectors": 0, "dim": 0, "skipped": []}
    shards = []
    for number in range(count):
        path = shard_path(folder, number, data_format)
        part = read_shard(path)
        totals["found"] += len(set(part.names))
        totals["vectors"] += len(part)
        totals["dim"] = max(totals["dim"], part.embeddings.shape[1])
        totals["skipped"] += part.skipped
        shards.append({"file": path.name, "vectors": len(part), "skipped": len(part.skipped)})
    path = folder / MANIFEST
    facts = {**totals, "skipped": [one.as_dict() for one in totals["skipped"]], "shards": shards}
    with writing_into(folder, DataError):
        write_json(path, {**read_json(path), "complete": True, **facts})
    for left in folder.glob(f"{DRAFT_PREFIX}*"):  # of a run that was killed
        left.unlink()
    return totals


def load_features(folder: str | os.PathLike[str]) -> Features:
    """Loads all features of a folder that `embed_videos` wrote, also of one that is not complete.

    Args:
        folder: The folder of the shards.

    Raises:
        DataError: There are no features, or a file is damaged.
    """
    folder = Path(folder)
    checksums: dict[str, int] = {}
    if (folder / MANIFEST).exists():
        try:
            checksums = read_json(folder / MANIFEST).get("checksums") or {}
        except (OSError, ValueError) as error:
            raise DataError(f"{folder / MANIFEST} is damaged ({error}): run hf-video embed again.") from error
    shards = [p for p in sorted(folder.glob("features-*")) if p.suffix[1:] in FORMATS]
    parts = [read_shard(path, checksums.get(path.name)) for path in shards]
    if not parts:
        raise DataError(f"{folder} holds no features-*.safetensors and no features-*.parquet.")
    wide = [part for part in parts if len(part)]
    joined = Features.join(wide or parts[:1])
    joined.skipped[:] = [one for part in parts for one in part.skipped]
    return joined
