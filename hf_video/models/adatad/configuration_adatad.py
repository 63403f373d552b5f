"""AdaTAD (Liu et al., CVPR 2024, arXiv:2311.17241): configuration."""

from __future__ import annotations

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import SubConfigSpec

from hf_video.base.configuration import VideoConfig
from hf_video.clips.frame_windows import FrameWindows
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
    "feature_stride": 4,
    "feature_frames": 0,
    "conv_norm_eps": 1e-6,
    "mask_norms": True,
    "max_candidates": 2000,
    "min_length": 0.0,
    "nms_sigma": 0.7,
    "nms_min_score": 0.0,
    "max_detections": 2000,
}


@strict
class AdaTADConfig(VideoConfig):
    r"""An encoder of clips with adapters, and a detector on its sequence.

    Args:
        encoder_config: fields of the `VideoMAEConfig`. Its `num_frames` is the length of a chunk, and its `image_size`
            the one that positions were made for; other sizes are interpolated. Default: VideoMAE-B.
        detector_config: fields of the `ActionFormerConfig`. `input_size` and `max_length` follow from the encoder's
            width and `num_frames`, its labels are this configuration's. `feature_stride` are frames of the video from
            one step of the detector to the next, of its own rate or of `feature_fps`; with `fixed_length` a window is
            the whole video, as the authors have it for ActivityNet.
        num_frames: frames of a window, a multiple of the encoder's `num_frames`.
        frames_per_step: frames that the encoder sees for each step of the detector (`scale_factor` of the official
            files: 4 for ActivityNet, 8 for EPIC-Kitchens).
        window_overlap: share of a window that the next one of a longer video shows again.
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
    frames_per_step: int = 1
    window_overlap: float | int = 0.5
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
            steps = self.num_frames // max(self.frames_per_step, 1)
            sizes = {"input_size": self.encoder_config.hidden_size, "max_length": -(-steps // step) * step}
            self.detector_config = ActionFormerConfig(**given | sizes)
        super().__post_init__(**kwargs)
        self.detector_config.id2label, self.detector_config.label2id = self.id2label, self.label2id

    @property
    def windows(self) -> FrameWindows:
        """How a video is cut into windows."""
        detector = self.detector_config
        return FrameWindows(
            self.num_frames,
            detector.feature_stride / self.frames_per_step,
            detector.feature_fps,
            self.frames_per_step,
            self.window_overlap,
            detector.fixed_length,
        )

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
        check_count("frames_per_step", self.frames_per_step, ConfigError)
        check_number("window_overlap", self.window_overlap, ConfigError, least=0, below=1)
        if self.num_frames % encoder.num_frames or self.num_frames % self.frames_per_step:
            raise ConfigError(
                f"num_frames={self.num_frames} must be a multiple of the {encoder.num_frames} frames that the encoder "
                f"sees at once, and of frames_per_step={self.frames_per_step}."
            )
        if detector.feature_fps is None and detector.feature_stride % self.frames_per_step:
            raise ConfigError(
                f"feature_stride={detector.feature_stride} must be a multiple of frames_per_step="
                f"{self.frames_per_step}: frames of a video are not cut into parts."
            )
        depth = encoder.num_hidden_layers
        if beyond := [layer for layer in self.layers_with_adapters if not 0 <= layer < depth]:
            raise ConfigError(f"adapter_layers names block {beyond[0]}; the encoder has blocks 0 to {depth - 1}.")
        steps = self.num_frames // self.frames_per_step
        if detector.input_sizes != [encoder.hidden_size] or detector.max_length < steps:
            raise ConfigError(
                f"The detector has input_size={detector.input_size} and max_length={detector.max_length}; the encoder "
                f"gives {encoder.hidden_size} columns for each of {steps} steps of a window."
            )
