"""ActionFormer (Zhang, Wu, Li, ECCV 2022, arXiv:2202.07925): configuration."""

from __future__ import annotations

from huggingface_hub.dataclasses import strict

from hf_video.base.detection.configuration import TemporalDetectionConfig
from hf_video.errors import ConfigError


@strict
class ActionFormerConfig(TemporalDetectionConfig):
    r"""Fields beyond those of `TemporalDetectionConfig`:

    Args:
        backbone: "transformer" (local attention), or "conv", the paper's ablation.
        num_attention_heads: heads of every block.
        window_size: positions that a query sees, its own in the middle: odd, one number or one for the stem and one
            for each block that halves the sequence; -1 is all of them.
        use_relative_positions: add a learnt number for each head and distance to the scores of local attention.
        attention_dropout, dropout: of attention weights, and of projections and MLPs.
    """

    model_type = "actionformer"
    backbones = ("transformer", "conv")

    backbone: str = "transformer"
    num_attention_heads: int = 4
    window_size: int | list[int] | tuple[int, ...] = 19
    use_relative_positions: bool = False
    attention_dropout: float | int = 0.0
    dropout: float | int = 0.0

    @property
    def window_sizes(self) -> list[int]:
        """One window for each level of the pyramid."""
        if isinstance(self.window_size, int):
            return [self.window_size] * (self.branch_layers + 1)
        return list(self.window_size)

    @property
    def length_multiple(self) -> int:
        steps = (
            stride * max(2 * (window // 2), 1) if window > 1 else stride
            for stride, window in zip(self.strides, self.window_sizes, strict=True)
        )
        return max(steps)

    def check(self) -> None:
        super().check()
        windows = self.window_sizes
        if len(windows) != self.branch_layers + 1:
            raise ConfigError(
                f"window_size={self.window_size!r} has {len(windows)} numbers; {self.branch_layers + 1} are needed, "
                "one for the stem and one for each block that halves the sequence."
            )
        if even := [window for window in windows if window > 1 and window % 2 == 0]:
            raise ConfigError(f"window_size={even[0]} must be odd: as many positions before as after.")
        for level, (stride, window) in enumerate(zip(self.strides, windows, strict=True)):
            step = stride * (window // 2) * 2 if window > 1 else stride
            if self.max_length % step:
                raise ConfigError(
                    f"max_length={self.max_length} must be a multiple of {step} for level {level} (stride {stride}, "
                    f"window {window})."
                )
