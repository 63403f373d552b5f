"""RTFM (Tian et al., ICCV 2021, arXiv:2101.10030): configuration."""

from __future__ import annotations

from huggingface_hub.dataclasses import strict

from hf_video.base.detection.anomaly import WeakAnomalyConfig
from hf_video.errors import ConfigError, check_count, check_number


@strict
class RTFMConfig(WeakAnomalyConfig):
    r"""Fields beyond those of `WeakAnomalyConfig`:

    Args:
        hidden_size: channels of each of the four branches.
        classifier_sizes: of the two layers before the score.
        top_segments: segments of each video, the longest features, that stand for it in training.
        margin: length that features of abnormal videos are drawn to.
        magnitude_weight: of that term in the loss.
        smooth_across_videos: whether smoothness also counts the step from the end of one abnormal video to the start of
            the next in the batch. The authors' code does, and the published numbers are of that; here it is off, as
            the loss would depend on the order of a batch.
    """

    model_type = "rtfm"

    hidden_size: int = 512
    classifier_sizes: list[int] | tuple[int, ...] = (512, 128)
    dropout: float | int = 0.7
    top_segments: int = 3
    margin: float | int = 100
    magnitude_weight: float | int = 1e-4
    sparsity_weight: float | int = 8e-3
    smoothness_weight: float | int = 8e-4
    smooth_across_videos: bool = False

    def check(self) -> None:
        super().check()
        check_count("top_segments", self.top_segments, ConfigError)
        check_number("margin", self.margin, ConfigError, above=0)
        check_number("magnitude_weight", self.magnitude_weight, ConfigError, least=0)
        if self.hidden_size < 2 or len(self.classifier_sizes) != 2:
            raise ConfigError(
                f"hidden_size={self.hidden_size} must be 2 or more, and classifier_sizes={self.classifier_sizes!r} two "
                "numbers."
            )
