"""Pretraining, from a folder of unlabelled clips to an encoder: what `hf-video pretrain` does.

    pretrain("my_clips", "videomae:small", output="my_encoder")

leaves in the output folder: the model, its processor and card, `training_summary.json` with the masked loss on held-out
clips beside that of two predictors without a model, `figures/` (the loss curve; of VideoMAE reconstructions too),
`training_curve.png`, `skipped.jsonl`, `checkpoint-N/` and TensorBoard's `runs/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_video.data import VideoRow, VideoRows, load_videos
from hf_video.errors import DataError
from hf_video.training.runs.classification import default_output
from hf_video.training.runs.masked_pretraining import FeaturePretraining, MaskedPretraining
from hf_video.training.runs.model_loading import find_source
from hf_video.training.runs.run import run_training

RECIPES = {"videomae": "videomae_pretrain_small", "vjepa2": "vjepa2_pretrain_small"}
FEW = 100  # videos: below, the recipe's variant for few of them


def pretrain(
    data: Any,
    model: str | Path,
    *,
    recipe: str | Path | None = None,
    output: str | Path | None = None,
    settings: Sequence[str] = (),
    held_out: float | None = None,
    group_pattern: str | None = None,
    probe: Any = None,
    probe_every: int = 10,
    resume: bool = False,
    overwrite: bool = False,
    yes: bool = False,
    revision: str | None = None,
) -> dict[str, Any]:
    """Trains an encoder without labels: a masked autoencoder (VideoMAE), or by predicting features (V-JEPA 2).

    Args:
        data: What `load_videos` takes. Labels are not used.
        model: See `find_source`: a folder, a name on the Hub, a model type with a size or a file of its configuration.
        recipe: See `load_recipe`. Default: "videomae_pretrain_small" or "vjepa2_pretrain_small", for fewer than 100
            videos its variant "few_videos".
        settings, output, resume, overwrite, yes: As in `finetune`.
        held_out: Share of the videos that is measured on, where they have no test or validation split; 0 for none.
            Default: a tenth, of fewer than 100 videos a quarter. `group_pattern` keeps clips of one recording together:
            see `load_videos`.
        probe: Labelled videos for a linear probe before, every `probe_every` epochs, and after.

        revision: Branch, tag or commit of a model on the Hub.

    Returns:
        The summary that is also written, with `output`, the folder.

    Raises:
        HFVideoError, TrainingInterrupted: As `finetune`.
    """
    source = find_source(model, revision=revision)
    splits = read_unlabelled_splits(data, held_out, group_pattern)
    kind = FeaturePretraining if source.model_type in FeaturePretraining.model_types else MaskedPretraining
    task = kind(data, source, splits, probe=probe, probe_every=probe_every, revision=revision)
    output = Path(output) if output is not None else default_output(data, source)
    recipe = recipe or pretraining_recipe(sum(map(len, splits.values())), source.model_type)
    summary = run_training(task, recipe, output, settings, resume=resume, overwrite=overwrite, yes=yes)
    return {**summary, "output": str(output)}


def pretraining_recipe(videos: int, model_type: str = "videomae") -> str:
    """The recipe where none is given, by the number of videos."""
    recipe = RECIPES.get(model_type, RECIPES["videomae"])
    return f"{recipe}:few_videos" if videos < FEW else recipe


def read_unlabelled_splits(
    data: Any, held_out: float | None = None, group_pattern: str | None = None
) -> dict[str, VideoRows]:
    """ "train" and, unless `held_out` is 0, "test", without labels. Raises DataError where there are no videos, or one
    and it should be held out."""
    options = {"group_pattern": group_pattern, "need_labels": False}
    found = load_videos(data, test_size=0.1 if held_out is None else held_out, **options)
    if held_out is None and sum(map(len, found.values())) < FEW:
        held_out = 0.25  # what one or two videos say is chance
        found = load_videos(data, test_size=held_out, **options)
    if not len(found.get("train", ())):
        skipped = [str(one) for rows in found.values() for one in rows.skipped]
        raise DataError(f"There are no videos to train on in {data}. {'; '.join(skipped[:3])}")
    unseen = found.get("test") or found.get("validation")
    if held_out != 0 and not unseen:
        raise DataError(
            f"{data} has one video, or clips of one recording: none can be held out to measure on. Give more videos, "
            "or hold out none (held_out=0)."
        )
    chosen = {"train": found["train"], "test": unseen} if held_out != 0 else {"train": found["train"]}
    return {
        name: VideoRows(
            (VideoRow(row.source, None, row.name, row.group) for row in rows), skipped=rows.skipped, root=rows.root
        )
        for name, rows in chosen.items()
    }
