"""VideoMAE: the contract, for each way it is configured."""

from __future__ import annotations

from typing import ClassVar

from configs import VIDEOMAE, half_hidden
from contract import BoxContract, ModelContract, TrainerContract, assert_close


class VideoMAEContract(ModelContract):
    model_type = "videomae"
    tiny = VIDEOMAE
    clip = (4, 32, 64)
    tokens = 16

    def inputs(self, head, batch=2, clip=None):
        inputs = super().inputs(head, batch, clip)
        if head == "AutoModelForPreTraining":
            inputs["bool_masked_pos"] = half_hidden(batch, clip or self.clip, self.config().patch)
        return inputs


class TestVideoMAE(TrainerContract, VideoMAEContract):
    backend = "aot_eager"
    other_clips = ((8, 32, 64), (2, 48, 32))
    refused_clips = ((3, 32, 64), (4, 40, 64), (4, 32, 8))

    def test_pretraining_accumulates(self, tmp_path):
        whole = self.train_once("AutoModelForPreTraining", tmp_path, 8, 8, 1)
        assert_close(self.train_once("AutoModelForPreTraining", tmp_path, 8, 2, 4), whole, atol=1e-6)


class TestCosineAttention(VideoMAEContract):
    """v2's attention, without query and value biases, on tubelets that are not square."""

    variant = True
    tiny: ClassVar = {**VIDEOMAE, "cosine_attention": True, "qv_bias": False, "patch_size": [16, 8]}
    tokens = 32
    other_clips = ((8, 32, 64),)


class TestMeanPooling(VideoMAEContract):
    variant = True
    tiny: ClassVar = {**VIDEOMAE, "use_mean_pooling": True, "num_hidden_layers": 1}


class TestVideoMAEBoxes(BoxContract, VideoMAEContract):
    classes = ("VideoMAEForSpatioTemporalActionDetection",)
    other_clips = ((8, 32, 64), (2, 40, 30))


class TestVideoMAEBoxesOfAClassifier(BoxContract, VideoMAEContract):
    """Whose norm is `fc_norm`."""

    variant = True
    classes = ("VideoMAEForSpatioTemporalActionDetection",)
    tiny: ClassVar = {**VIDEOMAE, "use_mean_pooling": True, "box_growth": [0, 0], "box_aligned": True}
