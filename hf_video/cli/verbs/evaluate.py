"""How good a model is on labelled videos: top-1, top-5, per class, calibration.

  hf-video evaluate clips/ --model my-model --output evaluation
  hf-video evaluate ssv2.csv --model MCG-NJU/videomae-base-finetuned-ssv2 --protocol paper:ssv2 --split validation
  hf-video evaluate --task detection --predictions events.json --annotations annotations.json
  hf-video evaluate videos/ --task detection --model my-detector --annotations annotations.json
  hf-video evaluate videos/ --task spatio-temporal-detection --model people --annotations ava.csv
  hf-video evaluate --task spatio-temporal-detection --predictions found.csv --annotations ava.csv --actions ava.pbtxt
  hf-video evaluate --task moments --predictions found.jsonl --annotations highlights.jsonl
  hf-video evaluate --task anomaly --predictions scores.json --annotations Temporal_Anomaly_Annotation.txt

DATA is a folder (<split>/<label>/clip.mp4 or <label>/clip.mp4), a list (CSV, JSON), or tar shards. Without splits of
its own it is divided as when MODEL was trained on it, and the held-out part is used; --split all takes everything. Each
video is decoded once for all views of the protocol:

  1x1         one clip and the centre crop, as the model's processor says (default)
  5x3         5 clips x 3 crops, probabilities averaged
  paper       as the model's authors test it (paper:kinetics, ssv2, ucf101, diving48, jester or coin)
  center      one clip of the paper's, from the middle of the video

With --output, a folder, results are kept there as they come: the same command goes on where it was stopped. Videos that
can't be read are named, the others go on, and the exit code is 1.

--task detection compares events with annotations (ActivityNet's JSON, or a table of video,start,end,label), either of
a file or as a detector finds them in videos or features: mAP at tIoU by ActivityNet's protocol or by ActionFormer's,
per class and length, and false positives by kind.

--task spatio-temporal-detection compares AVA's CSV of boxes with scores, or what MODEL says of the annotated boxes of
key frames: frame-mAP at IoU .5 by --protocol activitynet (official, default), slowfast or mmaction2, which differ.

--task moments compares files: moments that sentences describe, by QVHighlights' protocol (mAP, R1 and highlights, for
short, middle and long moments too). Both have one JSON object on each line, with "qid".

--task anomaly compares scores with abnormal frames: AUC of all frames together (micro) and as the mean over videos
(macro), which differ by a lot, and average precision. Scores are the JSON of hf-video anomalies, or a row for each
video; annotations those of UCF-Crime, XD-Violence, ShanghaiTech, Avenue or UBnormal (--protocol, if they don't tell).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_video.cli import DONE, SOME_FAILED, CommandError
from hf_video.cli.arguments import Parser, finite_float, fraction, non_negative_float, positive_int
from hf_video.cli.static_patches import add_static_patches, patches_counted
from hf_video.cli.verbs.classify import load_pipeline

if TYPE_CHECKING:
    from hf_video.data.rows import VideoRows
    from hf_video.evaluation.detection.spatio_temporal import FrameMAP
    from hf_video.evaluation.multi_label_report import MultiLabelReport
    from hf_video.evaluation.report import Report


DETECTION_OPTIONS = ("subset", "tiou", "class_scores", "label_column", "features")
TASKS = ("classification", "detection", "moments", "anomaly", "spatio-temporal-detection")


def add_arguments(parser: Parser) -> None:
    add = parser.add_option
    add("data", nargs="?", metavar="DATA", help="a folder of videos, a list of them, or tar shards")
    add("--task", choices=TASKS, default=TASKS[0], help=f"what is measured (default {TASKS[0]})")
    add("--model", help="a folder, or a name on the Hub")
    add("--predictions", metavar="FILE", help="what was found, for tasks that compare files")
    add("--annotations", metavar="FILE", help="what is there, for the same tasks")
    parser.add_alias("--scores", "--predictions")
    add("--protocol", help="paper, paper:ssv2, 5x3, center, 1x1 (default); detection: activitynet, actionformer; of "
        "anomalies the data set")  # fmt: skip
    add("--repeat", type=positive_int, default=1, metavar="N", help="frames that a score of anomalies stands for")
    add("--smooth", type=non_negative_float, metavar="N", help="deviation of a Gaussian over frames, of anomalies")
    add("--subset", metavar="NAME", help="detection: of the annotations (default: the test, else the validation)")
    add("--tiou", metavar="OVERLAPS", help="detection: activitynet (default), thumos, epic, or 0.5,0.75")
    add("--class-scores", metavar="FILE", help="detection: of an outside classifier, JSON {video: {class: score}}")
    add("--label-column", metavar="NAME", help="detection: of a table of annotations (default label)")
    add("--features", metavar="DIR", help="detection: where features are kept")
    add("--actions", metavar="FILE", help="spatio-temporal-detection: the actions that count, AVA's .pbtxt")
    add("--first-second", type=finite_float, metavar="S",
        help="spatio-temporal-detection: of the annotations, at which videos begin (AVA's cut ones: 900)")  # fmt: skip
    add("--excluded", metavar="FILE", help="spatio-temporal-detection: frames that don't count, a CSV")
    add("--format")
    add("--videos")
    add("--split", default="test", help="train, validation, test (default), or all")
    add("--test-size", type=fraction, metavar="FRACTION", help="kept for the test, of unsplit data (default: MODEL's)")
    add("--group-pattern", help="clips of one recording stay on one side (default: as MODEL was trained)")
    add_run_arguments(parser)
    add("--compile")
    add("--json", action="store_true", help="the report as JSON on stdout")


def add_run_arguments(parser: Parser, num_workers: dict[str, Any] | None = None) -> None:
    """Adds the options that every evaluation has, whatever its data, with these settings of --num-workers."""
    add = parser.add_option
    add("--output", help="folder for the report, tables, pictures and kept predictions")
    add("--revision")
    add("--batch-size")
    add("--num-workers", **(num_workers or {}))
    add("--device")
    add("--dtype")
    add_static_patches(parser)
    add("--on-error", choices=("raise", "repeat"), default="raise",
        help="videos with damaged frames: skip them, or repeat the nearest good neighbour")  # fmt: skip
    add("--backend", default="auto")
    add("--quiet")


def run(options: argparse.Namespace) -> int:
    if options.compile and options.task != TASKS[0]:
        raise CommandError(f"--task {options.task} has no use for --compile")
    if options.task == "detection":
        return evaluate_events(options)
    for name in DETECTION_OPTIONS:
        if getattr(options, name) is not None:
            raise CommandError(f"--task {options.task} has no use for --{name.replace('_', '-')}")
    if options.task == "moments":
        return evaluate_moments(options)
    if options.task == "anomaly":
        return evaluate_anomalies(options)
    if options.task == "spatio-temporal-detection":
        return evaluate_people(options)
    for name in ("actions", "excluded", "first_second"):
        if getattr(options, name) is not None:
            raise CommandError(f"--task {options.task} has no use for --{name.replace('_', '-')}")
    need(options, "data", "model")
    options.protocol = options.protocol or "1x1"
    from hf_video.evaluation.protocols import check_protocol
    from hf_video.evaluation.rows import split_rows

    check_protocol(options.protocol)
    rows = split_rows(
        options.data,
        options.split,
        options.model,
        test_size=options.test_size,
        group_pattern=options.group_pattern,
        data_format=options.format,
        videos=options.videos,
    )
    report = evaluate_rows(rows, options)
    print(json.dumps(report.to_dict(), indent=2) if options.json else report)
    return DONE if report.found == report.total else SOME_FAILED


def need(options: argparse.Namespace, *names: str) -> None:
    """Raises CommandError unless these options, and none of other tasks, were given."""
    spelling = {"data": "DATA", **{name: f"--{name}" for name in ("model", "predictions", "annotations")}}
    for name, spelt in spelling.items():
        if (getattr(options, name) is not None) != (name in names):
            raise CommandError(
                f"--task {options.task} {'needs' if name in names else 'has no use for'} {spelt}; it reads "
                f"{' and '.join(spelling[one] for one in names)}"
            )


def evaluate_people(options: argparse.Namespace) -> int:
    """Compares AVA's files of boxes, or what a model says of annotated boxes."""
    from hf_video.evaluation.detection.boxes import evaluate_box_model, frame_map_of_files

    need(options, *(("predictions",) if options.predictions else ("data", "model")), "annotations")
    if not options.predictions:
        names = ("actions", "excluded", "first_second", "test_size", "group_pattern", "revision", "device")
        given = {name: getattr(options, name) for name in (*names, "batch_size", "num_workers")}
        report = evaluate_box_model(
            options.model,
            options.data,
            options.annotations,
            split=options.split,
            protocol=options.protocol or "activitynet",
            **{name: value for name, value in given.items() if value is not None},
        )
        if options.output:
            report.save(options.output)
            print(f"hf-video: report in {options.output}", file=sys.stderr)
        for one in report.skipped:
            print(one, file=sys.stderr)
        print(json.dumps(report.to_dict(), indent=2) if options.json else format_frame_map(report.result))
        return DONE if report.found == report.total else SOME_FAILED
    if options.first_second is not None:
        raise CommandError("--first-second is for a model that sees videos; files are compared as they are")
    found = frame_map_of_files(
        options.predictions,
        options.annotations,
        actions=options.actions,
        excluded=options.excluded,
        protocol=options.protocol or "activitynet",
    )
    text = json.dumps({"frame_map": found.mean, "protocol": found.protocol, "average_precision": found.ap}, indent=2)
    if options.output:
        (Path(options.output) / "report.json").write_text(text + "\n")
    print(text if options.json else format_frame_map(found))
    return DONE


