"""Labels of a camera, a network stream, or a file at its own speed.

  hf-video watch 0 --model MCG-NJU/videomae-base-finetuned-kinetics
  hf-video watch rtsp://user:password@camera/stream --model my-model --windows 2s/0.5s --serve
  hf-video watch match.mp4 --realtime --model my-detector --events --threshold 0.6
  hf-video watch http://camera/video.mjpg --model my-videoclip --labels "a person, nothing" --jsonl > labels.jsonl

SOURCE is a camera's number or device, an address rtsp(s):// or http(s)://, or a file with --realtime. Each line has the
seconds of the stream, the labels, and the latency: how long ago the window's last frame was taken; with --events, how
long ago the event ended. A model that is slower than the stream sees the newest frames; how many were dropped is said.
A stream that breaks is opened again.
Ctrl-C ends it, with a summary and exit code 0. user:password@ and parameters such as ?token= are shown nowhere.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from hf_video.cli import DONE, CommandError
from hf_video.cli.arguments import Parser, finite_float, non_negative_float, port, positive_int
from hf_video.cli.printing import format_window
from hf_video.cli.verbs.classify import load_pipeline
from hf_video.cli.verbs.detect import format_event
from hf_video.errors import pluralize
from hf_video.live.local_server import is_ipv6

if TYPE_CHECKING:
    from hf_video.live import LiveResult, Watch

SERVED = "127.0.0.1:7861"


def add_arguments(parser: Parser) -> None:
    add = parser.add_option
    add("source", metavar="SOURCE", help="0, /dev/video0, rtsp://…, http://…, or a file with --realtime")
    add("--model", required=True, help="a folder, or a name on the Hub")
    add("--revision")
    add("--realtime", action="store_true", help="show a file at its own speed, as if it were live")
    add("--windows", help="length and step of windows, such as 2s/0.5s (default: the model's clips, at every quarter)")
    add("--labels", metavar="A,B", help="what it may be, in words: for a model of video and text")
    add("--events", action="store_true", help="events with their beginning and end, as hf-video detect finds them")
    add("--grid", metavar="2s/0.5s", help="with --events: length and step of clips")
    add("--top-k", type=positive_int, metavar="K", help="labels of a window (default 3)")
    add("--threshold", type=finite_float, metavar="SCORE", help="lowest of a label; of events, where they begin")
    add("--seconds", type=non_negative_float, metavar="N", help="end after so many seconds")
    add("--retry", type=non_negative_float, metavar="SECONDS",
        help="how long to try to open a stream again that broke (default: without end; 0: not at all)")  # fmt: skip
    add("--transport", choices=("tcp", "udp"), default="tcp", help="of RTSP (default tcp)")
    add("--timeout", type=non_negative_float, default=10.0, metavar="SECONDS",
        help="without a packet, after which a stream is broken (default 10)")  # fmt: skip
    add("--serve", nargs="?", const=SERVED, type=address, metavar="HOST:PORT",
        help=f"show the newest frame and the labels on a web page (default {SERVED}: this machine only)")  # fmt: skip
    add("--jsonl", action="store_true", help="one JSON object a window on stdout")
    add("--device")
    add("--dtype")
    add("--quiet")


def address(text: str) -> tuple[str, int]:
    """HOST:PORT, or one of them alone; an IPv6 address in brackets, which it needs before a port only."""
    host, number = SERVED.split(":")
    if text.isdigit():
        number = text
    elif is_ipv6(text):
        host = text
    elif ":" not in text or text.endswith("]"):
        host = text or host
    else:
        given, _, number = text.rpartition(":")
        host = given or host
    return host.strip("[]"), port(number)


def run(options: argparse.Namespace) -> int:
    from hf_video.live import LivePage, Watch
    from hf_video.video.live.source import LiveSource, live_media

    if options.grid and not options.events:
        raise CommandError("--grid is for --events; a classification has --windows")
    live = {name: getattr(options, name) for name in ("realtime", "transport", "timeout")}
    LiveSource(live_media(options.source), **live).close()  # a wrong one is told before the model is loaded
    calls = {"windows": options.windows, "grid": options.grid, "candidate_labels": options.labels}
    calls |= {"threshold": options.threshold, "seconds": options.seconds, "retry": options.retry}
    if not options.events:
        calls["top_k"] = options.top_k or 3
    elif options.top_k:
        raise CommandError("--top-k has no meaning for --events: they are said as they end")
    calls = {name: value for name, value in calls.items() if value is not None}
    task = "zero-shot-video-classification" if options.labels else "video-classification"
    pipeline = load_pipeline(options, "temporal-action-detection" if options.events else task)
    with ExitStack() as stack:
        watch = stack.enter_context(Watch(pipeline, options.source, on_event=_say, **live, **calls))
        if options.serve:
            page = stack.enter_context(LivePage(watch, *options.serve))
            seen = "" if page.is_local else ", for everyone who reaches this machine: it shows what the camera sees"
            _say(f"the page is at {page.address}{seen}")
        count, total, worst, dropped = 0, 0.0, 0.0, 0
        try:
            for result in watch:
                count, total, worst = count + 1, total + result.latency, max(worst, result.latency)
                if count == 1 and watch.event_delay is not None:  # by now the rate of the frames is known
                    _say(
                        f"an event is said {watch.event_delay:.1f} s after its end at the latest, if the model keeps up"
                    )
                new, dropped = watch.video.frames_dropped - dropped, watch.video.frames_dropped
                if line := (_json_line if options.jsonl else _line)(result, watch, new):
                    print(line, flush=True)
        except KeyboardInterrupt:
            watch.close()
        video = watch.video
        damaged = f"{pluralize(video.packets_damaged, 'packet')} could not be decoded; " * bool(video.packets_damaged)
        _say(
            f"{pluralize(video.frames_read, 'frame')} read, {video.frames_shown:,} shown, {video.frames_dropped:,} "
            f"dropped; {damaged}{pluralize(video.reconnections, 'reconnection')}; {pluralize(count, 'window')}"
            + (f", {total / count:.2f} s late on average and {worst:.2f} s at most" if count else "")
        )
    return DONE


def _line(result: LiveResult, watch: Watch, dropped: int) -> str:
    """The window's labels, or a line for each event that ended; nothing where none did."""
    lost = f", {pluralize(dropped, 'frame')} dropped" if dropped else ""
    if watch.finds_events:
        return "\n".join(
            f"{format_event(one)}  [{watch.video.latency(one.end):.2f} s late{lost}]" for one in result.events
        )
    line = format_window({"seconds": result.seconds, "predictions": result.predictions})
    return f"{line}  [{result.latency:.2f} s late{lost}]"


def _json_line(result: LiveResult, watch: Watch, _: int) -> str:
    video = watch.video
    names = ("frames_read", "frames_shown", "frames_dropped", "packets_damaged", "reconnections")
    counts = {name: getattr(video, name) for name in names}
    events = [{**dataclasses.asdict(one), "latency": video.latency(one.end)} for one in result.events]
    found = {"predictions": result.predictions, "events": events}
    line = {"seconds": result.seconds, **found, "latency": result.latency, **counts}
    return json.dumps(line, ensure_ascii=False)


def _say(sentence: str) -> None:
    print(f"hf-video: {sentence}", file=sys.stderr, flush=True)
