"""The attentive probe: V-JEPA 2's protocol (facebookresearch/vjepa2, `evals/video_classification_frozen`).

The encoder is frozen, so its tokens are made once for every video and kept on disk; what is trained on them is the
pooler of `VJEPA2ForVideoClassification` and its classifier: AdamW, a rate that falls from its start to zero in a
cosine, cross-entropy. The authors draw other crops of a video in every epoch, for which an encoder would have to run in
every step; here each video is seen once. Several clips of it (`views="2x1"`) are classified together, as theirs are.
With a grid of rates and weight decays, heads are trained side by side, the best on a part of the training videos is
chosen, and trained anew on all of them; the authors report the best on the test videos.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hf_video.base.loading import find_processors, loading
from hf_video.base.written_files import check_output_folder, writing_model_folder
from hf_video.data.rows import Skipped, VideoRows
from hf_video.data.sources.division import Division
from hf_video.errors import CheckpointError, ConfigError, DataError, unknown_name
from hf_video.evaluation.protocols import check_protocol
from hf_video.registry import MODELS
from hf_video.training.recipes import load_recipe, override_recipe
from hf_video.training.run_folder import open_output, run_description
from hf_video.training.runs.attentive_head import AttentiveHead, HeadTraining, extract_tokens, fit_attentive_head
from hf_video.training.runs.classification import default_output
from hf_video.training.runs.model_loading import check_fields, find_source, set_evaluation_sampling
from hf_video.training.runs.probe import check_rows, write_report
from hf_video.training.runs.summary import describe_reports, describe_start, format_summary, write_summary

if TYPE_CHECKING:
    from hf_video.models.vjepa2.modeling_vjepa2 import VJEPA2ForVideoClassification

RECIPE = "vjepa2_attentive_probe"
# What a recipe may say; there is no augmentation, because tokens are made once.
SETTINGS: dict[str, tuple[str, ...]] = {
    "training": (
        *("num_train_epochs", "min_train_steps", "per_device_train_batch_size"),
        *("learning_rate", "weight_decay"),
    ),
    "data": ("num_frames", "sampler", "sampler_options", "views"),
    "probe": ("learning_rates", "weight_decays"),
    "augmentation": (),
    "mixing": (),
}


def check_recipe(recipe: Mapping[str, Any]) -> None:
    """Raises ConfigError for a recipe of another task, and for settings that a probe has no use for."""
    if recipe.get("task") != "attentive_probe":
        raise ConfigError(f"The recipe {recipe['name']!r} is for another task. Probes take vjepa2_attentive_probe.")
    row = MODELS["vjepa2"]
    check_fields(row.load(row.config), recipe["model"], "vjepa2")
    for section, known in SETTINGS.items():
        unknown = [name for name, value in (recipe.get(section) or {}).items() if name not in known and value]
        if unknown:
            raise ConfigError(unknown_name(f"An attentive probe has no setting {section}", unknown[0], known))


def load_frozen(model: str, labels: list[str], fields: Mapping[str, Any], *, revision: str | None = None) -> Any:
    """A classifier for `labels` with the encoder of a folder or name on the Hub, in eval mode; its pooler, made after
    `fields` of the configuration, and its classifier are new. Raises CheckpointError for other model types."""
    import transformers

    with loading(model):
        config = transformers.AutoConfig.from_pretrained(model, revision=revision)
    row = MODELS["vjepa2"]
    if not isinstance(config, row.load(row.config)):
        raise CheckpointError(
            f"{model} is a {config.model_type}; an attentive probe reads the tokens of a vjepa2. Leave the recipe out "
            "for a linear probe."
        )
    config.id2label, config.label2id = dict(enumerate(labels)), {label: i for i, label in enumerate(labels)}
    for name, value in fields.items():
        setattr(config, name, value)
    config.check()
    with loading(model):
        encoder = row.load("VJEPA2Model").from_pretrained(model, config=config, revision=revision)
    classifier = row.load("VJEPA2ForVideoClassification")(config).to(encoder.dtype)
    classifier.vjepa2 = encoder
    return classifier.eval()


@dataclass(frozen=True)
class AttentiveProbe:
    """A trained probe: the whole model in eval mode, its processor, the videos by split, and what was measured."""

    model: VJEPA2ForVideoClassification
    processor: Any
    splits: dict[str, VideoRows]
    recipe: dict[str, Any]
    report: dict[str, Any]

    @property
    def test(self) -> VideoRows:
        return self.splits.get("test") or self.splits["validation"]

    def save(self, folder: Path, data: Any) -> None:
        """Writes model, processor, `probe.json` and `split.json`; checksums are the caller's."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        write_report(folder, self.report)
        Division.of(data, self.splits).save(folder)


