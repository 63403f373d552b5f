"""What every video model's configuration has in common."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.utils import logging

from hf_video.errors import ConfigError, check_choice, check_count, check_number, did_you_mean, unknown_name

logger = logging.get_logger(__name__)

# Files may carry keys of other versions and libraries; only what a person types is checked for spelling.
_reading_file: ContextVar[bool] = ContextVar("reading_file", default=False)


def pair(value: int | list[int] | tuple[int, int], name: str = "size") -> tuple[int, int]:
    """`n` or `(height, width)` -> (height, width), in pixels."""
    if isinstance(value, int):
        return value, value
    if len(value) != 2:
        raise ConfigError(f"{name} must be one number or (height, width), got {value!r}.")
    return int(value[0]), int(value[1])


class VideoConfig(PreTrainedConfig):
    """Base of our configurations: a `PreTrainedConfig` whose values are checked together and whose misspelt keywords
    are errors that name the field that was meant.

    Fields every model has: `num_frames` (frames a clip has), `image_size` (pixels, one number or height and width),
    `num_channels`. Sizes are those the checkpoint was made for; models read the real ones from the tensor.

    `presets` names the published sizes of a model; `preset(name)` makes one.
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    # What decides the grid of tokens besides the clip, and with which keywords a file's positions are interpolated.
    patch_fields: ClassVar[tuple[str, ...]] = ("tubelet_size", "patch_size")
    grid_overrides: ClassVar[tuple[str, ...]] = ("num_frames", "image_size")

    @classmethod
    def preset(cls, name: str, **changes: Any):
        """The configuration of a published size: `VideoSwinConfig.preset("base", num_labels=400)`. `changes` are other
        fields. Raises ConfigError naming the sizes there are."""
        if name not in cls.presets:
            raise ConfigError(unknown_name(f"{cls.__name__} has no preset", name, cls.presets))
        return cls(**{**cls.presets[name], **changes})

    def __post_init__(self, **kwargs: Any) -> None:
        if not _reading_file.get():
            self._check_spelling(kwargs)
        super().__post_init__(**kwargs)
        self.check()

    @classmethod
    def _check_spelling(cls, names: Iterable[str]) -> None:
        fields = [f.name for f in dataclasses.fields(cls)]
        for name in names:
            if name == "static_patches" and name not in fields:
                raise ConfigError(
                    f"{cls.__name__} has no static_patches: of our models VideoMAE alone can leave patches out. Leave "
                    "it out."
                )
            hint = did_you_mean(name, fields, cutoff=0.8)
            if name not in fields and hint:
                raise ConfigError(f"{cls.__name__} has no field {name!r}.{hint}")

    def check(self) -> None:
        """Raises ConfigError for values that make no model. Subclasses extend it."""
        for name in ("num_frames", "num_channels", "hidden_size", "num_hidden_layers", "num_attention_heads"):
            check_count(name, getattr(self, name, 1), ConfigError)
        for name in (f.name for f in dataclasses.fields(self) if re.search(r"drop(out|_path)", f.name)):
            check_number(name, getattr(self, name), ConfigError, least=0, below=1)
        self._check_heads("hidden_size", "num_attention_heads")

    def _check_heads(self, width: str, heads: str) -> None:
        if getattr(self, width, 0) % getattr(self, heads, 1):
            raise ConfigError(
                f"{width}={getattr(self, width)} is not a multiple of {heads}={getattr(self, heads)}: "
                "every head needs the same whole number of channels."
            )

    def validate_output_attentions(self) -> None:
        """Stock transformers refuses attentions under SDPA; our models return them under every implementation."""

    @property
    def output_attentions(self):
        return self._output_attentions

    @output_attentions.setter
    def output_attentions(self, value: bool) -> None:
        self._output_attentions = value

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any):
        """As `PreTrainedConfig.from_dict`; also remembers the grid that positions were made for when a file is loaded
        with another `num_frames` or size, and checks the spelling of overrides."""
        cls._check_spelling(kwargs)
        token = _reading_file.set(True)
        try:
            config_dict = cls.upgrade_file(dict(config_dict), kwargs)
            result = super().from_dict(config_dict, **kwargs)
        finally:
            _reading_file.reset(token)
        config = result[0] if isinstance(result, tuple) else result
        config.check()
        return result

    @classmethod
    def upgrade_file(cls, config_dict: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
        """Hook: what a file of another origin means in our fields. `overrides`: the keywords of `from_pretrained`."""
        return config_dict

    @classmethod
    def remember_grid(cls, config_dict: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
        """For models with positions on a grid of tokens: a file that is loaded with another `num_frames` or size keeps
        the grid its positions were made for in `position_grid`; the model interpolates from there, and this says so."""
        sizes = ("num_frames", "image_size", *cls.patch_fields)
        if config_dict.get("position_grid") or not set(cls.grid_overrides) & set(overrides):
            return config_dict
        given = {name: value for name, value in config_dict.items() if name in sizes}
        changed = {name: value for name, value in overrides.items() if name in sizes}
        made_for, wanted = cls(**given).grid, cls(**{**given, **changed}).grid
        if made_for != wanted:
            logger.warning(
                f"The checkpoint's positions were made for a grid {made_for} of (time, rows, columns) tokens; they are "
                f"interpolated to {wanted}. Fine-tune before you trust the scores."
            )
            config_dict["position_grid"] = list(made_for)
        return config_dict


TIME_POOLS = ("mean", "max")


@strict
class BoxHeadConfig(VideoConfig):
    r"""Fields of models that have a `...ForSpatioTemporalActionDetection`.

    Args:
        box_resolution: Rows and columns of bins that a box is divided into; the highest of them all counts.
        box_aligned: Whether boxes lie on the map exactly, or half a position off, as in older code; see
            `hf_video.layers.roi_align`.
        box_time_pool: What becomes of time before the boxes are cut out: "mean" or "max".
        box_context: Whether a box's classifier sees the whole map besides, pooled to as many bins (mmaction2).
        box_layers: Linear layers of the classifier, with a ReLU between them (1, or 2 in some of mmaction2's).
        box_growth: Shares of width and height, each one pixel larger, by which boxes grow out of training, and are cut
            at the frame (VideoMAE: .1 and .05); zeros leave boxes as they are.
        focal_gamma, focal_alpha: The loss of each class is alpha · (1 - exp(-BCE))^gamma · BCE; 0 and 1 make it BCE.
    """

    box_resolution: int = 7
    box_aligned: bool = True
    box_time_pool: str = "mean"
    box_context: bool = False
    box_layers: int = 1
    box_growth: list[int | float] | tuple[int | float, int | float] = (0.0, 0.0)
    focal_gamma: float | int = 0.0
    focal_alpha: float | int = 1.0

    def check(self) -> None:
        super().check()
        check_count("box_resolution", self.box_resolution, ConfigError)
        check_count("box_layers", self.box_layers, ConfigError)
        check_choice("box_time_pool", self.box_time_pool, TIME_POOLS, ConfigError)
        if len(self.box_growth) != 2 or min(self.box_growth) < 0:
            raise ConfigError(f"box_growth={self.box_growth} must be shares of width and height, both 0 or more.")
        for name in ("focal_gamma", "focal_alpha"):
            check_number(name, getattr(self, name), ConfigError, least=0)
