"""Train a VIOLET to answer questions about videos: a CSV of video, question and answer, or MSRVTT-QA's files.

    python examples/train_video_qa.py questions.csv --model violet-pretrained --output my-model
    python examples/train_video_qa.py MSRVTT-QA --videos MSRVTT/videos --model violet-pretrained --output my-model
    python examples/train_video_qa.py tgif.csv --model violet-pretrained --recipe violet_qa:choice --output my-model

Questions with choices (a column `choices`, or a1 to a5) make a model for multiple choice. What was made works with
pipeline("video-question-answering", model="my-model").
"""

from __future__ import annotations

import argparse
import json

from hf_video.training.runs.questions import train_video_qa


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--model", required=True, help="a VIOLET of any kind: a folder or a name on the Hub")
    parser.add_argument("--output", required=True)
    parser.add_argument("--videos", help="the folder that names in a list are relative to")
    parser.add_argument("--recipe", help="a recipe or YAML file; default by the kind and size of the model")
    parser.add_argument("--test-size", type=float, default=0.1, help="share of the videos of unsplit data")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.NAME=VALUE", help="change the recipe")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args()
    summary = train_video_qa(
        options.data,
        options.model,
        recipe=options.recipe,
        output=options.output,
        settings=options.set,
        test_size=options.test_size,
        videos=options.videos,
        resume=options.resume,
        overwrite=options.overwrite,
    )
    print(json.dumps(summary["evaluation"], indent=2))


if __name__ == "__main__":
    main()
