"""One processor for both sides: videos to `pixel_values_videos`, texts to token ids."""

from __future__ import annotations

from typing import Any

from transformers.image_processing_base import BatchFeature
from transformers.processing_utils import ProcessorMixin

from hf_video.base.written_files import ChecksumsOnSave
from hf_video.errors import VideoOptionError

TEXT_LENGTH = 64


class VideoPrismProcessor(ChecksumsOnSave, ProcessorMixin):
    """A video processor and VideoPrism's tokenizer, T5's of C4 without an end token (`VideoPrismTokenizer`).

        processor = AutoProcessor.from_pretrained("google/videoprism-lvt-base-f16r288")
        inputs = processor(text=["a cat jumps"], videos=["a.mp4", "b.mp4"], return_tensors="pt")
        model(**inputs)

    A call takes `text` (a string or a list), `videos` (what the video processor takes: one video or several, in any
    form), or both, and gives `input_ids`, `attention_mask` and `pixel_values_videos`. Texts are padded and cut to 64
    tokens unless `text_options` says otherwise; further keywords go to the video processor. Raises VideoOptionError
    where neither came, and what the video processor raises.

    The authors lower texts, take their punctuation away and end them with a full stop; transformers does not, and nor
    does this.
    """

    def __init__(self, video_processor: Any = None, tokenizer: Any = None, **kwargs: Any) -> None:
        super().__init__(video_processor, tokenizer, **kwargs)

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
            options = {"padding": "max_length", "truncation": True, "max_length": TEXT_LENGTH, **(text_options or {})}
            data |= self.tokenizer(text, return_tensors=return_tensors, **options)
        if videos is not None:
            data |= self.video_processor(videos, return_tensors=return_tensors, **video_options)
        return BatchFeature(data)

    @property
    def model_input_names(self) -> list[str]:
        return [*self.tokenizer.model_input_names, *self.video_processor.model_input_names]
