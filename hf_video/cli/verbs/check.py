"""Find what is wrong with a folder of videos before training on it.

  hf-video check videos/
  hf-video check videos/ --json > report.json
  hf-video check videos/ --reencode small/ --short-side 256
  hf-video check videos/ --annotations events.json

Names damaged, empty and very short files, files that are no videos, the same video twice (equal bytes, or the same
content after another encoding or at another size), and videos that stand in the training and in the test split. With
--annotations (ActivityNet's JSON, or a table of video,start,end,label) also events that end before they start, lie
beyond their video, have no length or stand there twice, and videos and subsets that nothing is known of. The exit code
is 1 if anything was found.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from hf_video.cli import DONE, SOME_FAILED
from hf_video.cli.arguments import Parser, output_folder, positive_int
from hf_video.errors import pluralize, without_name

if TYPE_CHECKING:
    from hf_video.data.rows import Skipped

SHOWN = 5


def add_arguments(parser: Parser) -> None:
    add = parser.add_option
    add("source", metavar="DIR", help="a folder, a list (csv, json, jsonl), tar shards, or a name on the Hub")
    add("--format")
    add("--videos")
    add("--annotations", metavar="FILE", help="events of the videos (json, csv), to be checked with them")
    add("--label-column", default="label", metavar="NAME", help="of a table of annotations (default label)")
    add("--quick", action="store_true", help="open files and decode their first frame, instead of all frames")
    add("--no-content", action="store_true", help="compare bytes only, not what videos show")
    add("--num-frames", type=positive_int, default=4, metavar="T", help="name videos with fewer frames (default 4)")
    add("--reencode", type=output_folder, metavar="OUT", help="write small copies of the good videos there; resumable")
    add("--short-side", type=positive_int, default=256, metavar="PIXELS", help="of re-encoded videos (default 256)")
    add("--json", action="store_true", help="as JSON on stdout")


def run(options: argparse.Namespace) -> int:
    from hf_video.data.check.events import check_events
    from hf_video.data.check.videos import check_videos

    events = None
    if options.annotations:
        events = check_events(options.source, options.annotations, label_column=options.label_column)
    report, videos = check_videos(
        options.source,
        level="open" if options.quick else "full",
        content=not options.no_content,
        num_frames=options.num_frames,
        data_format=options.format,
        videos=options.videos,
    )
    found = report.as_dict()
    failed: list[Skipped] = []
    if options.reencode:
        from hf_video.data.check.transcoding import transcode_videos

        written, there, failed = transcode_videos(videos, options.reencode, short_side=options.short_side)
        found["reencoded"] = {"written": written, "there": there, "failed": [one.as_dict() for one in failed]}
    lines = _lines(found)
    if events is not None:
        found["annotations"] = events.as_dict()
        lines[-1:-1] = events.lines()
        found["clean"] = found["clean"] and events.clean
        lines[-1] = _verdict(found)
    print(json.dumps(found, indent=2, ensure_ascii=False) if options.json else "\n".join(lines))
    for one in failed:
        print(f"hf-video: {one}", file=sys.stderr)
    return DONE if found["clean"] and not failed else SOME_FAILED


def _lines(found: dict[str, Any]) -> list[str]:
    lines = [f"{found['root'] or 'data set'}: {pluralize(found['videos'], 'video')} that can be read"]
    lines += [
        _split_line(split, found["splits"][split], counts, found["imbalance"].get(split))
        for split, counts in found["classes"].items()
    ]
    low, middle, high = found["seconds"]
    for name, key in (("size", "sizes"), ("fps", "rates"), ("codec", "codecs")):
        shown = ", ".join(f"{value} ({count})" for value, count in list(found[key].items())[:SHOWN])
        more = f" and {len(found[key]) - SHOWN} more" if len(found[key]) > SHOWN else ""
        lines.append(f"  {name:<12}{shown}{more}")
    lines += [f"  {'seconds':<12}{low:g} to {high:g}, median {middle:g}"]
    for fault in found["faults"]:
        reason = without_name(fault["reason"], fault["name"])
        lines.append(f"{fault['kind']}{' (used)' if fault['used'] else ''}: {fault['name']}: {reason}")
    marked = {tuple(one["names"]) for one in (*found["leaks"], *found["conflicts"])}
    for word, key in (("leak between splits", "leaks"), ("two labels", "conflicts"), ("duplicate", "duplicates")):
        lines += [f"{word} ({'equal bytes' if one['exact'] else 'same content'}): {' = '.join(one['names'])}"
                  for one in found[key] if key != "duplicates" or tuple(one["names"]) not in marked]  # fmt: skip
    if "reencoded" in found:
        done = found["reencoded"]
        lines.append(
            f"re-encoded: {done['written']} written, {done['there']} there already, {len(done['failed'])} failed"
        )
    return [*lines, _verdict(found)]


def _verdict(found: dict[str, Any]) -> str:
    return "nothing wrong was found" if found["clean"] else "something was found: see above"


def _split_line(split: str, videos: int, counts: dict[str, int], imbalance: float | None) -> str:
    if set(counts) == {""}:
        return f"  {split:<12}{pluralize(videos, 'video')} without labels"
    text = f"  {split:<12}{pluralize(videos, 'video')} of {pluralize(len(counts), 'class', 'classes')}"
    if imbalance is None or imbalance == 1:
        return text
    largest, smallest = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    return f"{text}, from {counts[smallest]} ({smallest}) to {counts[largest]} ({largest}): {imbalance:g} times as many"
