"""What is done and measured around training steps."""

from __future__ import annotations

import sys
import time
from typing import Any

from transformers import TrainerCallback


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
        self.throughput, self.share, self.seconds, self.said = throughput, share, seconds, False

    def on_log(self, args, state, control, logs=None, **kwargs):
        waited = (logs or {}).get("decode_wait", 0.0)
        lost = self.throughput.all_waited
        if self.said or waited < self.share or lost < self.seconds or not state.is_world_process_zero:
            return
        self.said = True
        print(
            f"Training waits for decoding {waited:.0%} of the time: raise dataloader_num_workers "
            f"(now {args.dataloader_num_workers}), or re-encode the videos small (hf-video check --help).",
            file=sys.stderr,
        )
