"""Find events in videos: what happens, and from when to when.

  hf-video detect match.mp4 --model my-detector --output events.json --sheet events.png
  hf-video detect clips/ --model MCG-NJU/videomae-base-finetuned-kinetics --grid 2s/0.5s --threshold 0.6
  hf-video detect kitchen.mp4 --model my-videoclip --labels "cutting bread, washing up" --output chapters.vtt
  hf-video detect match.mp4 --model my-detector --query "jump within 5 seconds before throw"

--model is a detector (ActionFormer, TriDet) with its encoder, or without any training a video classifier, or a model of
video and text with --labels. A folder means the videos in it. --output is ActivityNet's JSON, a CSV table, or WebVTT
chapters or SubRip subtitles of one video. Videos have their names in it without folder and suffix, and as they were
typed where two would be alike. A JSON file is written as results come in: stopped, the same with --resume goes on.
Files that can't be read are named on stderr, the others go on, and the exit code is 1. --query prints answers in place
of events: relations are before, after, then, overlaps, during and within; any, not and labels in double quotes stand
for events.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_video.base.written_files import SUBTITLES
from hf_video.cli import DONE, SOME_FAILED, CommandError
from hf_video.cli.arguments import (
    Parser,
    finite_float,
    non_negative_float,
    output_events,
    output_picture,
    positive_int,
)
from hf_video.cli.files import expand_paths
from hf_video.cli.printing import error_line
from hf_video.cli.verbs.classify import FileDataset, load_pipeline, progress_bar
from hf_video.errors import pluralize

if TYPE_CHECKING:
    from hf_video.base.detection.events import EventMatch
    from hf_video.base.detection.types import Detection

SHOWN = 20  # events of a video on the terminal
MOST_DRAWN = 60  # videos of a sheet
SAVED_EVERY = 10.0  # seconds between two writings of a JSON file
# Options of the pipeline, by their names there.
PIPELINE_OPTIONS = {
    "candidate_labels": "labels", "background": "background", "grid": "grid", "threshold": "threshold",
    "off_threshold": "off_threshold", "smoothing": "smoothing", "min_length": "min_length", "top_k": "top_k",
    "nms": "nms", "num_frames": "num_frames", "views": "views", "on_error": "on_error",
}  # fmt: skip


def add_arguments(parser: Parser) -> None:
    add = parser.add_option
    add("files", nargs="+", metavar="FILE", help="video files, http(s) URLs, or folders")
    add("--model", required=True, help="a folder, or a name on the Hub")
    add("--revision")
    add("--encoder", metavar="MODEL", help="what makes the features of a detector that has none in its folder")
    add("--labels", metavar="A,B", help="what to find, in words: for a model of video and text")
    add("--background", metavar="A,B", help="classes, or words, that say that nothing happens")
    add(
        "--grid",
        metavar="2s/0.5s",
        help='length and step of clips: seconds, or frames as "16/4" (default: the model\'s)',
    )
    add(
        "--threshold",
        type=finite_float,
        metavar="SCORE",
        help="where events begin (default .4 of a softmax, else .5; detectors: none)",
    )
    add("--off-threshold", type=finite_float, metavar="SCORE", help="below which they end (default .7 of the other)")
    add(
        "--smoothing",
        type=positive_int,
        metavar="N",
        help="clips whose mean score counts, an odd number (default: one length)",
    )
    add("--min-length", type=non_negative_float, metavar="SECONDS", help="shorter events are left out")
    add("--top-k", type=positive_int, metavar="K", help="the best events of each video (default: all)")
    add("--query", metavar="TEXT",
        help='print the events that stand in an order, such as "jump before throw"')  # fmt: skip
    add("--nms", choices=("soft", "hard", "none"), help="how a detector's overlapping events are merged")
    add("--num-frames", type=positive_int, metavar="T", help="frames of a clip (default: the model's)")
    add("--views")
    add("--output", type=output_events, metavar="FILE", help="events as .json, .csv, .vtt or .srt")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="go on with a JSON file that is there")
    existing.add_argument("--overwrite", action="store_true", help="replace the output if it is there")
    add("--sheet", type=output_picture, metavar="FILE.png", help="also draw frames, time and events")
    add("--json", action="store_true", help="events as a JSON object on stdout")
    add("--on-error", choices=("raise", "repeat"), help="damaged frames: fail, or repeat their nearest good neighbour")
    add("--backend")
    add("--batch-size")
    add("--num-workers")
    add("--device")
    add("--dtype")
    add("--compile")
    add("--quiet")


def run(options: argparse.Namespace) -> int:
    if options.query:
        matches({}, options)  # a query that can't be read is refused before a video is
    names = video_names(expand_paths(options.files))
    found = _check_outputs(options, list(names))
    missing = [file for file, name in names.items() if name not in found]
    if found:
        there = pluralize(len(names) - len(missing), "video")
        print(f"hf-video: {options.output} has {there} already, {len(missing):,} to do", file=sys.stderr)
    unread = 0
    if missing:
        unread = _detect(missing, names, found, options)
    if options.json:
        kept = {name: found[name] for name in names.values() if name in found}
        if options.query:
            listed: dict[str, list[dict[str, Any]]] = {
                name: [match_facts(one) for one in matched] for name, matched in matches(kept, options).items()
            }
        else:
            listed = {name: list(map(dataclasses.asdict, events)) for name, events in kept.items()}
        print(json.dumps(listed, ensure_ascii=False, indent=2))
    elif options.query:
        for name, matched in matches({name: found[name] for name in names.values() if name in found}, options).items():
            print(format_matches(name, matched))
    drawn: dict[str | os.PathLike[str], Sequence[Detection]] = {
        file: found[name] for file, name in names.items() if name in found
    }
    if options.sheet and drawn:
        _draw(drawn, options)
    if unread:
        print(f"hf-video: {unread} of {pluralize(len(names), 'file')} could not be read", file=sys.stderr)
    return SOME_FAILED if unread else DONE


def video_names(files: Sequence[str]) -> dict[str, str]:
    """What each file is called in an output: its name without folder and suffix, as in annotations, or all that was
    typed where several would be alike."""
    stems = {file: Path(file.rstrip("/")).stem if not os.path.isdir(file) else Path(file).name for file in files}
    often = Counter(stems.values())
    return {file: stem if often[stem] == 1 else file for file, stem in stems.items()}


def _check_outputs(options: argparse.Namespace, files: list[str]) -> dict[str, list[Detection]]:
    """The events of videos that are in the output already. Raises CommandError before any work, also where something
    would be written over."""
    from hf_video.base.detection.types import read_detections

    output = options.output
    if output and output.endswith(SUBTITLES) and len(files) > 1:
        raise CommandError(f"{output} holds the events of one video, and {len(files)} came: take .json or .csv")
    if options.sheet and len(files) > MOST_DRAWN:
        raise CommandError(f"--sheet draws {MOST_DRAWN} videos at most, and {len(files)} came")
    if options.resume and not (output and output.endswith(".json")):
        raise CommandError("--resume goes on with a JSON file: name it with --output")
    for path in filter(None, (output, options.sheet)):
        if os.path.exists(path) and not (options.overwrite or options.resume):
            ways = (
                "--resume goes on with it, --overwrite" if path == output and path.endswith(".json") else "--overwrite"
            )
            raise CommandError(f"{path} is there already: {ways} replaces it, or give another name")
    if not options.resume or not os.path.exists(output):
        return {}
    found, made_with = read_detections(output)
    if made_with != _settings(options):
        raise CommandError(f"{output} was made with other options or another model: --overwrite replaces it")
    return found


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """All that decides the events of a video."""
    chosen = {name: getattr(options, option) for name, option in PIPELINE_OPTIONS.items()}
    chosen |= {name: getattr(options, name) for name in ("model", "revision", "encoder")}
    return {name: value for name, value in chosen.items() if value is not None}


def _detect(
    files: list[str], names: dict[str, str], found: dict[str, list[Detection]], options: argparse.Namespace
) -> int:
    """Adds the events of these files to `found`, prints and saves them as they come. Returns how many can't be read."""
    given = {"encoder": options.encoder} if options.encoder else {}
    pipeline = load_pipeline(options, "temporal-action-detection", **given)
    calls = {name: getattr(options, option) for name, option in PIPELINE_OPTIONS.items()}
    calls |= {name: getattr(options, name) for name in ("backend", "batch_size", "num_workers")}
    if options.background:
        calls["background"] = [part.strip() for part in options.background.split(",")]
    calls = {name: value for name, value in calls.items() if value is not None}
    results: Iterator[Any] = pipeline(FileDataset(files), bad_files="report", **calls)
    unread, saved = 0, time.monotonic()
    progress = progress_bar(len(files), options)
    try:
        for file, result in zip(files, results, strict=True):
            if isinstance(result, dict):
                unread += 1
                progress.write(error_line(file, result["message"]))
            else:
                found[names[file]] = result
                if not options.json and not options.query:
                    print(format_events(file, result), flush=True)
                if time.monotonic() - saved > SAVED_EVERY:
                    _save(found, options, partly=True)
                    saved = time.monotonic()
            progress.update()
    except KeyboardInterrupt as stop:
        stop.resumable = _save(found, options, partly=True)  # type: ignore[attr-defined]
        raise
    finally:
        progress.close()
    _save(found, options)
    return unread


