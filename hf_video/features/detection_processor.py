"""What detectors of events take, from features or videos, and what their outputs mean in seconds: `AutoProcessor` gives
these for a detector's folder.

    processor = AutoProcessor.from_pretrained("detector")
    inputs = processor(videos=["a.mp4", "b.mp4"])        # or features=
    outputs = model(**inputs)
    for found in processor.post_process_temporal_detection(outputs, inputs.sequences, threshold=0.3):
        print(found["segments"], found["scores"], found["labels"])

Everything that takes time is loaded when it is first needed: the encoder, and what reads videos.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import AutoConfig, BatchFeature, PreTrainedConfig
from transformers.processing_utils import ProcessorMixin

from hf_video.base.loading import loading, model_entry
from hf_video.base.written_files import ChecksumsOnSave
from hf_video.errors import VideoOptionError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedModel

    from hf_video.base.detection.modeling import Segments, TemporalDetectionOutput
    from hf_video.base.processing import ClipProcessing
    from hf_video.clips.frame_windows import SeenFrameWindows
    from hf_video.features.sequence_encoder import SequenceEncoder
    from hf_video.features.sequences import FeatureSequence
    from hf_video.video.frames.types import Videos, VideoSource

    Features = FeatureSequence | np.ndarray | torch.Tensor


class DetectionBatch(BatchFeature):
    """Inputs of a detector, and beside them `sequences`, one for each video: where its steps lie in time."""

    sequences: list[Any]


class TemporalDetectionProcessor(ChecksumsOnSave, ProcessorMixin):
    """The processor of ActionFormer and TriDet.

    Args:
        config: The detector's.
        encoder: A `SequenceEncoder`, where it is not to be found in the folder or by its name.
    """

    def __init__(self, config: PreTrainedConfig, encoder: SequenceEncoder | None = None) -> None:
        super().__init__()
        self.config, self._encoder, self._folder, self._revision = config, encoder, "", None

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], revision: str | None = None, **options: Any
    ) -> TemporalDetectionProcessor:
        """Of a detector's folder or name on the Hub. Its encoder is loaded when the first video comes."""
        with loading(pretrained_model_name_or_path):
            made = cls(AutoConfig.from_pretrained(pretrained_model_name_or_path, revision=revision))
        made._folder, made._revision = os.fspath(pretrained_model_name_or_path), revision
        return made

    def save_pretrained(self, save_directory: str | os.PathLike[str], **options: Any) -> list[str]:
        """Writes `processor_config.json`, and the encoder into `encoder/` where one is loaded and none is there."""
        from hf_video.features.sequence_encoder import ENCODER_FOLDER, save_encoder

        if self._encoder is not None and not (Path(save_directory) / ENCODER_FOLDER).exists():
            save_encoder(self._encoder, save_directory)
        return super().save_pretrained(save_directory, **options)

    def to_dict(self) -> dict[str, Any]:
        return {"processor_class": type(self).__name__}

    @property
    def model_input_names(self) -> list[str]:
        return ["features", "mask"]

    @property
    def encoder(self) -> SequenceEncoder:
        """What makes the features of videos. Raises CheckpointError where there is none, or another one."""
        if self._encoder is None:
            from hf_video.features.sequence_encoder import load_encoder

            self._encoder = load_encoder(self._folder, self.config, revision=self._revision)
        return self._encoder

    def __call__(
        self,
        videos: VideoSource | Videos | None = None,
        features: Features | Sequence[Features] | None = None,
        *,
        fps: float | None = None,
    ) -> DetectionBatch:
        """Makes inputs of videos, or of their features.

        Args:
            videos: One video of any form, or several.
            features: Of one video or of several: a `FeatureSequence`, or an array (T, D).
            fps: Frames per second of the videos that arrays were made of, where `config.feature_fps` does not say it.

        Returns:
            `features` (B, T, D) float32 and `mask` (B, T), padded to the length that the model wants, and `sequences`.

        Raises:
            VideoOptionError: Neither or both came, or sequences that the model pads to different lengths: the end of a
                video depends on its padding, so they are no batch.
            DataError: Features of another encoder or on another grid.
            VideoError, CheckpointError: Of videos, and of the encoder.
        """
        import numpy as np
        import torch

        from hf_video.features.sequences import FeatureSequence, check_sequence

        if (videos is None) == (features is None):
            raise VideoOptionError("Give videos= or features=, one of the two.")
        if videos is not None:
            sequences = [self.encoder(one) for one in _several(videos)]
        else:
            many = features if isinstance(features, (list, tuple)) else [features]
            sequences = [one if isinstance(one, FeatureSequence) else self._sequence(one, fps) for one in many]
        config = self.config
        for one in sequences:
            check_sequence(one, config)
        if config.fixed_length:
            sequences = [one.resized(config.max_length) for one in sequences]
        lengths = sorted({config.padded_length(len(one)) for one in sequences})
        if len(lengths) > 1:
            raise VideoOptionError(
                f"Videos of {' and '.join(map(str, sorted(map(len, sequences))))} steps are padded to "
                f"{' and '.join(map(str, lengths))}, and padding changes what is found: give them one by one."
            )
        batch = torch.zeros(len(sequences), lengths[0], len(sequences[0].vectors[0]))
        for row, one in zip(batch, sequences, strict=True):
            row[: len(one)] = torch.from_numpy(np.array(one.vectors))
        mask = torch.arange(lengths[0]) < torch.tensor([[len(one)] for one in sequences])
        made = DetectionBatch({"features": batch, "mask": mask})
        made.sequences = sequences
        return made

    def _sequence(self, vectors: np.ndarray | torch.Tensor, fps: float | None) -> FeatureSequence:
        import numpy as np

        from hf_video.features.sequences import FeatureSequence, grid_of

        rate = self.config.feature_fps if fps is None else fps
        if rate is None:
            raise VideoOptionError(
                "The seconds of an array of features are not known: pass fps=, the frame rate of the video, or a "
                "FeatureSequence."
            )
        return FeatureSequence.from_array(np.asarray(vectors), grid_of(self.config), rate)

    @functools.cached_property
    def _detector(self) -> PreTrainedModel:
        """The detector without weights, which knows what outputs mean."""
        import torch

        entry = model_entry(self.config.model_type)
        with torch.device("meta"):
            return entry.load(f"{entry.prefix}ForTemporalActionDetection")(self.config)

    def post_process_temporal_detection(
        self,
        outputs: TemporalDetectionOutput,
        sequences: Sequence[FeatureSequence | SeenFrameWindows],
        threshold: float = 0.0,
        top_k: int | None = None,
    ) -> list[dict[str, torch.Tensor]]:
        """What the model found, in seconds.

        Args:
            outputs: Of the model, in eval mode.
            sequences: Of the inputs.
            threshold: Lowest score.
            top_k: The best so many of each video.

        Returns:
            For each video `segments` (N, 2), start and end in seconds within it, float64, `scores` (N,) and `labels`
            (N,), class numbers; the best first.
        """
        import torch

        made = []
        for one, sequence in zip(self._segments(outputs, sequences), sequences, strict=True):
            kept = (one.scores >= threshold).nonzero()[:top_k, 0]
            seconds = torch.from_numpy(sequence.to_seconds(one.segments[kept].double()))
            made.append({"segments": seconds, "scores": one.scores[kept], "labels": one.labels[kept]})
        return made

    def _segments(self, outputs: TemporalDetectionOutput, sequences: Sequence[Any]) -> list[Segments]:
        return self._detector.find_segments(outputs, self.config)


