"""Ask questions about videos.

  hf-video ask clip.mp4 --model microsoft/git-base-msrvtt-qa --question "what is the person doing?"
  hf-video ask clips/ --model my-violet-qa --question "what moves?" --question "where to?" --top-k 3 --json
  hf-video ask match.mp4 --model HuggingFaceTB/SmolVLM2-500M-Video-Instruct --windows 10s --question "who has the ball?"

--model is a model that writes (GIT, SmolVLM, Qwen-VL, LLaVA-OneVision and others of AutoModelForImageTextToText whose
processor takes videos), or a VIOLET, which chooses among the answers of its training or among --choices. A folder means
the videos in it. Files that can't be read are named on stderr, the others go on, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from hf_video.cli import DONE, SOME_FAILED
from hf_video.cli.arguments import Parser, name_list, positive_int
from hf_video.cli.files import expand_paths
from hf_video.cli.printing import error_line
from hf_video.cli.verbs.classify import FileDataset, load_pipeline, progress_bar
from hf_video.errors import pluralize

# Of the pipeline, by their names there.
PIPELINE_OPTIONS = ("choices", "top_k", "max_new_tokens", "num_frames", "windows", "on_error", "backend", "num_workers")


def add_arguments(parser: Parser) -> None:
    add = parser.add_option
    add("files", nargs="+", metavar="FILE", help="video files, http(s) URLs, or folders")
    add("--model", required=True, help="a folder, or a name on the Hub")
    add("--revision")
    add("--question", action="append", required=True, metavar="TEXT", help="what is asked; may be given several times")
    add("--choices", type=name_list, metavar="A,B", help="answers to choose from: for a model for multiple choice")
    add("--top-k", type=positive_int, metavar="K", help="answers of a model that chooses (default 5)")
    add("--windows")
    add("--num-frames", type=positive_int, metavar="T", help="frames of a window (default: the model's)")
    add("--max-new-tokens", type=positive_int, metavar="N", help="length of an answer of a model that writes")
    add("--json", action="store_true", help="one JSON array on stdout")
    add("--on-error", choices=("raise", "repeat"), help="damaged frames: fail, or repeat their nearest good neighbour")
    add("--backend")
    add("--num-workers")
    add("--device")
    add("--dtype")
    add("--quiet")


def run(options: argparse.Namespace) -> int:
    files = expand_paths(options.files)
    ask = load_pipeline(options, "video-question-answering")
    calls = {name: getattr(options, name) for name in PIPELINE_OPTIONS if getattr(options, name) is not None}
    rows, failed = list[dict[str, Any]](), 0
    progress = progress_bar(len(files), options)
    results = ask(FileDataset(files), question=options.question, bad_files="report", **calls)
    for file, result in zip(files, results, strict=True):
        if isinstance(result, dict):
            failed += 1
            rows.append({"file": file, **result})
            progress.write(error_line(file, result["message"]))
        else:
            rows.append(_row(file, options.question, result, windows=options.windows is not None))
            if not options.json:
                print(format_answers(rows[-1]), flush=True)
        progress.update()
    progress.close()
    if options.json:
        print(json.dumps(rows, ensure_ascii=False, indent=2))
    if failed:
        print(f"hf-video: {failed} of {pluralize(len(files), 'file')} could not be read", file=sys.stderr)
    return SOME_FAILED if failed else DONE


def _row(file: str, questions: list[str], result: list[Any], *, windows: bool) -> dict[str, Any]:
    """A file's result as JSON values."""

    def answers(found: list[Any]) -> list[dict[str, Any]]:
        return [{"question": one, "answers": list(each)} for one, each in zip(questions, found, strict=True)]

    if not windows:
        return {"file": file, "questions": answers(result)}
    parts = [{"seconds": list(one["seconds"]), "questions": answers(one["predictions"])} for one in result]
    return {"file": file, "windows": parts}


def format_answers(row: dict[str, Any]) -> str:
    """A line for the file, one for each window, and one for each question with its answers."""
    lines = [row["file"]]
    for part in row.get("windows", [row]):
        if "seconds" in part:
            lines.append(f"  {part['seconds'][0]:.2f} - {part['seconds'][1]:.2f} s")
        for asked in part["questions"]:
            words = [f"{a['answer']} {a['score']:.1%}" if "score" in a else a["answer"] for a in asked["answers"]]
            lines.append(f"  {asked['question']}  {', '.join(' '.join(word.split()) for word in words)}")
    return "\n".join(lines)
