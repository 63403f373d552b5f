"""The folder of a run, from its first file to the finished model, and its checkpoints.

A run is written into its output folder, which holds `UNFINISHED` until all is there. Where a finished model lies there
(`--overwrite`), the new run is written into `run-in-progress/` beneath it, and the old model stays whole and usable
until the new one is; only then the files change places.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from hf_video.base.written_files import (
    CHECKSUMS,
    UNFINISHED,
    atomic_write,
    check_output_folder,
    find_damaged_files,
    mark_being_written,
    write_checksums,
)
from hf_video.data.rows import VideoRows
from hf_video.data.sources.division import SPLIT_FILE
from hf_video.errors import ConfigError, OutputError
from hf_video.hub.model_card import is_generated_card

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
        yield from find_damaged_files(path)
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
    return {
        "model": str(model),
        "recipe": {name: value for name, value in recipe.items() if name != "remarks"},
        "videos": len(rows),
        "videos_sha256": digest,
    }


def check_same_run(output: Path, before: Mapping[str, Any], run: Mapping[str, Any]) -> None:
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


ASIDE = "run-in-progress"
# What a run and its model consist of; nothing else is removed by --overwrite.
_MADE = (
    "checkpoint-*", RUN_FILE, SPLIT_FILE, SKIPPED_FILE, SUMMARY_FILE, "evaluation", "encoder", "runs", "figures",
    "training_curve.png", "training_args.json", "*.safetensors", "*.safetensors.index.json", "config.json",
    "generation_config.json",
    "*processor_config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt",
    "chat_template.*", CHECKSUMS, "README.md",
)  # fmt: skip
_SWAP_OLD = "A new run is finished and takes its place: the old files are being removed. Run the same with --resume."
_SWAP_NEW = "A new run is finished and takes its place: its files are being moved here. Run the same with --resume."


class TrainingInterrupted(KeyboardInterrupt):
    """Training was stopped by a signal. The message says what is saved; `resumable` that something is."""

    resumable = False


@dataclass
class RunFolder:
    """Where a run is written (`folder`) and where it belongs (`output`), the checkpoint that it goes on from, and
    remarks for the plan; `resumed` and `anew` (what a run made there is removed). Made by `open_output`."""

    output: Path
    folder: Path
    run: dict[str, Any]
    checkpoint: Path | None = None
    remarks: list[str] = field(default_factory=list)
    resumed: bool = False
    anew: bool = False

    @property
    def resumed_from(self) -> str | None:
        """The checkpoint, as `Trainer.train` takes it."""
        return None if self.checkpoint is None else str(self.checkpoint)

    def start(self) -> None:
        """Marks the folder as unfinished, removes what is not gone on from, and writes `run.json`."""
        mark_being_written(
            self.folder,
            "A training writes here, or broke off. Go on with it: the same command with --resume. Its checkpoint-… "
            "folders are models too.",
        )
        if self.anew:
            _remove(self.folder, but=SKIPPED_FILE)
        if self.resumed:
            for path in self.folder.glob("checkpoint-*"):
                if self.checkpoint is None or _number(path) > _number(self.checkpoint):
                    shutil.rmtree(path)
        with atomic_write(self.folder / RUN_FILE) as path:
            path.write_text(json.dumps(self.run, indent=2), encoding="utf-8")

    def finish(self) -> None:
        """Checksums over all there is; the folder is finished, and takes its place."""
        write_checksums(self.folder)
        if self.folder != self.output:
            _swap(self.output)

    @contextmanager
    def explaining_interruptions(self) -> Iterator[None]:
        """What stops a run from outside, told with the checkpoint that is there and how to go on: TrainingInterrupted
        for a signal, OutputError for a disk that is full or can't be written."""
        try:
            yield
        except KeyboardInterrupt as stop:
            error = TrainingInterrupted(f"Stopped. {self._saved_state()}")
            error.resumable = any(checkpoints(self.folder))
            raise error from stop
        except (OSError, SafetensorError, RuntimeError) as error:
            reason = write_failure(error, self.folder)
            if reason is None or isinstance(error, OutputError):
                raise
            raise OutputError(f"{self.output} can't be written: {reason}. {self._saved_state()}") from error

    def _saved_state(self) -> str:
        last = next(reversed(checkpoints(self.folder)), None)
        if last is None:
            return "No checkpoint was written yet: begin anew with --overwrite (overwrite=True)."
        return f"Saved is {last}. Go on with the same and --resume (resume=True)."


def folder_to_resume(output: Path) -> Path:
    """Where the run lies that --resume goes on with."""
    return output / ASIDE if (output / ASIDE / RUN_FILE).exists() else output


