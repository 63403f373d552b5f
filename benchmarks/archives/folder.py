"""A folder of files to labels: the next file is read while the model has this one, against one after the other.

Two cores have no more to give than both at work all the time. So beside each ratio stands the bound: CPU time of
reading (one thread) and of the model (one thread), added and shared by the cores, against the time one after the other.

    python benchmarks/archives/folder.py [--quick]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that it also runs where hf_video isn't installed

from benchmarks import clips, models, report
from benchmarks.measure import Row, compare, race
from benchmarks.processor import processors
from benchmarks.setting import Setting

AREA = "folder"
LIMIT = 1 / 1.5  # 1.5 times the files a second
AFTER, AHEAD = "one after the other", "read ahead"
MODELS = {"VideoMAE-S": models.VIDEOMAE_SMALL, "VideoMAE-B": models.VIDEOMAE}
JOBS = (("VideoMAE-S", "small", 16), ("VideoMAE-S", "short", 16), ("VideoMAE-B", "short", 12))  # files of each


def run(setting: Setting) -> list[Row]:
    recipes = clips.QUICK if setting.quick else clips.FULL
    rows = []
    for name, size, count in JOBS:
        classify, recipe = classifier(MODELS[name], setting), recipes[size]
        files = [str(clips.clip(recipe, setting.cache))] * (2 if setting.quick else count)
        for threads in sorted({1, setting.threads}):
            rows.append(folder_row(setting, f"{name} bf16, {recipe.name}", classify, files, threads))
    return rows


def folder_row(setting: Setting, job: str, classify, files: list[str], threads: int) -> Row:
    """Wall time of all files, and in the note what two cores could do at most."""
    one_after_the_other = classify(files, num_workers=0)
    if classify(files) != one_after_the_other:
        raise AssertionError(f"{job}: labels differ")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    candidates = {AFTER: lambda: classify(files, num_workers=0), AHEAD: lambda: classify(files)}
    times = race(candidates, setting.rounds, warmup=0)  # that was above
    torch.set_num_threads(1)
    begin = time.process_time()
    inputs = [classify.preprocess(file) for file in files]
    reading = time.process_time() - begin
    begin = time.process_time()
    for one in inputs:
        classify.forward(one)
    forward = time.process_time() - begin
    torch.set_num_threads(before)
    row = compare(times, AHEAD, AFTER, area=AREA, job=f"{len(files)} files, {job}, {threads} threads")
    bound = row.peer / 1e3 / max((reading + forward) / setting.threads, forward / threads, reading)
    row.target = setting.target(LIMIT)
    row.note = (
        f"{1 / row.ratio:.2f} times the files a second, {bound:.2f} at most: reading {reading / len(files) * 1e3:.0f} "
        f"and model {forward / len(files) * 1e3:.0f} ms CPU a file"
    )
    return row


def classifier(config: dict, setting: Setting):
    import transformers

    import hf_video

    settings = models.options({**config, "num_labels": 400}, setting.quick)
    model = hf_video.VideoMAEForVideoClassification(hf_video.VideoMAEConfig(**settings))
    processor, _ = processors()
    if setting.quick:
        size = {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}}
        processor = type(processor)(**{**processor.to_dict(), **size})
    return transformers.pipeline(
        "video-classification", model=model, image_processor=processor, device="cpu", dtype=torch.bfloat16
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--threads", type=int, default=2, help="cores of the machine, and the model's threads (default 2)"
    )
    parser.add_argument("--quick", action="store_true", help="tiny inputs: shows that all runs, measures nothing")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "hf_video_benchmarks")
    options = parser.parse_args(argv)
    rounds = 1 if options.quick else options.rounds
    setting = Setting(rounds, options.threads, options.cache.resolve(), quick=options.quick)
    rows = run(setting)
    print(report.table([row.as_dict() for row in rows]))
    print("\n".join(f"{row.job}: {row.note}" for row in rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
