"""What encoders may not change of the process that they run in."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def own_priority() -> Iterator[None]:
    """The thread keeps its place among others. SVT-AV1 makes the thread that opens it a real-time one where it may, as
    for root on Linux: from then on it, its threads and its processes would go before everything else on the machine."""
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != policy:
            os.sched_setscheduler(0, policy, parameters)
