"""VideoMAE: the contract, and what is peculiar to it."""

from __future__ import annotations

import logging
from typing import ClassVar

import pytest
import torch
from contract import ModelContract, TrainerContract, assert_close, randomise
from torch.utils.flop_counter import FlopCounterMode

from hf_video.errors import ModelInputError
from hf_video.layers.positions import resize_grid, sinusoid_table
from hf_video.models.videomae.configuration_videomae import VideoMAEConfig
from hf_video.models.videomae.masking import random_mask, running_cell_mask, tube_mask
from hf_video.models.videomae.modeling_videomae import (
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEModel,
)

TINY = {
    "image_size": [32, 64],
    "patch_size": 16,
    "num_frames": 4,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 24,
    "use_mean_pooling": False,
}


def masks(batch, clip, patch=(2, 16, 16)):
    grid = tuple(n // p for n, p in zip(clip, patch, strict=True))
    return tube_mask(8, grid, 0.5, generator=torch.Generator().manual_seed(1))[:batch].contiguous()


class VideoMAEContract(ModelContract):
    model_type = "videomae"
    tiny = TINY
    clip = (4, 32, 64)
    tokens = 16

    def inputs(self, head, batch=2, clip=None):
        inputs = super().inputs(head, batch, clip)
        if head == "AutoModelForPreTraining":
            inputs["bool_masked_pos"] = masks(batch, clip or self.clip, self.config().patch)
        return inputs


class TestVideoMAE(TrainerContract, VideoMAEContract):
    other_clips = ((8, 32, 64), (2, 48, 32))
    refused_clips = ((3, 32, 64), (4, 40, 64), (4, 32, 8))

    def test_pretraining_accumulates(self, tmp_path):
        whole = self.train_once("AutoModelForPreTraining", tmp_path, 8, 8, 1)
        assert_close(self.train_once("AutoModelForPreTraining", tmp_path, 8, 2, 4), whole, atol=1e-6)


class TestCosineAttention(VideoMAEContract):
    """v2's attention, without query and value biases, on tubelets that are not square."""

    variant = True
    tiny: ClassVar = {**TINY, "cosine_attention": True, "qv_bias": False, "patch_size": [16, 8]}
    tokens = 32
    other_clips = ((8, 32, 64),)


class TestMeanPooling(VideoMAEContract):
    variant = True
    tiny: ClassVar = {**TINY, "use_mean_pooling": True, "num_hidden_layers": 1}


VIDEO = torch.randn(2, 4, 3, 32, 64, generator=torch.Generator().manual_seed(0))


def tiny(cls, **changes):
    return randomise(cls(VideoMAEConfig(**{**TINY, **changes})))


# -- masks


def test_tubes_are_constant_over_time_and_equal_in_number():
    mask = tube_mask(50, (8, 14, 14), 0.9)
    assert mask.shape == (50, 1568)
    assert set(mask.sum(1).tolist()) == {1408}
    per_time = mask.view(50, 8, 196)
    assert (per_time == per_time[:, :1]).all()
    assert len({tuple(m.tolist()) for m in per_time[:, 0]}) == 50


def test_random_masks_hide_as_many_and_differ_over_time():
    mask = random_mask(50, (8, 14, 14), 0.9)
    assert set(mask.sum(1).tolist()) == {1408}
    per_time = mask.view(50, 8, 196)
    assert not (per_time == per_time[:, :1]).all(-1).all(-1).any()
    assert abs(mask.float().mean(0).mean() - 1408 / 1568) < 1e-6
    assert mask.float().mean(0).min() > 0.6


@pytest.mark.parametrize(("ratio", "dropped"), [(0.25, 1), (0.5, 2), (0.75, 3)])
def test_running_cells(ratio, dropped):
    mask = running_cell_mask(20, (8, 4, 6), ratio).view(20, 8, 2, 2, 3, 2)
    cells = mask.permute(0, 1, 2, 4, 3, 5).flatten(4)  # sample, time, cell row, cell column, place
    assert (cells.sum(-1) == dropped).all()
    assert (cells == cells[:, :, :1, :1]).all()  # the same in every cell
    assert (cells[:, 1:] == cells[:, :-1].roll(-1, dims=-1)).all()  # one place on with each step
    assert (cells[:, :4].sum(1) == dropped).all()  # four steps decode every place equally often
    assert len({tuple(m.tolist()) for m in mask.flatten(1)}) == 4  # samples start anywhere


@pytest.mark.parametrize("make", [tube_mask, random_mask, running_cell_mask])
def test_masks_repeat_with_a_generator(make):
    first, again = (make(4, (4, 4, 4), 0.5, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert first.dtype == torch.bool


def test_impossible_masks():
    for ratio in (0.0, 1.0, -0.5, 0.01):
        with pytest.raises(ModelInputError, match=r"at least one|0\.25"):
            tube_mask(1, (2, 4, 4), ratio)
    with pytest.raises(ModelInputError, match=r"0\.25"):
        running_cell_mask(1, (2, 4, 4), 0.1)
    with pytest.raises(ModelInputError, match="2x2"):
        running_cell_mask(1, (2, 3, 4))


@pytest.mark.parametrize("cls", [VideoMAEModel, VideoMAEForPreTraining])
def test_uneven_and_misshapen_masks_are_clear_errors(cls):
    model, mask = tiny(cls), masks(2, (4, 32, 64))
    mask[0, mask[0].nonzero()[0]] = False
    with pytest.raises(ModelInputError, match=r"\[7, 8\]"):
        model(VIDEO, bool_masked_pos=mask)
    with pytest.raises(ModelInputError, match=r"\(2, 16\)"):
        model(VIDEO, bool_masked_pos=mask[:, :8])
    with pytest.raises(ModelInputError, match="hides all"):
        model(VIDEO, bool_masked_pos=torch.ones(2, 16, dtype=torch.bool))


def test_pretraining_needs_something_hidden():
    model = tiny(VideoMAEForPreTraining)
    with pytest.raises(ModelInputError, match="hides no token"):
        model(VIDEO, bool_masked_pos=torch.zeros(2, 16, dtype=torch.bool))
    with pytest.raises(ModelInputError, match="missing"):
        model(VIDEO, bool_masked_pos=None)


def test_graphs_check_masks_too():
    """Another number of hidden tokens is right in the same compiled or exported model; uneven rows raise there."""
    model, mask = tiny(VideoMAEForPreTraining, num_hidden_layers=1), masks(2, (4, 32, 64))
    names = ("pixel_values", "bool_masked_pos")
    batch = torch.export.Dim("batch", min=1, max=8)
    shapes = {name: {0: batch} for name in names}
    program = torch.export.export(model, (), dict(zip(names, (VIDEO, mask), strict=True)), dynamic_shapes=shapes)
    torch._dynamo.reset()
    other, uneven = tube_mask(2, (2, 2, 4), 0.75), mask.clone()
    uneven[0, uneven[0].nonzero()[0]] = False
    for graph in (program.module(), torch.compile(model, fullgraph=True, backend="aot_eager")):
        for m in (mask, other):
            got, expected = graph(pixel_values=VIDEO, bool_masked_pos=m), model(VIDEO, bool_masked_pos=m)
            assert_close((got.loss, got.logits), (expected.loss, expected.logits))
        with pytest.raises(RuntimeError, match="same number"):
            graph(pixel_values=VIDEO, bool_masked_pos=uneven)


# -- pretraining


def test_masked_encoder_sees_only_visible_tokens():
    model, mask = tiny(VideoMAEModel), masks(2, (4, 32, 64))
    output = model(VIDEO, bool_masked_pos=mask)
    assert output.last_hidden_state.shape == (2, 8, 24)
    hidden = mask.view(2, 2, 2, 4)[:, :, None, :, None, :, None].expand(2, 2, 2, 2, 16, 4, 16).reshape(2, 4, 32, 64)
    noise = VIDEO + hidden[:, :, None] * torch.randn_like(VIDEO)
    assert_close(model(noise, bool_masked_pos=mask).last_hidden_state, output.last_hidden_state, atol=0)
    visible = model(VIDEO, bool_masked_pos=mask, output_hidden_states=True).hidden_states[0]
    everything = model(VIDEO, output_hidden_states=True).hidden_states[0]
    assert_close(visible, everything[~mask].view(2, 8, -1), atol=1e-6)


def test_pretraining_works_only_on_what_is_visible():
    """Stock embeds all tokens and then drops most; here three quarters hidden cost a quarter, embedding included."""
    model = tiny(VideoMAEModel)
    operations = []
    for mask in (None, tube_mask(2, (2, 2, 4), 0.75)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(VIDEO, bool_masked_pos=mask)
        operations.append(counter.get_flop_counts()["VideoMAEModel.embeddings"])
    (everything,), (visible,) = (o.values() for o in operations)
    assert visible * 4 == everything


@pytest.mark.parametrize("norm_pix_loss", [True, False])
def test_decoder_masking_is_the_same_loss_on_fewer_tokens(norm_pix_loss):
    """The loss covers what the decoder keeps and the encoder did not see."""
    model, mask = tiny(VideoMAEForPreTraining, norm_pix_loss=norm_pix_loss), masks(2, (4, 32, 64))
    dropped = running_cell_mask(2, (2, 2, 4))
    output = model(VIDEO, bool_masked_pos=mask, decoder_masked_pos=dropped)
    assert output.logits.shape == (2, 8, 1536)
    kept = (~dropped).nonzero()[:, 1].view(2, 8)
    error = (output.logits - model.targets(VIDEO, kept)).pow(2).mean(-1)
    assert_close(output.loss, error[mask.gather(1, kept)].mean(), atol=1e-6)
    # dropping what is visible is plain pretraining
    plain = model(VIDEO, bool_masked_pos=mask)
    same = model(VIDEO, bool_masked_pos=mask, decoder_masked_pos=~mask)
    assert_close((same.loss, same.logits), (plain.loss, plain.logits), atol=1e-6)


def test_targets_are_pixels_channel_last():
    model = tiny(VideoMAEForPreTraining, norm_pix_loss=False)
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
    model = tiny(VideoMAEForPreTraining, norm_pix_loss=False, **halves)
    imagenet = tiny(VideoMAEForPreTraining, norm_pix_loss=False)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (imagenet.config.image_mean, imagenet.config.image_std))
    ours, theirs = model.targets((video - 0.5) / 0.5, index), imagenet.targets((video - mean) / std, index)
    assert_close(ours, theirs, atol=1e-6)


# -- positions


@pytest.mark.parametrize("changes", [{"num_frames": 8}, {"image_size": [64, 64]}])
def test_another_size_interpolates_positions_says_so_and_survives_saving(changes, tmp_path, caplog):
    model = tiny(VideoMAEModel)
    model.save_pretrained(tmp_path / "a")
    logging.getLogger("transformers").propagate = True
    with caplog.at_level(logging.WARNING):
        wider = VideoMAEModel.from_pretrained(tmp_path / "a", **changes)
    assert "interpolated" in caplog.text
    assert "(2, 2, 4)" in caplog.text
    grid = wider.config.grid
    table = sinusoid_table(16, 24)[None]
    assert_close(wider.embeddings.positions(grid), resize_grid(table, (2, 2, 4), grid), atol=0)
    video = torch.randn(1, wider.config.num_frames, 3, grid[1] * 16, grid[2] * 16)
    expected = wider(video).last_hidden_state
    assert_close(model(video).last_hidden_state, expected, atol=0)  # sizes come from the tensor either way
    wider.save_pretrained(tmp_path / "b")
    again = VideoMAEModel.from_pretrained(tmp_path / "b")
    assert_close(again(video).last_hidden_state, expected, atol=0)
    back = VideoMAEModel.from_pretrained(tmp_path / "b", num_frames=4, image_size=[32, 64])
    assert_close(back(VIDEO).last_hidden_state, model(VIDEO).last_hidden_state, atol=0)


def test_32_frames_on_a_16_frame_checkpoint_keep_time_and_space_apart(tmp_path):
    tiny(VideoMAEForVideoClassification, num_frames=16, use_mean_pooling=True).save_pretrained(tmp_path)
    model = VideoMAEForVideoClassification.from_pretrained(tmp_path, num_frames=32)
    positions = model.videomae.embeddings.positions((16, 2, 4)).view(16, 2, 4, 24)
    made_for = sinusoid_table(64, 24).view(8, 2, 4, 24)
    assert_close(positions[0], made_for[0]), assert_close(positions[-1], made_for[-1])
    assert_close(positions[1], 0.75 * made_for[0] + 0.25 * made_for[1])
    assert model(torch.randn(1, 32, 3, 32, 64)).logits.shape == (1, 2)


# -- initialisation, dropout, heads


def test_classifier_initialisation_is_truncated_normal():
    model = VideoMAEForVideoClassification(VideoMAEConfig(**{**TINY, "hidden_size": 96}))
    weight = model.videomae.encoder.layer[0].attention.attention.query.weight
    assert 0.018 < weight.std() < 0.022
    assert weight.abs().max() <= 2
    assert not model.classifier.bias.any()


@pytest.mark.parametrize("part", ["videomae.encoder.layer.0", "decoder.decoder_layers.0"])
def test_pretraining_initialisation_is_xavier(part):
    model = VideoMAEForPreTraining(VideoMAEConfig(**TINY))
    block = model.get_submodule(part)
    for linear in (block.intermediate.dense, block.attention.attention.query, block.output.dense):
        bound = (6 / sum(linear.weight.shape)) ** 0.5
        assert 0.95 * bound < linear.weight.abs().max() <= bound
    assert not block.intermediate.dense.bias.any()
    assert not block.attention.attention.q_bias.any()
    assert 0.01 < model.mask_token.std() < 0.03


def test_cosine_temperature_starts_at_ten():
    model = VideoMAEModel(VideoMAEConfig(**TINY, cosine_attention=True))
    scale = model.encoder.layer[0].attention.attention.scale
    assert scale.shape == (4, 1, 1)
    assert_close(scale.exp(), torch.full((4, 1, 1), 10.0))


def test_head_dropout_works_in_training_only():
    model = tiny(VideoMAEForVideoClassification, classifier_dropout=0.5, use_mean_pooling=True)
    assert torch.equal(model(VIDEO).logits, model(VIDEO).logits)
    model.train()
    assert not torch.equal(model(VIDEO).logits, model(VIDEO).logits)


def test_drop_path_rises_along_the_blocks():
    model = tiny(VideoMAEModel, drop_path_rate=0.2, num_hidden_layers=3)
    assert [round(b.drop_path.p, 6) for b in model.encoder.layer] == [0.0, 0.1, 0.2]


def test_sixteen_heads_for_small_are_warned_about(caplog):
    logging.getLogger("transformers").propagate = True
    with caplog.at_level(logging.WARNING):
        VideoMAEConfig(hidden_size=384, num_attention_heads=16)
    assert "num_attention_heads=6" in caplog.text
