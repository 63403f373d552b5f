"""TimeSformer: the contract, for each of its attention types."""

from __future__ import annotations

from typing import ClassVar

from configs import TIMESFORMER
from contract import ModelContract, TrainerContract


class TestDivided(TrainerContract, ModelContract):
    model_type = "timesformer"
    tiny = TIMESFORMER
    clip = (4, 32, 48)
    tokens = 1 + 6 * 4
    other_clips = ((8, 32, 48), (1, 32, 48), (3, 64, 32), (4, 40, 50))
    refused_clips = ((4, 15, 48), (4, 32, 8))


class TestJoint(ModelContract):
    variant = True
    model_type = "timesformer"
    tiny: ClassVar = {**TIMESFORMER, "attention_type": "joint_space_time", "patch_size": (16, 8)}
    clip = (4, 32, 48)
    tokens = 1 + 12 * 4
    other_clips = ((8, 32, 48), (5, 48, 16))


class TestSpaceOnly(ModelContract):
    variant = True
    model_type = "timesformer"
    tiny: ClassVar = {**TIMESFORMER, "attention_type": "space_only"}
    clip = (4, 32, 48)
    tokens = 1 + 6
    hidden_rows = 4
    other_clips = ((8, 32, 48), (5, 48, 16))
