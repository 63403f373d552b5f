"""Recipes: the hyper-parameters of a paper, or of our own measuring, as a small YAML file.

A recipe has the sections `model` (fields of the configuration), `data` (arguments of `VideoDataset`), `augmentation`,
`mixing` (null: none) and `training` (fields of `VideoTrainingArguments`); `masking` where the task is pretraining,
`answers` where it is answering questions, `probe` where it is an attentive one.
`variants` change a few of these: "videomae_finetune_kinetics:B-1600"; `by_type` does so for models of one type.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_video.errors import ConfigError, did_you_mean, unknown_name

NARROW = 192  # channels, as of ViT-Ti: to such models the rates of the papers are too low
FOLDER = Path(__file__).with_suffix("")
SECTIONS = ("model", "data", "augmentation", "mixing", "training")
# Settings, and what of a recipe would be used in their place.
_OVERRULED_BY = {
    "num_train_epochs": ("min_train_steps", "max_steps"),
    "max_steps": ("min_train_steps",),
    "learning_rate": ("base_learning_rate",),
    "gradient_accumulation_steps": ("effective_batch_size",),
    "warmup_steps": ("warmup_epochs",),
    "warmup_epochs": ("warmup_steps",),
    "milestone_epochs": ("milestone_steps",),
    "milestone_steps": ("milestone_epochs",),
    "lr_scheduler_type": ("schedule",),
    "bf16": ("fp16",),
    "fp16": ("bf16",),
}
_CONTRADICTS = ("base_learning_rate", "effective_batch_size")
_SCHEDULES = {"training.schedule", "training.lr_scheduler_type"}
_MILESTONES = ("milestone_epochs", "milestone_steps")
_NEED_SCHEDULE = ("warmup_epochs", "min_learning_rate", "warmup_learning_rate", "decay_steps", *_MILESTONES)
# By schedule.
_IDLE = {
    None: _NEED_SCHEDULE,
    "cosine": (*_MILESTONES, "decay_steps"),
    "multistep": ("decay_steps",),
    "stable": _MILESTONES,
}
_HEADER = (
    *("name", "description", "model_type", "by_type", "task", "masking", "answers", "probe"),
    *("variants", "default_variant"),
)


def recipe_names() -> dict[str, list[str]]:
    """The recipes that come with the package, each with its variants (the default one first)."""
    found = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        recipe = _read(path)
        default = recipe.get("default_variant")
        found[path.stem] = sorted(recipe.get("variants", {}), key=lambda name: name != default)
    return found


def load_recipe(name: str | Path) -> dict[str, Any]:
    """Reads a recipe of the package, or a YAML file, with one of its variants.

    Args:
        name: A name (`small_data`), a name and a variant (`videomae_pretrain:ucf101-B`), or the path of a YAML file.

    Returns:
        A dictionary with all of SECTIONS and `name`, `description`, `variant`.

    Raises:
        ConfigError: There is no such recipe, variant or section; says what there is.
    """
    base, colon, variant = str(name).rpartition(":")
    if not colon or "/" in variant or "\\" in variant:  # a path may hold a colon of its own
        base, variant = str(name), None  # type: ignore[assignment]
    path = Path(base) if base.endswith((".yaml", ".yml")) else FOLDER / f"{base}.yaml"
    if not path.is_file():
        raise ConfigError(unknown_name("There is no recipe", base, recipe_names(), also=", or a YAML file"))
    recipe = _read(path)
    variants = recipe.pop("variants", None) or {}
    default = recipe.pop("default_variant", None)
    variant = variant or default
    if variant is not None and variant not in variants:
        raise ConfigError(unknown_name(f"The recipe {base!r} has no variant", variant, variants))
    merged = merge(recipe, variants.get(variant) or {})
    for section in SECTIONS:
        empty: dict[str, Any] | None = None if section == "mixing" else {}
        merged[section] = empty if merged.get(section) is None else merged[section]
    return {**merged, "name": path.stem, "variant": variant}


def recipe_title(recipe: Mapping[str, Any]) -> str:
    """Name and variant of a loaded recipe, as `load_recipe` takes them."""
    variant = recipe.get("variant")
    return recipe["name"] if variant in (None, "default") else f"{recipe['name']}:{variant}"


def recipes_of(task: str) -> list[str]:
    """Names of the package's recipes for a task."""
    return [name for name in recipe_names() if load_recipe(name).get("task", "classification") == task]


