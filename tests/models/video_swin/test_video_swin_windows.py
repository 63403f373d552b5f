"""Video Swin: windows, masks and positions against slow definitions; the stem that keeps every frame."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from contract import assert_close, randomise
from torch.nn import functional as F

from hf_video.errors import ConfigError, ModelInputError
from hf_video.layers.linear import multiplies_bf16
from hf_video.models.video_swin import modeling_video_swin
from hf_video.models.video_swin.configuration_video_swin import VideoSwinConfig
from hf_video.models.video_swin.modeling_video_swin import (
    PatchMerging,
    VideoSwinEmbeddings,
    VideoSwinModel,
    WindowAttention,
)
from hf_video.models.video_swin.windows import (
    WindowTables,
    boxes_by_size,
    cut_masks,
    fit_window,
    from_windows,
    position_index,
    to_windows,
)

SMALL = {"embed_dim": 8, "depths": (2, 2), "num_heads": (2, 4)}


@pytest.mark.parametrize("shift", [(0, 0, 0), (1, 1, 2), (0, 1, 0)])
def test_windows_and_back(shift):
    x, window = torch.randn(2, 5, 6, 9, 4), (2, 3, 4)
    windows = to_windows(x, window, shift)
    assert windows.shape == (2, 3, 2, 3, 24, 4)
    assert_close(from_windows(windows, window, shift, (5, 6, 9)), x, atol=0)
    t, h, w = (n + s for n, s in zip((2, 0, 4), shift, strict=True))  # token 0 of window (1, 0, 1)
    assert_close(windows[:, 1, 0, 1, 0], x[:, t, h, w], atol=0)


def test_a_window_shrinks_to_a_small_grid_and_is_not_shifted_there():
    assert fit_window((8, 7, 9), (8, 7, 7), (4, 3, 3)) == ((8, 7, 7), (0, 0, 3))
    assert fit_window((3, 20, 2), (8, 7, 7), (4, 3, 3)) == ((3, 7, 2), (0, 3, 0))


def test_position_index_counts_ways():
    """One number for each way from token to token, the same wherever it starts; the authors' numbering."""
    window = (2, 3, 2)
    places = list(itertools.product(*map(range, window)))
    for (i, a), (j, b) in itertools.product(enumerate(places), repeat=2):
        t, h, w = (x - y + n - 1 for x, y, n in zip(a, b, window, strict=True))
        assert position_index(window)[i, j] == t * 5 * 3 + h * 3 + w


def visible(grid, window, shift):
    """Which tokens (t·h·w, t·h·w) of a shifted grid see each other: those of one window before the grid is rolled."""
    whole = [n + -n % w for n, w in zip(grid, window, strict=True)]
    places = torch.cartesian_prod(*map(torch.arange, whole))
    cells = torch.stack([(places[:, i] - shift[i]).div(window[i], rounding_mode="floor") for i in range(3)], dim=1)
    return (cells[:, None] == cells[None]).all(-1)


@pytest.mark.parametrize("grid", [(4, 6, 6), (2, 9, 6), (5, 7, 3), (6, 3, 3)])
def test_shifted_attention_is_attention_among_neighbours(grid):
    """Slow definition: one softmax over the whole grid, where tokens see each other if one shifted window, which does
    not wrap around, holds both. Appended zeros are tokens as well."""
    config = VideoSwinConfig(window_size=(4, 3, 3), attn_implementation="eager", **SMALL)
    attention = randomise(WindowAttention(config, 8, 2, shifted=True), gain=2.0)
    tables, x = WindowTables((4, 3, 3)), torch.randn(1, *grid, 8)
    got, _ = attention(x, tables=tables)

    window, shift = fit_window(grid, (4, 3, 3), (2, 1, 1))
    pad = [-n % w for n, w in zip(grid, window, strict=True)]
    tokens = F.pad(x, (0, 0, 0, pad[2], 0, pad[1], 0, pad[0]))
    whole = tokens.shape[1:4]
    places = torch.cartesian_prod(*map(torch.arange, whole))
    ways = places[:, None] - places[None]
    seen = visible(grid, window, shift)
    row = ((ways + torch.tensor([3, 2, 2])) * torch.tensor([25, 5, 1])).sum(-1).where(seen, torch.tensor(0))
    query, key, value = attention.split_heads(attention.project(tokens.flatten(1, 3)))
    scores = query @ key.mT * 4**-0.5 + attention.relative_position_bias_table[row].permute(2, 0, 1)
    expected = scores.masked_fill(~seen, float("-inf")).softmax(-1) @ value
    expected = expected.transpose(1, 2).reshape(1, *whole, 8)[:, : grid[0], : grid[1], : grid[2]]
    assert_close(got, expected)


BOXED = [(1, 8, 6, 6), (2, 9, 5, 7), (2, 3, 9, 6), (1, 5, 7, 3), (1, 4, 6, 3), (1, 8, 2, 9)]


@pytest.mark.parametrize("shape", BOXED, ids=str)
@torch.no_grad()
def test_boxes_are_windows_whose_masks_are_left_away(shape, monkeypatch):
    """Grids that fill their windows or don't, are as large as a window along some axes, or smaller."""
    config = VideoSwinConfig(window_size=(4, 3, 3), **SMALL)
    attention = randomise(WindowAttention(config, 8, 2, shifted=True), gain=2.0)
    tables, x = WindowTables((4, 3, 3)), torch.randn(*shape, 8)
    found, _ = attention(x, tables=tables)
    with monkeypatch.context() as patch:
        patch.setattr(modeling_video_swin, "may_use_onednn", lambda *tensors: False)
        expected, probs = attention(x, tables=tables, output_attentions=True)
    assert_close(found, expected)
    assert torch.equal(attention(x, tables=tables, output_attentions=True)[1], probs)