def format_frame_map(found: FrameMAP) -> str:
    """A line for each action, and one for their mean."""
    lines = [*found.ap.items(), (f"frame-mAP at IoU .5 ({found.protocol})", found.mean)]
    return "\n".join(f"{name:<44} {value:6.1%}" for name, value in lines)


def evaluate_events(options: argparse.Namespace) -> int:
    """Compares events of a file, or those that a detector finds, with annotations."""
    from hf_video.evaluation.detection.run import evaluate_detector, evaluate_files, parse_thresholds

    need(options, *(("predictions",) if options.predictions else ("data", "model")), "annotations")
    shared = {name: getattr(options, name) for name in ("subset", "class_scores")}
    shared |= {"protocol": options.protocol or "activitynet", "label_column": options.label_column or "label"}
    shared["thresholds"] = parse_thresholds(options.tiou or "activitynet")
    if options.predictions:
        report = evaluate_files(options.predictions, options.annotations, **shared)
    else:
        making = {name: getattr(options, name) for name in ("features", "revision", "device", "batch_size", "backend")}
        report = evaluate_detector(options.model, options.data, options.annotations, **making, **shared)
    if options.output:
        print(f"hf-video: report in {report.save(options.output)}", file=sys.stderr)
    print(json.dumps(report.to_dict(), indent=2) if options.json else report)
    return DONE if options.predictions or report.found == report.total else SOME_FAILED


