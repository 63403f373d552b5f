"""A `DataLoader` with two workers against the reader alone: how much of what workers could read arrives as batches.

The same clips and the same frames of them: the reader opens, samples, reads and closes, in one process; the loader does
that and augments, normalises, collates and hands over. Both take turns in one run.

    python benchmarks/loader.py [--quick]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also runs where hf_video isn't installed

from benchmarks import clips, report
from benchmarks.measure import Row, Times, compare
from benchmarks.setting import Setting

AREA = "loader"
WORKERS, BATCH = 2, 4
READER, LOADER = "the reader alone", "loader"
LIMIT = 1.25  # 80 % of the reader's clips a second, as time for a clip


def run(setting: Setting) -> list[Row]:
    recipes = clips.QUICK if setting.quick else clips.FULL
    rows = []
    for recipe in (recipes["small"], recipes["short"]):
        path = clips.clip(recipe, setting.cache)
        for training in (False, True):
            rows += loader_rows(setting, recipe.name, path, training=training)
    return rows


def loader_rows(setting: Setting, name: str, path: Path, *, training: bool) -> list[Row]:
    """Wall time of a clip against the reader's divided by the workers, and CPU time against the reader's."""
    count = BATCH * WORKERS * (1 if setting.quick else 8)
    dataset = make_dataset(path, count, training=training)
    times = {READER: Times(), LOADER: Times()}
    for number in range(setting.rounds + 1):
        for candidate, job in ((READER, read_all), (LOADER, load_all)):
            cpu, wall = job(dataset)
            if number:  # the first round warms up
                times[candidate].cpu.append(cpu * 1e3 / count)
                times[candidate].wall.append(wall * 1e3 / count / (WORKERS if candidate == READER else 1))
    what = "training" if training else "evaluation"
    job = f"{what} clip of {name}, {WORKERS} workers"
    share = 100 / compare(times, LOADER, READER, area=AREA, job=job).ratio
    target = setting.target(LIMIT)
    return [
        compare(times, LOADER, READER, area=AREA, job=job, target=target, note=f"{share:.0f} % of {WORKERS} readers"),
        compare(times, LOADER, READER, area=AREA, job=job, kind="cpu"),
    ]


def make_dataset(path: Path, count: int, *, training: bool):
    from hf_video import VideoMAEImageProcessor
    from hf_video.data import VideoDataset, VideoRow, VideoRows
    from hf_video.video.augment.augmentation import Augmentation

    rows = VideoRows([VideoRow(str(path), 0, f"{number}") for number in range(count)], ["clip"])
    return VideoDataset(
        rows,
        VideoMAEImageProcessor(num_frames=16),
        sampler="dense",
        sampler_options={"stride": 4},
        augmentation=Augmentation(224, flip=0.5) if training else None,
    )


def read_all(dataset) -> tuple[float, float]:
    """(CPU, wall) seconds of reading the frames of every sample, in this process on one thread."""
    from hf_video.data.datasets.dataset import FRAMES, sample_seed
    from hf_video.video import VideoReader

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    cpu, wall = time.process_time(), time.perf_counter()
    for index, row in enumerate(dataset.rows):
        with VideoReader(row.source, **dataset.request.decode) as reader:
            sample = dataset.request.choose(reader, sample_seed(dataset.seed, dataset.epoch, index, 0, FRAMES))
            reader.get_frames(sample.indices[0])
    spent = time.process_time() - cpu, time.perf_counter() - wall
    torch.set_num_threads(threads)
    return spent


def load_all(dataset) -> tuple[float, float]:
    """(CPU of all processes, wall) seconds of one epoch."""
    from hf_video.data import VideoCollator

    loader = torch.utils.data.DataLoader(
        dataset, batch_size=BATCH, num_workers=WORKERS, collate_fn=VideoCollator(), persistent_workers=True
    )
    begin = _cpu()
    batches = iter(loader)
    wall = time.perf_counter()
    seen = sum(len(batch["labels"]) for batch in batches)
    wall = time.perf_counter() - wall
    if seen != len(dataset):
        raise AssertionError(f"{seen} of {len(dataset)} clips arrived")
    del batches, loader  # the workers end, and their times become known
    return _cpu() - begin, wall


def _cpu() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="tiny inputs: shows that all runs, measures nothing")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "hf_video_benchmarks")
    options = parser.parse_args(argv)
    setting = Setting(1 if options.quick else options.rounds, WORKERS, options.cache.resolve(), quick=options.quick)
    rows = run(setting)
    print(report.table([row.as_dict() for row in rows]))
    print("\n".join(f"{row.job}: {row.note}" for row in rows if row.note))
    return 0


if __name__ == "__main__":
    sys.exit(main())
