"""Fine-tune a model on your videos, from a folder to a model that pipelines load.

  hf-video train videos/ --model MCG-NJU/videomae-base --output my-model
  hf-video train videos/ --model videomae_tiny.json --self-test
  hf-video train k400/ --model MCG-NJU/videomae-base --recipe videomae_finetune_kinetics:B-1600
  hf-video train videos/ --model my-model --set training.learning_rate=1e-4 --set augmentation.flip=0 --resume

A folder holds train/<label>/*.mp4 and test/<label>/*.mp4, or <label>/*.mp4, of which a fifth is kept for the test.
Before it trains it prints a plan, and refuses what can't work. Ctrl-C saves a checkpoint and prints the command to go
on with. Several GPUs: torchrun -m hf_video.cli train ...

--privacy trains so that the model tells little of any one video, and states how little in its card:

  hf-video train videos/ --model my-videomae --privacy video:eps=8,delta=1e-5,clip=1.0 --output private

--recipe vjepa2_attentive_probe trains the pooler of a V-JEPA 2 and leaves its encoder as it is, which is run once over
every video; the authors' twenty learning rates and weight decays are its variant grid:

  hf-video train videos/ --model facebook/vjepa2-vitl-fpc64-256 --recipe vjepa2_attentive_probe:grid --output my-model

--task detection trains a detector of events, from videos (or ready-made features, .npy or .safetensors) and annotations
with seconds: ActivityNet's JSON, or a table of video,start,end,label. MODEL is the encoder; its features are made once
and kept, and the detector's folder holds it too:

  hf-video train videos/ --task detection --annotations events.json --model my-encoder --output my-detector
  hf-video train i3d/ --task detection --annotations thumos14.json --recipe actionformer:thumos14
  hf-video train videos/ --task detection --annotations events.json --model my-videomae --detector adatad

The last one trains end to end: on frames, with adapters in the VideoMAE, whose own weights stay.

--task anomaly trains a head for anomalies from a list of videos that are normal or abnormal as a whole; MODEL is the
encoder, whose features are made once and kept. hf-video anomalies scores files with it:

  hf-video train videos/ --task anomaly --annotations train_list.txt --model my-encoder --output my-head

--task moment-retrieval trains a Moment-DETR from a file of QVHighlights' form, a JSON object on each line with "qid",
"query", "vid", "duration" and "relevant_windows"; MODEL is a model of video and text, VideoCLIP or CLIP, which isn't
trained. hf-video search FILE TEXT --moment finds moments with it:

  hf-video train videos/ --task moment-retrieval --annotations highlights.jsonl --model my-clip --output my-moments

--task spatio-temporal-detection trains a SlowFast, Slow or VideoMAE to tell what people in boxes do, from AVA's CSV
(video,second,x1,y1,x2,y2,action,person; corners are shares of the frame), or a folder with one for each split:

  hf-video train videos/ --task spatio-temporal-detection --annotations ava.csv --model my-videomae --output people
"""

from __future__ import annotations

import argparse
import importlib
import sys

from hf_video.cli import DONE, SOME_FAILED, CommandError
from hf_video.cli.arguments import RUN_OPTIONS, Parser, fraction

TASKS = ("classification", "detection", "anomaly", "moment-retrieval", "spatio-temporal-detection")
# What only some of the tasks have a use for.
OF_TASK = {
    "classification": ("format", "videos", "self_test", "privacy", "group_pattern", "push_to_hub", "public"),
    "detection": (
        *("annotations", "detector", "grid", "features", "device", "batch_size"),
        *("group_pattern", "push_to_hub", "public"),
    ),
    "anomaly": ("annotations", "detector", "grid", "device", "batch_size"),
    "moment-retrieval": ("annotations", "features", "device", "push_to_hub", "public"),
    "spatio-temporal-detection": ("annotations", "group_pattern", "push_to_hub", "public"),
}
ANNOTATIONS = {
    "detection": "the events of the videos",
    "anomaly": "a list of normal and abnormal videos",
    "moment-retrieval": "sentences and their moments",
    "spatio-temporal-detection": "boxes of people in AVA's CSV",
}

# Of the tasks with annotations: file and function that train them.
RUNS = {
    "detection": ("detection", "train_detector"),
    "anomaly": ("anomalies", "train_anomalies"),
    "moment-retrieval": ("moments", "train_moments"),
    "spatio-temporal-detection": ("spatio_temporal", "train_people"),
}


