"""One processor for both sides: videos to `pixel_values`, texts to token ids."""

from __future__ import annotations

from typing import Any

from transformers.image_processing_base import BatchFeature

from hf_video.errors import VideoOptionError
from hf_video.models.videoclip.processing_videoclip import VideoCLIPProcessor


class VioletProcessor(VideoCLIPProcessor):
    """An image processor of ours and a BERT tokenizer.

        processor = VioletProcessor(VioletImageProcessor(), AutoTokenizer.from_pretrained("bert-base-uncased"))
        inputs = processor(text=["where does the ring move?"], videos=["a.mp4"])
        model(**inputs)

    As `VideoCLIPProcessor`; and for multiple choice `text` may be a list of lists, the same number of options for each
    video, which gives ids and mask (videos, options, tokens).
    """

    def __call__(self, text: Any = None, videos: Any = None, **options: Any) -> BatchFeature:
        if not (isinstance(text, (list, tuple)) and text and isinstance(text[0], (list, tuple))):
            return super().__call__(text, videos, **options)
        counts = {len(row) if isinstance(row, (list, tuple)) else 0 for row in text}
        if len(counts) > 1 or not min(counts):
            raise VideoOptionError(
                f"text holds lists of {sorted(counts)} options (0: no list); give all videos one number of them."
            )
        made = super().__call__([option for row in text for option in row], videos, **options)
        for name in self.tokenizer.model_input_names:
            if name in made:
                made[name] = made[name].reshape(len(text), min(counts), -1)
        return made
