"""Ctrl-C and SIGTERM while training: the step is ended, a checkpoint saved, and training stops."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainerCallback


class EvaluationStopped(BaseException):
    """Raised out of an evaluation by a signal. No Exception: nothing that reads files may take it for a fault."""


class Stopper(TrainerCallback):
    """Inside `listening()` the first SIGINT or SIGTERM sets `asked`; the trainer then saves a checkpoint and stops
    after its step, an evaluation at once. A second one raises KeyboardInterrupt where it is. Only the main thread can
    listen."""

    def __init__(self) -> None:
        self.asked, self.evaluating = False, False

    @contextmanager
    def listening(self) -> Iterator[None]:
        self.asked = False
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._hear) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("\nStopping after this step, with a checkpoint; once more quits at once.", file=sys.stderr, flush=True)
        if self.evaluating:
            raise EvaluationStopped

    def on_step_end(self, args, state, control, **kwargs):
        if args.world_size > 1:  # all stop after the same step
            asked = torch.tensor(int(self.asked), device=args.device)
            torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
            self.asked = bool(asked)
        if self.asked:
            control.should_save = control.should_training_stop = True
            control.should_evaluate = control.should_evaluate and args.load_best_model_at_end

    def on_epoch_end(self, args, state, control, **kwargs):
        if self.asked:
            control.should_save = control.should_evaluate = False


@dataclass
class WorkerSignals:
    """`worker_init_fn` of a loader: Ctrl-C is for the main process, which ends its workers by SIGTERM. `then` is the
    function that stood there."""

    then: Callable[[int], Any] | None = None

    def __call__(self, worker: int) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if self.then is not None:
            self.then(worker)
