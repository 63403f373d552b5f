"""`pipeline("video-feature-extraction")`: from a video of any form to one vector, by any video model."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers.modeling_outputs import ModelOutput

from hf_video.errors import check_switch
from hf_video.features.vectors import clip_vectors
from hf_video.pipelines.base import VideoPipeline


class VideoFeatureExtractionPipeline(VideoPipeline):
    """Vectors of videos, by any encoder: see `clip_vectors` for what a model's vector is.

        embed = pipeline("video-feature-extraction", model="folder or Hub name")
        embed("clip.mp4")                                # float32 (D,)
        embed(["a.mp4", "b.mp4"], batch_size=8)          # one such array for each
        embed("match.mp4", windows="2s/1s")              # [{"seconds": (0.0, 2.0), "embedding": array}, ...]

    Videos, views, windows, workers and files that can't be read are as in `VideoClassificationPipeline`. Vectors of
    several views are averaged.

    Options besides: `normalize=True` scales vectors to unit length, so that dot products are cosines.

    Raises CheckpointError for a model without vectors, and what `VideoClassificationPipeline` raises.
    """

    window_key = "embedding"

    def _options(self, *, normalize: bool | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        return {}, {} if normalize is None else {"normalize": check_switch("normalize", normalize)}

    def _forward(self, model_inputs: dict[str, torch.Tensor]) -> ModelOutput:
        def vectors(**inputs: torch.Tensor) -> torch.Tensor:
            return clip_vectors(self.model, inputs)

        return ModelOutput(logits=self._run(vectors, model_inputs))

    def postprocess(self, model_outputs: ModelOutput, *, normalize: bool = False) -> np.ndarray:
        """Vectors (views, D) of one video to their mean, float32 (D,)."""
        vector = model_outputs["logits"].float().mean(0)
        if normalize:
            vector = torch.nn.functional.normalize(vector, dim=0)
        return vector.numpy()
