"""Scores of anomalies by a head that was trained on videos labelled normal or abnormal."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import AutoConfig

from hf_video.base.detection.curve import AnomalyCurve, smooth_over_time
from hf_video.base.detection.types import merge_windows
from hf_video.base.loading import loading
from hf_video.clips.read import open_video
from hf_video.errors import CheckpointError, check_number
from hf_video.features.sequence_encoder import SequenceEncoder, load_encoder
from hf_video.features.sequences import FeatureSequence, check_sequence
from hf_video.registry import DETECTORS

if TYPE_CHECKING:
    from hf_video.base.detection.anomaly import WeakAnomalyPreTrainedModel
    from hf_video.data.types import VideoSource

HEAD = "ForAnomalyDetection"


class AnomalyHead:
    """A head with its encoder: a file in, scores over time and events out. Made by `load`.

    Args:
        model: RTFM or deep MIL ranking.
        encoder: That makes its features.
        threshold: The score from which on a moment is an anomaly, above 0 and at most 1.
        smooth: Deviation of a Gaussian over the scores, in seconds; 0 for none.
    """

    def __init__(
        self,
        model: WeakAnomalyPreTrainedModel,
        encoder: SequenceEncoder,
        *,
        threshold: float = 0.5,
        smooth: float = 0.0,
    ) -> None:
        check_number("threshold", threshold, above=0, most=1)
        check_number("smooth", smooth, least=0)
        self.model, self.encoder, self.threshold, self.smooth = model.eval(), encoder, threshold, smooth

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        *,
        threshold: float = 0.5,
        smooth: float = 0.0,
        device: str | None = None,
    ) -> AnomalyHead:
        """Opens what `train_anomalies` wrote.

        Args:
            folder: Of the head, with its encoder.
            threshold: Score from 0 to 1 at which an anomaly begins.
            smooth: Seconds over which scores are averaged.
            device: Of the encoder; None takes an accelerator if there is one.

        Returns:
            The head, ready to score videos.

        Raises:
            CheckpointError: The folder holds something else.
        """
        folder = Path(folder)
        with loading(folder):
            config = AutoConfig.from_pretrained(folder)
        entry = DETECTORS.get(config.model_type)
        if entry is None or HEAD not in entry.by_name:
            known = ", ".join(name for name, one in DETECTORS.items() if HEAD in one.by_name)
            raise CheckpointError(f"{folder} holds a {config.model_type}, which scores no anomalies; {known} do.")
        with loading(folder):
            model = entry.load(entry.prefix + HEAD).from_pretrained(folder)
        encoder = load_encoder(folder, config, device=device)
        return cls(model, encoder, threshold=threshold, smooth=smooth)

    @torch.inference_mode()
    def score(self, source: VideoSource | FeatureSequence) -> AnomalyCurve:
        """Scores of the moments of a video, whose `distances` are the scores before smoothing.

        Args:
            source: Anything that `VideoReader` opens, or its features.

        Raises:
            VideoError: The video can't be read.
            DataError: Features of another encoder, or on another grid.
        """
        if isinstance(source, FeatureSequence):
            sequence, times = source, source.seconds[:, 0]
        else:
            sequence = self.encoder(source)
            with open_video(source) as video:
                times = np.array(video.timestamps)
        check_sequence(sequence, self.model.config)
        weight = next(self.model.parameters())
        features = torch.from_numpy(np.array(sequence.vectors))[None].to(weight.device, weight.dtype)
        raw = self.model(features, return_dict=True).scores[0].double().cpu().numpy()
        middles, bounds = sequence.seconds.mean(1), sequence.bounds
        scores = smooth_over_time(raw, middles, self.smooth)
        events = merge_windows(scores[:, None], middles, ["anomaly"], on=self.threshold, bounds=bounds)
        return AnomalyCurve(sequence.seconds, raw, scores, times, bounds[1], tuple(events), self.threshold)
