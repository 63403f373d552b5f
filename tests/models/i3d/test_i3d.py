"""I3D: the contract, for Inception on RGB, Inception on flow with frozen norms, and the ResNet."""

from __future__ import annotations

from typing import ClassVar
from unittest.mock import patch

import torch
from contract import ModelContract, TrainerContract

from hf_video.models.i3d import modeling_i3d

INCEPTION = {"stem_channels": 8, "num_frames": 10, "image_size": [40, 64], "classifier_dropout": 0.0}
RESNET = {
    **INCEPTION,
    "architecture": "resnet",
    "num_frames": 4,
    "depths": [1, 2],
    "temporal_kernels": [[3], [3, 1]],
    "head_pool": [2, 3, 3],
}


class I3DContract(ModelContract):
    model_type = "i3d"
    attention = False
    pyramid = True
    # Of Inception's modules those with pooling before them, and the last.
    shallow: ClassVar = {"mixed": [*(module for module in modeling_i3d.MIXED if module[1]), modeling_i3d.MIXED[-1]]}
    clip = (10, 40, 64)
    tokens = 2 * 2 * 2

    def make_model(self, head, mixed=modeling_i3d.MIXED, **changes):
        with patch.object(modeling_i3d, "MIXED", mixed):
            return super().make_model(head, **changes)


class TestInception(I3DContract):
    """Its last batch norms see eight places: float32 moves gradients of 22 by .013, float64 compiled ones by 4e-11."""

    tiny = INCEPTION
    precision = torch.float64
    other_clips = ((17, 33, 31), (1, 1, 1), (5, 64, 70), (8, 32, 32))
    refused_clips = ((4, 0, 32),)


class TestFlowWithFrozenNorms(TrainerContract, I3DContract):
    """Only with frozen norms is a batch the sum of its parts, so that gradients may be accumulated."""

    variant = True
    channels = 2
    tiny: ClassVar = {**INCEPTION, "num_channels": 2, "frozen_batch_norm": True}


class TestResNet(I3DContract):
    variant = True
    tiny = RESNET
    clip = (4, 40, 64)
    tokens = 2 * 5 * 8
    other_clips = ((2, 33, 31), (5, 8, 9), (9, 64, 40))
    refused_clips = ((1, 40, 64),)
