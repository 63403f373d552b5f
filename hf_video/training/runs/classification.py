"""Fine-tuning, from a folder of videos to a model that `pipeline` loads: the steps behind `hf-video train`.

    finetune("my_videos", "MCG-NJU/videomae-base", output="my_model")

reads the videos, loads the model and its processor, says what it is about to do, trains, evaluates on the test split,
and leaves in the output folder: the model, its processor and card at the top, `training_summary.json`, `skipped.jsonl`,
`evaluation/<split>/`, `training_curve.png`, `checkpoint-N/` and TensorBoard's `runs/`.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_video.data import load_videos
from hf_video.data.rows import VideoRows
from hf_video.data.sources.division import Division
from hf_video.evaluation.protocols import check_protocol
from hf_video.hub.model_card import write_card
from hf_video.training.plan import check_splits, describe_data, make_plan, print_data
from hf_video.training.recipes import NARROW, change, for_model, load_recipe
from hf_video.training.run_folder import SKIPPED_FILE, folder_to_resume, open_output, run_description
from hf_video.training.runs.model_loading import ModelSource, find_source
from hf_video.training.runs.overfit_check import OverfitResult, overfit_check
from hf_video.training.runs.preparation import evaluation_rows, fit_batch, make_arguments, measuring, prepare
from hf_video.training.runs.run import begin
from hf_video.training.runs.summary import make_summary, told, training_curve, write_summary
from hf_video.training.trainer import VideoTrainer


def finetune(
    data: Any,
    model: str | Path,
    *,
    recipe: str | Path | None = None,
    output: str | Path | None = None,
    settings: Sequence[str] = (),
    test_size: float | None = None,
    group_pattern: str | None = None,
    data_format: str | None = None,
    videos: str | Path | None = None,
    protocol: str = "1x1",
    resume: bool = False,
    overwrite: bool = False,
    self_test: bool = False,
    yes: bool = False,
    push_to_hub: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
) -> dict[str, Any] | OverfitResult:
    """Trains a classifier. Returns the summary that is also written, or with `self_test` only that test's result.

    Args:
        data: What `load_videos` takes: a folder `train/<label>/` or `<label>/`, a list, a `datasets` data set, tars.
        model: See `find_source`: a folder, a name on the Hub, a model type or a file of its configuration.
        recipe: See `load_recipe`. Default: "small_data" from a checkpoint, "tiny" from random weights or for a model of
            at most 192 channels, to which the rates of the papers are too low.
        output: The folder of the run. Default: named after data and model, in the current folder.
        settings: Changes of the recipe, "training.learning_rate=1e-3".
        test_size: Share of the videos of an unsplit folder that are kept for the test; `group_pattern` keeps those of
            one recording together: see `load_videos`. How the data were divided is written to `split.json`
            (`hf_video.data.sources.division`), by which `evaluate`, `probe` and `resume` divide them again.
        data_format, videos: Of lists, see `load_videos`.
        protocol: How the test split is evaluated: see `evaluate_videos`.
        resume, overwrite: Go on with the run in `output`, or put a new one in its place, once that is finished.
        yes: Train also where the plan's time or memory is absurd, which else is asked at a terminal and refused without
            one.
        push_to_hub, private: A repository to push to in the end; see `push`.

    Raises DataError, ConfigError, CheckpointError, OutputError and VideoOptionError for what can't work, before
    training; TrainingInterrupted (a KeyboardInterrupt) for Ctrl-C or SIGTERM, after a checkpoint is saved.
    """
    check_protocol(protocol)
    source = find_source(model, revision=revision)
    recipe = change(for_model(load_recipe(recipe or default_recipe(source)), source.model_type), settings)
    frames = recipe["data"].get("num_frames") or source.num_frames
    division = {"test_size": test_size, "group_pattern": group_pattern}
    reading = {"data_format": data_format, "videos": videos, "num_frames": frames, **division}
    output = Path(output) if output is not None else default_output(data, source)
    before = Division.read(folder_to_resume(output), data) if resume else None
    if before is not None and before.options == division:
        reading["division"] = before
    splits = read_splits(data, source, **reading)
    recipe = fit_batch(recipe, len(splits["train"]), settings)
    make_ready = functools.partial(prepare, source, recipe, splits, settings=settings, revision=revision, yes=yes)
    if self_test:
        with tempfile.TemporaryDirectory() as folder:
            return overfit_check(make_ready(make_arguments(Path(folder), recipe["training"]))[0])
    arguments = make_arguments(output, measuring(evaluation_rows(splits), recipe["training"]))
    with arguments.main_process_first(local=False):
        place = open_output(output, run_description(source.name, recipe, splits), resume=resume, overwrite=overwrite)
    arguments.output_dir = str(place.folder)
    begun = describe_data(splits)
    if arguments.process_index == 0:
        print_data(begun)
    trainer, start, recipe = make_ready(arguments, log=place.folder / SKIPPED_FILE)
    plan = make_plan(
        trainer,
        splits,
        recipe=_recipe_name(recipe),
        remarks=[*start.remarks, *place.remarks],
        from_scratch=start.from_scratch,
        begun=begun,
    )
    begin(trainer, place, plan, yes=yes)
    if trainer.is_world_process_zero():
        Division.of(data, splits, **division).save(place.folder)
    summary = {}
    with place.watched():
        result = trainer.train(resume_from_checkpoint=place.resumed_from)
        trainer.save_model()
        reports = evaluate(trainer, splits, place.folder, protocol=protocol)
        if trainer.is_world_process_zero():
            summary = make_summary(trainer, splits, source, recipe, plan, result, reports, data=data)
            summary["data"]["division"] = {"test_size": test_size, "group_pattern": group_pattern}
            write_summary(place.folder, summary)
            training_curve(trainer.state.log_history, place.folder)
            write_card(place.folder, repo_id=push_to_hub)
            place.finish()
            print(told(summary, output))
    if trainer.is_world_process_zero() and push_to_hub:
        from hf_video.hub.publish import push

        print(f"Pushed: {push(output, push_to_hub, private=private).commit_url}")
    trainer.accelerator.wait_for_everyone()
    return summary


def default_recipe(source: ModelSource) -> str:
    narrow = source.settings.get("hidden_size", NARROW + 1) <= NARROW
    return "tiny" if source.checkpoint is None or narrow else "small_data"


def default_output(data: Any, source: ModelSource) -> Path:
    where = Path(data).stem if isinstance(data, (str, os.PathLike)) else "videos"
    return Path(f"{where}-{Path(source.name).stem}".replace(":", "-"))


def read_splits(data: Any, source: ModelSource, **options: Any) -> dict[str, VideoRows]:
    """The videos. Classes have the order of the checkpoint's where it has the same ones: its classifier then fits."""
    splits = load_videos(data, **options)
    check_splits(splits)
    names = splits["train"].labels
    if source.labels is not None and source.labels != names and sorted(source.labels) == sorted(names):
        splits = load_videos(data, labels=source.labels, **options)
    return splits


