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
from typing import Any

from hf_video.cli.arguments import Parser, name_list, positive_int
from hf_video.cli.files import expand_paths
from hf_video.cli.text_verbs import add_text_options, print_texts
from hf_video.cli.verbs.classify import load_pipeline


def add_arguments(parser: Parser) -> None:
    add = parser.add_option
    add("--question", action="append", required=True, metavar="TEXT", help="what is asked; may be given several times")
    add("--choices", type=name_list, metavar="A,B", help="answers to choose from: for a model for multiple choice")
    add("--top-k", type=positive_int, metavar="K", help="answers of a model that chooses (default 5)")
    add_text_options(parser, length="length of an answer of a model that writes")


def run(options: argparse.Namespace) -> int:
    files = expand_paths(options.files)
    ask = load_pipeline(options, "video-question-answering")

    def answers(found: list[Any]) -> list[dict[str, Any]]:
        return [{"question": one, "answers": list(each)} for one, each in zip(options.question, found, strict=True)]

    def row(result: list[Any]) -> dict[str, Any]:
        if options.windows is None:
            return {"questions": answers(result)}
        return {"windows": [{"seconds": list(w["seconds"]), "questions": answers(w["predictions"])} for w in result]}

    own = ("choices", "top_k")
    return print_texts(files, ask, options, own=own, row=row, lines=format_answers, question=options.question)[1]


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
