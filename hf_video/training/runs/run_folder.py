"""The folder of a run, from its first file to the finished model.

A run is written into its output folder, which says `UNFINISHED` until all is there. Where a finished model lies there
(`--overwrite`), the new run is written into `run-in-progress/` beneath it, and the old model stays whole and usable
until the new one is; only then the files change places.
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from hf_video.base.model_folder import CHECKSUMS, UNFINISHED, replacing, seal, unseal
from hf_video.base.output_paths import check_output_folder
from hf_video.data.sources.division import SPLIT_FILE
from hf_video.errors import ConfigError, OutputError
from hf_video.hub.model_card import is_generated_card
from hf_video.training.plan import Plan, confirm
from hf_video.training.resume import (
    RUN_FILE,
    SKIPPED_FILE,
    SUMMARY_FILE,
    checkpoints,
    choose_checkpoint,
    refuse_another,
)

ASIDE = "run-in-progress"
# What a run and its model consist of; nothing else is removed by --overwrite.
_MADE = (
    "checkpoint-*", RUN_FILE, SPLIT_FILE, SKIPPED_FILE, SUMMARY_FILE, "evaluation", "runs", "figures",
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

    def begin(self) -> None:
        """Marks the folder as unfinished, removes what is not gone on from, and writes `run.json`."""
        unseal(
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
        with replacing(self.folder / RUN_FILE) as path:
            path.write_text(json.dumps(self.run, indent=2), encoding="utf-8")

    def finish(self) -> None:
        """Checksums over all there is; the folder is finished, and takes its place."""
        seal(self.folder)
        if self.folder != self.output:
            _swap(self.output)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """What stops a run from outside, told with the checkpoint that is there and how to go on: TrainingInterrupted
        for a signal, OutputError for a disk that is full or can't be written."""
        try:
            yield
        except KeyboardInterrupt as stop:
            told = TrainingInterrupted(f"Stopped. {self._left()}")
            told.resumable = any(checkpoints(self.folder))
            raise told from stop
        except (OSError, SafetensorError, RuntimeError) as error:
            reason = why_not_written(error, self.folder)
            if reason is None or isinstance(error, OutputError):
                raise
            raise OutputError(f"{self.output} can't be written: {reason}. {self._left()}") from error

    def _left(self) -> str:
        last = next(reversed(checkpoints(self.folder)), None)
        if last is None:
            return "No checkpoint was written yet: begin anew with --overwrite (overwrite=True)."
        return f"Saved is {last}. Go on with the same and --resume (resume=True)."


def begin(trainer: Any, place: RunFolder, plan: Plan, *, yes: bool) -> None:
    """Tells the plan, asks where it is absurd (see `confirm`), and begins the run's folder."""
    from accelerate.utils import broadcast_object_list

    if trainer.is_world_process_zero():
        print(plan, flush=True)
    plan.concerns = broadcast_object_list([plan.concerns])[0]  # all processes go on, or none
    confirm(plan, yes=yes)
    place.run["ran"] = {
        "steps": plan.facts.get("steps"),
        **{name: getattr(trainer.args, name) for name in ("num_train_epochs", "learning_rate", "rows_per_step")},
        "per_device_train_batch_size": trainer.args.per_device_train_batch_size,
    }
    if trainer.is_world_process_zero():
        place.begin()
    trainer.accelerator.wait_for_everyone()


def folder_to_resume(output: Path) -> Path:
    """Where the run lies that --resume goes on with."""
    return output / ASIDE if (output / ASIDE / RUN_FILE).exists() else output


def open_output(output: Path, run: Mapping[str, Any], *, resume: bool, overwrite: bool) -> RunFolder:
    """Where a run goes on or begins. What lies there stays as it is until `begin`, but a swap that broke off is ended.

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
    before = _begun(going, checkpoint, remarks)
    if before is None:
        raise ConfigError(
            f"{output} has {'checkpoints' if checkpoint else 'files of a model'} but no {RUN_FILE}: they are not of "
            "hf-video train. Choose another --output, or begin anew with --overwrite."
        )
    refuse_another(output, before, run)
    if going == output and finished and checkpoint is None:
        raise ConfigError(
            f"{output} is a finished run without a checkpoint to go on from. Begin anew with --overwrite, or choose "
            "another --output."
        )
    remarks.append(f"resuming from {checkpoint}" if checkpoint else "there is no checkpoint yet: from the beginning")
    return RunFolder(output, going, dict(run), checkpoint, remarks, resumed=True)


def _begun(folder: Path, checkpoint: Path | None, remarks: list[str]) -> dict[str, Any] | None:
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
        unseal(output, _SWAP_OLD)
        _remove(output)
        unseal(output, _SWAP_NEW)
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


def why_not_written(error: BaseException, folder: Path) -> str | None:
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
