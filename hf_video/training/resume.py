"""An output folder between runs: what it holds, and whether a run may go on there."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_video.data.division import SPLIT_FILE
from hf_video.data.rows import VideoRows
from hf_video.errors import ConfigError

RUN_FILE = "run.json"
SKIPPED_FILE = "skipped.jsonl"
SUMMARY_FILE = "training_summary.json"
# What a run makes; nothing else is removed by --overwrite.
_MADE = (RUN_FILE, SPLIT_FILE, SKIPPED_FILE, SUMMARY_FILE, "evaluation", "runs", "training_args.json")
# Settings that may differ when a run goes on: they change no weight.
_FREE = re.compile(
    r"dataloader_(num|persist|prefetch|pin)|logging|report_to|save_|disable_tqdm|push_to_hub|hub_|run_name"
)


def checkpoints(output: Path) -> list[Path]:
    """Checkpoint folders that were written whole, oldest first. transformers takes the last one whatever is in it; a
    process that was killed while it wrote leaves one that can't be loaded."""
    found = [path for path in output.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(filter(_whole, found), key=_step)


def _step(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def _whole(path: Path) -> bool:
    try:
        state = json.loads((path / "trainer_state.json").read_text())  # what is written last
    except (OSError, ValueError):
        return False
    weights = any(path.glob("*.safetensors")) or any(path.glob("pytorch_model_fsdp*"))
    return weights and any(path.glob("rng_state*.pth")) and state.get("global_step") == _step(path)


def run_description(model: str, recipe: Mapping[str, Any], splits: Mapping[str, VideoRows]) -> dict[str, Any]:
    """What decides a run's weights besides the code."""
    rows = [(name, row.name, row.label) for name, split in splits.items() for row in split]
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    return {"model": str(model), "recipe": dict(recipe), "videos": len(rows), "videos_sha256": digest}


def open_output(output: Path, run: Mapping[str, Any], *, resume: bool, overwrite: bool) -> Path | None:
    """The checkpoint to go on from, or None to begin.

    Raises ConfigError for a folder that holds a run and neither option, and for one that holds another run than `run`.
    """
    if resume and overwrite:
        raise ConfigError("Give --resume or --overwrite, not both.")
    started = (output / RUN_FILE).exists() or any(output.glob("checkpoint-*"))
    if not started:
        return None
    if overwrite:
        _clear(output)
        return None
    if not resume:
        raise ConfigError(
            f"{output} holds another run. Go on with it: --resume; begin anew: --overwrite; or choose another --output."
        )
    _refuse_another(output, run)
    return next(reversed(checkpoints(output)), None)


def _clear(output: Path) -> None:
    for path in (*output.glob("checkpoint-*"), *(output / name for name in _MADE)):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _refuse_another(output: Path, run: Mapping[str, Any]) -> None:
    path = output / RUN_FILE
    if not path.exists():
        raise ConfigError(f"{output} has checkpoints but no {RUN_FILE}: they are not of hf-video train.")
    before = _flat(json.loads(path.read_text()))
    now = _flat(json.loads(json.dumps(run)))
    for name in sorted(before.keys() | now.keys()):
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