def fit_attentive_probe(
    data: Any,
    model: str,
    *,
    recipe: str | Path,
    settings: Sequence[str] = (),
    revision: str | None = None,
    device: str | None = None,
    seed: int | None = None,
    reading: Mapping[str, Any] | None = None,
    **options: Any,
) -> AttentiveProbe:
    """Trains an attentive probe on a frozen encoder.

    Args:
        data: Labelled videos, as `load_videos` takes them with the arguments `reading`.
        model: A folder or name on the Hub of a vjepa2.
        recipe: Name or file of a recipe of the task "attentive_probe"; `settings` change it.
        revision, device, seed: Of the model on the Hub; where it runs; of the division, first weights and batches.
        options: As in `extract_features`.

    Raises:
        ConfigError: The recipe is of another task, or has settings that a probe has no use for.
        DataError: A class has no training video, or there is nothing to test on.
        CheckpointError: The model is no vjepa2.
        VideoOptionError: `views` has several crops.
    """
    from hf_video.evaluation.rows import evaluation_splits

    chosen = override_recipe(load_recipe(recipe), settings)
    check_recipe(chosen)
    splits = evaluation_splits(data, model, seed=seed, **(reading or {}))
    test = splits.get("test") or splits.get("validation")
    if "train" not in splits or test is None:
        raise DataError(f"{data} has the splits {', '.join(splits)}; a probe needs train and test.")
    check_rows(splits["train"], test)
    torch.manual_seed(seed or 0)
    frames = chosen["data"].get("num_frames")
    fields = {**chosen["model"], **({"num_frames": frames} if frames else {})}
    frozen = load_frozen(model, splits["train"].labels, fields, revision=revision)
    processor: Any = next(one for one in find_processors(frozen.vjepa2, None, None) if one is not None)
    set_evaluation_sampling(processor, chosen["data"])
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    training = HeadTraining.of(chosen, seed or 0, device)
    options |= {"device": device, "views": options.get("views") or chosen["data"].get("views")}
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hf_video_tokens_") as folder:
        seen, unseen = (
            extract_tokens(frozen, processor, rows, Path(folder, f"{name}.npy"), **options)
            for name, rows in (("train", splits["train"]), ("test", test))
        )
        empty = sorted(set(range(len(test.labels))) - set(seen.labels.tolist()))
        if empty:
            raise DataError(f"Classes have no training video: {', '.join(test.labels[i] for i in empty[:5])}.")
        epochs, steps = training.duration(len(seen.names))
        head, (rate, decay) = fit_attentive_head(AttentiveHead(frozen), seen, splits["train"], training)
        report = {
            "train_top1": training.accuracy(head, seen),
            "test_top1": training.accuracy(head, unseen),
            "train_found": len(seen.names),
            "test_found": len(unseen.names),
            "learning_rate": rate,
            "weight_decay": decay,
            "epochs": epochs,
            "steps": steps,
            "step_seconds": float(np.median(training.times)),
            "seconds": round(time.monotonic() - began, 2),
            "model": model,
            "labels": test.labels,
            "chance": max(test.counts().values()) / len(test),
            "skipped": [one.as_dict() for one in (*seen.skipped, *unseen.skipped)],
        }
    frozen.pooler.load_state_dict(head.pooler.state_dict())
    frozen.classifier.load_state_dict(head.classifier.state_dict())
    return AttentiveProbe(frozen, processor, splits, chosen, report)


