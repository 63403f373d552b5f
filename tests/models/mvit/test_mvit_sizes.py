"""MViT: published sizes, other frame counts and sizes than the checkpoint's, and fields that don't fit together."""

from __future__ import annotations

import logging

import pytest
import torch
from contract import assert_close, randomise
from test_mvit import TINY, VERSION2

from hf_video.errors import ConfigError
from hf_video.layers.embeddings import resize_grid
from hf_video.models.mvit.configuration_mvit import MViTConfig
from hf_video.models.mvit.modeling_mvit import MViTForVideoClassification, MViTModel, PoolingAttention, relative_index

PARAMETERS = {
    "v1_b_16x4": 36_610_672,
    "v1_24_32x3": 53_115_280,
    "v2_s_16x4": 34_537_744,
    "v2_b_32x3": 51_230_128,
    "v2_l_40x3": 213_390_112,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_of_the_published_sizes(name):
    with torch.device("meta"):
        model = MViTForVideoClassification(MViTConfig.preset(name, num_labels=400))
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]


def test_what_the_compact_fields_unfold_to():
    small = MViTConfig.preset("v2_s_16x4").block_shapes()
    assert [s.heads for s in small] == [1, 2, 2, *[4] * 11, 8, 8]
    assert [s.stride_kv[1] for s in small] == [8, 4, 4, *[2] * 11, 1, 1]
    assert [s.tables for s in small[:3]] == [(15, 111, 111), (15, 55, 55), (15, 55, 55)]
    base = MViTConfig().block_shapes()
    assert [i for i, s in enumerate(base) if s.kernel_q] == [1, 3, 14]
    assert [i for i, s in enumerate(base) if s.width != s.width_out] == [0, 2, 13]
    deep = MViTConfig.preset("v1_24_32x3").block_shapes()
    assert [s.kernel_kv and s.kernel_kv[1] for s in deep] == [9, 9, 5, 5, 5, *[3] * 16, None, None, None]


def attention_by_the_formula(attention: PoolingAttention, x, grid):
    """softmax(q·k / √d + q·R_t[t] + q·R_h[h] + q·R_w[w]) v (+ q), one pair of a query and a key at a time."""
    q, k, v = attention.split_heads(attention.qkv(x))
    (q, q_grid), (k, k_grid), (v, _) = attention.pool_q(q, grid), attention.pool_k(k, grid), attention.pool_v(v, grid)
    scores = q @ k.transpose(-2, -1) * attention.head_dim**-0.5
    places = [list(torch.cartesian_prod(*map(torch.arange, g))) for g in (q_grid, k_grid)]
    for i, query in enumerate(places[0], 1):
        for j, key in enumerate(places[1], 1):
            for axis, table in enumerate((attention.rel_pos_t, attention.rel_pos_h, attention.rel_pos_w)):
                a, b = q_grid[axis], k_grid[axis]
                table = resize_grid(table[None], table.shape[:1], (2 * max(a, b) - 1,))[0]
                far = int(query[axis]) * max(b, a) // a + (b - 1 - int(key[axis])) * max(a, b) / b
                scores[:, :, i, j] += q[:, :, i] @ table[int(far)]
    context = scores.softmax(-1) @ v
    context[:, :, 1:] += q[:, :, 1:]
    return attention.output(context.transpose(1, 2).flatten(2))


@torch.no_grad()
@pytest.mark.parametrize("grid", [(2, 4, 6), (3, 5, 2), (1, 1, 3)])
def test_relative_positions_are_those_of_the_formula(grid):
    """On the grid the tables were made for, and on others, where they are interpolated and scales differ oddly."""
    model = randomise(MViTModel(MViTConfig(**VERSION2)))
    attention = model.encoder.layer[1].attention
    x = torch.randn(2, 1 + grid[0] * grid[1] * grid[2], 16, generator=torch.Generator().manual_seed(0))
    assert_close(attention(x, grid)[0], attention_by_the_formula(attention, x, grid), atol=2e-6)


def test_the_index_rounds_as_in_the_authors_code():
    """MViTv2-L's 78 rows of queries on 10 of keys: whole numbers would say otherwise in places."""
    q, k = torch.arange(78)[:, None], torch.arange(10)[None]
    exact = q + (9 - k) * 78 // 10
    ours = relative_index(78, 10, torch.device("cpu"))
    assert 0 < (ours != exact).sum() < 0.2 * exact.numel()
    assert (ours - exact).abs().max() == 1
    assert torch.equal(relative_index(56, 7, torch.device("cpu")), torch.arange(56)[:, None] + 8 * (6 - k[:, :7]))


@pytest.mark.parametrize("tiny", [TINY, VERSION2], ids=["v1", "v2"])
@pytest.mark.parametrize("changes", [{"num_frames": 8}, {"image_size": [48, 64]}])
def test_another_size_interpolates_says_so_and_survives_saving(tiny, changes, tmp_path, caplog):
    model = randomise(MViTModel(MViTConfig(**tiny)))
    model.save_pretrained(tmp_path / "a")
    logging.getLogger("transformers").propagate = True
    with caplog.at_level(logging.WARNING):
        wider = MViTModel.from_pretrained(tmp_path / "a", **changes)
    assert "interpolated" in caplog.text
    assert "(2, 8, 12)" in caplog.text
    time, rows, columns = wider.config.grid
    video = torch.randn(1, 2 * time, 3, 4 * rows, 4 * columns, generator=torch.Generator().manual_seed(0))
    expected = model(video).last_hidden_state  # sizes come from the tensor either way
    assert_close(wider(video).last_hidden_state, expected, atol=0)
    wider.save_pretrained(tmp_path / "b")
    assert_close(MViTModel.from_pretrained(tmp_path / "b")(video).last_hidden_state, expected, atol=0)


def test_positions_interpolate_time_and_space_apart():
    """Equal to interpolating the whole table in three dimensions at once, as the authors' code does."""
    embeddings = randomise(MViTModel(MViTConfig(**TINY))).embeddings
    embeddings.patch_embeddings = torch.nn.Identity()
    whole = embeddings.time_embeddings[:, :, None] + embeddings.position_embeddings[:, None]
    expected = resize_grid(whole.flatten(1, 2), (2, 8, 12), (5, 6, 15))
    assert_close(embeddings(torch.zeros(1, 450, 16), (5, 6, 15))[:, 1:], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head_mul": [[1, 5.0]]}, "Block 1 has 32 channels for 5 heads"),
        ({"pool_q_stride": [[1, 2, 2]]}, r"pool_q_stride holds \[1, 2, 2\]"),
        ({"pool_q_stride": [[1, 1, 3, 3]]}, "query strides 1 or even"),
        ({"pool_kernel": [2, 2, 2]}, "kernels must be odd"),
        ({"pool_kv_stride": [[0, 1, 2, 2]]}, "exclude each other"),
        ({"dim_mul": [[1, 2.0], [1, 2.0]]}, "twice"),
        ({"dim_mul": 2.0}, "dim_mul"),
        ({"hidden_size": 64}, "embed_dim and dim_mul"),
        ({"image_size": 3}, "less than one patch_stride"),
        ({"patch_strides": [1, 1, 1]}, "patch_stride"),
    ],
)
def test_fields_that_do_not_fit(changes, message):
    with pytest.raises(ConfigError, match=message):
        MViTConfig(**{**TINY, **changes})
