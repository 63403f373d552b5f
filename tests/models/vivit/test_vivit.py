"""ViViT: the contract, for each of the paper's four models."""

from __future__ import annotations

from typing import ClassVar

from contract import ModelContract, TrainerContract

TINY = {
    "image_size": [32, 48],
    "tubelet_size": [2, 16, 16],
    "num_frames": 6,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
}


class VivitContract(ModelContract):
    model_type = "vivit"
    tiny = TINY
    clip = (6, 32, 48)
    other_clips = ((8, 32, 48), (2, 48, 32), (7, 40, 50))
    refused_clips = ((1, 32, 48), (6, 15, 48), (6, 32, 8))


class TestJoint(TrainerContract, VivitContract):
    tokens = 1 + 3 * 6
    encoder_outputs: ClassVar = ["pooler_output"]

    def loss(self, model, inputs):
        """The pooler's answer too: nothing else reaches its weights."""
        loss, output = super().loss(model, inputs), model(**inputs)
        return loss + (output.pooler_output.square().mean() if "pooler_output" in output else 0)


class TestFactorizedEncoder(VivitContract):
    variant = True
    tiny: ClassVar = {**TINY, "attention_type": "factorized_encoder", "num_temporal_layers": 2}
    tokens = 1 + 3
    hidden_rows = 3
    later_blocks = 2


class TestFactorizedSelfAttention(VivitContract):
    variant = True
    tiny: ClassVar = {**TINY, "attention_type": "factorized_self_attention_block"}
    tokens = 3 * 6


class TestFactorizedDotProduct(VivitContract):
    variant = True
    tiny: ClassVar = {**TINY, "attention_type": "factorized_dot_product_attention", "tubelet_size": [2, 16, 8]}
    tokens = 3 * 12
    refused_clips = ((1, 32, 48), (6, 15, 48), (6, 32, 7))
    heads: ClassVar = (2, 2)
