"""MViT: the contract, for version 1, version 2, and every option that neither of them has."""

from __future__ import annotations

from typing import ClassVar

import pytest
from contract import ModelContract, TrainerContract

TINY = {
    "image_size": [32, 48],
    "num_frames": 4,
    "embed_dim": 16,
    "num_hidden_layers": 3,
    "dim_mul": [[1, 2.0]],
    "head_mul": [[1, 2.0]],
    "pool_q_stride": [[1, 1, 2, 2]],
    "pool_kv_stride_adaptive": [1, 4, 4],
    "mlp_ratio": 2.0,
}
VERSION2 = {
    **TINY,
    "pool_q_stride": [[0, 1, 1, 1], [1, 1, 2, 2], [2, 1, 1, 1]],
    "dim_mul_in_attention": True,
    "use_absolute_positions": False,
    "rel_pos_spatial": True,
    "rel_pos_temporal": True,
    "residual_pooling": True,
}
OTHER_CLIPS = ((8, 32, 48), (1, 32, 48), (3, 50, 33), (5, 7, 3))


class MViTContract(ModelContract):
    model_type = "mvit"
    clip = (4, 32, 48)
    tokens = 1 + 2 * 4 * 6
    pyramid = True
    heads = (1, 2, 2)
    other_clips = OTHER_CLIPS
    refused_clips = ((4, 0, 48),)

    @pytest.mark.slow
    def test_compile_all_sizes_dynamic_with_attentions(self, head):
        """One block: with every size a symbol, the compiler's time multiplies from block to block."""
        model = self.model(head, **self.shallow)
        compiled = self.compile(model, backend="aot_eager", dynamic=True)
        self.check_dynamic(model, compiled, head, **self.wishes())


class TestVersion1(TrainerContract, MViTContract):
    tiny = TINY


class TestVersion2(TrainerContract, MViTContract):
    """What only moves the last block's patches can't move its class token, which is what is classified."""

    tiny = VERSION2
    unreached = r"layer\.2\.attention\.(pool_q\.conv|rel_pos)"


class TestOtherOptions(MViTContract):
    """Kernels of stride + 1, pooled time, explicit strides, a block that pools nothing, one kind of relative positions
    beside absolute ones, no biases."""

    variant = True
    tiny: ClassVar = {
        **VERSION2,
        "pool_kernel": None,
        "pool_q_stride": [[1, 2, 2, 2]],
        "pool_kv_stride_adaptive": None,
        "pool_kv_stride": [[0, 1, 4, 4], [1, 2, 2, 2]],
        "rel_pos_temporal": False,
        "use_absolute_positions": True,
        "qkv_bias": False,
        "patch_kernel": [1, 5, 5],
    }
    tokens = 1 + 1 * 4 * 6
    unreached = r"layer\.2\.attention\.rel_pos"
