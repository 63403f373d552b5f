"""Reading 16 uniform frames, the whole job for each file: time, exactness, and peak memory."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch

from benchmarks import clips, memory, readers
from benchmarks.measure import Row, Times, absent, compare, race, require_close
from benchmarks.readers import DECORD, NEEDS, OURS, OURS_KEYFRAMES, OURS_TWICE, READERS, STOCK, TORCHCODEC
from benchmarks.setting import Setting, why_absent

AREA = "reading"
TARGETS = {TORCHCODEC: 0.65, DECORD: 0.6}
STOCK_LONG_TARGET = 0.15
TWICE_LONG_TARGET = 0.2  # of stock's wall time, with a keyframe every 250 frames
MEMORY_LIMIT_MB = 150


def run(setting: Setting) -> list[Row]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # torchcodec copies with torch, whose idle threads would burn CPU time on its account
    try:
        return file_rows(setting)
    finally:
        torch.set_num_threads(threads)


def file_rows(setting: Setting) -> list[Row]:
    """Every clip, then memory."""
    recipes = clips.QUICK if setting.quick else clips.FULL
    missing = {name: reason for name, package in NEEDS.items() if (reason := why_absent(package))}
    rows = []
    for recipe in recipes.values():
        path = clips.clip(recipe, setting.cache)
        rows += read_rows(setting, f"16 frames of {recipe.name}", path, missing, slow=recipe.long, gop=recipe.gop)
    for path in setting.clips:
        rows += read_rows(setting, f"16 frames of {path.name}", path, missing)
    return rows + memory_rows(setting, recipes["long30"], missing)


def read_rows(
    setting: Setting, job: str, path: Path, missing: dict[str, str], *, slow: bool = False, gop: int = 30
) -> list[Row]:
    """One file. On `slow` ones the stock reader runs once: it decodes everything up to the last frame."""
    print(f"  {job}", flush=True)
    names = [name for name in READERS if name not in missing and not (slow and name == STOCK)]
    begin = time.process_time(), time.perf_counter()
    truth = readers.stock(path)
    once = Times([(time.process_time() - begin[0]) * 1e3], [(time.perf_counter() - begin[1]) * 1e3])
    exact = {name: exact_frames(name, path, truth) for name in names}
    for name in (OURS, OURS_TWICE):
        require_close(f"{job}: frames of {name} that are not those of a full decode", readers.FRAMES - exact[name], 0)
    del truth
    rounds = max(1, -(-setting.rounds // (3 if gop > 60 else 2))) if slow else setting.rounds
    times = race({name: lambda read=READERS[name]: read(path) for name in names}, rounds)
    if slow:
        times[STOCK] = once
    rows = []
    for name in READERS:
        kind = "wall" if slow and name == STOCK else "cpu"
        if name in missing:
            rows.append(absent(OURS, times[OURS], name, missing[name], area=AREA, job=job, kind=kind))
        elif name == OURS_KEYFRAMES:
            rows.append(compare(times, name, OURS, area=AREA, job=job, kind=kind))
        elif name == OURS_TWICE:
            target = setting.target(TWICE_LONG_TARGET) if gop > 60 and slow else None
            peer = STOCK if slow else OURS
            rows.append(compare(times, name, peer, area=AREA, job=job, target=target))
        elif name != OURS:
            target = STOCK_LONG_TARGET if slow and name == STOCK else TARGETS.get(name)
            target = None if target is None else setting.target(target)
            inexact = readers.FRAMES - exact.get(name, readers.FRAMES)
            note = f"{inexact} of {readers.FRAMES} of its frames differ from a full decode" if inexact else ""
            rows.append(compare(times, OURS, name, area=AREA, job=job, kind=kind, target=target, note=note))
    return rows


def exact_frames(name: str, path: Path, truth: np.ndarray) -> int:
    """How many of a reader's frames are those of a full sequential decode, to the bit."""
    got = READERS[name](path)
    return sum(np.array_equal(a, b) for a, b in zip(got, truth, strict=True)) if got.shape == truth.shape else 0


def memory_rows(setting: Setting, recipe: clips.Recipe, missing: dict[str, str]) -> list[Row]:
    """Peak over the imports for 16 frames of the long file, each reader in a process of its own."""
    job, path = f"memory, 16 frames of {recipe.name}", clips.clip(recipe, setting.cache)
    used = {name: memory.peak_mb(name, path) for name in READERS if name not in missing}
    limit = Row(AREA, job, OURS, used[OURS], "limit", MEMORY_LIMIT_MB, used[OURS] / MEMORY_LIMIT_MB, kind="memory")
    limit.target, limit.rounds = setting.target(1.0), 1
    rows = [limit]
    for name in READERS:
        if name == OURS:
            continue
        if name in missing:
            rows.append(Row(AREA, job, OURS, used[OURS], name, None, None, kind="memory", note=missing[name]))
        else:
            ratio = used[OURS] / max(used[name], 0.1)
            rows.append(Row(AREA, job, OURS, used[OURS], name, used[name], ratio, kind="memory", rounds=1))
    return rows
