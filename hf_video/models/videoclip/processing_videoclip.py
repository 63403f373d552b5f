"""One processor for both towers: videos to `pixel_values`, texts to token ids."""

from __future__ import annotations

from typing import Any

from transformers.image_processing_base import BatchFeature
from transformers.processing_utils import ProcessorMixin

from hf_video.base.written_files import ChecksumsOnSave
from hf_video.errors import VideoOptionError


class VideoCLIPProcessor(ChecksumsOnSave, ProcessorMixin):
    """An image processor of ours and a tokenizer.

        processor = VideoCLIPProcessor(VideoCLIPImageProcessor(), AutoTokenizer.from_pretrained(...))
        inputs = processor(text=["a cat jumps"], videos=["a.mp4", "b.mp4"], return_tensors="pt")
        model(**inputs)

    A call takes `text` (a string or a list), `videos` (what the image processor takes: one video or several, in any
    form), or both, and gives `input_ids`, `attention_mask` and `pixel_values`. Texts of one call are padded to the
    longest (or as `text_padding` says: "max_length" for SigLIP) and cut at the tokenizer's limit unless `text_options`
    says otherwise; further keywords go to the image processor. Raises VideoOptionError where neither came, and what
    the image processor raises.
    """

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, text_padding: str | bool = True, **kwargs: Any
    ):
        self.text_padding = text_padding
        super().__init__(image_processor, tokenizer, **kwargs)

    def __call__(
        self,
        text: Any = None,
        videos: Any = None,
        *,
        return_tensors: str | None = "pt",
        text_options: dict[str, Any] | None = None,
        **video_options: Any,
    ) -> BatchFeature:
        if text is None and videos is None:
            raise VideoOptionError("Neither text nor videos came: pass text=, videos= or both.")
        data: dict[str, Any] = {}
        if text is not None:
            options = {"padding": self.text_padding, "truncation": True, **(text_options or {})}
            data |= self.tokenizer(text, return_tensors=return_tensors, **options)
        if videos is not None:
            data |= self.image_processor(videos, return_tensors=return_tensors, **video_options)
        return BatchFeature(data)

    @property
    def model_input_names(self) -> list[str]:
        return [*self.tokenizer.model_input_names, *self.image_processor.model_input_names]
