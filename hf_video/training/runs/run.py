"""The steps that all trainings share: from a recipe and what was typed to the finished folder of a model.

A `Task` says what one kind of training reads, trains and measures; `run_training` takes it through the steps.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import nn
from transformers import set_seed

from hf_video.base.configuration import VideoConfig
from hf_video.base.processing import ClipProcessing
from hf_video.data.datasets.dataset import VideoDataset
from hf_video.data.rows import VideoRows
from hf_video.errors import ConfigError, unknown_name
from hf_video.hub.model_card import write_card
from hf_video.training.arguments import VideoTrainingArguments, fit_batch, make_arguments, with_evaluation
from hf_video.training.measurement import BatchCost, check_weights, measure_batch
from hf_video.training.plan import (
    TrainingPlan,
    add_cost,
    add_model,
    add_steps,
    check_batch,
    confirm,
    print_data,
    warn_of_random_weights,
)
from hf_video.training.recipes import for_model, load_recipe, override_recipe, recipe_title, recipes_of
from hf_video.training.run_folder import SKIPPED_FILE, RunFolder, open_output, run_description
from hf_video.training.runs.model_loading import LoadedModel
from hf_video.training.runs.summary import training_curve, write_summary
from hf_video.training.trainer import VideoTrainer
from hf_video.video.augment.augmentation import Augmentation
from hf_video.video.augment.checks import from_options
from hf_video.video.augment.temporal import TemporalAugmentation

DATA_FIELDS = ("num_frames", "sampler", "sampler_options", "repeats", "resize", "max_errors")


class Task(ABC):
    """One kind of training. `run_training` sets the recipe and the splits, and calls the methods in the order in which
    they are written here.

    Attributes:
        name: What recipes of this task have under `task`; they have nothing for "classification".
        data_fields: What recipes of this task may have under `data`.
        evaluation_interval: Share of the steps after which the model is evaluated, where nothing else is said.
        measured_rows: Rows of the batch that is measured for the plan; None for a whole batch.
        has_card: Whether the finished folder gets a model card.
        trainer_class: What makes the trainer, with the arguments of the task's own class.
        model_name, model_type: The model that training starts from.
        settings: The user's changes of the recipe.
        recipe: The recipe with these settings.
        splits: Videos to train on ("train") and to evaluate on ("validation", "test").
    """

    name: ClassVar[str]
    data_fields: ClassVar[tuple[str, ...]] = (*DATA_FIELDS, "temporal")
    evaluation_interval: ClassVar[float] = 0.1
    measured_rows: int | None = None
    has_card: ClassVar[bool] = True
    trainer_class: Callable[..., VideoTrainer] = VideoTrainer

    def __init__(self, model_name: str, model_type: str) -> None:
        self.model_name, self.model_type = model_name, model_type
        self.settings: tuple[str, ...] = ()
        self.recipe: dict[str, Any] = {}
        self.splits: dict[str, VideoRows] = {}

    @abstractmethod
    def read_splits(self) -> dict[str, VideoRows]:
        """The videos, by split. The recipe is known already."""

    def fit_recipe(self) -> dict[str, Any]:
        """The recipe with a batch that the videos of the training split fill."""
        return fit_batch(self.recipe, len(self.splits["train"]), self.settings)

    def evaluation_rows(self) -> VideoRows | None:
        """The videos to evaluate on while training; None where there are none."""
        return self.splits.get("validation")

    def description(self) -> dict[str, Any]:
        """What decides the weights of the run besides the code; a run is resumed only with the same."""
        return run_description(self.model_name, self.recipe, self.splits)

    @abstractmethod
    def describe_data(self) -> TrainingPlan:
        """A plan that tells what there is to train on."""

    @abstractmethod
    def load_model(self, check: Callable[[type[nn.Module], VideoConfig], None]) -> LoadedModel:
        """The model and its processor; `check` sees the model's class and configuration before there are weights. May
        change the recipe's `data` to suit the videos."""

    @abstractmethod
    def make_trainer(self, loaded: LoadedModel, arguments: VideoTrainingArguments) -> VideoTrainer:
        """The trainer with its data sets."""

    @abstractmethod
    def describe_training(self, plan: TrainingPlan, trainer: VideoTrainer, cost: BatchCost) -> None:
        """Adds to the plan what a clip and a step are."""

    def save_division(self, folder: Path) -> None:  # noqa: B027 (nothing to save by default)
        """Writes how the videos were divided, where `evaluate` is to divide them alike."""

    @abstractmethod
    def evaluate(self, trainer: VideoTrainer, folder: Path) -> Any:
        """The results on the held-out splits. All processes come here."""

    @abstractmethod
    def summarize(
        self, trainer: VideoTrainer, plan: TrainingPlan, metrics: Mapping[str, float], results: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """The content of `training_summary.json`; `metrics` are those of the training, `results` of `evaluate`."""

    def draw_figures(self, trainer: VideoTrainer, folder: Path) -> None:
        """Draws figures of the finished training."""
        training_curve(trainer.state.log_history, folder)

    def format_summary(self, summary: Mapping[str, Any], output: Path) -> str | None:
        """What is printed in the end; None for nothing."""
        return None


def run_training(
    task: Task,
    recipe: str | Path,
    output: str | Path,
    settings: Sequence[str] = (),
    *,
    resume: bool = False,
    overwrite: bool = False,
    yes: bool = False,
    push_to_hub: str | None = None,
    private: bool | None = None,
) -> dict[str, Any]:
    """Trains a model for a task. Returns the summary that is also written.

    Args:
        task: What is trained, on what.
        recipe: A recipe's name or file, see `load_recipe`.
        output: Folder of the run.
        settings: Changes of the recipe, "training.learning_rate=1e-3".
        resume, overwrite: Go on with the run in `output`, or put a new one in its place once that is finished.
        yes: Train also where the plan has concerns (see `confirm`).
        push_to_hub, private: A repository to push the finished folder to; see `push`.

    Raises:
        HFVideoError: What can't work, before training: a DataError, ConfigError, CheckpointError, OutputError or
            VideoOptionError.
        TrainingInterrupted: Ctrl-C or SIGTERM, after a checkpoint is saved.
    """
    from accelerate.utils import broadcast_object_list

    resolve_inputs(task, recipe, settings)
    output = Path(output)
    training = with_evaluation(task.evaluation_rows(), task.recipe["training"], every=task.evaluation_interval)
    arguments = make_arguments(output, training)
    with arguments.main_process_first(local=False):
        folder = open_output(output, task.description(), resume=resume, overwrite=overwrite)
    arguments.output_dir = str(folder.folder)
    plan = task.describe_data()
    if arguments.process_index == 0:
        print_data(plan)
    loaded, trainer = load_trainer(task, arguments, yes=yes)
    complete_plan(task, plan, trainer, loaded, folder.remarks)
    start_run(trainer, folder, plan, yes=yes)
    if trainer.is_world_process_zero():
        task.save_division(folder.folder)
    summary: dict[str, Any] = {}
    with folder.explaining_interruptions():
        metrics = trainer.train(resume_from_checkpoint=folder.resumed_from).metrics
        trainer.save_model()
        results = task.evaluate(trainer, folder.folder)
        if trainer.is_world_process_zero():
            summary = task.summarize(trainer, plan, metrics, results)
            write_summary(folder.folder, summary)
            task.draw_figures(trainer, folder.folder)
            if task.has_card:
                write_card(folder.folder, repo_id=push_to_hub or output.resolve().name)
            folder.finish()
            if text := task.format_summary(summary, output):
                print(text)
    if trainer.is_world_process_zero() and push_to_hub:
        from hf_video.hub.publish import push

        print(f"Pushed: {push(output, push_to_hub, private=private).commit_url}")
    trainer.accelerator.wait_for_everyone()
    return broadcast_object_list([summary])[0]


def resolve_inputs(task: Task, recipe: str | Path, settings: Sequence[str]) -> None:
    """Sets a task's recipe, with the settings applied, and its videos. Raises ConfigError for another task's recipe and
    for fields of `data` that the task has not."""
    loaded = load_recipe(recipe)
    given = loaded.get("task", "classification")
    if given != task.name:
        raise ConfigError(
            f"The recipe {loaded['name']!r} is for {given}, and this is {task.name}. Recipes for {task.name}: "
            f"{', '.join(recipes_of(task.name))}."
        )
    task.settings = tuple(settings)
    task.recipe = override_recipe(for_model(loaded, task.model_type), settings)
    if unknown := [name for name in task.recipe["data"] if name not in task.data_fields]:
        raise ConfigError(unknown_name("The section data has no", unknown[0], task.data_fields))
    task.splits = task.read_splits()
    task.recipe = task.fit_recipe()


def load_trainer(task: Task, arguments: VideoTrainingArguments, *, yes: bool) -> tuple[LoadedModel, VideoTrainer]:
    """The model that a task starts from, and its trainer; with `yes` also a model that does not fit into memory."""
    set_seed(arguments.seed)
    loaded = task.load_model(check_weights(arguments, yes=yes))
    return loaded, task.make_trainer(loaded, arguments)


def complete_plan(
    task: Task, plan: TrainingPlan, trainer: VideoTrainer, loaded: LoadedModel, remarks: Sequence[str]
) -> None:
    """Adds what will be done to a plan of the data. Reads one batch and runs one forward. Raises ConfigError for what
    can't work."""
    dataset = trainer.train_dataset
    check_batch(trainer.args, trainer.model, len(dataset), dataset.repeats)
    cost = measure_batch(trainer, at_most=task.measured_rows)
    title, meant = recipe_title(task.recipe), task.recipe.get("model_type")
    plan.warnings += task.recipe.get("remarks", ())
    if meant not in (None, task.model_type):
        plan.warnings.append(f"the recipe {title} is meant for {meant}, and this is {task.model_type}")
    plan.warnings += [*loaded.remarks, *remarks]
    task.describe_training(plan, trainer, cost)
    add_steps(plan, trainer)
    add_model(plan, trainer)
    plan.add("recipe", title, recipe=title)
    if loaded.from_scratch:
        warn_of_random_weights(plan, trainer.model, len(task.splits["train"]))
    add_cost(plan, trainer, cost)


def start_run(trainer: VideoTrainer, folder: RunFolder, plan: TrainingPlan, *, yes: bool) -> None:
    """Prints the plan, asks where it has concerns (see `confirm`), and marks the run's folder as begun."""
    from accelerate.utils import broadcast_object_list

    if trainer.is_world_process_zero():
        print(plan, flush=True)
    plan.concerns = broadcast_object_list([plan.concerns])[0]  # all processes go on, or none
    confirm(plan, yes=yes)
    names = ("num_train_epochs", "learning_rate", "rows_per_step", "per_device_train_batch_size")
    folder.run["ran"] = {"steps": plan.facts["steps"], **{name: getattr(trainer.args, name) for name in names}}
    if trainer.is_world_process_zero():
        folder.start()
    trainer.accelerator.wait_for_everyone()


def make_dataset(
    kind: type[VideoDataset],
    rows: VideoRows,
    processor: ClipProcessing,
    recipe: Mapping[str, Any],
    arguments: VideoTrainingArguments | None = None,
    **options: Any,
) -> VideoDataset:
    """Augmented clips of `rows` as the recipe has them, drawn by the run's seed; `options` are further arguments of
    that kind of data set.

    Raises ConfigError or VideoOptionError where flips or reversal would make labels or texts wrong.
    """
    texts = [row.text for row in rows if hasattr(row, "text")]
    options |= {name: value for name, value in recipe["data"].items() if value is not None}
    if "temporal" in options:
        options["temporal"] = from_options(TemporalAugmentation, options["temporal"]).for_labels(rows.labels)
    if recipe["augmentation"] or not texts:
        size = processor.crop_size if processor.do_center_crop else processor.size
        if "height" not in size:
            raise ConfigError(
                f"The processor makes clips of any width (size {size}); training needs do_center_crop=True."
            )
        augmentation = from_options(Augmentation, recipe["augmentation"], size=(size["height"], size["width"]))
        sided = next((text for text in texts if re.search(r"\b(left|right)\b", text.lower())), None)
        if augmentation.flip and sided is not None:
            raise ConfigError(f"augmentation.flip mirrors clips, and a text says {sided!r}. Set augmentation.flip=0.")
        options["augmentation"] = augmentation if texts else augmentation.for_labels(rows.labels)
    if arguments is not None:
        options |= {"seed": arguments.seed, "skipped_log": Path(arguments.output_dir) / SKIPPED_FILE}
    return kind(rows, processor, **options)
