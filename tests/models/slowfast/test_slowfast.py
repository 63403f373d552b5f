"""SlowFast: the contract."""

from __future__ import annotations

from typing import ClassVar

import pytest
from contract import BoxContract, ModelContract

import hf_video


class TestSlowFast(ModelContract):
    model_type = "slowfast"
    tiny: ClassVar = {
        "stem_channels": 8,
        "beta_inverse": 4,
        "depths": [1, 2],
        "slow_kernels": [1, 3],
        "fast_kernels": [3, 3],
        "num_frames": 8,
        "image_size": 32,
        "head_pool": [3, 3],
        "classifier_dropout": 0.0,
    }
    attention = False
    pyramid = True
    shallow: ClassVar = {"depths": [1, 1]}
    clip = (8, 32, 40)
    tokens = 2 * 4 * 5
    other_clips = ((4, 32, 40), (12, 17, 9))
    refused_clips = ((6, 32, 40), (8, 0, 40))

    def test_slow_frames_lie_equally_far_apart(self):
        model, video = self.model("AutoModel"), self.video(clip=(12, 8, 8)).transpose(1, 2)
        assert model.embeddings.slow_frames(video).equal(video[:, :, [0, 5, 11]])

    def test_presets(self):
        config = hf_video.SlowFastConfig.preset("r101")
        assert (config.hidden_size, config.num_hidden_layers, config.fusion_kernel) == (2304, 33, 5)


class TestSlowFastBoxes(BoxContract, TestSlowFast):
    """With a last stage that keeps its size, and a non-local block. (Dilation has its test against the official
    numbers: adapters of peft 0.21 leave it out of their convolutions, so that their maps have another size.) Default
    tests make graphs of the two pathways above and of the head, with a non-local block, below."""

    classes = ("SlowFastForSpatioTemporalActionDetection",)
    tiny: ClassVar = {
        **TestSlowFast.tiny,
        "spatial_strides": [1, 1],
        "nonlocal_blocks": [[], [0]],
        "nonlocal_normalization": "softmax",
        "box_resolution": 3,
    }

    @pytest.mark.slow
    def test_compile_dynamic_batch_with_hidden_states(self):
        super().test_compile_dynamic_batch_with_hidden_states()

    @pytest.mark.slow
    def test_export_with_dynamic_batch(self, graph):
        super().test_export_with_dynamic_batch(graph)


class TestSlowBoxes(BoxContract, TestSlowFast):
    """Without a fast pathway; a non-local block, maximum over time, context, two layers."""

    variant = True
    classes = ("SlowFastForSpatioTemporalActionDetection",)
    tiny: ClassVar = {
        **TestSlowFast.tiny,
        "fast_pathway": False,
        "nonlocal_blocks": [[], [0]],
        "nonlocal_normalization": "softmax",
        "box_time_pool": "max",
        "box_context": True,
        "box_layers": 2,
        "box_aligned": False,
        "box_growth": [0.1, 0.05],
        "box_resolution": 3,
    }
    tokens = 8 * 4 * 5
    refused_clips = ((8, 0, 40),)
    test_slow_frames_lie_equally_far_apart = None
