"""Train a model of video and text on captioned videos: a CSV, MSR-VTT's JSON, clip.txt beside clip.mp4.

    python examples/train_video_text.py pairs.csv --model openai/clip-vit-base-patch32 --output my-model
    python examples/train_video_text.py train_val_videodatainfo.json --videos TrainValVideo \\
        --model openai/clip-vit-base-patch32 --recipe clip4clip:transformer --batch 128 --chunk 16 --output my-model

A large batch in little memory: --chunk (gradient caching). Batches of similar captions: --hard-negatives. What was made
works with pipeline("zero-shot-video-classification" | "video-text-retrieval", model="my-model").
"""

from __future__ import annotations

import argparse
import json

from hf_video.training.runs.video_text import train_video_text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument(
        "--model", required=True, help="a CLIP, SigLIP, VideoCLIP or VIOLET: a folder or a name on the Hub"
    )
    parser.add_argument("--output", required=True)
    parser.add_argument("--videos", help="the folder that names in a list are relative to")
    parser.add_argument("--recipe", help="a recipe or YAML file; default by the kind and size of the model")
    parser.add_argument("--batch", type=int, help="pairs of a step on each device; default the recipe's")
    parser.add_argument("--chunk", type=int, help="pairs that go through the model at once")
    parser.add_argument("--hard-negatives", action="store_true", help="fill batches with similar captions")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.NAME=VALUE", help="change the recipe")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args()
    batch = [] if options.batch is None else [f"training.per_device_train_batch_size={options.batch}"]
    summary = train_video_text(
        options.data,
        options.model,
        recipe=options.recipe,
        output=options.output,
        settings=[*options.set, *batch],
        chunk_size=options.chunk,
        hard_negatives=options.hard_negatives,
        videos=options.videos,
        resume=options.resume,
        overwrite=options.overwrite,
    )
    print(json.dumps(summary["evaluation"], indent=2))


if __name__ == "__main__":
    main()