class WindowDetectionProcessor(TemporalDetectionProcessor):
    """The processor of AdaTAD, which sees frames: `pixel_values` (windows, T, C, H, W) and `mask` (windows, steps) of
    the windows of all videos, one video after the other.

    Args:
        config: The detector's.
        pixels: Its image processor.
    """

    def __init__(self, config: PreTrainedConfig, pixels: ClipProcessing | None = None) -> None:
        super().__init__(config)
        self.pixels = pixels

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], revision: str | None = None, **options: Any
    ) -> WindowDetectionProcessor:
        made = super().from_pretrained(pretrained_model_name_or_path, revision)
        assert isinstance(made, WindowDetectionProcessor)
        entry = model_entry(made.config.model_type)
        with loading(pretrained_model_name_or_path):
            found = entry.load(entry.image_processor).from_pretrained(pretrained_model_name_or_path, revision=revision)
        made.pixels = found
        return made

    def save_pretrained(self, save_directory: str | os.PathLike[str], **options: Any) -> list[str]:
        """Writes `processor_config.json` and `preprocessor_config.json`."""
        self.pixels.save_pretrained(save_directory)
        return super().save_pretrained(save_directory, **options)

    @property
    def model_input_names(self) -> list[str]:
        return ["pixel_values", "mask"]

    def __call__(
        self,
        videos: VideoSource | Videos | None = None,
        features: None = None,
        *,
        fps: float | None = None,
    ) -> DetectionBatch:
        """Makes inputs of one video or several; `fps` is the rate of those without times.

        Raises VideoOptionError for features or without videos, and what `VideoReader` raises.
        """
        import torch

        from hf_video.clips.frame_windows import SeenFrameWindows, read_frame_windows
        from hf_video.clips.read import clip_processor
        from hf_video.clips.request import ClipRequest

        if videos is None or features is not None:
            raise VideoOptionError("This detector sees frames: give videos=.")
        request = ClipRequest.resolve(self.pixels, self.config, **({} if fps is None else {"fps": fps}))
        sequences, windows = [], []
        for video in _several(videos):
            for one in read_frame_windows(video, self.config.windows, request, clip_processor(self.pixels)):
                if isinstance(one, SeenFrameWindows):
                    sequences.append(one)
                else:
                    windows.append(one.inputs)
        made = DetectionBatch({name: torch.cat([one[name] for one in windows]) for name in windows[0]})
        made.sequences = sequences
        return made

    def _segments(self, outputs: TemporalDetectionOutput, sequences: Sequence[Any]) -> list[Segments]:
        found, first = [], 0
        for one in sequences:
            rows = slice(first, first + len(one.starts))
            part = replace(
                outputs,
                **{name: getattr(outputs, name)[rows] for name in ("logits", "offsets", "mask")},
            )
            found += self._detector.find_segments(part, starts=one.starts)
            first = rows.stop
        return found


def _several(videos: VideoSource | Videos) -> list[Any]:
    """The videos of one or of many."""
    from hf_video.clips.read import each, videos_of

    kind, found = videos_of(videos)
    return [found] if kind == "one" else list(each(found))
