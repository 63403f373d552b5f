"""Training on questions, from videos with questions and answers to a model that answers.

    train_video_qa("questions.csv", "violet", output="my_model")

leaves in the output folder: the model and its whole processor at the top, `training_summary.json` with the accuracy on
the test (and validation) split, `training_curve.png`, `skipped.jsonl`, `checkpoint-N/` and TensorBoard's `runs/`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoProcessor, ProcessorMixin

from hf_video.base.configuration import VideoConfig
from hf_video.data.datasets.questions import (
    QuestionCollator,
    QuestionDataset,
    answered_by,
    load_questions,
    most_frequent_answers,
    normalize_answer,
)
from hf_video.data.rows import VideoRows
from hf_video.errors import CheckpointError, ConfigError, DataError, check_choice, check_count
from hf_video.evaluation.questions import evaluate_questions
from hf_video.models.violet.configuration_violet import VioletConfig
from hf_video.models.violet.modeling_violet import VioletForMultipleChoice, VioletForQuestionAnswering, VioletHead
from hf_video.training.arguments import VideoTrainingArguments
from hf_video.training.plan import TrainingPlan
from hf_video.training.run_folder import run_description
from hf_video.training.runs.model_loading import LoadedModel, check_fields
from hf_video.training.runs.run import run_training
from hf_video.training.runs.video_text import TextTask, config_of, is_narrow, load_pair, text_digest
from hf_video.training.trainer import RowEvaluationTrainer

KINDS = 10  # first words of questions that are told apart, the most frequent ones


def train_video_qa(
    data: Any,
    model: str | Path | nn.Module,
    *,
    processor: ProcessorMixin | None = None,
    recipe: str | Path | None = None,
    output: str | Path = "video-qa",
    settings: Sequence[str] = (),
    test_size: float = 0.1,
    resume: bool = False,
    overwrite: bool = False,
    yes: bool = False,
    **columns: Any,
) -> dict[str, Any]:
    """Trains a VIOLET to answer questions about videos.

    Open questions are answered from the training split's most frequent answers (the recipe's `answers`: `most` of them,
    each of at least `min_count` questions), which become `config.id2label`; questions with choices (see
    `load_questions`) by one of these.

    Args:
        data: What `load_questions` takes: a CSV, JSON or JSONL list, MSRVTT-QA's files, a `datasets` data set.
        model: A folder or name on the Hub with a VIOLET of any kind and its processor; or in memory, with its
            `processor`, a `VioletForQuestionAnswering` or `VioletForMultipleChoice`. A head for the same answers is
            kept, any other one is new.
        recipe: See `load_recipe`: "violet_qa[:choice|small]", or a YAML file. Default: "violet_qa", of a model of at
            most 192 channels its variant "small".
        settings: Changes of the recipe, "training.learning_rate=1e-3", "answers.most=500".
        test_size: Share of the videos of unsplit data that is kept for the test.
        resume, overwrite, yes: As in `finetune`.
        columns: Further arguments of `load_questions`: `videos`, `question_column`, `group_pattern`, ….

    Returns:
        The summary that is also written, with `output`, the folder.

    Raises:
        HFVideoError, TrainingInterrupted: As `finetune`.
    """
    task = QuestionAnswering(data, model, processor, {"test_size": test_size, **columns})
    recipe = recipe or ("violet_qa:small" if is_narrow(model) else "violet_qa")
    summary = run_training(task, recipe, output, settings, resume=resume, overwrite=overwrite, yes=yes)
    return {**summary, "output": str(output)}


class QuestionAnswering(TextTask):
    """Questions about videos, open or with choices. Training questions with a rare answer are left out of `splits`;
    `asked` has all, and `answers` are what a model for open questions chooses from."""

    name = "video-qa"
    unit = "questions"
    dataset_class = QuestionDataset
    measured_rows = 4

    asked: dict[str, VideoRows]
    answers: list[str] | None

    def read_splits(self) -> dict[str, VideoRows]:
        self.asked = self.check_splits(load_questions(self.data, **self.reading))
        self.answers = find_answers(self.asked["train"], self.recipe)
        if self.answers is None:
            return self.asked
        return {**self.asked, "train": answered_by(self.asked["train"], self.answers)}

    def description(self) -> dict[str, Any]:
        described = run_description(self.model_name, self.recipe, self.asked)
        return {**described, "texts_sha256": text_digest(self.asked)}

    def describe_data(self) -> TrainingPlan:
        """Also how many answers there are, and how many questions have others."""
        plan, answers = super().describe_data(), self.answers
        if answers is None:
            choices = len(self.asked["train"][0].choices)
            plan.lines.insert(1, ("answers", f"one of {choices} choices"))
            plan.facts["choices"] = choices
            return plan
        unknown = {name: len(rows) - len(answered_by(rows, answers)) for name, rows in self.asked.items()}
        rarer = unknown.pop("train")
        left = f"{rarer} of {len(self.asked['train'])} training questions have rarer ones and are left out"
        plan.lines.insert(1, ("answers", f"the {len(answers)} most frequent; {left}" if rarer else f"{len(answers)}"))
        plan.facts |= {"answers": len(answers), "left_out_questions": rarer, "unseen_answers": unknown}
        for name, count in unknown.items():
            if count:
                plan.warnings.append(
                    f"{count} of {len(self.asked[name])} {name} questions have an answer that training never saw: they "
                    "count as wrong"
                )
        return plan

    def load_model(self, check: Callable[[type[nn.Module], VideoConfig], None]) -> LoadedModel:
        model, processor = load_answering(self.model, self.processor, self.recipe, self.answers, self.settings)
        return LoadedModel(model, processor, False, self.model_type)

    def make_trainer(self, loaded: LoadedModel, arguments: VideoTrainingArguments) -> QuestionTrainer:
        answers = () if self.answers is None else list(loaded.model.config.id2label.values())
        datasets = self.make_datasets(loaded, arguments, answers=answers)
        return QuestionTrainer(loaded.model, arguments, processing_class=loaded.processor, **datasets)


class QuestionTrainer(RowEvaluationTrainer):
    """A `VideoTrainer` for `QuestionDataset`s and models that answer. Evaluation gives `eval_accuracy`, `eval_top5` for
    open questions, `eval_accuracy_where`, … for questions that begin so, and how many `eval_questions` there were, of
    `eval_videos_found` out of `eval_videos`. `processing_class` joins an image processor and a tokenizer."""

    def __init__(
        self,
        model: nn.Module | None = None,
        args: VideoTrainingArguments | None = None,
        *,
        processing_class: ProcessorMixin,
        **kwargs: Any,
    ):
        kwargs.setdefault("data_collator", QuestionCollator(processing_class.tokenizer))
        super().__init__(model, args, processing_class=processing_class, **kwargs)

    def evaluate_rows(self, model: nn.Module, rows: VideoRows, **options: Any) -> dict[str, float]:
        found, unread = evaluate_questions(model, self.processing_class, rows, **options)
        videos = len({row.name for row in rows})
        counts = {"questions": found.questions, "videos": videos}
        counts["videos_found"] = videos - len({one["name"] for one in unread})
        top5 = {} if found.top5 is None else {"top5": found.top5}
        kinds = {f"accuracy_{kind}": right for kind, (_, right) in list(found.by_kind.items())[:KINDS]}
        return {"accuracy": found.accuracy, **top5, **kinds, **counts}


def find_answers(rows: VideoRows, recipe: Mapping[str, Any]) -> list[str] | None:
    """The answers that a model for open questions gets to know; None where questions have choices. Raises DataError for
    fewer than two, ConfigError for limits without meaning."""
    if rows[0].choices:
        return None
    limits = recipe.get("answers") or {}
    for name, value in limits.items():
        check_choice("A setting of answers", name, ("most", "min_count"), ConfigError)
        check_count(f"answers.{name}", value, ConfigError)
    answers = most_frequent_answers(rows, **limits)
    if len(answers) < 2:
        raise DataError(
            f"{len(rows)} training questions have {len(answers)} answers of at least {limits.get('min_count', 1)} "
            "questions each; a model needs two to choose from."
        )
    return answers


def load_answering(
    model: str | Path | nn.Module,
    processor: ProcessorMixin | None,
    recipe: Mapping[str, Any],
    answers: Sequence[str] | None,
    settings: Sequence[str] = (),
) -> tuple[nn.Module, ProcessorMixin]:
    """The model for open questions with these `answers`, or without any the one for multiple choice, and its processor.
    Raises CheckpointError and ConfigError."""
    kind = VioletForMultipleChoice if answers is None else VioletForQuestionAnswering
    if isinstance(model, (str, Path)):
        model, processor = _load(kind, str(model), processor, recipe["model"])
        settings = ()  # the model has them
    elif not isinstance(model, kind):
        raise ConfigError(f"These questions need a {kind.__name__}, and a {type(model).__name__} came.")
    model, processor = load_pair(model, processor, recipe, settings)
    if answers is not None:
        set_answers(model, answers)
    return model, processor


def _load(
    kind: type[nn.Module], name: str, processor: ProcessorMixin | None, fields: Mapping[str, Any]
) -> tuple[nn.Module, ProcessorMixin]:
    model_type = config_of(name).model_type
    if model_type != "violet":
        raise CheckpointError(f"{name} is a {model_type}, which answers no questions. Give a VIOLET.")
    check_fields(VioletConfig, fields, model_type)
    return kind.from_pretrained(name, **fields), processor or AutoProcessor.from_pretrained(name)


def set_answers(model: VioletForQuestionAnswering, answers: Sequence[str]) -> None:
    """Makes `answers` those of the model, with a new head where it has others. Those that it has keep their order."""
    if sorted(map(normalize_answer, model.config.id2label.values())) == sorted(map(normalize_answer, answers)):
        return
    model.config.id2label = dict(enumerate(answers))
    model.config.label2id = {answer: number for number, answer in enumerate(answers)}
    model.num_labels = len(answers)
    model.classifier = VioletHead(model.config, len(answers)).to(model.device, model.dtype)
    model.classifier.apply(model._init_weights)
