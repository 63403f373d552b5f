"""The log on the screen: a line for every few steps, and one for every evaluation."""

from __future__ import annotations

import time
from typing import Any

from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from hf_video.training.plan import clip_rate, duration

# What transformers adds to every evaluation, and what a line has in its own words.
_PASSED_OVER = (
    *("runtime", "per_second", "epoch", "jit_compilation", "model_preparation", "memory", "total_flos", "step"),
)
_SHOWN = 8  # numbers of an evaluation


def print_lines(trainer: Any) -> None:
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

    def _figures(self, state: Any, logs: dict[str, Any]) -> list[str]:
        figures = [f"epoch {state.epoch:.2f}", f"loss {logs['loss']:.4f}", f"lr {logs.get('learning_rate', 0):.2e}"]
        if logs.get("clips_per_second"):
            figures.append(f"{clip_rate(logs['clips_per_second'])} clips/s")
        done, left = state.global_step - self._first, state.max_steps - state.global_step
        if done > 0 and left > 0:
            figures.append(f"{duration((time.perf_counter() - self._begin) / done * left)} left")
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
