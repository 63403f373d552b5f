"""Boxes of people in frames, by any object detector of transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from hf_video.base.loading import loading
from hf_video.errors import CheckpointError, VideoOptionError, unknown_name

Found = tuple[np.ndarray, np.ndarray]  # boxes (N, 4) in pixels of the frame, and their scores (N,)


class PersonDetector:
    """Finds people in frames with a model of `AutoModelForObjectDetection`, such as RT-DETR or YOLOS.

    Args:
        detector: A folder or a name on the Hub; or the pair (model, image processor).
        label: The class that is a person, looked up in the model's `id2label`.
        threshold: Score from which on a box counts.
        max_boxes: Boxes of a frame, the best ones.
        device, dtype: Where and in what the model runs; a pair in memory stays as it is.

    Raises:
        CheckpointError: It can't be loaded.
        VideoOptionError: It has no class of that name.
    """

    def __init__(
        self,
        detector: str | tuple[Any, Any],
        *,
        label: str = "person",
        threshold: float = 0.8,
        max_boxes: int = 50,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if isinstance(detector, (tuple, list)) and len(detector) == 2:
            self.model, self.processor = detector
        else:
            self.model, self.processor = load_detector(detector)
            self.model.to(device=device, dtype=dtype)
        self.threshold, self.max_boxes = threshold, max_boxes
        names = {str(name).strip().lower(): int(number) for number, name in self.model.config.id2label.items()}
        if label.lower() not in names:
            words = unknown_name("The detector has no class", label, names)
            raise VideoOptionError(f"{words} Name the one that is a person: person_label=.")
        self.label = names[label.lower()]

    @torch.no_grad()
    def __call__(self, frames: np.ndarray) -> list[Found]:
        """People in each of some frames (B, H, W, 3), uint8 RGB; best first."""
        height, width = frames.shape[1:3]
        inputs = self.processor(images=list(frames), return_tensors="pt")
        place = {"device": self.model.device}
        given = {
            name: value.to(**place, dtype=self.model.dtype) if value.is_floating_point() else value.to(**place)
            for name, value in inputs.items()
        }
        outputs = self.model.eval()(**given)
        sizes = [(height, width)] * len(frames)
        found = self.processor.post_process_object_detection(outputs, threshold=self.threshold, target_sizes=sizes)
        return [self._people(one, width, height) for one in found]

    def _people(self, found: dict[str, torch.Tensor], width: int, height: int) -> Found:
        is_person = found["labels"] == self.label
        scores, order = found["scores"][is_person].float().sort(descending=True, stable=True)
        boxes = found["boxes"][is_person].float()[order].cpu().numpy()
        boxes = boxes.clip(0, np.array([width, height] * 2, dtype=np.float32))
        whole = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        return boxes[whole][: self.max_boxes], scores.cpu().numpy()[whole][: self.max_boxes]


def load_detector(name: object) -> tuple[Any, Any]:
    """Model and image processor, the latter on PIL whatever is installed. Raises CheckpointError."""
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    if not isinstance(name, str) and not hasattr(name, "__fspath__"):
        raise VideoOptionError(
            f"detector must be a folder, a name on the Hub, or the pair (model, image processor); a "
            f"{type(name).__name__} came."
        )
    with loading(name):
        model = AutoModelForObjectDetection.from_pretrained(name)
        processor = AutoImageProcessor.from_pretrained(name, backend="pil")
    if not hasattr(processor, "post_process_object_detection"):
        raise CheckpointError(f"{name}: its {type(processor).__name__} has no post_process_object_detection.")
    return model, processor
