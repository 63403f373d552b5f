"""VideoMAE: what pretraining sees, predicts and pays for."""

from __future__ import annotations

import pytest
import torch
from configs import CLIP, half_hidden, videomae
from contract import assert_close
from torch.utils.flop_counter import FlopCounterMode

from hf_video.models.videomae.masking import running_cell_mask, tube_mask
from hf_video.models.videomae.modeling_videomae import (
    VideoMAEForPreTraining,
    VideoMAEModel,
)


def test_masked_encoder_sees_only_visible_tokens():
    model, mask = videomae(VideoMAEModel), half_hidden()
    output = model(CLIP, bool_masked_pos=mask)
    assert output.last_hidden_state.shape == (2, 8, 24)
    hidden = mask.view(2, 2, 2, 4)[:, :, None, :, None, :, None].expand(2, 2, 2, 2, 16, 4, 16).reshape(2, 4, 32, 64)
    noise = CLIP + hidden[:, :, None] * torch.randn_like(CLIP)
    assert_close(model(noise, bool_masked_pos=mask).last_hidden_state, output.last_hidden_state, atol=0)
    visible = model(CLIP, bool_masked_pos=mask, output_hidden_states=True).hidden_states[0]
    everything = model(CLIP, output_hidden_states=True).hidden_states[0]
    assert_close(visible, everything[~mask].view(2, 8, -1), atol=1e-6)


def test_pretraining_works_only_on_what_is_visible():
    """Stock embeds all tokens and then drops most; here three quarters hidden cost a quarter, embedding included."""
    model = videomae(VideoMAEModel)
    operations = []
    for mask in (None, tube_mask(2, (2, 2, 4), 0.75)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(CLIP, bool_masked_pos=mask)
        operations.append(counter.get_flop_counts()["VideoMAEModel.embeddings"])
    (everything,), (visible,) = (o.values() for o in operations)
    assert visible * 4 == everything


@pytest.mark.parametrize("norm_pix_loss", [True, False])
def test_decoder_masking_is_the_same_loss_on_fewer_tokens(norm_pix_loss):
    """The loss covers what the decoder keeps and the encoder did not see."""
    model, mask = videomae(VideoMAEForPreTraining, norm_pix_loss=norm_pix_loss), half_hidden()
    dropped = running_cell_mask(2, (2, 2, 4))
    output = model(CLIP, bool_masked_pos=mask, decoder_masked_pos=dropped)
    assert output.logits.shape == (2, 8, 1536)
    kept = (~dropped).nonzero()[:, 1].view(2, 8)
    error = (output.logits - model.targets(CLIP, kept)).pow(2).mean(-1)
    assert_close(output.loss, error[mask.gather(1, kept)].mean(), atol=1e-6)
    # dropping what is visible is plain pretraining
    plain = model(CLIP, bool_masked_pos=mask)
    same = model(CLIP, bool_masked_pos=mask, decoder_masked_pos=~mask)
    assert_close((same.loss, same.logits), (plain.loss, plain.logits), atol=1e-6)


def test_targets_are_pixels_channel_last():
    model = videomae(VideoMAEForPreTraining, norm_pix_loss=False)
    pixels = torch.rand(1, 4, 3, 32, 64)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (model.config.image_mean, model.config.image_std))
    index = torch.tensor([[0, 7, 8]])  # (time, row, column) = (0, 0, 0), (0, 1, 3), (1, 0, 0)
    targets = model.targets((pixels - mean) / std, index)
    for n, (t, row, column) in enumerate(((0, 0, 0), (0, 1, 3), (1, 0, 0))):
        cut = pixels[0, 2 * t : 2 * t + 2, :, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
        assert_close(targets[0, n], cut.permute(0, 2, 3, 1).flatten(), atol=1e-6)


def test_other_statistics_are_undone_in_targets():
    video, index = torch.rand(1, 4, 3, 32, 64), torch.arange(16)[None]
    halves = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    model = videomae(VideoMAEForPreTraining, norm_pix_loss=False, **halves)
    imagenet = videomae(VideoMAEForPreTraining, norm_pix_loss=False)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (imagenet.config.image_mean, imagenet.config.image_std))
    ours, theirs = model.targets((video - 0.5) / 0.5, index), imagenet.targets((video - mean) / std, index)
    assert_close(ours, theirs, atol=1e-6)
