"""Trainings of one site with video-level privacy: of `hf-video train --privacy`, and of a client of a federation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hf_video.errors import FederatedError
from hf_video.federated.privacy.ledger import LEDGER_FILE, PrivacyLedger
from hf_video.federated.privacy.policy import PrivacyPolicy
from hf_video.federated.privacy.trainer import PrivateMaskedTrainer, PrivateVideoTrainer
from hf_video.training.arguments import VideoTrainingArguments
from hf_video.training.recipes import setting_names
from hf_video.training.runs.classification import Classification, finetune
from hf_video.training.runs.model_loading import LoadedModel
from hf_video.training.runs.run import Task
from hf_video.training.trainer import VideoTrainer

TRAINERS = {"classification": PrivateVideoTrainer, "pretraining": PrivateMaskedTrainer}
# What a training with privacy has where the user typed nothing else: videos are clipped one by one, and gradients of
# single videos are taken faster in float32 than one after the other in bfloat16.
DEFAULTS = {"max_grad_norm": 0.0, "bf16": False}


def private_task(task: Task, policy: PrivacyPolicy, ledger: PrivacyLedger, rounds: int = 1) -> Task:
    """A copy of a task whose trainer keeps to a policy.

    Args:
        task: With its recipe.
        policy: Of the unit "video".
        ledger: Of whose videos these are.
        rounds: How often the task is still to be trained, for the noise.

    Raises:
        FederatedError: The loss of such a task is not of single videos.
    """
    if task.name not in TRAINERS:
        raise FederatedError(
            f"The loss of {task.name} joins the samples of a batch: no video has a gradient of its own. Take privacy "
            "of the unit client."
        )
    private = copy.copy(task)
    private.recipe = with_defaults(task)
    private.trainer_class = partial(TRAINERS[task.name], privacy=policy, ledger=ledger, rounds=rounds)
    return private


def with_defaults(task: Task) -> dict[str, Any]:
    """The recipe of a task with DEFAULTS, but for what was typed."""
    typed = setting_names(task.settings)
    defaults = {name: value for name, value in DEFAULTS.items() if f"training.{name}" not in typed}
    return {**task.recipe, "training": {**task.recipe["training"], **defaults}}


def parse_video_policy(privacy: str | Mapping[str, Any] | PrivacyPolicy) -> PrivacyPolicy:
    """Raises FederatedError for a policy of clients: one site has no others to hide among."""
    policy = PrivacyPolicy.parse(privacy)
    if policy.unit != "video":
        raise FederatedError(f"One site's training protects single videos: privacy=video:…, not {policy.unit}.")
    return policy


class PrivateClassification(Classification):
    """Fine-tuning with video-level privacy. The ledger lies in the folder of the run, and goes on with it."""

    def __init__(self, *arguments: Any, policy: PrivacyPolicy, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.policy = policy

    def fit_recipe(self) -> dict[str, Any]:
        self.recipe = super().fit_recipe()
        return with_defaults(self)

    def description(self) -> dict[str, Any]:
        return {**super().description(), "privacy": self.policy.as_dict()}

    def make_trainer(self, loaded: LoadedModel, arguments: VideoTrainingArguments) -> VideoTrainer:
        if self.splits["train"].multi_label:
            raise FederatedError(
                "Videos with several labels get thresholds that are chosen on private videos: privacy is for one label."
            )
        ledger = PrivacyLedger(Path(arguments.output_dir) / LEDGER_FILE)
        self.trainer_class = partial(PrivateVideoTrainer, privacy=self.policy, ledger=ledger)
        return super().make_trainer(loaded, arguments)

    def describe_training(self, plan: Any, trainer: VideoTrainer, cost: Any) -> None:
        super().describe_training(plan, trainer, cost)
        assert isinstance(trainer, PrivateVideoTrainer)
        policy, release = trainer.privacy, trainer.planned()
        epsilon, noise = policy.spent([release]), policy.noise_multiplier
        numbers = f"noise {noise:.3g} x clip {policy.clip:g}, rate {release.sample_rate:.3g}"
        plan.add("privacy", f"of one video, ε = {epsilon:.3g} at δ = {policy.delta:g}: {numbers}", epsilon=epsilon)

    def summarize(self, trainer: VideoTrainer, *arguments: Any) -> dict[str, Any]:
        assert isinstance(trainer, PrivateVideoTrainer)
        summary = super().summarize(trainer, *arguments)
        return {**summary, "privacy": trainer.statement().facts()}

    def format_summary(self, summary: Mapping[str, Any], output: Path) -> str:
        return f"{super().format_summary(summary, output)}\n\n{summary['privacy']['statement']}"


def finetune_privately(
    data: Any, model: str | Path, *, privacy: str | Mapping[str, Any] | PrivacyPolicy, **options: Any
) -> Any:
    """`finetune` with differential privacy of single videos, at one site.

    Args:
        data, model: See `finetune`.
        privacy: Such as "video:eps=8,delta=1e-5,clip=1.0", see `PrivacyPolicy.parse`.
        options: Those of `finetune`.

    Returns:
        The summary, with `privacy`: the numbers, and the statement that stands in the card.

    Raises:
        FederatedError: Something that would break the guarantee.
        HFVideoError: What `finetune` raises.
    """
    if options.get("self_test"):
        raise FederatedError("The self-test learns one batch by heart, which privacy is there to prevent.")
    make_task: Callable[..., Classification] = partial(PrivateClassification, policy=parse_video_policy(privacy))
    return finetune(data, model, make_task=make_task, **options)
