"""Masks from seeds, targets undone to pixels, and the predictors that know nothing, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import hf_video
from hf_video.errors import ModelInputError
from hf_video.layers.embeddings import patch_view
from hf_video.models.videomae.masking import random_mask, tube_mask
from hf_video.models.videomae.modeling_videomae import VideoMAEForPreTraining
from hf_video.training.masked_pretraining import (
    MaskedTargets,
    MaskedVideoCollator,
    masked_errors,
    nearest_visible,
    reconstruct,
    summarise_errors,
    unpatchify,
)

GRID = (2, 4, 4)


@pytest.fixture(params=[True, False], ids=["normalised", "pixels"])
def model(request):
    torch.manual_seed(0)
    config = hf_video.VideoMAEConfig(
        image_size=32, patch_size=8, num_frames=4, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=64, decoder_hidden_size=32, decoder_num_attention_heads=2, decoder_num_hidden_layers=1,
        decoder_intermediate_size=64, norm_pix_loss=request.param, use_mean_pooling=False,
    )  # fmt: skip
    return VideoMAEForPreTraining(config).eval()


@pytest.fixture
def clips():
    pixels = torch.rand(3, 4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (pixels - mean) / std, pixels


@pytest.fixture
def mask():
    return tube_mask(3, GRID, 0.75, generator=torch.Generator().manual_seed(2))


class TestCollator:
    collate = staticmethod(MaskedVideoCollator((2, 8, 8), 0.75))

    @staticmethod
    def rows(*seeds):
        return [{"pixel_values": torch.full((4, 3, 32, 32), float(s)), "seed": s} for s in seeds]

    def test_a_mask_depends_on_its_seed_alone(self):
        together = self.collate(self.rows(5, 6, 7))["bool_masked_pos"]
        alone = [self.collate(self.rows(seed))["bool_masked_pos"][0] for seed in (5, 6, 7)]
        assert torch.equal(together, torch.stack(alone))
        assert len({tuple(row.tolist()) for row in together}) == 3

    def test_tubes_hide_the_same_places_at_all_times(self):
        mask = self.collate(self.rows(1, 2))["bool_masked_pos"].view(2, *GRID)
        assert (mask == mask[:, :1]).all()
        assert mask[0, 0].sum() == 12

    def test_repeats_lie_one_after_the_other(self):
        batch = self.collate([self.rows(1, 2), self.rows(3, 4)])
        assert batch["pixel_values"][:, 0, 0, 0, 0].tolist() == [1, 2, 3, 4]
        assert len(batch["bool_masked_pos"]) == 4

    def test_labels_stay_behind_and_cells_come_along(self):
        rows = [{**row, "labels": 1} for row in self.rows(1, 2)]
        batch = MaskedVideoCollator((2, 8, 8), 0.75, decoder_mask_ratio=0.5)(rows)
        assert set(batch) == {"pixel_values", "bool_masked_pos", "decoder_masked_pos"}
        assert batch["decoder_masked_pos"].sum(1).tolist() == [16, 16]

    def test_an_unknown_mask_is_refused(self):
        with pytest.raises(ModelInputError, match="'tube', 'random'"):
            MaskedVideoCollator((2, 8, 8), mask="cube")


def test_nearest_visible_against_a_loop():
    mask = random_mask(2, (3, 3, 4), 0.8, generator=torch.Generator().manual_seed(3))
    places = np.array([(t, y, x) for t in range(3) for y in range(3) for x in range(4)], dtype=float)
    found = nearest_visible(mask, (3, 3, 4))
    for hidden, row in zip(mask.numpy(), found.numpy(), strict=True):
        for token, near in enumerate(row):
            distances = np.linalg.norm(places - places[token], axis=1)
            assert not hidden[near]
            assert distances[near] == pytest.approx(distances[~hidden].min(), abs=1e-5)


def test_with_tubes_the_nearest_is_of_the_same_time(mask):
    time = torch.arange(32) // 16
    assert (time[nearest_visible(mask, GRID)] == time).all()


def test_unpatchify_undoes_the_patches():
    video = torch.rand(2, 4, 3, 16, 24)
    tokens = patch_view(video, (2, 8, 8)).flatten(1, 3).flatten(3).transpose(2, 3).flatten(2)
    assert torch.equal(unpatchify(tokens, (2, 2, 3), (2, 8, 8)), video)


def test_targets_are_the_models_own_and_go_back_to_pixels(model, clips):
    normalised, pixels = clips
    targets = MaskedTargets(model, normalised)
    everything = torch.arange(32).repeat(3, 1)
    torch.testing.assert_close(targets.values, model.targets(normalised, everything))
    undone = unpatchify(targets.to_pixels(targets.values, everything), GRID, (2, 8, 8))
    torch.testing.assert_close(undone, pixels, atol=1e-5, rtol=0)


def test_the_models_error_is_its_loss(model, clips, mask):
    loss = model(clips[0], mask).loss.item()
    assert masked_errors(model, clips[0], mask)[:, 0].mean().item() == pytest.approx(loss, rel=1e-5)


def test_trivial_predictors_by_hand(model, clips, mask):
    """Tubelet by tubelet in NumPy: a colour, and the tubelet of the nearest place that is seen."""
    pixels = clips[1].numpy().astype(np.float64)
    errors = masked_errors(model, clips[0], mask).numpy()
    for clip in range(3):
        hidden = mask[clip].view(GRID).numpy()

        def tubelet(t, y, x, clip=clip):
            block = pixels[clip, 2 * t : 2 * t + 2, :, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8]
            block = block.transpose(1, 0, 2, 3).reshape(3, -1)
            if not model.config.norm_pix_loss:
                return block
            return (block - block.mean(1, keepdims=True)) / (block.std(1, ddof=1, keepdims=True) + 1e-6)

        seen = [(y, x) for y in range(4) for x in range(4) if not hidden[0, y, x]]
        colour, copy = [], []
        for t, y, x in zip(*hidden.nonzero(), strict=True):
            wanted = tubelet(t, y, x)
            colour.append(((wanted - wanted.mean(1, keepdims=True)) ** 2).mean())
            near = min((((y - b) ** 2 + (x - c) ** 2, b, c)) for b, c in seen)  # ties: the first in order
            copy.append(((wanted - tubelet(t, *near[1:])) ** 2).mean())
        np.testing.assert_allclose(errors[clip, 1:], [np.mean(colour), np.mean(copy)], rtol=1e-4)


def test_a_perfect_model_explains_everything(model, clips, mask, monkeypatch):
    perfect = MaskedTargets(model, clips[0]).values[mask].view(3, -1, 384)
    monkeypatch.setattr(model, "forward", lambda **_: type("Output", (), {"logits": perfect}))
    summary = summarise_errors(masked_errors(model, clips[0], mask))
    assert summary["masked_loss"] == 0
    assert summary["explained"] == 1
    assert summary["mean_of_patch"] > 0
    shown = reconstruct(model, clips[0], mask)
    torch.testing.assert_close(shown.predicted, clips[1], atol=1e-5, rtol=0)


def test_reconstruction_keeps_what_was_seen(model, clips, mask):
    shown = reconstruct(model, clips[0], mask)
    torch.testing.assert_close(shown.input, clips[1], atol=1e-5, rtol=0)
    seen = (~mask).view(3, *GRID).repeat_interleave(2, 1).repeat_interleave(8, 2).repeat_interleave(8, 3)
    seen = seen[:, :, None].expand_as(shown.input)
    assert torch.equal(shown.predicted[seen], shown.input[seen])
    assert torch.equal(shown.masked[seen], shown.input[seen])
    assert (shown.masked[~seen] == 0.5).all()
    assert not torch.equal(shown.predicted[~seen], shown.input[~seen])
    assert torch.equal(shown.means[seen], shown.input[seen])
    means, pixels = (patch_view(frames, model.config.patch).flatten(5) for frames in (shown.means, shown.input))
    hidden = mask.view(3, *GRID)
    torch.testing.assert_close(means[hidden], pixels.mean(5, keepdim=True).expand_as(pixels)[hidden])
