"""Label videos with a model.

  hf-video classify clip.mp4 --model MCG-NJU/videomae-base-finetuned-kinetics
  hf-video classify clips/ --model my-model --views 5x3 --stride 4 --json > labels.json
  hf-video classify match.mp4 --model my-model --windows 2s/1s --jsonl
  hf-video classify uploads/ --model my-model --output labels.csv --threshold 0.5
  hf-video classify uploads/ --model my-model --output labels.csv --threshold 0.5 --resume
  hf-video classify uploads/ --model my-model --threshold 0.5 --labels-of-interest weapons,smoke --alert found.tsv

A folder means the videos in it (or is one video, if it holds one image a frame). Files that can't be read are named
on stderr, the others go on, and the exit code is 1.

--output writes a table in place of text: a row for each label of each video or window, "none" where no label reaches
--threshold, and the error of a file that can't be read. Results are kept as they come in FILE.progress.jsonl beside it:
a run that was stopped, also one that was killed, goes on with --resume, and a finished one takes up the new and changed
files of a folder. Other settings are refused.

--labels-of-interest names labels to look out for. Where one of them reaches --threshold the exit code is 4 (5 if files
could not be read besides), and --alert gets a line at once: path, label, score, start, end, with tabs between. Lines
that are there stay; --overwrite begins both files anew.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hf_video.cli import DONE, FOUND, FOUND_AND_FAILED, SOME_FAILED, CommandError
from hf_video.cli.arguments import DTYPES, Parser, check_output, non_negative_int, positive_int, score_limit
from hf_video.cli.files import expand_paths
from hf_video.cli.label_files import LABEL_FILES, Alerts, LabelFile
from hf_video.cli.printing import error_line, format_result, json_result, say
from hf_video.cli.static_patches import add_static_patches, patches_counted, static_fields
from hf_video.errors import pluralize

if TYPE_CHECKING:
    from tqdm import tqdm

    from hf_video.pipelines.base import VideoPipeline

# Of the pipeline, by their names there.
PIPELINE_OPTIONS = {
    "views": "views",
    "sampler": "sampler",
    "frame_sampling_rate": "stride",
    "num_frames": "num_frames",
    "windows": "windows",
    "on_error": "on_error",
    "snap": "snap",
    "backend": "backend",
    "batch_size": "batch_size",
    "num_workers": "num_workers",
    "threshold": "threshold",
}
# What the results depend on, besides the weights.
SETTINGS = (
    *("model", "revision", "top_k", "num_frames", "stride", "sampler", "views", "windows", "threshold"),
    *("labels_of_interest", "on_error", "snap", "backend", "dtype"),
)


def add_arguments(parser: Parser) -> None:
    add = parser.add_option
    add("files", nargs="+", metavar="FILE", help="video files, http(s) URLs, or folders")
    add("--model", required=True, help="a folder, or a name on the Hub")
    add("--revision")
    add("--top-k", type=non_negative_int, default=5, metavar="K", help="labels for each video (default 5; 0: all)")
    add("--threshold", type=score_limit, metavar="SCORE", help='only labels of this score or more; "model": its own')
    add("--labels-of-interest", metavar="A,B", help="look out for these, with --threshold: exit code 4 where one is")
    add("--alert", type=_output_file, metavar="FILE", help="a line for each of these labels, as it is found")
    add("--num-frames", type=positive_int, metavar="T", help="frames of a clip (default: the model's)")
    add("--stride", type=positive_int, metavar="N", help="frames from one to the next (default: spread over the video)")
    add("--sampler", help="uniform, dense, center, at_fps, uniform_views, adaptive, random (default: the processor's)")
    add("--views")
    add("--windows")
    add("--on-error", choices=("raise", "repeat"), help="damaged frames: fail, or repeat their nearest good neighbour")
    add("--snap")
    add("--backend")
    add("--batch-size")
    add("--num-workers")
    add("--device")
    add("--dtype")
    add("--compile")
    add_static_patches(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON array on stdout")
    form.add_argument("--jsonl", action="store_true", help="one JSON object a line, as results come in")
    form.add_argument("--output", "-o", type=_label_file, metavar="FILE", help=f"a table: {', '.join(LABEL_FILES)}")
    add("--resume", help="go on with the run of --output")
    add("--overwrite", help="replace what is in --output")
    add("--quiet")


def _label_file(path: str) -> str:
    from hf_video.base.written_files import check_output_file

    return check_output(path, lambda file: check_output_file(file, suffixes=LABEL_FILES))


def _output_file(path: str) -> str:
    from hf_video.base.written_files import check_output_file

    return check_output(path, check_output_file)


def run(options: argparse.Namespace) -> int:
    if options.labels_of_interest and options.threshold is None:
        raise CommandError(
            "--labels-of-interest needs --threshold, the score from which on a label counts, such as 0.5"
        )
    if options.alert and not options.labels_of_interest:
        raise CommandError("--alert needs --labels-of-interest, which says what is written to it")
    if (options.resume or options.overwrite) and not options.output:
        raise CommandError("--resume and --overwrite go with --output")
    if options.resume and options.overwrite:
        raise CommandError("--resume goes on with what is there, --overwrite replaces it: give one of them")
    files = expand_paths(options.files)
    if options.output:  # a table has each file once
        files = list(dict.fromkeys(files))
    classify = load_pipeline(options)
    labels = [str(label) for label in classify.model.config.id2label.values()]
    with contextlib.ExitStack() as stack:
        alerts = stack.enter_context(
            Alerts(options.labels_of_interest or "", labels, options.alert, append=not options.overwrite)
        )
        table = stack.enter_context(_label_table(options, classify)) if options.output else None
        stack.enter_context(patches_counted(classify.model))
        todo = [file for file in files if table is None or not table.done(file)]
        calls = {name: getattr(options, option) for name, option in PIPELINE_OPTIONS.items()}
        calls = {name: value for name, value in calls.items() if value is not None}
        # Labels that somebody looks out for count wherever they rank.
        top_k = None if alerts.labels else options.top_k or None
        results = classify(FileDataset(todo), bad_files="report", top_k=top_k, **calls)
        try:
            return print_results(files, todo, results, alerts, table, options)
        except KeyboardInterrupt as stop:
            stop.resumable = table is not None  # type: ignore[attr-defined]
            raise


def _label_table(options: argparse.Namespace, classify: VideoPipeline) -> LabelFile:
    from hf_video.evaluation.classification import weights_checksum
    from hf_video.features.digests import left_out

    settings = {name: getattr(options, name) for name in SETTINGS} | left_out(classify.model.config)
    settings["weights"] = weights_checksum(classify.model)
    return LabelFile(options.output, settings, resume=options.resume, overwrite=options.overwrite)


class FileDataset:
    """A list as a data set, whose results the pipeline yields one by one."""

    def __init__(self, files: list[str]):
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> str:
        return self._files[index]


def print_results(
    files: list[str],
    todo: list[str],
    results: Iterator[Any],
    alerts: Alerts,
    table: LabelFile | None,
    options: argparse.Namespace,
) -> int:
    """Prints every result of `todo` as it comes (one array with `--json`), or adds it to the table, which is written in
    the end. Returns the exit code."""
    collected = list[dict[str, Any]]()
    found = failed = 0
    progress = progress_bar(len(files), options, done=len(files) - len(todo))
    for file, given in zip(todo, results, strict=True):
        result = json_result(file, given)
        is_found = alerts.mark(result, options.top_k)
        if "error" in result:
            failed += 1
            progress.write(error_line(file, result["message"]))
        if table is not None:
            table.add(file, result)
        elif options.json:
            collected.append(result)
        elif options.jsonl:
            print(json.dumps(result, ensure_ascii=False), flush=True)
        elif "error" not in result:
            print(format_result(result), flush=True)
        found += is_found
        progress.update()
    progress.close()
    if options.json:
        print(json.dumps(collected, ensure_ascii=False, indent=2))
    if table is not None:
        table.write(files)
        found = sum(map(alerts.is_found, table.results(files)))
        earlier = len(files) - len(todo)
        print(
            f"{pluralize(len(files), 'file')} in {options.output}"
            + (f", {earlier:,} of them from before" if earlier else "")
            + (f", {found:,} with {' or '.join(sorted(alerts.labels))}" if alerts.labels else "")
        )
    if failed:
        print(f"hf-video: {failed} of {pluralize(len(files), 'file')} could not be read", file=sys.stderr)
    if found:
        return FOUND_AND_FAILED if failed else FOUND
    return SOME_FAILED if failed else DONE


def progress_bar(total: int, options: argparse.Namespace, *, done: int = 0) -> tqdm:
    """Rate and time left of several videos, where stderr is a terminal; `done` of them were done before."""
    from tqdm import tqdm

    class Progress(tqdm):
        def write(self, line: str) -> None:
            tqdm.write(line, file=sys.stderr)

    hidden = options.quiet or total < 2 or not sys.stderr.isatty()
    return Progress(total=total, initial=done, unit="video", file=sys.stderr, disable=hidden)


def load_pipeline(options: argparse.Namespace, task: str = "video-classification", **more: Any) -> VideoPipeline:
    """The pipeline of `--model`. Raises CheckpointError for a model that can't be loaded."""
    import transformers

    from hf_video.base.fast_numbers import for_processor, why_slow
    from hf_video.base.loading import loading
    from hf_video.pipelines.video_classification import VideoClassificationPipeline

    transformers.utils.logging.set_verbosity_error()
    if not sys.stderr.isatty() or options.quiet:
        transformers.utils.logging.disable_progress_bar()
    if task == "video-classification":
        more["pipeline_class"] = VideoClassificationPipeline  # also with HF_VIDEO_OVERRIDE=0
    with loading(options.model):
        pipe = transformers.pipeline(
            task,
            model=options.model,
            revision=options.revision,
            device=options.device,
            dtype=DTYPES[options.dtype] or "auto",  # transformers' word for the dtype that was saved
            model_kwargs=static_fields(options),
            **more,
        )
    if options.dtype == "auto":
        for_processor(pipe.model)
    elif slow := why_slow(pipe.model):
        say(slow)
    if getattr(options, "compile", False):
        pipe.compile(say)
    return pipe