def add_arguments(parser: Parser) -> None:
    add = parser.add_option
    add("data", metavar="DIR", help="a folder of videos, a CSV or JSON list, a folder of tars")
    add("--model", help="a folder, a name on the Hub, a model type, or a JSON/YAML configuration")
    add("--task", choices=TASKS, default=TASKS[0], help=f"what is learnt (default {TASKS[0]})")
    add("--annotations", metavar="FILE",
        help="detection: events of the videos (json, csv); anomaly: a list of videos, 0 or 1 after each; "
        "moment-retrieval: sentences (jsonl); spatio-temporal-detection: boxes (csv)")  # fmt: skip
    add("--detector",
        help="detection: actionformer (default), tridet, adatad (end to end on frames), a configuration, or one to go "
        "on from; anomaly: rtfm "
        "(default) or mil_ranking")  # fmt: skip
    add("--grid", metavar="16/4", help="of features: frames of a clip and its step, or 2s/0.5s (default: fitted)")
    add("--features", metavar="DIR", help="where features are kept (default: OUTPUT/features)")
    add("--device", help="of the encoder of features")
    add("--batch-size")
    add("--recipe", help="a recipe or YAML file, with a variant after a colon (a wrong name lists them)")
    add("--output", help="folder of the run (default: named after data and model)")
    add("--set")
    add("--test-size", type=fraction, metavar="FRACTION", help="kept for the test, of unsplit data (default 0.2)")
    add("--group-pattern")
    add("--format")
    add("--videos")
    add("--protocol", default="1x1", help="how the test split is evaluated: 1x1, 5x3, paper (default 1x1)")
    add("--resume")
    add("--overwrite")
    add("--yes")
    add("--self-test", action="store_true", help="only see whether the model can learn one batch")
    add("--privacy", metavar="video:eps=8,delta=1e-5,clip=1.0", help="differential privacy of single videos")
    add("--push-to-hub", metavar="REPO", help="push model, processor and card to this repository")
    add("--public", action="store_true", help="make a new repository public")
    add("--revision")


def run(options: argparse.Namespace) -> int:
    from transformers.utils import logging

    from hf_video.training.recipes import load_recipe

    check_options(options)
    if not sys.stderr.isatty():
        logging.disable_progress_bar()  # a log file is no place for a bar at every checkpoint
    values = {**vars(options), "head": options.detector, "private": False if options.public else None}
    shared = {name: values[name] for name in RUN_OPTIONS if name != "group_pattern"}
    if options.task in RUNS:
        renamed = {"public": "private", **({"detector": "head"} if options.task == "anomaly" else {})}
        names = [renamed.get(name, name) for name in ("test_size", *OF_TASK[options.task]) if name != "annotations"]
        own = {name: values[name] for name in names if values[name] is not None}
        module, name = RUNS[options.task]
        train = getattr(importlib.import_module(f"hf_video.training.runs.{module}"), name)
        train(options.data, options.annotations, options.model, **shared, **own)
        return DONE
    from hf_video.training.runs.classification import finetune
    from hf_video.training.runs.overfit_check import OverfitResult

    if options.recipe is not None and load_recipe(options.recipe).get("task") == "attentive_probe":
        return train_probe(options, values["private"])
    train, private = finetune, {}
    if options.privacy:
        from hf_video.federated.privacy.tasks import finetune_privately

        train, private = finetune_privately, {"privacy": options.privacy}
    result = train(
        options.data,
        options.model,
        **shared,
        group_pattern=options.group_pattern,
        test_size=options.test_size,
        data_format=options.format,
        videos=options.videos,
        protocol=options.protocol,
        self_test=options.self_test,
        push_to_hub=options.push_to_hub,
        private=values["private"],
        **private,
    )
    if isinstance(result, OverfitResult):
        print(result)
        return DONE if result.passed else SOME_FAILED
    return DONE


def train_probe(options: argparse.Namespace, private: bool | None) -> int:
    """Trains an attentive pooler on a frozen encoder."""
    from hf_video.training.runs.attentive_probe import train_attentive_probe

    for name in ("resume", "self_test", "privacy"):
        if getattr(options, name):
            raise CommandError(
                f"an attentive probe has no use for --{name.replace('_', '-')}: its head is trained in one go, on "
                "tokens that are made once"
            )
    names = (
        "recipe",
        "output",
        "settings",
        "test_size",
        "group_pattern",
        "videos",
        "protocol",
        "overwrite",
        "revision",
    )
    train_attentive_probe(
        options.data,
        options.model,
        **{name: getattr(options, name) for name in names},
        data_format=options.format,
        push_to_hub=options.push_to_hub,
        private=private,
    )
    return DONE


def check_options(options: argparse.Namespace) -> None:
    """Raises CommandError for options that the task needs and that are missing, or that it has no use for."""
    if options.task != "classification" and options.annotations is None:
        raise CommandError(f"--task {options.task} needs --annotations FILE, {ANNOTATIONS[options.task]}")
    if options.task != "detection" and options.model is None:
        raise CommandError("--model is needed: a folder, a name on the Hub, a model type, or a configuration")
    for name in dict.fromkeys(name for names in OF_TASK.values() for name in names):
        if name not in OF_TASK[options.task] and getattr(options, name):
            raise CommandError(f"--task {options.task} has no use for --{name.replace('_', '-')}")