def open_output(output: Path, run: Mapping[str, Any], *, resume: bool, overwrite: bool) -> RunFolder:
    """The folder where a run begins or goes on. Its content stays until `RunFolder.start`, but a swap that
    broke off is ended.

    Raises ConfigError for a folder that holds a run or a model and neither option, and for one that holds another run
    than `run`; OutputError for one that can't be written.
    """
    if resume and overwrite:
        raise ConfigError("Give --resume or --overwrite, not both.")
    check_output_folder(output)
    aside = output / ASIDE
    if (aside / CHECKSUMS).exists() and not (aside / UNFINISHED).exists():
        _swap(output)
    finished = any(output.glob("*.safetensors")) and not (output / UNFINISHED).exists()
    started = finished or (output / RUN_FILE).exists() or any(output.glob("checkpoint-*"))
    going = folder_to_resume(output)
    if not started:
        return RunFolder(output, output, dict(run))
    if overwrite:
        folder = aside if finished else output
        (folder / SKIPPED_FILE).unlink(missing_ok=True)  # while the plan is made, files are named there
        return RunFolder(output, folder, dict(run), anew=True)
    if not resume:
        raise ConfigError(
            f"{output} holds another run. Go on with it: --resume; begin anew: --overwrite; or choose another --output."
        )
    checkpoint, remarks = choose_checkpoint(going)
    before = _read_run_file(going, checkpoint, remarks)
    if before is None:
        raise ConfigError(
            f"{output} has {'checkpoints' if checkpoint else 'files of a model'} but no {RUN_FILE}: they are not of "
            "hf-video train. Choose another --output, or begin anew with --overwrite."
        )
    check_same_run(output, before, run)
    if going == output and finished and checkpoint is None:
        raise ConfigError(
            f"{output} is a finished run without a checkpoint to go on from. Begin anew with --overwrite, or choose "
            "another --output."
        )
    remarks.append(f"resuming from {checkpoint}" if checkpoint else "there is no checkpoint yet: from the beginning")
    return RunFolder(output, going, dict(run), checkpoint, remarks, resumed=True)


def _read_run_file(folder: Path, checkpoint: Path | None, remarks: list[str]) -> dict[str, Any] | None:
    """What `run.json` says. Each checkpoint has a copy, among its checksums, which holds where the two differ."""
    copy = None if checkpoint is None else _read(checkpoint / RUN_FILE)
    top = _read(folder / RUN_FILE)
    if copy is not None and copy != top:
        remarks.append(f"{RUN_FILE} is missing or damaged: the copy in {checkpoint.name} is used")
        return copy
    if top is None and (folder / RUN_FILE).exists():
        raise ConfigError(
            f"{folder / RUN_FILE} is damaged, and no checkpoint holds a copy of it. Begin anew with --overwrite."
        )
    return top


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _number(path: Path) -> int:
    digits = path.name.rpartition("-")[2]
    return int(digits) if digits.isdigit() else -1


def _swap(output: Path) -> None:
    """Moves a finished run from `run-in-progress/` into its place. A swap that was killed anywhere is ended by another
    one: `checksums.json` goes last."""
    aside, marker = output / ASIDE, output / UNFINISHED
    if not marker.exists() or _SWAP_NEW not in marker.read_text(encoding="utf-8"):
        mark_being_written(output, _SWAP_OLD)
        _remove(output)
        mark_being_written(output, _SWAP_NEW)
    for path in sorted(aside.iterdir(), key=lambda path: path.name == CHECKSUMS):
        if not (path.name == "README.md" and (output / path.name).exists()):  # a person's own
            path.replace(output / path.name)
    shutil.rmtree(aside)
    marker.unlink()


def _remove(folder: Path, *, but: str = "") -> None:
    """Removes what a run makes; a card that a person wrote is kept, and all else that lies there."""
    for pattern in _MADE:
        for path in folder.glob(pattern):
            if path.name == but or (path.name == "README.md" and not is_generated_card(path)):
                continue
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def write_failure(error: BaseException, folder: Path) -> str | None:
    """In words, where an error says that something can't be written; else None. safetensors and torch put the
    system's reason into texts of their own."""
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO)
    if isinstance(error, OSError) and error.errno in numbers:
        return f"{error.strerror}{f' ({error.filename})' if error.filename else ''}"
    text = str(error)
    if isinstance(error, SafetensorError) and "os error" in text:
        return text
    if isinstance(error, RuntimeError) and ("PytorchStreamWriter" in text or "inline_container" in text):
        free = shutil.disk_usage(folder).free
        return f"a file broke off in the middle of writing, with {free / 1e9:.1f} GB free"
    return None
