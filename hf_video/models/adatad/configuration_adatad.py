"""AdaTAD (Liu et al., CVPR 2024, arXiv:2311.17241): configuration."""

from __future__ import annotations

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import SubConfigSpec

from hf_video.base.configuration import VideoConfig
from hf_video.errors import ConfigError, check_count, check_number
from hf_video.models.actionformer.configuration_actionformer import ActionFormerConfig
from hf_video.models.videomae.configuration_videomae import VideoMAEConfig

# What the authors change in VideoMAE and ActionFormer for THUMOS14.
ENCODER = {
    "layer_norm_eps": 1e-6,
    "drop_path_rate": 0.1,
    "position_interpolation": "bicubic",
}
DETECTOR = {
    "window_size": -1,
    "feature_stride": 1,
    "feature_frames": 0,
    "nms_sigma": 0.7,
    "max_detections": 2000,
}


@strict
class AdaTADConfig(VideoConfig):
    r"""An encoder of clips with adapters, and a detector on its sequence.

    Args:
        encoder_config: fields of the `VideoMAEConfig`. Its `num_frames` is the length of a chunk, and its `image_size`
            the one that positions were made for; other sizes are interpolated. Default: VideoMAE-B.
        detector_config: fields of the `ActionFormerConfig`. `input_size` and `max_length` follow from the encoder's
            width and `num_frames`, its labels are this configuration's. A step of its grid is a frame that the model
            sees: with every fourth frame of a video, `feature_stride` is 4.
        num_frames: frames of a window, a multiple of the encoder's `num_frames`.
        image_size: height and width of the frames in pixels, as the processor makes them; the model takes any multiple
            of a patch.
        adapter_layers: numbers of the blocks with an adapter behind them; None is all.
        adapter_ratio: an adapter's width as a share of the encoder's.
        adapter_kernel_size: time steps that an adapter's convolution sees, odd.
        freeze_encoder: whether only adapters and detector are trained, as in the paper; False trains all.
    """

    model_type = "adatad"
    sub_configs_defaults = {  # noqa: RUF012 - transformers reads it from the class
        "encoder_config": SubConfigSpec(config_class=VideoMAEConfig, init_kwargs=ENCODER),
        "detector_config": SubConfigSpec(config_class=ActionFormerConfig),
    }

    encoder_config: dict | VideoMAEConfig | None = None
    detector_config: dict | ActionFormerConfig | None = None
    num_frames: int = 768
    num_channels: int = 3
    image_size: int | list[int] | tuple[int, int] = 160
    adapter_layers: list[int] | tuple[int, ...] | None = None
    adapter_ratio: float | int = 0.25
    adapter_kernel_size: int = 3
    freeze_encoder: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        if self.encoder_config is None or isinstance(self.encoder_config, dict):
            self.encoder_config = VideoMAEConfig(**ENCODER | (self.encoder_config or {}))
        if self.detector_config is None or isinstance(self.detector_config, dict):
            given = DETECTOR | (self.detector_config or {})
            step = 2 ** given.get("branch_layers", ActionFormerConfig.branch_layers)
            sizes = {"input_size": self.encoder_config.hidden_size, "max_length": -(-self.num_frames // step) * step}
            self.detector_config = ActionFormerConfig(**given | sizes)
        super().__post_init__(**kwargs)
        self.detector_config.id2label, self.detector_config.label2id = self.id2label, self.label2id

    @property
    def layers_with_adapters(self) -> list[int]:
        """Numbers of the blocks that an adapter follows."""
        depth = self.encoder_config.num_hidden_layers
        return list(range(depth)) if self.adapter_layers is None else list(self.adapter_layers)

    def check(self) -> None:
        super().check()
        encoder, detector = self.encoder_config, self.detector_config
        check_count("adapter_kernel_size", self.adapter_kernel_size, ConfigError)
        check_number("adapter_ratio", self.adapter_ratio, ConfigError, above=0)
        if self.adapter_kernel_size % 2 == 0:
            raise ConfigError(f"adapter_kernel_size={self.adapter_kernel_size} must be odd.")
        if self.num_frames % encoder.num_frames:
            raise ConfigError(
                f"num_frames={self.num_frames} must be a multiple of the {encoder.num_frames} frames that the encoder "
                "sees at once."
            )
        depth = encoder.num_hidden_layers
        if beyond := [layer for layer in self.layers_with_adapters if not 0 <= layer < depth]:
            raise ConfigError(f"adapter_layers names block {beyond[0]}; the encoder has blocks 0 to {depth - 1}.")
        if detector.input_sizes != [encoder.hidden_size] or detector.max_length < self.num_frames:
            raise ConfigError(
                f"The detector has input_size={detector.input_size} and max_length={detector.max_length}; the encoder "
                f"gives {encoder.hidden_size} columns for each of num_frames={self.num_frames} frames."
            )
