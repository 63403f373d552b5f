"""ViViT: other frame counts and sizes than the checkpoint's, and the sizes of the published models."""

from __future__ import annotations

import logging

import pytest
import torch
from contract import assert_close
from test_vivit import TINY
from test_vivit_references import FACTORIZED, model

import hf_video
from hf_video.errors import ConfigError, ModelInputError
from hf_video.layers.embeddings import resize_grid

TYPES = ["spacetime", *FACTORIZED]


def count(**config):
    with torch.device("meta"):
        net = hf_video.VivitForVideoClassification(hf_video.VivitConfig(num_labels=400, **config))
    return sum(p.numel() for p in net.parameters())


def test_parameter_counts_are_the_published_ones():
    large = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    assert count() == 88_954_000
    assert count(attention_type="factorized_encoder") == 115_062_928
    assert count(attention_type="factorized_encoder", num_temporal_layers=24, **large) == 606_827_920
    assert count(attention_type="factorized_self_attention_block") == 117_319_312  # 117.3 M in the paper
    assert count(attention_type="factorized_dot_product_attention") == 88_952_464  # 88.9 M


def place_and_time(net):
    """A position table that says where it is: channel 0 the time, 1 the row, 2 the column."""
    grid = net.vivit.position_grid
    where = torch.stack(torch.meshgrid(*(torch.arange(n) / (n - 1) for n in grid), indexing="ij"), dim=-1)
    extra = net.vivit.embeddings.extra
    with torch.no_grad():
        for embeddings, table in ((net.vivit.embeddings, where.flatten(0, 2)),):
            embeddings.position_embeddings.zero_()
            embeddings.position_embeddings[0, extra:, :3] = table
    return net


def test_time_and_space_stay_apart():
    """Twice the frames: rows and columns of the table don't move, and time rises along it."""
    net = place_and_time(model("spacetime"))
    table = net.vivit.embeddings.positions((6, 2, 3))[0, 1:].view(6, 2, 3, -1)
    assert_close(table[..., 1], net.vivit.embeddings.position_embeddings[0, 1:, 1].view(3, 2, 3)[:1].expand(6, 2, 3))
    assert_close(table[..., 2], net.vivit.embeddings.position_embeddings[0, 1:, 2].view(3, 2, 3)[:1].expand(6, 2, 3))
    assert (table[1:, :, :, 0] >= table[:-1, :, :, 0]).all()
    assert_close(table[:, 0, 0, 0], torch.tensor([0, 0.125, 0.375, 0.625, 0.875, 1]))
    assert not table[..., 3:].any()


@pytest.mark.parametrize("attention_type", TYPES)
@pytest.mark.parametrize("changes", [{"num_frames": 12}, {"image_size": [64, 32]}])
def test_another_size_interpolates_says_so_and_survives_saving(attention_type, changes, tmp_path, caplog):
    net = model(attention_type)
    net.save_pretrained(tmp_path / "a")
    logging.getLogger("transformers").propagate = True
    with caplog.at_level(logging.WARNING):
        wider = hf_video.VivitForVideoClassification.from_pretrained(tmp_path / "a", **changes)
    assert "interpolated" in caplog.text
    assert "(3, 2, 3)" in caplog.text
    grid = wider.config.grid
    assert wider.vivit.position_grid == grid
    assert wider.config.position_grid is None
    video = torch.randn(1, wider.config.num_frames, 3, grid[1] * 16, grid[2] * 16)
    expected = wider(video).logits
    assert_close(net(video).logits, expected, atol=1e-6)  # sizes come from the tensor either way
    wider.save_pretrained(tmp_path / "b")
    again, info = hf_video.VivitForVideoClassification.from_pretrained(tmp_path / "b", output_loading_info=True)
    assert not any(info.values()), info
    assert_close(again(video).logits, expected, atol=1e-6)


def test_a_resized_joint_model_is_a_plain_file(tmp_path):
    from transformers.models.vivit.modeling_vivit import VivitForVideoClassification

    model("spacetime").save_pretrained(tmp_path / "a")
    wider = hf_video.VivitForVideoClassification.from_pretrained(tmp_path / "a", num_frames=8, image_size=[48, 64])
    wider.save_pretrained(tmp_path / "b")
    stock = VivitForVideoClassification.from_pretrained(tmp_path / "b")
    video = torch.randn(1, 8, 3, 48, 64)
    assert_close(stock(video).logits, wider(video).logits)


def test_the_two_tables_of_model_2_are_resized_apart():
    net = model("factorized_encoder").vivit
    for embeddings, old, new in ((net.embeddings, (2, 3), (4, 2)), (net.temporal_embeddings, (3,), (5,))):
        table = embeddings.position_embeddings
        assert_close(embeddings.positions(new)[:, 1:], resize_grid(table[:, 1:], old, new), atol=0)
        assert_close(embeddings.positions(new)[:, :1], table[:, :1], atol=0)
    assert net(torch.randn(1, 10, 3, 64, 32)).last_hidden_state.shape == (1, 6, 24)


def test_other_sizes_can_be_refused():
    net = model("spacetime")
    assert_close(
        net(torch.ones(1, 6, 3, 32, 48), interpolate_pos_encoding=False).logits, net(torch.ones(1, 6, 3, 32, 48)).logits
    )
    with pytest.raises(ModelInputError, match="interpolate_pos_encoding"):
        net(torch.ones(1, 8, 3, 32, 48), interpolate_pos_encoding=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention_type": "joint"}, "spacetime"),
        ({"attention_type": "factorized_dot_product_attention", "num_attention_heads": 3}, "odd"),
        ({"tubelet_size": [2, 16]}, "tubelet_size"),
        ({"num_frames": 1}, "tubelet"),
        ({"num_temporal_layers": 0}, "num_temporal_layers"),
        ({"tubelet_initializer": "middle"}, "central_frame"),
        ({"atention_type": "spacetime"}, "Did you mean 'attention_type'"),
    ],
)
def test_wrong_configurations(changes, message):
    with pytest.raises(ConfigError, match=message):
        hf_video.VivitConfig(**{**TINY, **changes})