def for_model(recipe: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    """The recipe with what it says for this type of model."""
    return merge(recipe, (recipe.get("by_type") or {}).get(model_type, {}))


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` over `base`, section by section; a value that is not a mapping replaces the old one."""
    merged = copy.deepcopy(dict(base))
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else copy.deepcopy(value)
    return merged


def override_recipe(recipe: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """The recipe with `section.name=value` settings; values are read as YAML (`1e-3`, `[256, 320]`, `null`). What of
    the recipe would overrule a setting gives way to it, and `remarks` says so.

    Raises ConfigError for a section or a form that does not exist, and for settings that overrule each other.
    """
    import yaml

    changed = {"remarks": [], **copy.deepcopy(dict(recipe))}
    for setting in settings:
        name, equals, text = setting.partition("=")
        section, _, key = name.strip().partition(".")
        known = (*SECTIONS, "masking", "answers", "probe")
        if not equals or section not in known or (not key and text.strip() != "null"):
            hint = did_you_mean(section, known) if section not in known else ""
            raise ConfigError(
                f"{setting!r} is not a setting.{hint} Write section.name=value, as training.learning_rate=1e-3; "
                f"sections are {', '.join(known)}."
            )
        value = _number(yaml.safe_load(text))
        changed = merge(changed, {section: {key: value}} if key else {section: value})
    _drop_overruled(changed, setting_names(settings))
    return changed


def setting_names(settings: Sequence[str]) -> set[str]:
    """The names of settings: {"training.learning_rate"}."""
    return {setting.partition("=")[0].strip() for setting in settings}


def _drop_overruled(recipe: dict[str, Any], typed: set[str]) -> None:
    """Takes out of a recipe what would overrule the user's settings."""
    training = recipe["training"]
    for name, others in _OVERRULED_BY.items():
        if f"training.{name}" not in typed or training.get(name) is None or training[name] is False:
            continue
        for other in others:
            if f"training.{other}" not in typed:
                _drop(recipe, other, f"{name}={training[name]}")
            elif other in _CONTRADICTS:
                raise ConfigError(f"training.{name} and training.{other} say the same: leave one of them out.")
    schedule = training.get("schedule")
    idle = _IDLE.get(schedule, ()) if typed & _SCHEDULES else ()
    for name in idle:
        if f"training.{name}" not in typed:
            _drop(recipe, name, f"schedule={schedule}")
    frames = recipe["model"].get("num_frames")
    if "model.num_frames" in typed and frames is not None:
        if "data.num_frames" in typed and recipe["data"].get("num_frames") != frames:
            raise ConfigError("model.num_frames and data.num_frames differ; a clip has as many as the model takes.")
        recipe["data"]["num_frames"] = frames


def _drop(recipe: dict[str, Any], name: str, given: str) -> None:
    value = recipe["training"].pop(name, None)
    if value:
        recipe["remarks"].append(f"{given} was given: the recipe's {name}={value} does not count")


def _number(value: object) -> object:
    """YAML 1.1 reads 1e-3 as a word; people mean the number."""
    if isinstance(value, list):
        return [_number(one) for one in value]
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        recipe = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"The recipe {path} is not valid YAML: {error}") from error
    if not isinstance(recipe, dict):
        raise ConfigError(f"The recipe {path} holds no sections; expected some of {', '.join(SECTIONS)}.")
    unknown = [key for key in recipe if key not in (*SECTIONS, *_HEADER)]
    if unknown:
        raise ConfigError(unknown_name(f"In the recipe {path} stands a section", unknown[0], SECTIONS))
    return recipe