@pytest.mark.skipif(not multiplies_bf16(), reason="rounds otherwise without instructions for bfloat16")
@torch.no_grad()
def test_boxes_round_no_worse_than_windows(monkeypatch):
    config = VideoSwinConfig(window_size=(4, 3, 3), embed_dim=32, depths=(2, 2), num_heads=(2, 4))
    model = randomise(VideoSwinModel(config)).eval()
    half, clip = copy.deepcopy(model).bfloat16(), torch.randn(1, 16, 3, 64, 64)
    boxes = half(clip.bfloat16()).last_hidden_state.float()
    monkeypatch.setattr(modeling_video_swin, "may_use_onednn", lambda *tensors: False)
    exact = model(clip).last_hidden_state
    windows = half(clip.bfloat16()).last_hidden_state.float()
    assert not torch.equal(boxes, windows)
    assert (boxes - exact).norm() < 1.3 * (windows - exact).norm()


@torch.no_grad()
def test_boxes_hold_each_token_once():
    order, places, boxes = boxes_by_size(2, (8, 6, 3), (4, 3, 3), (2, 1, 0))
    assert torch.equal(order.sort().values, torch.arange(2 * 8 * 6 * 3))
    assert torch.equal(order[places], torch.arange(2 * 8 * 6 * 3))
    # 2 clips; of 8 frames 4 are in boxes of 2 and 4 in one of 4, of 6 rows as many as a box is high.
    assert boxes == {(t, h, 3): 2 * 4 * h * 3 for t in (2, 4) for h in (1, 3, 2)}


def test_what_learns_or_is_watched_goes_by_windows(monkeypatch):
    """Autograd, autocast and traces; and somebody who asks for the probabilities."""
    config = VideoSwinConfig(window_size=(4, 3, 3), **SMALL)
    attention = WindowAttention(config, 8, 2, shifted=True)
    tables, x = WindowTables((4, 3, 3)), torch.randn(1, 8, 6, 6, 8)
    seen = []
    monkeypatch.setattr(attention, "attend_boxes", lambda x, *args: seen.append(x) or x)
    attention(x, tables=tables)
    with torch.no_grad():
        attention(x, tables=tables, output_attentions=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            attention(x, tables=tables)
        assert not seen
        attention(x, tables=tables)
    assert len(seen) == 1


def test_masks_are_made_once_for_all_sizes():
    """No mask is built in a forward pass: the tables are those of the window, whatever the grid."""
    model = randomise(VideoSwinModel(VideoSwinConfig(window_size=(2, 3, 3), **SMALL)))
    tables = [getattr(model.encoder.tables, name) for name in ("cuts", "index")]
    versions = [table._version for table in tables]
    for clip in ((4, 32, 32), (9, 50, 40)):
        model(torch.randn(1, clip[0], 3, *clip[1:]))
    assert all(table is getattr(model.encoder.tables, n) for table, n in zip(tables, ("cuts", "index"), strict=True))
    assert [table._version for table in tables] == versions
    assert cut_masks((2, 3, 3)).shape == (8, 18, 18)
    assert not cut_masks((2, 3, 3))[0].any()
    assert not any("tables" in name for name in model.state_dict())


def test_merging_is_the_authors_order():
    merging, x = randomise(PatchMerging(4, 1e-5)), torch.randn(1, 2, 4, 4, 4)
    corners = [x[:, :, row::2, column::2] for column in (0, 1) for row in (0, 1)]
    assert_close(merging(x), merging.reduction(merging.norm(torch.cat(corners, -1))))
    assert merging(torch.randn(1, 2, 5, 3, 4)).shape == (1, 2, 3, 2, 8)


@pytest.mark.parametrize(("stride", "frames"), [(1, 5), (1, 1), (None, 5), (2, 6)])
def test_stem_is_the_strided_convolution(stride, frames):
    config = VideoSwinConfig(temporal_stride=stride, patch_norm=False, **SMALL)
    stem, video = randomise(VideoSwinEmbeddings(config)), torch.randn(2, frames, 3, 9, 16)
    later = 1 if stride == 1 else frames % 2
    padded = F.pad(video.transpose(1, 2), (0, 0, 0, 3, 0, later))
    conv = stem.patch_embeddings.projection
    expected = F.conv3d(padded, conv.weight, conv.bias, stride=(stride or 2, 4, 4)).movedim(1, -1)
    assert conv.stride == (stride or 2, 4, 4)
    assert_close(stem(video), expected)
    assert stem(video).shape[1] == (frames if stride == 1 else -(-frames // 2))


def test_what_makes_no_model_is_refused():
    for values, message in (
        ({"depths": (2, 2)}, "one number of 1 or more per stage"),
        ({"num_heads": (3, 6, 12, 7)}, "Stage 3 has 768 channels"),
        ({"window_size": (7, 7)}, "three numbers"),
        ({"temporal_stride": 3}, "from 1 to"),
    ):
        with pytest.raises(ConfigError, match=message):
            VideoSwinConfig(**values)
    with pytest.raises(ModelInputError, match="no pixels"):
        VideoSwinModel(VideoSwinConfig(**SMALL))(torch.randn(1, 0, 3, 32, 32))


def test_presets_have_the_published_numbers_of_parameters():
    from hf_video.models.video_swin.modeling_video_swin import VideoSwinForVideoClassification

    for size, count in (("tiny", 28_158_070), ("small", 49_816_678), ("base", 88_048_984)):
        with torch.device("meta"):
            model = VideoSwinForVideoClassification(VideoSwinConfig.preset(size, num_labels=400))
        assert model.num_parameters() == count
    with pytest.raises(ConfigError, match="tiny, small, base, large"):
        VideoSwinConfig.preset("huge")
