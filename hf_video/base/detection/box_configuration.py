"""The fields of a head that classifies boxes of a clip (people in space and time)."""

from __future__ import annotations

from huggingface_hub.dataclasses import strict

from hf_video.base.configuration import VideoConfig
from hf_video.errors import ConfigError, check_choice, check_count, check_number

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
