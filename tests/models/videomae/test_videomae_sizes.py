"""VideoMAE: other frame counts and sizes than the checkpoint's."""

from __future__ import annotations

import logging

import pytest
import torch
from configs import CLIP, videomae
from contract import assert_close

from hf_video.layers.embeddings import resize_grid, sinusoid_table
from hf_video.models.videomae.modeling_videomae import (
    VideoMAEForVideoClassification,
    VideoMAEModel,
)


@pytest.mark.parametrize("changes", [{"num_frames": 8}, {"image_size": [64, 64]}])
def test_another_size_interpolates_positions_says_so_and_survives_saving(changes, tmp_path, caplog):
    model = videomae(VideoMAEModel)
    model.save_pretrained(tmp_path / "a")
    logging.getLogger("transformers").propagate = True
    with caplog.at_level(logging.WARNING):
        wider = VideoMAEModel.from_pretrained(tmp_path / "a", **changes)
    assert "interpolated" in caplog.text
    assert "(2, 2, 4)" in caplog.text
    grid = wider.config.grid
    table = sinusoid_table(16, 24)[None]
    assert_close(wider.embeddings.positions(grid, CLIP.device), resize_grid(table, (2, 2, 4), grid), atol=0)
    video = torch.randn(1, wider.config.num_frames, 3, grid[1] * 16, grid[2] * 16)
    expected = wider(video).last_hidden_state
    assert_close(model(video).last_hidden_state, expected, atol=0)  # sizes come from the tensor either way
    wider.save_pretrained(tmp_path / "b")
    again = VideoMAEModel.from_pretrained(tmp_path / "b")
    assert_close(again(video).last_hidden_state, expected, atol=0)
    back = VideoMAEModel.from_pretrained(tmp_path / "b", num_frames=4, image_size=[32, 64])
    assert_close(back(CLIP).last_hidden_state, model(CLIP).last_hidden_state, atol=0)


def test_32_frames_on_a_16_frame_checkpoint_keep_time_and_space_apart(tmp_path):
    videomae(VideoMAEForVideoClassification, num_frames=16, use_mean_pooling=True).save_pretrained(tmp_path)
    model = VideoMAEForVideoClassification.from_pretrained(tmp_path, num_frames=32)
    positions = model.videomae.embeddings.positions((16, 2, 4), CLIP.device).view(16, 2, 4, 24)
    made_for = sinusoid_table(64, 24).view(8, 2, 4, 24)
    assert_close(positions[0], made_for[0]), assert_close(positions[-1], made_for[-1])
    assert_close(positions[1], 0.75 * made_for[0] + 0.25 * made_for[1])
    assert model(torch.randn(1, 32, 3, 32, 64)).logits.shape == (1, 2)
