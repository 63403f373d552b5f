"""Which models find events, of which kind they are, and which options are for which kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_video.base.detection.modeling import TemporalDetector
from hf_video.errors import CheckpointError
from hf_video.features.window_detector import is_end_to_end

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Fields of a detector's configuration that decide which of its segments are kept.
NMS_OPTIONS = (
    *("nms", "nms_sigma", "nms_iou_threshold", "nms_min_score", "class_agnostic_nms", "voting_threshold"),
    "max_detections",
)
DETECTOR, CLASSIFIER, TEXT = "a detector", "a classifier", "a model of video and text"
# The kinds of models that an option is for; the others are for all.
OPTIONS_OF = {
    **dict.fromkeys((*NMS_OPTIONS, "window"), (DETECTOR,)),
    **dict.fromkeys(("candidate_labels", "hypothesis_template"), (TEXT,)),
    **dict.fromkeys(("off_threshold", "smoothing", "background", "function_to_apply", "grid"), (CLASSIFIER, TEXT)),
    **dict.fromkeys(("views", "num_frames", "frame_sampling_rate", "sampler", "sampler_options"), (CLASSIFIER, TEXT)),
}


def kind_of(model: PreTrainedModel) -> str:
    """What a model is, of DETECTOR, CLASSIFIER and TEXT. Raises CheckpointError for one that finds no events."""
    if isinstance(model, TemporalDetector) or is_end_to_end(model):
        return DETECTOR
    if any("ForVideoClassification" in one.__name__ for one in type(model).__mro__):
        if model.config.problem_type != "regression":
            return CLASSIFIER
    elif hasattr(model, "get_text_features") or "text" in getattr(model, "input_modalities", ()):
        return TEXT
    raise CheckpointError(
        f"{type(model).__name__} finds no events: use a detector (ActionFormer, TriDet, AdaTAD), a video classifier, "
        "or a model of video and text such as VideoCLIP."
    )


def describe(model: PreTrainedModel) -> str:
    """A sentence that says what a model is."""
    name, kind = type(model).__name__, kind_of(model)
    if kind == CLASSIFIER:
        labels = list(model.config.id2label.values())
        return f"{name} is a classifier with {len(labels)} labels of its own: {', '.join(labels[:5])}, …"
    if kind == TEXT:
        return f"{name} compares videos with texts."
    seen = "windows of frames" if is_end_to_end(model) else "features"
    return f"{name} is a detector of {seen}, whose clips and labels are those that it was trained on."