def evaluate_moments(options: argparse.Namespace) -> int:
    """Compares files of moments that sentences describe."""
    from hf_video.data.sources.moments import read_moments
    from hf_video.evaluation.detection.moments import moment_metrics

    need(options, "predictions", "annotations")
    metrics = moment_metrics(
        read_moments(options.predictions), read_moments(options.annotations, needed=("qid", "relevant_windows"))
    )
    text = json.dumps(metrics, indent=2)
    if options.output:
        (Path(options.output) / "report.json").write_text(text + "\n")
    if options.json:
        print(text)
    else:
        print("\n".join(f"{name:<24} {value:6.2f}" for name, value in metrics["brief"].items()))
    return DONE


def evaluate_anomalies(options: argparse.Namespace) -> int:
    """Compares scores with abnormal frames."""
    from hf_video.evaluation.detection import anomaly_files

    need(options, "predictions", "annotations")
    report = anomaly_files.evaluate_anomalies(
        options.predictions,
        options.annotations,
        protocol=options.protocol,
        repeat=options.repeat,
        smooth=options.smooth or None,
    )
    text = json.dumps(report.as_dict(), indent=2)
    if options.output:
        Path(options.output).mkdir(parents=True, exist_ok=True)
        (Path(options.output) / "report.json").write_text(text + "\n")
    print(text if options.json else report)
    return DONE


def evaluate_rows(rows: VideoRows, options: argparse.Namespace) -> Report | MultiLabelReport:
    """Evaluates these rows and saves the report in `--output`."""
    from hf_video.evaluation.classification import evaluate_videos

    pipe = load_pipeline(options)
    with patches_counted(pipe.model):
        report = evaluate_videos(
            pipe.model,
            pipe.image_processor or pipe.video_processor,
            rows,
            protocol=options.protocol,
            batch_size=options.batch_size,
            num_workers=options.num_workers,
            output=options.output,
            on_error=options.on_error,
            backend=options.backend,
            progress=not options.quiet,
        )
    if options.output:
        from hf_video.evaluation.report import Report
        from hf_video.visual import worst_mistakes

        folder = report.save(options.output)
        if isinstance(report, Report):
            processor = pipe.image_processor or pipe.video_processor
            worst_mistakes(report, rows, folder / "mistakes.png", config=pipe.model.config, processor=processor)
        print(f"hf-video: report in {folder}", file=sys.stderr)
    return report
