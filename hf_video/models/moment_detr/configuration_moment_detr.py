"""Moment-DETR (Lei, Berg, Bansal, NeurIPS 2021, arXiv:2107.09609): configuration."""

from __future__ import annotations

from huggingface_hub.dataclasses import strict

from hf_video.base.configuration import VideoConfig


@strict
class MomentDetrConfig(VideoConfig):
    r"""Moments and highlights of a video that a sentence describes.

    Args:
        video_size, text_size: columns of the features of clips and of the sentence's tokens. QVHighlights' are SlowFast
            and CLIP side by side with each clip's start and end as fractions of the video, and CLIP's tokens.
        hidden_size, num_attention_heads, intermediate_size: of the transformer.
        encoder_layers, decoder_layers: its depth.
        pre_norm: normalise before attention and MLP instead of after.
        num_queries: moments that are predicted for each sentence.
        input_layers: projections of each input, each with a LayerNorm before.
        use_text_positions: learned positions of tokens, up to `max_text_length`.
        clip_seconds: seconds of a clip; boundaries are rounded to it.
        input_dropout, dropout: of the projections and of the transformer.
        span_loss_weight, giou_loss_weight, class_loss_weight, saliency_loss_weight: of the loss; the first three are
            also the costs of the matching.
        background_weight: of queries without a moment in the class loss.
        encoder: `name` and `digest` of the model of video and text whose features it was trained on; None where they
            are not known.
        saliency_margin: by which the score of a highlight exceeds that of another clip.
    """

    model_type = "moment_detr"

    video_size: int = 2818
    text_size: int = 512
    hidden_size: int = 256
    num_attention_heads: int = 8
    intermediate_size: int = 1024
    encoder_layers: int = 2
    decoder_layers: int = 2
    pre_norm: bool = False
    num_queries: int = 10
    input_layers: int = 2
    use_text_positions: bool = False
    max_text_length: int = 32
    clip_seconds: float | int = 2
    input_dropout: float | int = 0.5
    dropout: float | int = 0.1
    span_loss_weight: float | int = 10
    giou_loss_weight: float | int = 1
    class_loss_weight: float | int = 4
    saliency_loss_weight: float | int = 1
    background_weight: float | int = 0.1
    saliency_margin: float | int = 0.2
    encoder: dict[str, str | None] | None = None

    # The grid of the features, as `hf_video.features.sequences.grid_of` reads it: clips side by side, in seconds.

    @property
    def feature_stride(self) -> float:
        return self.clip_seconds

    @property
    def feature_frames(self) -> float:
        return self.clip_seconds

    @property
    def feature_fps(self) -> float:
        return 1.0
