"""Masked pretraining as tasks of `run_training`: of pixels (VideoMAE), and of features (V-JEPA 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from hf_video.base.configuration import VideoConfig
from hf_video.base.processing import ClipProcessing
from hf_video.data import VideoDataset, VideoRows, load_videos
from hf_video.data.rows import Skipped
from hf_video.errors import ConfigError, DataError, VideoError, unknown_name
from hf_video.features.extraction import extract_features
from hf_video.training.arguments import VideoTrainingArguments
from hf_video.training.masked_pretraining import BlockMaskCollator, MaskedVideoCollator
from hf_video.training.masked_trainer import FeatureTrainer, MaskedTrainer, ProbeCallback, ReconstructionCallback
from hf_video.training.measurement import BatchCost
from hf_video.training.plan import TrainingPlan
from hf_video.training.pretrain_figures import loss_curve
from hf_video.training.recipes import recipe_title, setting_names
from hf_video.training.run_folder import SKIPPED_FILE
from hf_video.training.runs.model_loading import LoadedModel, ModelSource, load_model, set_evaluation_sampling
from hf_video.training.runs.probe import check_rows, probe_features
from hf_video.training.runs.run import Task, make_dataset
from hf_video.training.runs.summary import make_summary
from hf_video.training.trainer import VideoTrainer
from hf_video.video.reader import VideoReader

FIGURES = "figures"
SHOWN = 4  # clips of a reconstruction figure
EVALUATED = 64  # held-out clips to evaluate on; a video gives eight at most
INSPECTED = 32  # videos that are opened to see how long they are


class MaskedPretraining(Task):
    """A VideoMAE that predicts hidden parts of clips. `probe` are labelled videos for a linear probe on the way.

    Attributes:
        model_types: The models that are pretrained so.
        model_fields: Fields of the configuration, where nothing else is said. The paper's encoder ends with a norm:
            mean pooling, which has none, is for classifiers.
        masking_fields: What recipes have under `masking`.
        predictors: What a model has to beat, by the names of the trainer's figures.
        measure: What the loss is.
        advice: What to do where it does not beat them.
    """

    name = "pretraining"
    evaluation_interval = 0.05
    trainer_class = MaskedTrainer
    model_types: ClassVar[tuple[str, ...]] = ("videomae",)
    model_fields: ClassVar[dict[str, Any]] = {"use_mean_pooling": False}
    masking_fields: ClassVar[tuple[str, ...]] = ("mask", "mask_ratio", "decoder_mask_ratio")
    predictors: ClassVar[dict[str, str]] = {
        "mean_of_patch": "mean of each patch",
        "copy_of_nearest": "copy of the nearest visible tube",
    }
    measure = "squared error of what was hidden"
    advice = "train longer, on more videos, or hide less (masking.mask_ratio)"

    def __init__(
        self,
        data: Any,
        source: ModelSource,
        splits: dict[str, VideoRows],
        *,
        probe: Any,
        probe_every: int,
        revision: str | None,
    ) -> None:
        super().__init__(source.name, source.model_type)
        self.data, self.source, self.unlabelled, self.revision = data, source, splits, revision
        self.probe, self.probe_every = probe, probe_every

    def read_splits(self) -> dict[str, VideoRows]:
        return self.unlabelled

    def fit_recipe(self) -> dict[str, Any]:
        """Where epochs were typed, an epoch is each video once, so that the batch must fit; see `make_trainer`."""
        return super().fit_recipe() if "training.num_train_epochs" in setting_names(self.settings) else self.recipe

    def evaluation_rows(self) -> VideoRows | None:
        return self.splits.get("test")

    def describe_data(self) -> TrainingPlan:
        plan, sizes = TrainingPlan(), {split: len(rows) for split, rows in self.splits.items()}
        plan.add("videos", ", ".join(f"{count} {split}" for split, count in sizes.items()), videos=sizes)
        return plan

    def load_model(self, check: Callable[[type[nn.Module], VideoConfig], None]) -> LoadedModel:
        """The recipe's stride becomes one that fits the videos."""
        if self.source.model_type not in self.model_types:
            raise ConfigError(
                f"{self.source.model_type} has no masked pretraining here; {', '.join(self.model_types)} has."
            )
        if unknown := [name for name in self.recipe["masking"] if name not in self.masking_fields]:
            named = unknown_name(f"Masking of {self.source.model_type} has no", unknown[0], self.masking_fields)
            raise ConfigError(f"{named} Is the recipe {recipe_title(self.recipe)} meant for it?")
        fields = {**self.model_fields, **self.recipe["model"]}
        loaded = load_model(
            self.source, task="AutoModelForPreTraining", settings=fields, revision=self.revision, before=check
        )
        data = dict(self.recipe["data"])
        data["num_frames"] = data.get("num_frames") or loaded.processor.num_frames
        stride = (data.get("sampler_options") or {}).get("stride")
        typed = any(name.startswith("data.sampler") for name in setting_names(self.settings))
        if stride is not None and not typed:
            fitting = fit_stride(self.splits["train"], data["num_frames"], stride)
            if fitting < stride:
                data["sampler_options"] = {**data["sampler_options"], "stride": fitting}
                loaded.remarks.append(f"the videos are short: frames are taken at stride {fitting}, not {stride}")
        set_evaluation_sampling(loaded.processor, data)
        self.recipe["data"] = data
        return loaded

    def make_trainer(self, loaded: LoadedModel, arguments: VideoTrainingArguments) -> MaskedTrainer:
        """With data sets of both splits and, where something is held out, pictures of it."""
        rows, test, processor = self.splits["train"], self.splits.get("test"), loaded.processor
        # Fewer videos than a step takes: each is there several times, as a clip of another place.
        times = -(-arguments.rows_per_step // len(rows))
        if times > 1:
            loaded.remarks.append(f"each video is read {times} times an epoch, to fill a batch")
        repeated = rows.select(i for _ in range(times) for i in range(len(rows)))
        dataset = make_dataset(VideoDataset, repeated, processor, self.recipe, arguments)
        evaluated = None
        if test is not None:
            evaluated = FixedClipDataset(
                test,
                processor,
                views=min(-(-EVALUATED // len(test)), 8),
                seed=arguments.seed,
                skipped_log=Path(arguments.output_dir) / SKIPPED_FILE,
                **{n: self.recipe["data"][n] for n in ("sampler", "sampler_options") if n in self.recipe["data"]},
            )
        config: Any = loaded.model.config
        trainer = self.trainer_class(
            loaded.model,
            arguments,
            self.make_collator(config.patch),
            train_dataset=dataset,
            eval_dataset=evaluated,
            processing_class=processor,
        )
        if evaluated is not None:
            self.add_pictures(trainer, evaluated, Path(arguments.output_dir) / FIGURES)
        if self.probe is not None:
            trainer.add_callback(ProbeCallback(trainer, make_probe(self.probe, processor), self.probe_every))
        return trainer

    def make_collator(self, patch: tuple[int, int, int]) -> Callable[[list[Any]], dict[str, Any]]:
        """What draws masks for clips of such tubelets."""
        return MaskedVideoCollator(patch, **self.recipe["masking"])

    def add_pictures(self, trainer: MaskedTrainer, evaluated: VideoDataset, folder: Path) -> None:
        """Has the trainer draw a clip from the middle of some of the held-out videos."""
        test = evaluated.rows
        videos = np.linspace(0, len(test) - 1, min(SHOWN, len(test))).round().astype(int).tolist()
        shown = [video * evaluated.clips + evaluated.clips // 2 for video in videos]
        clips, names = torch.utils.data.Subset(evaluated, shown), [test[video].name for video in videos]
        trainer.add_callback(ReconstructionCallback(trainer, clips, names, folder))

    def describe_training(self, plan: TrainingPlan, trainer: VideoTrainer, cost: BatchCost) -> None:
        args, dataset, hidden = trainer.args, trainer.train_dataset, cost.batch["bool_masked_pos"]
        frames, tokens = dataset.request.num_frames, hidden.shape[1]
        plan.add("a clip", f"{frames} frames, {tokens} tubelets, {hidden[0].sum()} of them hidden")
        clips = args.rows_per_step * dataset.repeats
        plan.add("a step", f"{clips} clips, learning rate {args.learning_rate:.3g}")

    def evaluate(self, trainer: VideoTrainer, folder: Path) -> dict[str, float] | None:
        return trainer.evaluate() if "test" in self.splits else None

    def summarize(
        self, trainer: VideoTrainer, plan: TrainingPlan, metrics: Mapping[str, float], results: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """`held_out`: the masked loss and that of predictors without a model, and whether it `beats_trivial`;
        `probe_top1` by epoch."""
        made = make_summary(trainer, self.splits, self.source, self.recipe, plan, metrics, data=self.data)
        held_out = None
        if results is not None:
            names, dataset = ("masked_loss", *self.predictors, "explained", "target_deviation"), trainer.eval_dataset
            held_out = {name: results[f"eval_{name}"] for name in names if f"eval_{name}" in results}
            held_out |= {"clips": len(dataset), "videos": len(dataset.rows), "beats_trivial": held_out["explained"] > 0}
        probes = {f"{row['epoch']:g}": row["probe_top1"] for row in trainer.state.log_history if "probe_top1" in row}
        return {
            **made,
            "task": "masked pretraining",
            "masking": self.recipe["masking"],
            "held_out": held_out,
            "probe_top1": probes or None,
        }

    def draw_figures(self, trainer: VideoTrainer, folder: Path) -> None:
        """Also `figures/reconstruction.png`, with the final weights, and `figures/loss_curve.png`."""
        super().draw_figures(trainer, folder)
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, ReconstructionCallback):
                with trainer.averaged():
                    callback.draw(folder / FIGURES / "reconstruction.png")
        loss_curve(trainer.state.log_history, folder / FIGURES / "loss_curve.png")

    def format_summary(self, summary: Mapping[str, Any], output: Path) -> str:
        """The loss beside those of the predictors without a model, and whether it is lower."""
        lines = ["", f"Trained {summary['steps']} steps, in {summary['seconds']:.0f} s."]
        if held_out := summary["held_out"]:
            lines.append(
                f"Masked loss on {held_out['clips']} clips of {held_out['videos']} held-out videos ({self.measure}; "
                "less is better)"
            )
            named = {"masked_loss": "this model", **self.predictors}
            width = max(map(len, named.values())) + 2
            for key, name in named.items():
                lines.append(f"  {name:<{width}}{held_out[key]:.4f}")
            lines.append(
                f"It beats both: {held_out['explained']:.1%} less error than the better of them."
                if held_out["beats_trivial"]
                else f"It does not beat both: {self.advice}."
            )
        if summary["probe_top1"]:
            probes = (f"{top1:.1%} (epoch {epoch})" for epoch, top1 in summary["probe_top1"].items())
            lines.append(f"Linear probe, top-1: {', '.join(probes)}")
        lines += [str(Skipped(**one)) for one in summary["data"]["skipped"]]
        return "\n".join([*lines, f"Saved to {output}; pictures in {output}/{FIGURES}"])


class FeaturePretraining(MaskedPretraining):
    """A V-JEPA 2 that predicts features of hidden parts of clips, of which there is nothing to draw."""

    trainer_class = FeatureTrainer
    model_types: ClassVar[tuple[str, ...]] = ("vjepa2",)
    model_fields: ClassVar[dict[str, Any]] = {}
    masking_fields: ClassVar[tuple[str, ...]] = ("kinds",)
    predictors: ClassVar[dict[str, str]] = {
        "mean_of_seen": "mean of the tokens that are seen",
        "copy_of_nearest": "copy of the nearest token that is seen",
    }
    measure = "error of the features of what was hidden"
    advice = "train longer, on more videos, or raise training.target_momentum"

    def make_collator(self, patch: tuple[int, int, int]) -> Callable[[list[Any]], dict[str, Any]]:
        return BlockMaskCollator(patch, **self.recipe["masking"])

    def add_pictures(self, trainer: MaskedTrainer, evaluated: VideoDataset, folder: Path) -> None:
        pass

    def describe_training(self, plan: TrainingPlan, trainer: VideoTrainer, cost: BatchCost) -> None:
        args, dataset = trainer.args, trainer.train_dataset
        contexts, targets = (
            "/".join(str(mask.shape[1]) for mask in cost.batch[name]) for name in ("context_mask", "target_mask")
        )
        clips = args.rows_per_step * dataset.repeats
        plan.add(
            "a clip", f"{dataset.request.num_frames} frames; of its tubelets about {contexts} seen, {targets} hidden"
        )
        plan.add("a step", f"{clips} clips, learning rate {args.learning_rate:.3g}")


def fit_stride(rows: VideoRows, num_frames: int, stride: int) -> int:
    """The largest stride up to `stride` at which the median of some videos still fills a clip with different frames."""
    lengths = []
    for row in rows[:INSPECTED]:
        try:
            with VideoReader(VideoDataset._opened(row.source)) as reader:
                lengths.append(reader.metadata.num_frames)
        except (VideoError, OSError):
            continue
    span = int(np.median(lengths)) - 1 if lengths else stride * num_frames
    return max(1, min(stride, span // max(num_frames - 1, 1)))


class FixedClipDataset(VideoDataset):
    """Clips and masks are the same at every evaluation. Loaders whose workers live on take evaluations for epochs."""

    def set_epoch(self, epoch: int) -> None:
        pass


def make_probe(data: Any, processor: ClipProcessing) -> Callable[[nn.Module], float]:
    """A function from a model to the top-1 accuracy of a linear probe on it.

    Raises DataError for videos without labels or a test split."""
    splits = load_videos(data)
    test = splits.get("test") or splits.get("validation")
    if "train" not in splits or not test or not splits["train"].labelled:
        raise DataError(f"The videos to probe with, {data}, need labels, and some to test on.")
    check_rows(splits["train"], test)
    return partial(probe_accuracy, processor=processor, train=splits["train"], test=test)


def probe_accuracy(model: nn.Module, *, processor: ClipProcessing, train: VideoRows, test: VideoRows) -> float:
    seen, unseen = (extract_features(model, processor, rows, batch_size=32) for rows in (train, test))
    return probe_features(seen, unseen, train).test_top1
