"""X3D: the contract."""

from __future__ import annotations

from typing import ClassVar

import pytest
from contract import ModelContract

import hf_video


class TestX3D(ModelContract):
    model_type = "x3d"
    tiny: ClassVar = {
        "stem_channels": 4,
        "depth_factor": 0.4,
        "head_size": 24,
        "num_frames": 4,
        "image_size": 32,
        "classifier_dropout": 0.0,
    }
    attention = False
    pyramid = True
    embedding = 24
    shallow: ClassVar = {"depth_factor": 0.2}
    clip = (4, 40, 64)
    tokens = 4 * 2 * 2
    other_clips = ((1, 40, 64), (5, 32, 32), (3, 17, 70))
    refused_clips = ((4, 0, 40),)

    def loss(self, model, inputs):
        """The plain network answers with its last map and with the layer before the classifier: both count."""
        output = model(**inputs)
        return output.loss if "loss" in output else super().loss(model, inputs) + output.pooled.square().mean()


@pytest.mark.parametrize(("name", "depths"), [("xs", (3, 5, 11, 7)), ("m", (3, 5, 11, 7)), ("l", (5, 10, 25, 15))])
def test_presets(name, depths):
    config = hf_video.X3DConfig.preset(name)
    assert config.depths == depths
    assert (config.widths, config.hidden_size) == ((24, 24, 48, 96, 192), 432)
