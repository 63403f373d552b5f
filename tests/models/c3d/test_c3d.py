"""C3D: the contract, for both alignments of its last pooling."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from contract import ModelContract, TrainerContract

C3D = {"stem_channels": 4, "fc_size": 24, "num_frames": 16, "image_size": [64, 32], "classifier_dropout": 0.0}


class C3DContract(ModelContract):
    model_type = "c3d"
    attention = False
    pyramid = True
    embedding = 24
    shallow: ClassVar = {}
    clip = (16, 64, 32)

    def loss(self, model, inputs):
        """The plain network answers with its last map and with fc7: both count."""
        output = model(**inputs)
        return output.loss if "loss" in output else super().loss(model, inputs) + output.fc7.square().mean()


class TestSymmetric(TrainerContract, C3DContract):
    tiny = C3D
    tokens = 3 * 2
    other_clips = ((17, 66, 33), (31, 79, 47))
    refused_clips = ((16, 32, 64), (32, 64, 32), (15, 64, 32), (16, 15, 32))


class TestCeil(C3DContract):
    variant = True
    tiny: ClassVar = {**C3D, "pool5_padding": "ceil"}
    tokens = 2 * 1
    other_clips = ((16, 48, 16),)
    refused_clips = ((16, 80, 32), (16, 64, 48))


def test_any_grid_takes_clips_of_other_proportions_that_fill_fc6():
    tall = TestSymmetric().model("AutoModel", any_grid=True)
    assert tall(torch.randn(1, 16, 3, 32, 64)).fc7.shape == (1, 24)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_trains_the_first_block_too(reentrant):
    """It sees pixels, which have no gradient, and reentrant checkpointing gives none to such a block."""
    contract = TestSymmetric()
    inputs, gradients = contract.inputs("AutoModelForVideoClassification"), []
    for checkpointed in (False, True):
        model = contract.model("AutoModelForVideoClassification").train()
        if checkpointed:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
        model(**inputs).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    torch.testing.assert_close(gradients[1], gradients[0])
