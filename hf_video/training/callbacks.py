"""Callbacks of `VideoTrainer`: epoch, average, throughput, interruption by a signal, and the log on the screen."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import PrinterCallback, ProgressCallback, TrainerCallback, TrainerState

from hf_video.training.plan import format_clip_rate, rough_duration

if TYPE_CHECKING:
    from types import FrameType

    from transformers import Trainer


class EpochSetter(TrainerCallback):
    """Tells data set and sampler the epoch. accelerate does so too, but forgets the data set where the sampler takes
    an epoch, and the sampler where an epoch is resumed on several processes."""

    def __init__(self) -> None:
        self.listeners: list[Any] = []

    def on_epoch_begin(self, args, state, control, **kwargs):
        # At an epoch's begin `state.epoch` is whole, but for one that is resumed in its middle.
        for listener in self.listeners:
            listener.set_epoch(int(state.epoch or 0))


class AverageUpdater(TrainerCallback):
    """Moves the average after each optimiser step."""

    def __init__(self, trainer):
        self.trainer = trainer

    def on_step_end(self, args, state, control, **kwargs):
        if self.trainer.average is not None:
            self.trainer.average.update(self.trainer.model)


class Throughput(TrainerCallback):
    """Clips a second, and the share of the step time that this process waited for its loader.

    Time between steps (evaluation, checkpoints, logging) is not counted.
    """

    def __init__(self) -> None:
        self.clips = self.waited = self.stepped = 0.0  # since the last reading
        self.all_clips = self.all_waited = self.all_stepped = 0.0
        self._begin = 0.0

    def begin_step(self) -> None:
        self._begin = time.perf_counter()

    def got_batch(self, clips: int) -> None:
        self.waited += time.perf_counter() - self._begin
        self.clips += clips

    def on_step_end(self, args, state, control, **kwargs):
        self.stepped += time.perf_counter() - self._begin

    def read(self) -> dict[str, float]:
        """Figures since the last reading; {} where there was no step."""
        self.all_clips += self.clips
        self.all_waited += self.waited
        self.all_stepped += self.stepped
        figures = _figures(self.clips, self.waited, self.stepped)
        self.clips = self.waited = self.stepped = 0.0
        return figures

    def read_all(self) -> dict[str, float]:
        """Figures of the whole training."""
        self.read()
        return _figures(self.all_clips, self.all_waited, self.all_stepped)


def _figures(clips: float, waited: float, stepped: float) -> dict[str, float]:
    if not stepped:
        return {}
    return {"clips_per_second": round(clips / stepped, 3), "decode_wait": round(min(waited / stepped, 1.0), 4)}


class StarvationWarning(TrainerCallback):
    """Says once, when ten seconds were lost, that training waits for decoding."""

    def __init__(self, throughput: Throughput, share: float = 0.3, seconds: float = 10.0):
        self.throughput, self.share, self.seconds, self.warned = throughput, share, seconds, False

    def on_log(self, args, state, control, logs=None, **kwargs):
        waited = (logs or {}).get("decode_wait", 0.0)
        lost = self.throughput.all_waited
        if self.warned or waited < self.share or lost < self.seconds or not state.is_world_process_zero:
            return
        self.warned = True
        print(
            f"Training waits for decoding {waited:.0%} of the time: raise dataloader_num_workers "
            f"(now {args.dataloader_num_workers}), or re-encode the videos small (hf-video check --help).",
            file=sys.stderr,
        )


class EvaluationStopped(BaseException):
    """Raised out of an evaluation by a signal. No Exception: nothing that reads files may take it for a fault."""


class InterruptCallback(TrainerCallback):
    """Inside `listening()` the first SIGINT or SIGTERM sets `requested`; the trainer then saves a checkpoint and stops
    after its step, an evaluation at once. A second one raises KeyboardInterrupt where it is. Only the main thread can
    listen."""

    def __init__(self) -> None:
        self.requested, self.evaluating = False, False

    @contextmanager
    def listening(self) -> Iterator[None]:
        self.requested = False
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._handle_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        print("\nStopping after this step, with a checkpoint; once more quits at once.", file=sys.stderr, flush=True)
        if self.evaluating:
            raise EvaluationStopped

    def on_step_end(self, args, state, control, **kwargs):
        if args.world_size > 1:  # all stop after the same step
            requested = torch.tensor(int(self.requested), device=args.device)
            torch.distributed.all_reduce(requested, torch.distributed.ReduceOp.MAX)
            self.requested = bool(requested)
        if self.requested:
            control.should_save = control.should_training_stop = True
            control.should_evaluate = control.should_evaluate and args.load_best_model_at_end

    def on_epoch_end(self, args, state, control, **kwargs):
        if self.requested:
            control.should_save = control.should_evaluate = False


@dataclass
class WorkerSignalHandling:
    """`worker_init_fn` of a loader: Ctrl-C is for the main process, which ends its workers by SIGTERM. `previous` is
    called after it."""

    previous: Callable[[int], Any] | None = None

    def __call__(self, worker: int) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if self.previous is not None:
            self.previous(worker)


# What transformers adds to every evaluation, and what a line has in its own words.
_PASSED_OVER = (
    *("runtime", "per_second", "epoch", "jit_compilation", "model_preparation", "memory", "total_flos", "step"),
)
_SHOWN = 8  # numbers of an evaluation


def use_log_lines(trainer: Trainer) -> None:
    """Puts `LogLines` in place of transformers' dictionaries, above its progress bar where there is one."""
    for callback in list(trainer.callback_handler.callbacks):
        if type(callback) is PrinterCallback:
            trainer.remove_callback(callback)
            trainer.add_callback(LogLines())
        elif type(callback) is ProgressCallback:
            trainer.remove_callback(callback)
            trainer.add_callback(Bar())