def _save(found: dict[str, list[Detection]], options: argparse.Namespace, *, partly: bool = False) -> bool:
    """Writes the output; before the end only JSON, which can be gone on with. Whether something was written."""
    from hf_video.base.detection.types import write_detections

    if not options.output or not found or (partly and not options.output.endswith(".json")):
        return False
    write_detections(options.output, found, made_with=_settings(options))
    return True


def format_events(file: str, events: Sequence[Detection]) -> str:
    """A line for the file, and one for each of its best events, by time."""
    lines = [f"{file}  {pluralize(len(events), 'event')}"]
    for one in sorted(events[:SHOWN], key=lambda one: (one.start, one.end)):
        lines.append(f"  {format_event(one)}")
    if len(events) > SHOWN:
        lines.append(f"  … and {len(events) - SHOWN:,} of lower score")
    return "\n".join(lines)


def format_event(one: Detection) -> str:
    """Its seconds, score and label in a line."""
    score = f"{one.score:.1%}" if 0 <= one.score <= 1 else f"{one.score:.4g}"
    return f"{one.start:9.2f} - {one.end:9.2f} s  {score:>7}  {one.label}"


def matches(found: Mapping[str, Sequence[Detection]], options: argparse.Namespace) -> dict[str, list[EventMatch]]:
    """What answers `--query` in each video; without videos only the query is read. Raises VideoOptionError."""
    from hf_video.base.detection.events import Events

    labels = None if options.labels is None else [part.strip() for part in options.labels.split(",")]
    if not found:
        Events((), labels).query(options.query)
    return {name: Events(events, labels).query(options.query) for name, events in found.items()}


def match_facts(match: EventMatch) -> dict[str, Any]:
    """An answer as JSON values."""
    events = [dataclasses.asdict(one) for one in match]
    return {"start": match.start, "end": match.end, "score": match.score, "events": events}


def format_matches(file: str, matched: Sequence[EventMatch]) -> str:
    """A line for the file, and one for each answer: its seconds, score and events."""
    lines = [f"{file}  {pluralize(len(matched), 'answer')}"]
    for one in matched:
        events = ", ".join(f"{part.label} {part.start:.2f} - {part.end:.2f}" for part in one)
        lines.append(f"  {one.start:9.2f} - {one.end:9.2f} s  {one.score:>7.1%}  {events}")
    return "\n".join(lines)


def _draw(found: Mapping[str | os.PathLike[str], Sequence[Detection]], options: argparse.Namespace) -> None:
    from hf_video.base.detection.sheet import event_sheet

    sheet = event_sheet(found, backend=options.backend or "auto")
    try:
        sheet.save(options.sheet)
    except (OSError, ValueError) as error:
        raise CommandError(f"{options.sheet!r} can't be written: {error}") from error
