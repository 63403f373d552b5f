"""Training a detector of events, from videos and annotations to a folder that finds events in files.

    train_detector("videos/", "events.json", "my-encoder", output="detector")

leaves in the output folder: the detector at the top and its encoder in `encoder/`, the features in `features/` (unless
they are kept elsewhere), `training_summary.json`, `evaluation/<split>/` with reports, `training_curve.png`,
`checkpoint-N/` and TensorBoard's `runs/`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import set_seed

from hf_video.base.configuration import VideoConfig
from hf_video.base.detection.configuration import TemporalDetectionConfig
from hf_video.base.loading import loading
from hf_video.clips.grid import FeatureGrid, parse_grid
from hf_video.data.rows import VideoRows
from hf_video.data.sources.division import Division
from hf_video.data.sources.events import FEATURE_ENDINGS, event_rows
from hf_video.data.sources.files import is_video
from hf_video.errors import CheckpointError, ConfigError, DataError
from hf_video.features.detection_processor import TemporalDetectionProcessor
from hf_video.features.events import load_sequence
from hf_video.features.sequence_encoder import SequenceEncoder, featured_rows, save_encoder
from hf_video.features.sequences import FeatureSequence
from hf_video.training.arguments import VideoTrainingArguments
from hf_video.training.detection_sizes import FITTED, fit_grid, fit_to_events, set_scale
from hf_video.training.detection_trainer import DetectionTrainer
from hf_video.training.measurement import BatchCost
from hf_video.training.plan import TrainingPlan, check_schedule
from hf_video.training.recipes import setting_names
from hf_video.training.runs.end_to_end import EndToEndTraining
from hf_video.training.runs.events import DATA_FIELDS, FINDERS, HEAD, EventTraining
from hf_video.training.runs.model_loading import LoadedModel, check_fields, find_source, load_model
from hf_video.training.runs.run import run_training
from hf_video.training.segments import Crop, SegmentDataset
from hf_video.training.trainer import VideoTrainer

if TYPE_CHECKING:
    from hf_video.clips.grid import GridLike

FEATURES = "features"


def train_detector(
    data: str | os.PathLike[str],
    annotations: str | os.PathLike[str],
    encoder: str | None = None,
    *,
    detector: str = "actionformer",
    recipe: str | Path | None = None,
    output: str | Path | None = None,
    settings: Sequence[str] = (),
    grid: GridLike | None = None,
    features: str | os.PathLike[str] | None = None,
    test_size: float | None = None,
    group_pattern: str | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    yes: bool = False,
    push_to_hub: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
) -> dict[str, Any]:
    """Trains a detector of events.

    Args:
        data: A folder of videos; or of their features, `.npy` of shape (time, columns) or what `FeatureSequence.save`
            wrote.
        annotations: ActivityNet's JSON or a table, see `hf_video.data.sources.event_files`. Without subsets a part of
            the videos is kept for the test.
        encoder: A folder or name on the Hub of a video model, ours or stock, or a model type (random weights). None
            with ready-made features. For "adatad" the VideoMAE that its encoder starts from.
        detector: "actionformer", "tridet", a JSON or YAML file of configuration fields, or a folder or name on the Hub
            of one that training goes on from. "adatad" is trained end to end on frames: adapters in its encoder, and
            the detector.
        recipe: See `load_recipe`; default "detection_small", or "adatad". `model` are fields of the detector's
            configuration; what it leaves open is fitted to the events.
        output: Folder of the run; default "<data>-<detector>".
        settings: Changes of the recipe, "training.learning_rate=1e-3".
        grid: Clips of the features, see `parse_grid`. Default: the recipe's, else the encoder's own clip, shortened to
            what short events need.
        features: Folder where features of videos are kept; default `features/` in the output.
        test_size, group_pattern: Of data without subsets, as in `load_events`.
        batch_size: Clips in one forward of the encoder.
        device: The encoder's.
        resume, overwrite, yes, push_to_hub, private: As in `finetune`.
        revision: Of an encoder on the Hub.

    Returns:
        The summary that is also written to `training_summary.json`.

    Raises:
        HFVideoError, TrainingInterrupted: As `finetune`.
    """
    output = Path(output) if output is not None else Path(f"{Path(data).resolve().name}-{Path(detector).stem}")
    source = find_source(detector, known=FINDERS)
    common = (data, annotations, encoder, source)
    shared = {"reading": {"test_size": test_size, "group_pattern": group_pattern}, "revision": revision}
    making = {name: value for name, value in (("batch_size", batch_size), ("device", device)) if value is not None}
    if source.model_type == "adatad":
        idle = {"grid": grid, "features": features, **making}
        if given := [name for name, value in idle.items() if value is not None]:
            raise ConfigError(f"adatad is trained on frames, without features: leave {given[0]} out.")
        task: EventTraining = EndToEndTraining(*common, **shared)
    else:
        task = DetectorTraining(
            *common,
            **shared,
            grid=None if grid is None else parse_grid(grid),
            features=Path(features) if features is not None else output / FEATURES,
            making=making,
        )
    run = {"resume": resume, "overwrite": overwrite, "yes": yes, "push_to_hub": push_to_hub, "private": private}
    default = "adatad" if source.model_type == "adatad" else "detection_small"
    return run_training(task, recipe or default, output, settings, **run)


class DetectorTraining(EventTraining):
    """A detector on features, which an encoder that is not trained makes, or which are there."""

    data_fields = ("grid", *DATA_FIELDS)

    def __init__(
        self, *common: Any, grid: FeatureGrid | None, features: Path, making: Mapping[str, Any], **more: Any
    ) -> None:
        super().__init__(*common, **more)
        self.grid, self.features, self.making = grid, features, dict(making)
        self.encoder: SequenceEncoder | None = None
        self.sequences: dict[str, list[FeatureSequence]] = {}

    # ---- data ----

    def read_splits(self) -> dict[str, VideoRows]:
        splits = super().read_splits()
        grid = self.recipe["data"].get("grid")
        self.grid = self.grid or (None if grid is None else parse_grid(grid))
        if self.is_features != (self.encoder_name is None):
            raise ConfigError(
                f"{self.data} holds ready-made features: leave the encoder (--model) out."
                if self.is_features
                else f"{self.data} holds videos: give the encoder that makes features of them (--model)."
            )
        return splits

    def description(self) -> dict[str, Any]:
        return {**super().description(), "grid": None if self.grid is None else str(self.grid)}

    def describe_data(self) -> TrainingPlan:
        plan = super().describe_data()
        print("Making features, or reading those that are there ...", flush=True)
        return plan

    @property
    def is_features(self) -> bool:
        """Whether the data are features already."""
        rows = next(iter(self.splits.values())) if self.splits else ()
        sources = [row.source for row in rows] or [str(path) for path in Path(self.data).rglob("*") if path.is_file()]
        return any(one.endswith(FEATURE_ENDINGS) for one in sources) and not any(map(is_video, sources))

    # ---- features ----

    def make_encoder(self) -> SequenceEncoder:
        """The encoder on its grid, which is chosen here if nobody did."""
        options = {**self.making, "revision": self.revision, "cache": self.features}
        try:
            source = find_source(str(self.encoder_name), revision=self.revision)
        except CheckpointError as error:
            self.encoder = SequenceEncoder(str(self.encoder_name), grid=self.grid, **options)
            try:
                self.encoder.prepare()  # a type that only transformers knows
            except CheckpointError:
                raise error from None
            source = None
        model: tuple[Any, ...] = (str(self.encoder_name),)
        if source is not None and source.checkpoint is None:
            set_seed(0)
            made = load_model(source)
            model, options["revision"] = (made.model.eval(), made.processor), None
        encoder = SequenceEncoder(*model, grid=self.grid, **options)
        if self.grid is None:
            grid = fit_grid(encoder.grid, encoder.request.num_frames, event_rows(self.splits["train"]))
            if grid != encoder.grid:
                encoder = SequenceEncoder(*model, grid=grid, **options)
        return encoder

    def read_features(self) -> list[str]:
        """Sets `sequences`, makes what is missing, takes videos that can't be read out of `splits`; returns remarks."""
        remarks: list[str] = []
        for name, rows in self.splits.items():
            if self.is_features:
                self.sequences[name] = [load_sequence(row, self.grid) for row in event_rows(rows)]
            else:
                self.splits[name], self.sequences[name], lost = featured_rows(self.encoder, rows, lambda one: one)
                remarks += lost
        widths = {len(one.vectors[0]) for many in self.sequences.values() for one in many}
        if len(widths) != 1:
            raise DataError(
                f"The features have {' and '.join(map(str, sorted(widths)))} columns: they are of several encoders."
            )
        return remarks

    # ---- model ----

    def load_model(self, check: Callable[[type[nn.Module], VideoConfig], None]) -> LoadedModel:
        if not self.is_features:
            self.encoder = self.make_encoder()
        remarks = self.read_features()
        sequences, entry = self.sequences["train"], self.source.entry
        config_class, model_class = entry.load(entry.config), entry.load(entry.prefix + HEAD)
        typed = {name.partition(".")[2] for name in setting_names(self.settings) if name.startswith("model.")}
        wanted = {name: value for name, value in self.recipe["model"].items() if value is not None}
        check_fields(config_class, wanted, self.model_type)
        if self.source.settings:
            own = {
                name: value for name, value in self.source.settings.items() if name in config_class.__dataclass_fields__
            }
            wanted = {**wanted, **own, **{name: wanted[name] for name in typed & wanted.keys()}}
        grid, labels = sequences[0].grid, self.splits["train"].labels
        rates = {one.grid.fps for many in self.sequences.values() for one in many}
        data = {
            "input_size": sequences[0].vectors.shape[1],
            "feature_stride": grid.stride,
            "feature_frames": grid.num_frames,
            "feature_fps": grid.fps if len(rates) == 1 else None,
            "encoder": self.encoder_facts(),
        }
        if isinstance(wanted.get("input_size"), list) and sum(wanted["input_size"]) == data["input_size"]:
            data.pop("input_size")
        values = {**wanted, **data}
        config = fit_to_events(config_class, values, sequences, event_rows(self.splits["train"]))
        config.id2label, config.label2id = dict(enumerate(labels)), {label: i for i, label in enumerate(labels)}
        check(model_class, config)
        if self.source.checkpoint is None:
            model = model_class(config)
            set_scale(model, sequences)
        else:
            with loading(self.source.checkpoint):
                model = model_class.from_pretrained(self.source.checkpoint, config=config, ignore_mismatched_sizes=True)
        fitted = ", ".join(f"{name}={getattr(config, name)}" for name in FITTED if name not in wanted)
        if fitted:
            remarks.append(f"fitted to the events: {fitted}")
        # Its weights are new in every published training too: nothing to warn of.
        return LoadedModel(model, None, False, self.model_type, remarks)  # type: ignore[arg-type]

    def encoder_facts(self) -> dict[str, Any] | None:
        """`config.encoder`: what is known of where the features come from."""
        if self.encoder is not None:
            return self.encoder.facts
        digest = self.sequences["train"][0].encoder
        return None if digest is None else {"name": None, "digest": digest}

    def make_trainer(self, loaded: LoadedModel, arguments: VideoTrainingArguments) -> DetectionTrainer:
        config: TemporalDetectionConfig = loaded.model.config
        self.processor = TemporalDetectionProcessor(config)
        data, numbers = self.recipe["data"], dict(config.label2id)
        grid, ratio = self.sequences["train"][0].grid, data.get("crop_ratio")
        margin = 0.5 if config.fixed_length else 0.5 * grid.num_frames / grid.stride
        crop = Crop(config.max_length, data.get("truncation_threshold") or 0.5, ratio, margin)
        self.datasets = {
            name: SegmentDataset(
                rows,
                self.sequences[name],
                config,
                numbers,
                crop if name == "train" else None,
                arguments.seed,
                repeats=int(data.get("repeats") or 1) if name == "train" else 1,
            )
            for name, rows in self.splits.items()
        }
        return DetectionTrainer(
            loaded.model,
            arguments,
            train_dataset=self.datasets["train"],
            eval_dataset=self.datasets.get("validation") or self.datasets.get("test"),
            thresholds=data.get("thresholds") or "activitynet",
            protocol=data.get("protocol") or "activitynet",
        )

    def describe_training(self, plan: TrainingPlan, trainer: VideoTrainer, cost: BatchCost) -> None:
        config, grid = trainer.model.config, self.sequences["train"][0].grid
        steps = [len(one) for one in self.sequences["train"]]
        plan.add("grid", f"{grid}: {min(steps)} to {max(steps)} steps a video", grid=str(grid))
        length = max(event.end - event.start for row in event_rows(self.splits["train"]) for event in row.events)
        plan.add("a sample", f"{config.max_length} steps, {len(config.strides)} levels for events up to {length:.3g} s")
        plan.add("a step", f"{trainer.args.rows_per_step} videos, learning rate {trainer.args.learning_rate:.3g}")
        check_schedule(plan, trainer)

    def save_division(self, folder: Path) -> None:
        """Also puts the encoder into `encoder/`, and the processor beside the model: transformers' trainer takes no
        `ProcessorMixin` without a tokenizer."""
        Division.of(self.data, self.splits, test_size=self.reading["test_size"]).save(folder)
        if self.encoder is not None:
            save_encoder(self.encoder, folder)
        self.processor.save_pretrained(folder)

    def summarize(self, *args: Any) -> dict[str, Any]:
        return {**super().summarize(*args), "encoder": self.encoder_facts()}
