"""A run between its processes: its checkpoints, which of them are whole, and whether it is the same run."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from hf_video.base.model_folder import CHECKSUMS, UNFINISHED, damaged
from hf_video.data.rows import VideoRows
from hf_video.errors import ConfigError

RUN_FILE = "run.json"
SKIPPED_FILE = "skipped.jsonl"
SUMMARY_FILE = "training_summary.json"
# Settings that may differ when a run goes on: they change no weight.
_FREE = re.compile(
    r"^ran\.|dataloader_(num|persist|prefetch|pin)|logging|report_to|save_|disable_tqdm|push_to_hub|hub_|run_name"
)


def checkpoints(output: Path) -> list[Path]:
    """Checkpoint folders that were written to their end, oldest first. transformers takes the last one whatever is in
    it; a process that was killed while it wrote leaves one that can't be loaded."""
    found = [path for path in output.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(filter(_whole, found), key=_step)


def choose_checkpoint(output: Path) -> tuple[Path | None, list[str]]:
    """The last checkpoint whose every file is what was written, or None; and a remark for each one that was passed
    over, naming the file."""
    remarks = []
    for path in reversed(checkpoints(output)):
        fault = next(_faults(path), None)
        if fault is None:
            return path, remarks
        remarks.append(f"{path.name} is passed over: its {fault[0]} {fault[1]}")
    return None, remarks


def _step(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def _whole(path: Path) -> bool:
    if (path / UNFINISHED).exists():
        return False
    if (path / CHECKSUMS).exists():
        return True
    try:
        state = json.loads((path / "trainer_state.json").read_text())  # what 0.1.0 wrote last
    except (OSError, ValueError):
        return False
    weights = any(path.glob("*.safetensors")) or any(path.glob("pytorch_model_fsdp*"))
    return weights and any(path.glob("rng_state*.pth")) and state.get("global_step") == _step(path)


def _faults(path: Path) -> Iterator[tuple[str, str]]:
    """Files of a checkpoint that can't be what was written, and why. Without checksums (0.1.0) those that zip archives
    carry, and whether the rest can be opened."""
    if (path / CHECKSUMS).exists():
        yield from damaged(path)
        return
    for file in sorted(path.iterdir()):
        try:
            if file.suffix in (".pt", ".pth"):
                with zipfile.ZipFile(file) as archive:
                    if archive.testzip() is not None:
                        yield file.name, "is damaged"
            elif file.suffix == ".safetensors":
                with safe_open(file, "pt"):
                    pass
            elif file.suffix == ".json":
                json.loads(file.read_bytes())
        except (OSError, ValueError, zipfile.BadZipFile, SafetensorError) as error:
            yield file.name, f"can't be read ({error})"


def run_description(model: str, recipe: Mapping[str, Any], splits: Mapping[str, VideoRows]) -> dict[str, Any]:
    """What decides a run's weights besides the code."""
    rows = [(name, row.name, row.label) for name, split in splits.items() for row in split]
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    return {"model": str(model), "recipe": _without(recipe, "remarks"), "videos": len(rows), "videos_sha256": digest}


def _without(recipe: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in recipe.items() if key != name}


def refuse_another(output: Path, before: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    """Raises ConfigError where `run` would not go on as the run `before` began."""
    before = _flat(before)
    now = _flat(json.loads(json.dumps(run)))
    counted = all((one.get("recipe.training.max_steps") or 0) > 0 for one in (before, now))
    for name in sorted(before.keys() | now.keys()):
        if counted and name == "recipe.training.min_train_steps":
            continue  # the steps are counted already; 0.1.0 wrote down what has no effect then
        if before.get(name) != now.get(name) and not _FREE.search(name):
            raise ConfigError(
                f"{output} was begun with {name}={before.get(name)!r}, and now it is {now.get(name)!r}. Resume with "
                "the same settings and data, or begin anew with --overwrite."
            )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
