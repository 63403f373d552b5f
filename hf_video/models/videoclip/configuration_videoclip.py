"""Dual encoders of video and text: configuration.

Two kinds of video tower. A **video encoder** of ours (TimeSformer, VideoMAE, ...) sees the clip whole. A **frame
encoder** (CLIP's or SigLIP's vision tower) sees every frame alone, and a temporal head joins them: CLIP4Clip (Luo et
al. 2021, arXiv:2104.08860, ArrowLuo/CLIP4Clip). In between stands Facebook's VideoCLIP (Xu et al. 2021,
arXiv:2109.14084, fairseq's `examples/MMPT`): S3D-G sees one second at a time, and a BERT joins the seconds.
"""

from __future__ import annotations

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from hf_video.base.configuration import VideoConfig
from hf_video.errors import ConfigError, check_choice
from hf_video.registry import MODELS

TEMPORAL = ("mean", "lstm", "transformer", "tight", "bert")
TEXT_POOLING = ("pooler", "cls", "mean", "mean_after_first")
LOSSES = ("softmax", "softmax_sum", "sigmoid")


@strict
class VideoCLIPConfig(VideoConfig):
    r"""A video tower, a text tower, and how their vectors meet.

    Args:
        video_config: the video tower's configuration, or a dictionary with its `model_type`: a video model of ours
            (`timesformer`, `videomae`, ...) or an image model whose output has a `pooler_output` (`clip_vision_model`,
            `siglip_vision_model`, ...). Default: CLIP's ViT-B/32.
        text_config: the same for the text tower, any text model of transformers. Default: CLIP's.
        projection_dim: length D of the common vectors; None leaves both towers' outputs as they are (SigLIP).
        temporal: what joins the vectors of single frames: "mean"; "lstm" or "transformer", each with a residual and
            then the mean; "tight", a transformer over text and frames together that scores each pair and has no
            vectors of its own; "bert", VideoCLIP's, over segments of `segment_frames`. For video encoders that see the
            clip whole it has no meaning.
        temporal_layers: layers of "transformer" and "tight".
        max_position_embeddings: the most frames that "transformer" and "tight" (with one text token) can take.
        patch_frames: frames that a patch embedding of a frame encoder sees: 1, or 3 for CLIP4Clip's "3d" linear patch
            (the frame before, itself, the one after).
        segment_frames: frames of a clip that a video encoder sees at once, one vector each; None: all of them.
        temporal_config: fields of the `BertConfig` of "bert".
        max_segments: segments that "bert" sees; fewer are padded to it, as the place of its [SEP] follows from it.
        end_token_ids: [CLS] and [SEP] that "bert" sets around the segments; those of BERT's uncased vocabulary.
        feature_dim: length of ready-made segment vectors: the model then has no video tower and takes
            `segment_features` in place of `pixel_values`, as VideoCLIP's own code does.
        normalize: unit vectors (CLIP), or as they are (VideoCLIP, whose scores are plain dot products).
        text_pooling: "pooler" takes the text tower's `pooler_output` (CLIP: the end-of-text token), "cls" its first
            token, "mean" the mean over its tokens, "mean_after_first" over all but the first.
        loss: "softmax", the mean of both directions' cross-entropies (CLIP); "softmax_sum", their sum (VideoCLIP);
            "sigmoid", each pair for itself (SigLIP).
        logit_scale_init_value: the logarithm of the initial 1 / temperature; ln(1/0.07) in CLIP. The learnt one is
            clamped to `logit_scale_max`, ln(100), before each training step. None: no temperature.
        logit_bias_init_value: SigLIP's bias; None for none.
        num_frames: frames that the processor takes of a video; models take any number.
        image_mean, image_std: statistics that the frame encoder was trained with, where they are known; a processor
            with others is warned of.
    """

    model_type = "videoclip"
    sub_configs_defaults = {  # noqa: RUF012 - transformers reads it from the class
        "video_config": SubConfigSpec(config_class=AutoConfig, model_type="clip_vision_model"),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="clip_text_model"),
    }

    video_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    projection_dim: int | None = 512
    temporal: str = "mean"
    temporal_layers: int = 4
    max_position_embeddings: int = 77
    patch_frames: int = 1
    segment_frames: int | None = None
    temporal_config: dict | None = None
    max_segments: int = 32
    end_token_ids: list[int] | tuple[int, int] = (101, 102)
    feature_dim: int | None = None
    normalize: bool = True
    text_pooling: str = "pooler"
    loss: str = "softmax"
    logit_scale_init_value: float | int | None = 2.6592
    logit_scale_max: float | int = 4.6052
    logit_bias_init_value: float | int | None = None
    num_frames: int = 12
    num_channels: int = 3
    image_mean: list[float] | tuple[float, ...] | None = None
    image_std: list[float] | tuple[float, ...] | None = None
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        for name in ("video_config", "text_config"):
            given = getattr(self, name)
            if isinstance(given, dict) and given.get("model_type") not in CONFIG_MAPPING and given:
                raise ConfigError(
                    f"{name} has model_type={given.get('model_type')!r}, which transformers does not know. Name one, "
                    "such as 'timesformer' or 'clip_vision_model' (video) or 'clip_text_model' or 'bert' (text)."
                )
        super().__post_init__(**kwargs)

    @property
    def sees_clips(self) -> bool:
        """Whether the video tower takes whole clips, so that there is no temporal head."""
        return self.feature_dim is None and self.segment_frames is None and self.video_config.model_type in MODELS

    @property
    def image_size(self) -> Any:
        return self.video_config.image_size

    @property
    def width(self) -> int:
        """Length of a frame's or segment's vector, as the temporal head sees it."""
        return self.projection_dim or self.feature_dim or self.video_config.hidden_size

    def check(self) -> None:
        for name, allowed in (("temporal", TEMPORAL), ("text_pooling", TEXT_POOLING), ("loss", LOSSES)):
            check_choice(name, getattr(self, name), allowed, ConfigError)
        check_choice("patch_frames", self.patch_frames, (1, 3), ConfigError)
        if self.segment_frames is not None and self.video_config.model_type not in MODELS:
            raise ConfigError("segment_frames is for video encoders; an image model sees every frame alone anyway.")
        if self.sees_clips and (self.temporal != "mean" or self.patch_frames != 1):
            raise ConfigError(
                f"{self.video_config.model_type} sees whole clips: temporal={self.temporal!r} and "
                f"patch_frames={self.patch_frames} are for towers that see single frames. Leave both out."
            )
        super().check()
