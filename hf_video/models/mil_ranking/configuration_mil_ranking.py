"""Deep MIL ranking (Sultani, Chen, Shah, CVPR 2018, arXiv:1801.04264): configuration."""

from __future__ import annotations

from typing import ClassVar

from huggingface_hub.dataclasses import strict

from hf_video.base.detection.anomaly import WeakAnomalyConfig
from hf_video.errors import ConfigError, check_choice, check_count


@strict
class MILRankingConfig(WeakAnomalyConfig):
    r"""Fields beyond those of `WeakAnomalyConfig`:

    Args:
        hidden_size, bottleneck_size: of the two layers before the score.
        normalize: bring features to length 1, as the authors' were.
        objective: "ranking" (the paper's: the highest score of an abnormal video above that of a normal one), or
            "cross_entropy" (VadCLIP's: the mean of the highest scores is the video's probability).
    """

    model_type = "mil_ranking"
    objectives: ClassVar[tuple[str, ...]] = ("ranking", "cross_entropy")

    input_size: int = 4096
    hidden_size: int = 512
    bottleneck_size: int = 32
    normalize: bool = True
    objective: str = "ranking"

    def check(self) -> None:
        super().check()
        check_count("bottleneck_size", self.bottleneck_size, ConfigError)
        check_choice("objective", self.objective, self.objectives, ConfigError)
