"""Processes that share the work on a model, each with a copy of its own."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.queues import Queue
from typing import Any

import torch

_PREPARED: list[Callable[[Any], Any]] = []


def process_pool(count: int, prepare: Callable[[int], Callable[[Any], Any]]) -> ProcessPoolExecutor:
    """Starts `count` processes, which share the threads of this one. Each calls `prepare` with its number first; what
    that returns is what `run_prepared` calls there. They end with this process, however that ends."""
    context = multiprocessing.get_context("spawn")
    numbers = context.Queue()
    for number in range(count):
        numbers.put(number)
    threads = max(torch.get_num_threads() // count, 1)
    return ProcessPoolExecutor(count, context, _start, (prepare, numbers, threads))


def run_prepared(item: object) -> Any:
    """Runs what `prepare` returned; this function is to be submitted to a `process_pool`."""
    return _PREPARED[0](item)


def _start(prepare: Callable[[int], Callable[[Any], Any]], numbers: Queue, threads: int) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    _PREPARED[:] = [prepare(numbers.get())]


def _end_with_parent() -> None:
    """Ends a process whose parent was killed, which would otherwise wait for work for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)
