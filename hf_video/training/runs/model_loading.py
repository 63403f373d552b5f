"""What a training starts from: a model and its processor, from a checkpoint or with random weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, ProcessorMixin

from hf_video.base.configuration import VideoConfig, pair
from hf_video.base.exported import refuse_exported
from hf_video.base.loading import (
    check_model_path,
    check_pair,
    explain_load_failure,
    find_processors,
    loading,
    model_entry,
)
from hf_video.base.processing import ClipProcessing
from hf_video.base.processing_config import frames_of_config, frames_per_clip
from hf_video.errors import CheckpointError, ConfigError, did_you_mean
from hf_video.registry import MODELS, ModelEntry
from hf_video.training.runs.stock_classifiers import StockEntry, stock_entry

TASK = "AutoModelForVideoClassification"
# What configuration files hold that no model is made of.
_BOOKKEEPING = ("model_type", "architectures", "transformers_version", "dtype", "torch_dtype", "_name_or_path")
# The test sampler that takes the same kind of clip as a training sampler does at random places.
_SERVING = {"dense": "center", "random": "uniform"}


@dataclass
class LoadedModel:
    """A model ready to train, its processor, whether its weights are random, and remarks for the plan."""

    model: nn.Module
    processor: ClipProcessing | ProcessorMixin
    from_scratch: bool
    model_type: str
    remarks: list[str] = field(default_factory=list)


@dataclass
class ModelSource:
    """What a `--model` stands for: `settings` are the fields of a configuration, `checkpoint` where the weights lie."""

    name: str
    model_type: str
    settings: dict[str, Any]
    checkpoint: str | None

    @property
    def entry(self) -> ModelEntry:
        return (None if self.model_type in MODELS else stock_entry(self.model_type)) or model_entry(self.model_type)

    @property
    def num_frames(self) -> int:
        """Frames of a clip."""
        said = frames_of_config(self.settings) or frames_of_config(self.entry.load(self.entry.config)())
        if said is None:
            raise ConfigError(f"{self.model_type} doesn't say how many frames a clip has: give data.num_frames.")
        return said

    @property
    def labels(self) -> list[str] | None:
        """Class names of a checkpoint, in order; None where it has none of its own."""
        names = self.settings.get("id2label")
        if not names:
            return None
        ordered = [names[key] for key in sorted(names, key=int)]
        return None if all(name.startswith("LABEL_") for name in ordered) else ordered


def find_source(
    name: str | Path, *, revision: str | None = None, known: Mapping[str, ModelEntry] = MODELS
) -> ModelSource:
    """What `name` is: a folder or a name on the Hub with weights; or, for random weights, a folder with only a
    `config.json`, a JSON or YAML file of configuration fields with its `model_type`, a model type ("videomae"), or a
    model type and a published size ("videomae:small"). `known` are the model types that can be meant.

    Raises CheckpointError for what is none of these.
    """
    name, path = str(name), Path(name).expanduser()
    if path.suffix in (".json", ".yaml", ".yml") and path.is_file():
        settings = _read_fields(path)
        return ModelSource(name, _known_type(name, settings, known), settings, None)
    model_type, _, size = name.partition(":")
    if model_type in known and not path.is_dir():
        config = model_entry(model_type).load(model_entry(model_type).config)
        made = config.preset(size) if size else config()
        changed = made.to_diff_dict() if size else {}
        settings = {name: value for name, value in changed.items() if name not in _BOOKKEEPING}
        return ModelSource(name, model_type, settings, None)
    if path.is_dir():
        refuse_exported(path, "trained")
        check_model_path(path)
        settings = _read_fields(path / "config.json")
        has_weights = any(path.glob("*.safetensors")) or any(path.glob("*.bin"))
        return ModelSource(name, _known_type(name, settings, known), settings, str(path) if has_weights else None)
    check_model_path(name)
    try:
        settings, _ = PreTrainedConfig.get_config_dict(name, revision=revision)
    except OSError as error:
        hint = did_you_mean(model_type, known)
        raise CheckpointError(
            f"{name!r} is no model type ({', '.join(known)}).{hint} {explain_load_failure(name, error)}"
        ) from error
    return ModelSource(name, _known_type(name, settings, known), settings, name)


def load_model(
    source: ModelSource,
    *,
    task: str = TASK,
    labels: Sequence[str] | None = None,
    multi_label: bool = False,
    settings: Mapping[str, Any] | None = None,
    revision: str | None = None,
    before: Callable[[type, Any], None] | None = None,
) -> LoadedModel:
    """The model of `source` for a task (an Auto class, or how a class goes on that has none), and its image processor.

    `settings` are fields of the configuration; None leaves one as it is. With `labels` the classifier gets these
    classes; it is kept where the checkpoint has the same ones in the same order, and is new otherwise. `multi_label`:
    a clip shows any number of them, and each is a yes or a no. `before` sees the model's class and configuration while
    no weight is there yet.

    Raises ConfigError for a field that the configuration lacks, CheckpointError for a checkpoint that can't be loaded.
    """
    changes = {name: value for name, value in (settings or {}).items() if value is not None}
    config_class = source.entry.load(source.entry.config)
    # Positions of a class of transformers' stay as they are: the processor alone gets another number of frames.
    frames = changes.pop("num_frames", None) if isinstance(source.entry, StockEntry) else None
    check_fields(config_class, changes, source.model_type)
    classes = {**source.entry.auto, **{end: source.entry.prefix + end for end in source.entry.by_name}}
    if task not in classes:
        raise ConfigError(f"{source.model_type} has no {task}; it has {', '.join(classes)}.")
    model_class = source.entry.load(classes[task])
    if source.checkpoint is not None:
        config = config_class.from_pretrained(source.checkpoint, revision=revision, **changes)
    else:
        own = {name: value for name, value in source.settings.items() if name not in _BOOKKEEPING}
        config = config_class(**{**own, **changes})
    if labels is not None:
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: i for i, label in enumerate(labels)}
        config.problem_type = f"{'multi' if multi_label else 'single'}_label_classification"
    if before is not None:
        before(model_class, config)
    if source.checkpoint is None:
        model = model_class(config)
    else:
        with loading(source.checkpoint):
            model = model_class.from_pretrained(
                source.checkpoint, config=config, revision=revision, ignore_mismatched_sizes=True
            )
        if labels is not None and source.labels != list(labels):
            _renew(model)
    if isinstance(source.entry, StockEntry):
        processor = next(one for one in find_processors(model, None, None) if one is not None)
        processor.num_frames = frames_per_clip(processor, config, frames)
    else:
        processor = _processor(source, config, revision, changes)
    check_pair(model, processor)
    return LoadedModel(model, processor, source.checkpoint is None, source.model_type)


load_start = load_model  # its name in 0.1.0


def known_fields(config_class: type, names: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Those of `names` that the configuration has, and the names of the others."""
    have = {one.name for one in fields(config_class)} | set(getattr(config_class, "attribute_map", ()))
    if not issubclass(config_class, VideoConfig):
        have.add("num_frames")  # of the processor: see load_model
    known = {name: value for name, value in names.items() if name in have}
    return known, [name for name in names if name not in have]