def evaluate(trainer: VideoTrainer, splits: Mapping[str, VideoRows], output: Path, *, protocol: str) -> dict[str, Any]:
    """Reports of the validation and test splits, written to `evaluation/`; each video once, on the main process. Where
    videos have several labels, the validation split gives the configuration its `label_thresholds`."""
    from hf_video.evaluation.classification import evaluate_videos
    from hf_video.evaluation.multi_label_report import MultiLabelReport

    reports = {}
    with trainer.averaged():
        for name in ("validation", "test"):
            if trainer.is_world_process_zero() and name in splits and len(splits[name]):
                model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
                reports[name] = evaluate_videos(
                    model,
                    trainer.processing_class,
                    splits[name],
                    protocol=protocol,
                    batch_size=trainer.args.per_device_eval_batch_size,
                    num_workers=trainer.args.dataloader_num_workers,
                )
                if name == "validation" and isinstance(reports[name], MultiLabelReport):
                    # On videos that the model was not trained on, nor is tested on.
                    model.config.label_thresholds = reports[name].best_thresholds()
                    model.config.save_pretrained(output)
                    reports[name].thresholds = model.config.label_thresholds
                reports[name].save(output / "evaluation" / name)
        trainer.accelerator.wait_for_everyone()
    return reports


def _recipe_name(recipe: Mapping[str, Any]) -> str:
    variant = recipe.get("variant")
    return recipe["name"] if variant in (None, "default") else f"{recipe['name']}:{variant}"
