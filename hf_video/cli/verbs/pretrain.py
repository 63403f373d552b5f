"""Train without labels: most of each clip is masked, and the model learns to reconstruct it (VideoMAE), or to tell
what an average of itself makes of it (V-JEPA 2).

  hf-video pretrain clips/ --model videomae:small --output my-encoder
  hf-video pretrain clips/ --model vjepa2:large --recipe vjepa2_pretrain
  hf-video pretrain clips/ --model tiny.json --set training.num_train_epochs=100 --resume
  hf-video pretrain clips/ --model videomae:base --recipe videomae_pretrain:ucf101-B
  hf-video pretrain clips/ --model tiny.json --probe labelled/ --probe-every 20

DATA is a folder of videos, a list of them, or tar shards; labels are not used. --model is a size with random weights, a
JSON or YAML file of configuration fields with "model_type", or a checkpoint to go on from. A part of the videos is held
out (a test split, where there is one); on these the masked loss is compared with two trivial predictors: the mean of
each patch (of features, of all that is seen), and a copy of the nearest visible tube. Without --recipe, fewer than 100
videos are cropped, mirrored and coloured at random for each clip (variant few_videos of videomae_pretrain_small or
vjepa2_pretrain_small), against overfitting.

The output folder holds the model for `hf-video train` and `hf-video probe`, its card, training_summary.json, and
figures/: the loss curve and, of VideoMAE, reconstructions while it learns.
"""

from __future__ import annotations

import argparse
import sys

from hf_video.cli import DONE
from hf_video.cli.arguments import RUN_OPTIONS, Parser, fraction, positive_int


def add_arguments(parser: Parser) -> None:
    add = parser.add_option
    add("data", metavar="DATA", help="a folder of videos, a list of them, or tar shards")
    add("--model", required=True, help="a size (videomae:small, vjepa2:large), a configuration file, or a checkpoint")
    add("--recipe", help="a recipe or YAML file (default: see above)")
    add("--output", help="folder of the run (default: named after data and model)")
    add("--set")
    add("--held-out", type=fraction, metavar="FRACTION", help="of the videos (default 0.1, below 100 videos 0.25)")
    add("--group-pattern")
    add("--probe", metavar="DIR", help="labelled videos for a linear probe on the way")
    add("--probe-every", type=positive_int, default=10, metavar="N", help="epochs between probes (default 10)")
    add("--resume")
    add("--overwrite")
    add("--yes")
    add("--revision")


def run(options: argparse.Namespace) -> int:
    from transformers.utils import logging

    from hf_video.training.runs.pretraining import pretrain

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    pretrain(
        options.data,
        options.model,
        **{name: getattr(options, name) for name in RUN_OPTIONS},
        held_out=options.held_out,
        probe=options.probe,
        probe_every=options.probe_every,
    )
    return DONE