class LogLines(TrainerCallback):
    """Prints `step 40/600  epoch 2.00  loss 1.2345  lr 1.9e-03  12.3 clips/s  3 min left`, at most about
    `args.log_lines` times, and each evaluation."""

    def __init__(self) -> None:
        self._begin = self._first = 0.0
        self._seen = 0

    def on_train_begin(self, args, state, control, **kwargs):
        self._begin, self._first, self._seen = time.perf_counter(), state.global_step, 0

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or not logs or "train_runtime" in logs:
            return
        step = f"step {state.global_step}/{state.max_steps}"
        if "loss" not in logs:
            self.show(f"{step}  {evaluation(logs)}")
            return
        self._seen += 1
        lines, every = getattr(args, "log_lines", 0), max(state.logging_steps, 1)
        thin = max(1, -(-state.max_steps // (lines * every))) if lines else 1
        if self._seen % thin == 0 or state.global_step >= state.max_steps:
            self.show("  ".join([step, *self._figures(state, logs)]))

    def _figures(self, state: TrainerState, logs: dict[str, Any]) -> list[str]:
        figures = [f"epoch {state.epoch:.2f}", f"loss {logs['loss']:.4f}", f"lr {logs.get('learning_rate', 0):.2e}"]
        if logs.get("clips_per_second"):
            figures.append(f"{format_clip_rate(logs['clips_per_second'])} clips/s")
        done, left = state.global_step - self._first, state.max_steps - state.global_step
        if done > 0 and left > 0:
            figures.append(f"{rough_duration((time.perf_counter() - self._begin) / done * left)} left")
        return figures

    def show(self, line: str) -> None:
        print(line, flush=True)


class Bar(ProgressCallback):
    """transformers' progress bar, with `LogLines` above it."""

    def __init__(self) -> None:
        super().__init__()
        self._lines = LogLines()
        self._lines.show = lambda line: self.training_bar.write(line) if self.training_bar else print(line, flush=True)

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        self._lines.on_train_begin(args, state, control, **kwargs)

    def on_log(self, args, state, control, logs=None, **kwargs):
        self._lines.on_log(args, state, control, logs=logs, **kwargs)


def evaluation(logs: dict[str, Any]) -> str:
    """ "validation: loss 1.0824, accuracy 0.6100": the numbers of an evaluation, by their prefix."""
    numbers = {
        name: value
        for name, value in logs.items()
        if isinstance(value, (int, float)) and not any(part in name for part in _PASSED_OVER)
    }
    prefix = next((one for one in ("eval", "validation", "test") if all(n.startswith(f"{one}_") for n in numbers)), "")
    shown = [f"{n.removeprefix(f'{prefix}_')} {v:.4g}" for n, v in list(numbers.items())[:_SHOWN]]
    return f"{'held out' if prefix == 'eval' else prefix or 'measured'}: {', '.join(shown)}"
