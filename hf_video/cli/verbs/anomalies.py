"""Find what is unusual in videos, by comparison with normal ones; no labels and no training.

  hf-video anomalies normal/ today.mp4 --output scores.csv --figure scores.png
  hf-video anomalies normal/ camera7/ --model MCG-NJU/videomae-base --grid 16/8 --output scores.json
  hf-video anomalies normal-fingerprint today.mp4 --threshold 99.5%
  hf-video anomalies my-head today.mp4 --output scores.json       a head of hf-video train --task anomaly

NORMAL_DIR is a folder of videos in which nothing unusual happens (two or more), or the detector that was made of one.
The score of a moment is its distance to the k-th nearest moment of the normal videos, smoothed over time; where it
reaches the threshold, an anomaly begins. "auto" learns the threshold from the normal videos, each compared with all the
others. --model is "fingerprint" (small grey pictures, no weights: for a camera that stands still) or any video model.
The detector is kept in --detector; stopped, the same command goes on. Files that can't be read are named, and the exit
code is 1. Where no normal videos are at hand, say in words what to find:

  hf-video detect today.mp4 --model my-videoclip --labels "people fighting" --background "people walking"
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hf_video.cli.arguments import (
    Parser,
    non_negative_float,
    output_events,
    output_folder,
    output_picture,
    positive_int,
)
from hf_video.errors import VideoError, pluralize

if TYPE_CHECKING:
    from hf_video.features.anomaly_head import AnomalyHead
    from hf_video.retrieval.anomalies import AnomalyDetector

MOST_DRAWN = 40  # videos of a figure


def add_arguments(parser: Parser) -> None:
    add = parser.add_option
    add("normal", metavar="NORMAL_DIR", help="a folder of normal videos, or a detector that was made of one")
    add("files", nargs="+", metavar="FILE", help="video files, http(s) URLs, or folders")
    add("--model", help='"fingerprint" (default), a folder, or a name on the Hub')
    add("--revision")
    add(
        "--detector",
        type=output_folder,
        metavar="DIR",
        help="where it is kept (default: named after NORMAL_DIR and model)",
    )
    add(
        "--grid",
        metavar="2s/0.5s",
        help='length and step of moments: seconds, or frames as "16/4" (default: the model\'s clips, else 2s/0.5s)',
    )
    add("--k", type=positive_int, metavar="K", help="which of the nearest normal moments counts (default 5)")
    add(
        "--smooth", type=non_negative_float, metavar="SECONDS", help="deviation of the smoothing over time (default .5)"
    )
    add("--threshold", metavar="T", help='"auto" (default), a number, or a quantile of normal scores such as 99.5%%')
    add(
        "--output",
        type=output_events,
        metavar="FILE",
        help="scores as .csv or .json, or the events of one video as .vtt or .srt",
    )
    add("--figure", type=output_picture, metavar="FILE.png", help="also draw scores, threshold and events")
    add("--json", action="store_true", help="events as a JSON object on stdout")
    add("--processes")
    add("--batch-size")
    add("--device")
    add("--quiet")


def run(options: argparse.Namespace) -> int:
    import transformers

    from hf_video.cli import DONE, SOME_FAILED, CommandError
    from hf_video.cli.files import expand_paths
    from hf_video.cli.printing import error_line
    from hf_video.retrieval.anomaly_files import check_suffix, write_curves

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    files = expand_paths(options.files)
    if options.output:
        check_suffix(options.output, len(files))
    if options.figure and len(files) > MOST_DRAWN:
        raise CommandError(f"--figure draws {MOST_DRAWN} videos at most, and {len(files)} came")
    detector = find_detector(options)
    report = getattr(detector, "report", None)  # of what was done to the normal videos
    failed = list(report.skipped) if report else []
    for one in failed:
        print(one, file=sys.stderr)
    curves, unread = {}, 0
    for file in files:
        try:
            curves[file] = detector.score(file)
        except VideoError as error:
            unread += 1
            print(error_line(file, str(error)), file=sys.stderr)
            continue
        if not options.json:
            print(file)
            for event in curves[file].events:
                print(f"  {event.start:.2f}-{event.end:.2f} s  {event.label}  {event.score:.4g}")
    if options.json:
        found = {file: [vars(event) for event in curve.events] for file, curve in curves.items()}
        print(json.dumps(found, indent=2, ensure_ascii=False))
    if options.output and curves:
        write_curves(options.output, curves, detector)
    if options.figure and curves:
        from hf_video.evaluation.figures import anomaly_figure

        anomaly_figure(curves, options.figure)
    return SOME_FAILED if unread or failed else DONE


def find_detector(options: argparse.Namespace) -> AnomalyDetector | AnomalyHead:
    """Opens the detector or the trained head that was named, or fits a detector to the normal videos."""
    from tqdm import tqdm

    from hf_video.cli import CommandError
    from hf_video.retrieval.anomalies import SETTINGS, AnomalyDetector

    is_head = (Path(options.normal) / "config.json").is_file()
    if is_head or (Path(options.normal) / SETTINGS).is_file():
        names = ("model", "detector", "grid", "k", *(() if is_head else ("smooth",)))
        if typed := [name for name in names if getattr(options, name) is not None]:
            raise CommandError(f"{options.normal} is a detector already, which has its own --{typed[0]}: leave it out")
        if is_head:
            return load_head(options)
        detector = AnomalyDetector.load(options.normal, device=options.device)
        return detector if options.threshold is None else detector.with_threshold(options.threshold)
    model = options.model or "fingerprint"
    folder = options.detector or default_detector(options.normal, model)
    names = ("grid", "k", "smooth", "threshold", "revision", "device", "batch_size")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    hidden = options.quiet or not sys.stderr.isatty()
    with tqdm(unit="video", file=sys.stderr, disable=hidden) as bar:

        def progress(done: int, count: int) -> None:
            bar.total, bar.n = count, done
            bar.refresh()

        detector = AnomalyDetector.fit(
            options.normal, model, folder=folder, workers=options.processes, on_progress=progress, **given
        )
    threshold, count = detector.threshold, pluralize(len(detector.index.files), "normal video")
    print(
        f"hf-video: {pluralize(len(detector.index), 'moment')} of {count} "
        f"in {folder}; an anomaly is a score of {threshold.value:.4g} or more ({threshold.rule})",
        file=sys.stderr,
    )
    return detector


def load_head(options: argparse.Namespace) -> AnomalyHead:
    """Opens a head that was trained on labelled videos."""
    from hf_video.cli import CommandError
    from hf_video.features.anomaly_head import AnomalyHead

    try:
        threshold = 0.5 if options.threshold in (None, "auto") else float(options.threshold)
    except ValueError as error:
        raise CommandError(
            f"the threshold of a trained head is a score from 0 to 1; {options.threshold!r} came"
        ) from error
    return AnomalyHead.load(options.normal, threshold=threshold, smooth=options.smooth or 0.0, device=options.device)


def default_detector(normal: str, model: str) -> str:
    """The detector's folder where none is given: "<normal>-<model>" in the current folder."""
    return f"{Path(os.path.abspath(normal)).name}-{Path(model).stem}".replace(":", "-")
