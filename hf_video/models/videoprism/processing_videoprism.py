"""One processor for both sides: videos to `pixel_values_videos`, texts to token ids."""

from __future__ import annotations

from typing import Any

from hf_video.base.processing import VideoTextProcessor

TEXT_LENGTH = 64


class VideoPrismProcessor(VideoTextProcessor):
    """A video processor and VideoPrism's tokenizer, T5's of C4 without an end token (`VideoPrismTokenizer`).

        processor = AutoProcessor.from_pretrained("google/videoprism-lvt-base-f16r288")
        inputs = processor(text=["a cat jumps"], videos=["a.mp4", "b.mp4"], return_tensors="pt")
        model(**inputs)

    A call is that of `VideoTextProcessor`, and gives `input_ids`, `attention_mask` and `pixel_values_videos`. Texts are
    padded and cut to 64 tokens.

    The authors lower texts, take their punctuation away and end them with a full stop; transformers does not, and nor
    does this.
    """

    def __init__(self, video_processor: Any = None, tokenizer: Any = None, **kwargs: Any) -> None:
        super().__init__(video_processor, tokenizer, **kwargs)

    @property
    def text_defaults(self) -> dict[str, Any]:
        return {"padding": "max_length", "truncation": True, "max_length": TEXT_LENGTH}
