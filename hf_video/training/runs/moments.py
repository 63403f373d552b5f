"""Training Moment-DETR, from videos and sentences with their moments to a folder that finds moments in files.

    train_moments("videos/", "highlights.jsonl", "openai/clip-vit-base-patch32", output="moments")
    pipeline("video-moment-retrieval", model="moments")("clip.mp4", sentences="a player scores")

leaves in the output folder: Moment-DETR at the top and the model of video and text in `encoder/`, the features in
`features/`, `training_summary.json`, `evaluation/<split>/` with predictions and metrics of QVHighlights' form,
`training_curve.png`, `checkpoint-N/` and TensorBoard's `runs/`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from hf_video.base.configuration import VideoConfig
from hf_video.base.loading import loading
from hf_video.data.rows import VideoRows
from hf_video.data.sources.moments import MomentRow, load_moments
from hf_video.errors import CheckpointError, DataError, pluralize
from hf_video.evaluation.detection.moments import moment_metrics
from hf_video.features.sequence_encoder import SequenceEncoder, featured_rows, save_encoder
from hf_video.features.sequences import FeatureSequence
from hf_video.models.moment_detr.configuration_moment_detr import MomentDetrConfig
from hf_video.models.moment_detr.features import moment_features, sentence_features
from hf_video.models.moment_detr.modeling_moment_detr import MomentDetrForMomentRetrieval
from hf_video.models.videoclip.from_image_text import video_clip
from hf_video.pipelines import matching
from hf_video.training.arguments import VideoTrainingArguments
from hf_video.training.measurement import BatchCost
from hf_video.training.moment_trainer import MomentDataset, MomentTrainer
from hf_video.training.plan import TrainingPlan, check_schedule
from hf_video.training.runs.model_loading import LoadedModel, check_fields
from hf_video.training.runs.run import Task, run_training
from hf_video.training.trainer import VideoTrainer

FEATURES = "features"
SENTENCES_AT_ONCE = 64


def train_moments(
    data: str | os.PathLike[str],
    annotations: str | os.PathLike[str],
    encoder: str,
    *,
    recipe: str | Path | None = None,
    output: str | Path | None = None,
    settings: Sequence[str] = (),
    features: str | os.PathLike[str] | None = None,
    test_size: float | None = None,
    device: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    yes: bool = False,
    push_to_hub: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
) -> dict[str, Any]:
    """Trains a Moment-DETR.

    Args:
        data: A folder of videos.
        annotations: A file of QVHighlights' form, see `hf_video.data.sources.moments`; without a "split" in its lines a
            part of the videos is kept for the test.
        encoder: A folder or name on the Hub of a model of video and text: VideoCLIP, CLIP or its kin. It is not
            trained; its vectors of clips and states of words are what Moment-DETR reads.
        recipe: See `load_recipe`; default "moment_detr:small". `model` are fields of `MomentDetrConfig`;
            `clip_seconds` is the length of a clip.
        output: Folder of the run; default "<data>-moments".
        settings: Changes of the recipe, "training.learning_rate=1e-3".
        features: Folder where features of videos are kept; default `features/` in the output.
        test_size: Share of the videos that is kept for the test; default .2.
        device: The encoder's.
        resume, overwrite, yes, push_to_hub, private: As in `finetune`.
        revision: Of an encoder on the Hub.

    Returns:
        The summary that is also written to `training_summary.json`.

    Raises:
        HFVideoError, TrainingInterrupted: As `finetune`.
    """
    output = Path(output) if output is not None else Path(f"{Path(data).resolve().name}-moments")
    task = MomentTraining(data, annotations, encoder, Path(features or output / FEATURES), test_size, device, revision)
    run = {"resume": resume, "overwrite": overwrite, "yes": yes, "push_to_hub": push_to_hub, "private": private}
    return run_training(task, recipe or "moment_detr:small", output, settings, **run)


class MomentTraining(Task):
    """Sentences and their moments."""

    name = "moment-retrieval"
    data_fields: ClassVar[tuple[str, ...]] = ()
    has_card: ClassVar[bool] = False

    def __init__(
        self,
        data: str | os.PathLike[str],
        annotations: str | os.PathLike[str],
        encoder: str,
        features: Path,
        test_size: float | None,
        device: str | None,
        revision: str | None,
    ) -> None:
        super().__init__(encoder, "moment_detr")
        self.data, self.annotations, self.features = data, annotations, features
        self.test_size, self.device, self.revision = test_size, device, revision
        self.encoder: SequenceEncoder | None = None
        self.tokenizer: Any = None
        self.datasets: dict[str, MomentDataset] = {}
        self.inputs: dict[str, tuple[list[torch.Tensor], list[torch.Tensor]]] = {}

    def read_splits(self) -> dict[str, VideoRows]:
        splits = load_moments(self.data, self.annotations, test_size=self.test_size)
        for name, rows in splits.items():
            known = [number for number, row in enumerate(_rows(rows)) if row.query["relevant_windows"]]
            splits[name] = rows.select(known)
        if not splits.get("train"):
            raise DataError(f"{self.annotations} has no moment to train on in the videos of {self.data}.")
        return {name: rows for name, rows in splits.items() if len(rows)}

    def evaluation_rows(self) -> VideoRows | None:
        return self.splits.get("validation") or self.splits.get("test")

    def description(self) -> dict[str, Any]:
        queries = json.dumps([row.query for rows in self.splits.values() for row in _rows(rows)], sort_keys=True)
        return {**super().description(), "moments_sha256": hashlib.sha256(queries.encode()).hexdigest()}

    def describe_data(self) -> TrainingPlan:
        plan = TrainingPlan()
        counts = {name: [len({row.name for row in rows}), len(rows)] for name, rows in self.splits.items()}
        shown = ", ".join(f"{rows} {split} (of {pluralize(n, 'video')})" for split, (n, rows) in counts.items())
        plan.add("sentences", shown, sentences=counts)
        skipped = [one for rows in self.splits.values() for one in rows.skipped]
        if skipped:
            plan.add("left out", f"{len(skipped)}, the first: {skipped[0]}")
        print("Making features, or reading those that are there ...", flush=True)
        return plan

    # ---- features ----

    def make_encoder(self, clip_seconds: float) -> SequenceEncoder:
        """The model of video and text on the grid of clips side by side."""
        with loading(self.model_name):
            model, processor = video_clip(self.model_name, revision=self.revision)
        if not matching.is_dual_encoder(model):
            raise CheckpointError(f"{self.model_name} has no vectors of videos alone; use a VideoCLIP or a CLIP.")
        self.tokenizer = processor.tokenizer
        return SequenceEncoder(
            model, processor, grid=f"{clip_seconds}s", device=self.device, cache=self.features, on_error="repeat"
        )

    def read_features(self, most_words: int) -> list[str]:
        """Sets `inputs`, features of clips and of words for each row, and takes videos that can't be read out of
        `splits`; returns remarks. Raises DataError for a moment beyond a video's end."""
        encoder, model = self.encoder, self.encoder.model
        remarks: list[str] = []
        for split, rows in self.splits.items():
            kept, sequences, lost = featured_rows(encoder, rows, lambda one: one)
            self.splits[split], remarks = kept, [*remarks, *lost]
            self._check_ends(_rows(kept), sequences)
            videos = {id(one): moment_features(torch.from_numpy(one.vectors)) for one in sequences}
            texts: list[torch.Tensor] = []
            for first in range(0, len(kept), SENTENCES_AT_ONCE):
                sentences = [row.text for row in _rows(kept)[first : first + SENTENCES_AT_ONCE]]
                tokens = matching.tokenize(self.tokenizer, sentences, model)
                texts += [states.cpu() for states in sentence_features(model, tokens, most_words)]
            self.inputs[split] = [videos[id(one)] for one in sequences], texts
        if not len(self.splits["train"]):
            raise DataError(f"None of the training videos of {self.data} can be read: {remarks[0]}.")
        return remarks

    def _check_ends(self, rows: Sequence[MomentRow], sequences: Sequence[FeatureSequence]) -> None:
        for row, sequence in zip(rows, sequences, strict=True):
            end = sequence.bounds[1] - sequence.bounds[0]
            for window in row.query["relevant_windows"]:
                if window[1] > end + self.encoder.grid.num_frames:
                    raise DataError(
                        f"{self.annotations}: query {row.query['qid']!r} has the moment {window}, and {row.name} is "
                        f"{end:.2f} seconds long."
                    )

    # ---- model ----

    def load_model(self, check: Callable[[type[nn.Module], VideoConfig], None]) -> LoadedModel:
        wanted = {name: value for name, value in self.recipe["model"].items() if value is not None}
        check_fields(MomentDetrConfig, wanted, self.model_type)
        plain = MomentDetrConfig(**wanted)
        self.encoder = self.make_encoder(plain.clip_seconds)
        remarks = self.read_features(plain.max_text_length)
        videos, texts = self.inputs["train"]
        sizes = {"video_size": videos[0].shape[1], "text_size": texts[0].shape[1]}
        known = {"name": self.encoder.name, "digest": self.encoder.digest}
        config = MomentDetrConfig(**{**wanted, **sizes, "encoder": known})
        check(MomentDetrForMomentRetrieval, config)
        return LoadedModel(MomentDetrForMomentRetrieval(config), None, False, self.model_type, remarks)

    def make_trainer(self, loaded: LoadedModel, arguments: VideoTrainingArguments) -> MomentTrainer:
        seconds = loaded.model.config.clip_seconds
        self.datasets = {
            name: MomentDataset(_rows(rows), *self.inputs[name], seconds, seed=arguments.seed)
            for name, rows in self.splits.items()
        }
        held_out = self.datasets.get("validation") or self.datasets.get("test")
        return MomentTrainer(loaded.model, arguments, train_dataset=self.datasets["train"], eval_dataset=held_out)

    def describe_training(self, plan: TrainingPlan, trainer: VideoTrainer, cost: BatchCost) -> None:
        clips = [len(video) for video in self.inputs["train"][0]]
        plan.add(
            "grid", f"{self.encoder.grid}: {min(clips)} to {max(clips)} clips a video", grid=str(self.encoder.grid)
        )
        plan.add("a step", f"{trainer.args.rows_per_step} sentences, learning rate {trainer.args.learning_rate:.3g}")
        check_schedule(plan, trainer)

    def save_division(self, folder: Path) -> None:
        """Puts the encoder into `encoder/`."""
        save_encoder(self.encoder, folder)

    # ---- results ----

    def evaluate(self, trainer: VideoTrainer, folder: Path) -> dict[str, dict[str, float]]:
        """Metrics of the validation and test splits; predictions and all metrics are written to `evaluation/`."""
        found = {}
        for name in ("validation", "test"):
            if name in self.datasets and trainer.is_world_process_zero():
                place = folder / "evaluation" / name
                place.mkdir(parents=True, exist_ok=True)
                predictions = trainer.predict_moments(self.datasets[name])
                lines = [json.dumps(one, ensure_ascii=False) for one in predictions]
                (place / "predictions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
                metrics = moment_metrics(predictions, [row.query for row in _rows(self.splits[name])])
                (place / "report.json").write_text(json.dumps(metrics, indent=2) + "\n")
                found[name] = metrics["brief"]
        trainer.accelerator.wait_for_everyone()
        return found

    def summarize(
        self, trainer: VideoTrainer, plan: TrainingPlan, metrics: Mapping[str, float], results: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        return {
            "task": self.name,
            "model": self.model_type,
            "encoder": self.model_name,
            "plan": plan.facts,
            "steps": trainer.state.global_step,
            "train_loss": metrics.get("train_loss"),
            "seconds": round(metrics.get("train_runtime", 0.0), 2),
            "evaluation": results,
            "skipped": [one.as_dict() for rows in self.splits.values() for one in rows.skipped],
        }

    def format_summary(self, summary: Mapping[str, Any], output: Path) -> str:
        lines = [
            f"On {split}: mAP {found['MR-full-mAP']:.1f}, R1@0.5 {found['MR-full-R1@0.5']:.1f}, "
            f"R1@0.7 {found['MR-full-R1@0.7']:.1f}"
            for split, found in summary["evaluation"].items()
        ]
        return "\n".join([*lines, f"Saved to {output}"])


def _rows(rows: VideoRows) -> list[MomentRow]:
    return [row for row in rows if isinstance(row, MomentRow)]