def check_fields(config_class: type[VideoConfig], names: Mapping[str, Any], model_type: str) -> None:
    unknown = known_fields(config_class, names)[1]
    if unknown:
        if issubclass(config_class, VideoConfig):
            config_class._check_spelling(unknown)
        raise ConfigError(f"The configuration of {model_type} has no field {unknown[0]!r}.")


def set_evaluation_sampling(processor: ClipProcessing, data: Mapping[str, Any]) -> None:
    """Sets a processor to sample as training does, at fixed places: what is saved must see clips of the same kind."""
    if data.get("num_frames"):
        processor.num_frames = data["num_frames"]
    sampler = data.get("sampler")
    if isinstance(sampler, str):
        processor.sampler = _SERVING.get(sampler, sampler)
        processor.sampler_options = dict(data.get("sampler_options") or {})
        if sampler == "at_fps":
            processor.sampler_options.setdefault("start", "center")


def _renew(model: nn.Module) -> None:
    """A head of the same size but for other classes would be kept by from_pretrained."""
    head = getattr(model, "box_head", model)
    for parameter in head.classifier.parameters():
        parameter._is_hf_initialized = False
    for module in head.classifier.modules():
        module._is_hf_initialized = False
        model._init_weights(module)


def _processor(
    source: ModelSource, config: VideoConfig, revision: str | None, changes: Mapping[str, Any]
) -> ClipProcessing:
    processor_class = source.entry.load(source.entry.image_processor)
    made, frames = None, config.num_frames
    if Path(source.name).is_dir() or source.checkpoint is not None:
        try:
            made = processor_class.from_pretrained(source.name, revision=revision)
            frames = frames_per_clip(made, config, changes.get("num_frames"))
        except OSError:
            made = None  # a configuration on its own
    if made is None:
        # A family knows better how its short side and its crop go together.
        made = processor_class(**{**_sizes(config), **processor_class.values_for(config)})
    elif "image_size" in changes:
        for name, value in _sizes(config).items():
            setattr(made, name, value)
    made.num_frames = frames
    return made


def _sizes(config: VideoConfig) -> dict[str, Any]:
    height, width = pair(config.image_size, "image_size")
    return {"size": {"shortest_edge": min(height, width)}, "crop_size": {"height": height, "width": width}}


def _known_type(name: str, settings: Mapping[str, Any], known: Mapping[str, ModelEntry]) -> str:
    model_type = settings.get("model_type")
    if model_type not in known and not (known is MODELS and stock_entry(model_type)):
        raise CheckpointError(
            f"{name} is of the model type {model_type!r}, which is not trained here. What is: {', '.join(known)}."
        )
    return model_type


def _read_fields(path: Path) -> dict[str, Any]:
    try:
        if path.suffix == ".json":
            settings = json.loads(path.read_text())
        else:
            import yaml

            settings = yaml.safe_load(path.read_text())
    except ValueError as error:
        raise ConfigError(f"{path} can't be read: {error}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} holds no fields of a configuration.")
    return settings
