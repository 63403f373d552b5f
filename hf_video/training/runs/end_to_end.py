"""Training AdaTAD: adapters in a VideoMAE and a detector, from the frames of videos. The folder that it leaves holds
model and processor; there are no features and there is no other encoder.

See `hf_video.training.runs.detection.train_detector`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from hf_video.base.configuration import VideoConfig, pair
from hf_video.base.loading import loading
from hf_video.base.processing import ClipProcessing
from hf_video.data.sources.division import Division
from hf_video.data.sources.events import event_rows
from hf_video.errors import ConfigError, check_count, unknown_name
from hf_video.models.actionformer.configuration_actionformer import ActionFormerConfig
from hf_video.models.adatad.configuration_adatad import ENCODER, AdaTADConfig
from hf_video.models.adatad.image_processing_adatad import AdaTADImageProcessor
from hf_video.models.adatad.modeling_adatad import AdaTADForTemporalActionDetection
from hf_video.models.videomae.configuration_videomae import VideoMAEConfig
from hf_video.training.arguments import VideoTrainingArguments
from hf_video.training.detection_sizes import fit_windows
from hf_video.training.detection_trainer import EndToEndTrainer
from hf_video.training.measurement import BatchCost
from hf_video.training.plan import TrainingPlan, check_schedule
from hf_video.training.recipes import setting_names
from hf_video.training.run_folder import SKIPPED_FILE
from hf_video.training.runs.events import DATA_FIELDS, EventTraining
from hf_video.training.runs.model_loading import LoadedModel, find_source, load_model
from hf_video.training.segments import Crop, WindowDataset
from hf_video.training.trainer import VideoTrainer
from hf_video.video.augment.augmentation import Augmentation
from hf_video.video.augment.checks import from_options

# Fields of the whole model; all others of a recipe's `model` are the detector's.
OWN_FIELDS = (
    *("num_frames", "frames_per_step", "window_overlap", "image_size", "adapter_layers", "adapter_ratio"),
    *("adapter_kernel_size", "freeze_encoder"),
)
# Of an encoder's configuration, what the authors change.
CHANGED = ("drop_path_rate", "position_interpolation")
READ_LARGER = 182 / 160  # short side that frames are read at, of that which the model sees, as the authors have it


class EndToEndTraining(EventTraining):
    """AdaTAD on the frames of videos."""

    data_fields = (*DATA_FIELDS, "num_frames", "resize", "max_errors")
    measured_rows = 1

    # ---- model ----

    def load_model(self, check: Callable[[type[nn.Module], VideoConfig], None]) -> LoadedModel:
        wanted = {name: value for name, value in self.recipe["model"].items() if value is not None}
        if self.recipe["data"].get("num_frames") is not None:
            wanted["num_frames"] = self.recipe["data"]["num_frames"]
        known = (*OWN_FIELDS, *ActionFormerConfig.__dataclass_fields__)
        if unknown := [name for name in wanted if name not in known]:
            raise ConfigError(unknown_name("AdaTAD's configuration has no field", unknown[0], known))
        if self.source.checkpoint is not None:
            return self._go_on(wanted, check)
        if self.encoder_name is None:
            raise ConfigError("AdaTAD's encoder starts from a VideoMAE: give it (--model).")
        source = find_source(self.encoder_name, revision=self.revision)
        if source.model_type != "videomae":
            raise ConfigError(f"AdaTAD's encoder starts from a VideoMAE, and {source.name} is a {source.model_type}.")
        encoder = load_model(source, task="AutoModel", revision=self.revision)
        own = encoder.model.config
        fitted = fit_windows(own, event_rows(self.splits["train"]))
        stated = {name: value for name, value in self.source.settings.items() if name in OWN_FIELDS}
        values = {"num_frames": fitted.pop("num_frames"), "image_size": own.image_size, **stated}
        values |= {name: value for name, value in wanted.items() if name in OWN_FIELDS}
        fitted["feature_stride"] *= values.get("frames_per_step", 1)
        detector = {**fitted, **(self.source.settings.get("detector_config") or {})}
        detector |= {name: value for name, value in wanted.items() if name not in OWN_FIELDS}
        labels = self.splits["train"].labels
        config = AdaTADConfig(
            encoder_config={**encoder_fields(own), **{name: ENCODER[name] for name in CHANGED}},
            detector_config=detector,
            id2label=dict(enumerate(labels)),
            label2id={label: number for number, label in enumerate(labels)},
            **values,
        )
        check(AdaTADForTemporalActionDetection, config)
        model = AdaTADForTemporalActionDetection(config)
        model.adatad.load_encoder(encoder.model)
        left = {"num_frames": config.num_frames, **{name: getattr(config.detector_config, name) for name in fitted}}
        told = ", ".join(f"{name}={value}" for name, value in left.items() if name not in wanted)
        remarks = [*encoder.remarks, *([f"fitted to the events: {told}"] if told else [])]
        return LoadedModel(model, self._processor(config, encoder.processor), False, self.model_type, remarks)

    def _go_on(self, wanted: Mapping[str, Any], check: Callable[[type[nn.Module], VideoConfig], None]) -> LoadedModel:
        """From a detector's own weights: its sizes stay, but for what the user set."""
        typed = {name.partition(".")[2] for name in setting_names(self.settings) if name.startswith("model.")}
        changes = {name: wanted[name] for name in typed & wanted.keys()}
        with loading(self.source.checkpoint):
            config = AdaTADConfig.from_pretrained(self.source.checkpoint)
        labels = self.splits["train"].labels
        values = config.to_dict() | {name: value for name, value in changes.items() if name in OWN_FIELDS}
        values["id2label"] = dict(enumerate(labels))
        values["label2id"] = {label: number for number, label in enumerate(labels)}
        values["encoder_config"] = encoder_fields(config.encoder_config)
        detector = config.detector_config.to_dict()
        for name in ("id2label", "label2id", "num_labels"):
            detector.pop(name, None)
        values["detector_config"] = detector | {n: value for n, value in changes.items() if n not in OWN_FIELDS}
        config = AdaTADConfig.from_dict(values)
        check(AdaTADForTemporalActionDetection, config)
        with loading(self.source.checkpoint):
            model = AdaTADForTemporalActionDetection.from_pretrained(
                self.source.checkpoint, config=config, ignore_mismatched_sizes=True
            )
            processor = AdaTADImageProcessor.from_pretrained(self.source.checkpoint)
        return LoadedModel(model, self._processor(config, processor), False, self.model_type)

    @staticmethod
    def _processor(config: AdaTADConfig, given: ClipProcessing) -> AdaTADImageProcessor:
        """What makes windows for the model, with the statistics of the encoder's own."""
        height, width = pair(config.image_size, "image_size")
        return AdaTADImageProcessor(
            size={"shortest_edge": min(height, width)},
            crop_size={"height": height, "width": width},
            num_frames=config.num_frames,
            **{name: getattr(given, name) for name in ("image_mean", "image_std", "do_normalize", "rescale_factor")},
        )

    # ---- training ----

    def make_trainer(self, loaded: LoadedModel, arguments: VideoTrainingArguments) -> EndToEndTrainer:
        config, data = loaded.model.config, self.recipe["data"]
        labels = self.splits["train"].labels
        height, width = pair(config.image_size, "image_size")
        augmentation = from_options(Augmentation, self.recipe["augmentation"], size=(height, width)).for_labels(labels)
        crop = Crop(config.windows.steps, data.get("truncation_threshold") or 0.5, data.get("crop_ratio"))
        resize = data.get("resize")
        check_count("data.resize", resize, ConfigError, optional=True)
        training = {
            "augmentation": augmentation,
            "seed": arguments.seed,
            "repeats": int(data.get("repeats") or 1),
            "resize": round(READ_LARGER * min(height, width)) if resize is None else resize,
            "skipped_log": Path(arguments.output_dir) / SKIPPED_FILE,
            **({} if data.get("max_errors") is None else {"max_errors": data["max_errors"]}),
        }
        self.datasets = {
            name: WindowDataset(
                rows,
                loaded.processor,
                config.windows,
                {label: number for number, label in enumerate(labels)},
                crop,
                **(training if name == "train" else {}),
            )
            for name, rows in self.splits.items()
        }
        return EndToEndTrainer(
            loaded.model,
            arguments,
            train_dataset=self.datasets["train"],
            eval_dataset=self.datasets.get("validation") or self.datasets.get("test"),
            processing_class=loaded.processor,
            thresholds=data.get("thresholds") or "activitynet",
            protocol=data.get("protocol") or "activitynet",
        )

    def describe_training(self, plan: TrainingPlan, trainer: VideoTrainer, cost: BatchCost) -> None:
        config, args = trainer.model.config, trainer.args
        windows, detector = config.windows, config.detector_config
        how = "spread over the whole video" if windows.whole else f"every {windows.stride:g}-th of a video"
        plan.add(
            "a sample", f"{windows.num_frames} frames, {how}, for {windows.steps} steps", frames=windows.num_frames
        )
        plan.add("levels", f"{len(detector.strides)}, for events up to {detector.strides[-1] * 4} steps and longer")
        rate = args.learning_rate * args.backbone_rate
        plan.add(
            "a step",
            f"{args.rows_per_step} windows, learning rate {args.learning_rate:.3g}, of adapters {rate:.3g}",
            learning_rate=args.learning_rate,
        )
        check_schedule(plan, trainer)

    def save_division(self, folder: Path) -> None:
        Division.of(self.data, self.splits, test_size=self.reading["test_size"]).save(folder)


def encoder_fields(config: VideoMAEConfig) -> dict[str, Any]:
    """Fields of an encoder's configuration, without labels and bookkeeping."""
    left_out = ("id2label", "label2id", "num_labels", "architectures", "problem_type", "_name_or_path", "dtype")
    return {name: value for name, value in config.to_dict().items() if name not in (*left_out, "transformers_version")}
