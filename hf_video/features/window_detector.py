"""Events of videos by a detector that sees frames (AdaTAD): windows of a video through the model, what they find joined
and merged, in seconds.

    detector = WindowDetector(model, processor)
    events = detector("match.mp4")       # [Detection("jump", 0.91, start=3.2, end=5.0), …], the best first

Each frame is decoded once, and of each window only what the heads say is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch

from hf_video.base.detection.modeling import TemporalDetectionOutput
from hf_video.base.detection.types import Detection
from hf_video.base.processing_config import pixel_processor
from hf_video.clips.batching import run_videos
from hf_video.clips.frame_windows import SeenFrameWindows, read_frame_window_events
from hf_video.clips.read import clip_processor
from hf_video.clips.request import ClipRequest
from hf_video.errors import VideoError, VideoOptionError
from hf_video.features.events import to_detections
from hf_video.features.extraction import ClipVectors
from hf_video.layers.segments import pyramid_points

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hf_video.base.detection.configuration import TemporalDetectionConfig
    from hf_video.clips.batching import VideoResult
    from hf_video.data.types import FrameProcessor
    from hf_video.video.frames.types import VideoSource


class WindowDetector:
    """Finds the events of videos, window by window.

    Args:
        model: An `AdaTADForTemporalActionDetection`.
        processor: Its image or video processor.
        batch_size: Windows of one forward.
        reading: `on_error`, `backend` and `fps` of `VideoReader`.
    """

    def __init__(
        self, model: PreTrainedModel, processor: FrameProcessor, *, batch_size: int = 1, **reading: str | float | None
    ) -> None:
        self.model, self.processor, self.batch_size = model, processor, batch_size
        given = {name: value for name, value in reading.items() if value is not None}
        self.request = ClipRequest.resolve(pixel_processor(processor), model.config, **given)

    def __call__(self, source: VideoSource, config: TemporalDetectionConfig | None = None) -> list[Detection]:
        """The events of a video, the best first. `config` says which are kept and how they are merged, None as the
        model's `detector_config` does.

        Raises what `VideoReader` raises.
        """
        process = clip_processor(pixel_processor(self.processor))
        events = read_frame_window_events(source, self.model.config.windows, self.request, process)
        with ClipVectors(self.model, compute=window_rows) as forward:
            (result,) = run_videos([events], forward, batch_size=self.batch_size)
        return find_window_events(self.model, result, config)

    def events_of(self, sources: Iterable[VideoSource]) -> Iterator[list[Detection] | VideoError | OSError]:
        """The events of each video; in the place of one that can't be read, why."""
        for source in sources:
            try:
                yield self(source)
            except VideoOptionError:
                raise
            except (VideoError, OSError) as error:
                yield error


def is_end_to_end(model: PreTrainedModel) -> bool:
    """Whether a model is a detector that sees frames, window by window, and no features of an encoder."""
    return hasattr(model.config, "detector_config") and hasattr(model, "find_segments")


def window_rows(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """What the heads say of windows: (B, points, classes + 3), the logits, the two offsets, and 1 where a point lies in
    the video."""
    output = model(**inputs, return_dict=True)
    return torch.cat((output.logits, output.offsets, output.mask[..., None].to(output.logits)), dim=2)


def find_window_events(
    model: PreTrainedModel, result: VideoResult, config: TemporalDetectionConfig | None = None
) -> list[Detection]:
    """The events of a video from the `window_rows` of its windows.

    Args:
        model: The detector.
        result: Of `run_videos` over `read_frame_window_events`.
        config: See `WindowDetector`.

    Returns:
        Events by score, the best first, in seconds within the video.

    Raises:
        VideoError: The video could not be read.
    """
    if result.error is not None:
        raise result.error
    assert isinstance(result.seen, SeenFrameWindows)
    rows = torch.stack([result.views(number)[0] for number in range(len(result.seen))])
    detector = model.config.detector_config
    length = detector.padded_length(model.config.windows.steps)
    lengths = [length // stride for stride in detector.strides]
    output = TemporalDetectionOutput(
        logits=rows[..., :-3],
        offsets=rows[..., -3:-1],
        mask=rows[..., -1] > 0.5,
        points=pyramid_points(lengths, detector.strides, detector.regression_ranges, rows.device),
    )
    (found,) = model.find_segments(output, config, starts=result.seen.starts)
    return to_detections(found, result.seen.to_seconds(found.segments.double()), model.config.id2label)