def attentive_probe_model(
    data: Any,
    model: str,
    *,
    recipe: str | Path = RECIPE,
    output: str | os.PathLike[str] | None = None,
    data_format: str | None = None,
    videos: str | os.PathLike[str] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Measures a frozen encoder by an attentive probe: `hf-video probe`.

    Args:
        data, model, recipe: See `fit_attentive_probe`, which also takes the `options`.
        output: Where the encoder with the probe is saved, as a model for `pipeline("video-classification")`.
        data_format, videos: Of lists, see `load_videos`.

    Returns:
        `train_top1`, `test_top1` (0 to 1), `learning_rate`, `weight_decay`, `step_seconds` (CPU seconds of a training
        step, the median), `chance`, `labels` and what `ProbeReport` has besides.

    Raises:
        HFVideoError: What `fit_attentive_probe` raises.
    """
    if output is not None:
        check_output_folder(output)
    reading = {"data_format": data_format, "videos": videos}
    probe = fit_attentive_probe(data, model, recipe=recipe, reading=reading, **options)
    if output is not None:
        with writing_model_folder(output) as folder:
            probe.save(folder, data)
    return probe.report


def train_attentive_probe(
    data: Any,
    model: str,
    *,
    recipe: str | Path = RECIPE,
    output: str | Path | None = None,
    settings: Sequence[str] = (),
    test_size: float | None = None,
    group_pattern: str | None = None,
    data_format: str | None = None,
    videos: str | Path | None = None,
    protocol: str = "1x1",
    overwrite: bool = False,
    push_to_hub: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
) -> dict[str, Any]:
    """Makes a classifier of a frozen encoder and a trained attentive pooler: `hf-video train --recipe
    vjepa2_attentive_probe`.

    Args:
        data, model, recipe, settings, revision: See `fit_attentive_probe`.
        output, test_size, group_pattern, data_format, videos, protocol, overwrite, push_to_hub, private: As in
            `finetune`, whose folder this one is like.

    Returns:
        The summary that is also written to `training_summary.json`.

    Raises:
        HFVideoError: What `fit_attentive_probe` raises; ConfigError for a folder that holds another run.
    """
    from hf_video.evaluation.classification import evaluate_videos
    from hf_video.hub.model_card import write_card

    check_protocol(protocol)
    source = find_source(model, revision=revision)
    output = Path(output) if output is not None else default_output(data, source)
    open_output(output, {}, resume=False, overwrite=overwrite)  # refuses before there is work to lose
    division = {"test_size": test_size, "group_pattern": group_pattern}
    reading = {"data_format": data_format, "videos": videos, **division}
    probe = fit_attentive_probe(data, model, recipe=recipe, settings=settings, revision=revision, reading=reading)
    result = evaluate_videos(probe.model, probe.processor, probe.test, protocol=protocol)
    skipped = {one.name: one for one in (*(Skipped(**one) for one in probe.report["skipped"]), *result.skipped)}
    summary = describe_start(source, probe.recipe, probe.splits, skipped.values(), data=data)
    summary["data"]["division"] = division
    summary |= {name: probe.report[name] for name in ("epochs", "steps", "seconds")}
    summary["hyper_parameters"] = {name: probe.report[name] for name in ("learning_rate", "weight_decay")}
    name = "test" if "test" in probe.splits else "validation"
    summary["evaluation"] = describe_reports({name: result})
    folder = open_output(output, run_description(model, probe.recipe, probe.splits), resume=False, overwrite=overwrite)
    folder.start()
    probe.save(folder.folder, data)
    result.save(folder.folder / "evaluation" / name)
    write_summary(folder.folder, summary)
    write_card(folder.folder, repo_id=push_to_hub or output.resolve().name)
    folder.finish()
    print(format_summary(summary, output))
    if push_to_hub:
        from hf_video.hub.publish import push

        print(f"Pushed: {push(output, push_to_hub, private=private).commit_url}")
    return summary
