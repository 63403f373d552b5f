"""One processor for both towers: videos to `pixel_values`, texts to token ids."""

from __future__ import annotations

from typing import Any

from hf_video.base.processing import VideoTextProcessor


class VideoCLIPProcessor(VideoTextProcessor):
    """An image processor of ours and a tokenizer.

        processor = VideoCLIPProcessor(VideoCLIPImageProcessor(), AutoTokenizer.from_pretrained(...))
        inputs = processor(text=["a cat jumps"], videos=["a.mp4", "b.mp4"], return_tensors="pt")
        model(**inputs)

    A call is that of `VideoTextProcessor`, and gives `input_ids`, `attention_mask` and `pixel_values`. Texts of one
    call are padded to the longest (or as `text_padding` says: "max_length" for SigLIP) and cut at the tokenizer's
    limit.
    """

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, text_padding: str | bool = True, **kwargs: Any
    ):
        self.text_padding = text_padding
        super().__init__(image_processor, tokenizer, **kwargs)

    @property
    def text_defaults(self) -> dict[str, Any]:
        return {"padding": self.text_padding, "truncation": True}
