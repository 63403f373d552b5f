"""TriDet (Shi et al., CVPR 2023, arXiv:2303.07347): configuration."""

from __future__ import annotations

from huggingface_hub.dataclasses import strict

from hf_video.base.detection.configuration import TemporalDetectionConfig
from hf_video.errors import ConfigError

DOWNSAMPLING = ("max", "avg")
GROUPS = 16  # of the GroupNorm in every block


@strict
class TriDetConfig(TemporalDetectionConfig):
    r"""Fields beyond those of `TemporalDetectionConfig`:

    Args:
        backbone: "sgp" (scalable-granularity perception), or "conv", the paper's ablation.
        window_size: kernel w of the instant-level and the smaller window-level convolution, odd; one number or one for
            each level. Blocks at full length have 1.
        window_scale: k, by which the larger window-level kernel exceeds w + 1.
        intermediate_size: hidden channels of the blocks' MLPs.
        downsampling: "max" over three positions, or "avg" over two with a product.
        kernel_std: standard deviation of the blocks' depthwise kernels at the start.
        use_trident_head: boundaries as a distribution over `num_bins` neighbours; else two distances as in
            ActionFormer.
        num_bins: neighbours before a start and after an end that the head looks at, B.
        boundary_kernel_size: of the start and end heads.
        iou_weight_power: exponent of the overlap that weighs each positive's classification loss.
        input_noise: standard deviation of noise on features in training.
    """

    model_type = "tridet"
    backbones = ("sgp", "conv")

    backbone: str = "sgp"
    window_size: int | list[int] | tuple[int, ...] = 1
    window_scale: float | int = 5
    intermediate_size: int = 768
    downsampling: str = "max"
    kernel_std: float | int = 0.0
    use_trident_head: bool = True
    num_bins: int = 16
    boundary_kernel_size: int = 3
    iou_weight_power: float | int = 0.2
    input_noise: float | int = 0.0

    @property
    def window_sizes(self) -> list[int]:
        """One window for each level of the pyramid."""
        if isinstance(self.window_size, int):
            return [self.window_size] * (self.branch_layers + 1)
        return list(self.window_size)

    @property
    def length_multiple(self) -> int:
        return max(stride * max(window, 1) for stride, window in zip(self.strides, self.window_sizes, strict=True))

    def check(self) -> None:
        super().check()
        if len(self.window_sizes) != self.branch_layers + 1:
            raise ConfigError(
                f"window_size={self.window_size!r} has {len(self.window_sizes)} numbers; {self.branch_layers + 1} are "
                "needed, one for each level."
            )
        if even := [window for window in self.window_sizes if window > 1 and window % 2 == 0]:
            raise ConfigError(f"window_size={even[0]} must be odd: as many positions before as after.")
        if self.downsampling not in DOWNSAMPLING:
            raise ConfigError(
                f"downsampling={self.downsampling!r} must be one of {', '.join(map(repr, DOWNSAMPLING))}."
            )
        if self.hidden_size % GROUPS and self.backbone == "sgp":
            raise ConfigError(f"hidden_size={self.hidden_size} must be a multiple of {GROUPS}, the blocks' GroupNorm.")
        if self.num_bins < 1:
            raise ConfigError(f"num_bins={self.num_bins} must be at least 1.")
