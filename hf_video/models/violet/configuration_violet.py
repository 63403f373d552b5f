"""VIOLET (Fu et al. 2021, arXiv:2111.12681): configuration."""

from __future__ import annotations

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import BertConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from hf_video.base.configuration import VideoConfig
from hf_video.errors import ConfigError, check_choice, check_count, check_number
from hf_video.models.published_inputs import IMAGENET_MEAN, IMAGENET_STD
from hf_video.models.video_swin.configuration_video_swin import VideoSwinConfig

RETRIEVAL_LOSSES = ("both", "video")


@strict
class VioletConfig(VideoConfig):
    r"""A Video Swin that keeps every frame, BERT's embeddings, and BERT's encoder over both. Defaults are the paper's
    model.

    Args:
        video_config: `VideoSwinConfig` or a dictionary of its fields; `temporal_stride` must be 1. Default: Swin-S.
        text_config: `BertConfig` or a dictionary of its fields; its `num_hidden_layers` are those of the encoder that
            joins video and text. Both have one width, `text_config.hidden_size`. Default: BERT-base.
        num_frames: frames that the processor takes of a video: 5 for downstream tasks, 4 in the authors' pretraining.
        max_frames, max_patches: the most frames, and patches of one frame, that have a learnt position.
        image_mean, image_std: the processor's statistics. The model needs them to black out pixels in pretraining.
        classifier_dropout: before each of the heads, as officially.
        matching_temperature: matching scores are divided by this for a softmax over several pairs.
        retrieval_loss: of videos with their texts: "both" asks each video for its text and each text for its video;
            "video" only the former, as the authors do after pretraining (converted checkpoints): alone, it leaves the
            scores of one text with several videos without any order.
        matching_negatives: wrong texts for each video in the matching loss of pretraining, at most batch - 1.
        mask_probability: of a word, and the share of all tokens that attended masking hides.
        mask_token_id, special_token_ids: the tokenizer's [MASK], and what is never masked: [CLS], [SEP], [PAD].
        visual_vocab_size: codes of the visual tokenizer.
    """

    model_type = "violet"
    sub_configs_defaults = {  # noqa: RUF012 - transformers reads it from the class
        "video_config": SubConfigSpec(
            config_class=VideoSwinConfig,
            init_kwargs={**VideoSwinConfig.presets["small"], "temporal_stride": 1, "drop_path_rate": 0.2},
        ),
        "text_config": SubConfigSpec(config_class=BertConfig),
    }

    video_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    num_frames: int = 5
    max_frames: int = 6
    max_patches: int = 196
    num_channels: int = 3
    image_mean: list[float] | tuple[float, ...] = IMAGENET_MEAN
    image_std: list[float] | tuple[float, ...] = IMAGENET_STD
    classifier_dropout: float | int = 0.1
    matching_temperature: float | int = 0.05
    retrieval_loss: str = "both"
    matching_negatives: int = 3
    mask_probability: float | int = 0.15
    mask_token_id: int = 103
    special_token_ids: list[int] | tuple[int, ...] = (101, 102, 0)
    visual_vocab_size: int = 8192
    initializer_range: float = 0.02

    @property
    def image_size(self) -> Any:
        return self.video_config.image_size

    @property
    def hidden_size(self) -> int:
        return self.text_config.hidden_size

    @property
    def patch(self) -> tuple[int, int]:
        """Rows and columns of pixels that one video token stands for: 32 × 32 in the paper's model."""
        merged = 2 ** (len(self.video_config.depths) - 1)
        return self.video_config.patch_size[1] * merged, self.video_config.patch_size[2] * merged

    def check(self) -> None:
        super().check()
        if self.video_config.stride != 1:
            raise ConfigError(
                f"video_config.temporal_stride={self.video_config.temporal_stride} must be 1: every frame has "
                "tokens of its own."
            )
        if self.video_config.hidden_size != self.text_config.hidden_size:
            raise ConfigError(
                f"The video encoder ends with {self.video_config.hidden_size} channels (embed_dim, doubled at each "
                f"later stage) and text_config.hidden_size is {self.text_config.hidden_size}: they must be equal."
            )
        if self.video_config.num_channels != self.num_channels:
            raise ConfigError(
                f"video_config.num_channels={self.video_config.num_channels} and num_channels={self.num_channels} must "
                "be equal."
            )
        for name in ("max_frames", "max_patches", "visual_vocab_size"):
            check_count(name, getattr(self, name), ConfigError)
        check_count("matching_negatives", self.matching_negatives, ConfigError, least=0)
        check_choice("retrieval_loss", self.retrieval_loss, RETRIEVAL_LOSSES, ConfigError)
        check_number("matching_temperature", self.matching_temperature, ConfigError, above=0)
        check_number("mask_probability", self.mask_probability, ConfigError, above=0, below=1)
        if not 0 <= self.mask_token_id < self.text_config.vocab_size:
            raise ConfigError(
                f"mask_token_id={self.mask_token_id} is outside the vocabulary of {self.text_config.vocab_size} words; "
                "pass the tokenizer's mask_token_id."
            )
