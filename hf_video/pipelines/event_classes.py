"""What the scores of clips say of events: which classes make some, from which score on, and on which clips."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch

from hf_video.base.detection.types import Hysteresis
from hf_video.clips.grid import FeatureGrid
from hf_video.clips.request import STRIDE_NAMES, ClipRequest, average_views
from hf_video.errors import VideoOptionError, check_choice
from hf_video.video.sampling.samplers import at_fps, resolve

# Classes of these names say that nothing happens.
BACKGROUND = re.compile(r"background|normal|nothing|none|no[ _-]?(action|activity|event|gesture)", re.IGNORECASE)
TEXT_BACKGROUND = "nothing happening"
# Of clips in seconds, for models whose files don't say how long a clip is.
DEFAULT_SECONDS = 2.0
# Scores at which an event begins: a softmax divides 1 among the classes, so that few reach a half.
SOFTMAX_THRESHOLD, THRESHOLD = 0.4, 0.5


class EventClasses:
    """The classes that clips are scored for.

    Args:
        labels: their names; of texts, those to be found.
        function: "softmax", "sigmoid" or "none", of a clip's logits.
        background: those that say that nothing happens, and make no events; None takes those with such a name.
        texts: whether labels are texts, to which those of the background are added. Where none is given and softmax is
            applied, `TEXT_BACKGROUND` is.
        thresholds: a score for each label, at which its events begin.

    Raises:
        VideoOptionError: a background that is no label, or nothing left to be found.
    """

    def __init__(
        self,
        labels: Sequence[str],
        function: str,
        *,
        background: Sequence[str] | None = None,
        texts: bool = False,
        thresholds: Sequence[float] | None = None,
    ) -> None:
        self.function = function
        if background is None:
            background = [label for label in labels if BACKGROUND.fullmatch(label)]
            if texts and function == "softmax" and not background:
                background = [TEXT_BACKGROUND]
        if not texts:
            for name in background:
                check_choice("background", name, labels)
        # In the order of the logits.
        self.all = [*labels, *(name for name in background if name not in labels)]
        self.makes_events = np.array([label not in background for label in self.all])
        self.labels = [label for label, makes in zip(self.all, self.makes_events, strict=True) if makes]
        plain = SOFTMAX_THRESHOLD if function == "softmax" else THRESHOLD
        self.thresholds = plain if thresholds is None else np.asarray(thresholds)[self.makes_events]
        if not self.labels:
            raise VideoOptionError(f"All labels are background: {', '.join(background)}. Nothing is left to be found.")
        if texts and function == "softmax" and len(self.all) < 2:
            raise VideoOptionError(
                f"The softmax over one label, {self.labels[0]!r}, is always 1: give another label, a background= to "
                'compare it with, or function_to_apply="sigmoid".'
            )

    def scores(self, rows: torch.Tensor) -> np.ndarray:
        """Logits (views, all classes) of one clip to the scores of `labels`, float64."""
        return average_views(rows, self.function).double().numpy()[self.makes_events]

    def hysteresis(
        self,
        begin: float | None,
        *,
        threshold: float | None = None,
        off_threshold: float | None = None,
        smoothing: int = 1,
        min_length: float = 0.0,
        **_: object,
    ) -> Hysteresis:
        """What makes events of `scores`, from the video's `begin` in seconds on."""
        on = self.thresholds if threshold is None else threshold
        return Hysteresis(
            self.labels, on=on, off=off_threshold, smoothing=smoothing, min_length=min_length, begin=begin
        )


def default_smoothing(grid: FeatureGrid) -> int:
    """Clips, an odd number, whose starts lie within one length of a clip: shorter flickers are noise of the scores."""
    return 2 * int(grid.num_frames / grid.stride / 2) + 1


def default_grid(request: ClipRequest, clip_seconds: float | None = None) -> FeatureGrid:
    """Clips as long as those that a model's processor takes of a whole video, a new one at every quarter of it. Where
    the processor spreads frames over any length, `clip_seconds` is the length that the model was trained on."""
    sampling = request.sampling
    sampler = resolve(sampling.sampler or ("uniform" if sampling.stride is None else "dense"))
    if sampler not in STRIDE_NAMES:
        length = DEFAULT_SECONDS if clip_seconds is None else clip_seconds
        return FeatureGrid(length / 4, length, 1.0)
    span = request.num_frames * request.frame_distance
    return FeatureGrid(max(span // 4, 1), span, 30.0 if sampler is at_fps else None)
