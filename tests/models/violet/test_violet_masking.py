"""What VIOLET's pretraining hides: shares worked out by hand, and what becomes of hidden words and patches."""

from __future__ import annotations

import itertools

import pytest
import torch
from tiny_violet import TOKENIZER, pairs, tiny

from hf_video.errors import ModelInputError
from hf_video.models.violet import masking
from hf_video.models.violet.masking import other_rows
from hf_video.models.violet.modeling_violet import VioletForPreTraining

DRAWS = 3000


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def share_of_one_cuboid(places: int, most: int) -> torch.Tensor:
    """How probable it is that a cell of one axis is inside a stretch of 1 to `most` cells, size and place uniform."""
    share = torch.zeros(places, dtype=torch.float64)
    for size in range(1, most + 1):
        for first in range(places - size + 1):
            share[first : first + size] += 1 / most / (places - size + 1)
    return share


class TestBlockwise:
    @pytest.mark.parametrize("grid", [(4, 7, 7), (1, 5, 8), (3, 2, 3)])
    def test_every_cell_as_often_as_worked_out(self, grid):
        mask, generator = torch.zeros(grid, dtype=torch.float64), seeded()
        for _ in range(DRAWS):
            mask += masking.blockwise_mask(grid, generator=generator)
        most = (max(grid[0] - 1, 1), *(max(2 * n // 3 - 1, 1) for n in grid[1:]))
        t, h, w = (share_of_one_cuboid(n, m) for n, m in zip(grid, most, strict=True))
        expected = 1 - (1 - t[:, None, None] * h[:, None] * w) ** grid[0]
        assert (mask / DRAWS - expected).abs().max() < 5 * (0.25 / DRAWS) ** 0.5
        if grid == (4, 7, 7):
            assert expected.mean() == pytest.approx(0.151, abs=0.005)  # as many as words, near enough

    def test_one_seed_one_mask(self):
        first, again = (masking.blockwise_mask((4, 7, 7), generator=seeded(3)) for _ in range(2))
        assert torch.equal(first, again)


class TestAttended:
    def test_in_proportion_without_replacement(self):
        """Two of four tokens: the probability of a set is the sum over both orders of drawing it."""
        attention = torch.tensor([0.5, 0.2, 0.2, 0.1])
        rows = masking.attended_mask(
            attention.expand(DRAWS, 4), torch.ones(DRAWS, 4, dtype=torch.bool), 0.5, generator=seeded()
        )
        assert (rows.sum(1) == 2).all()
        for i, j in itertools.combinations(range(4), 2):
            a, b = attention[i].item(), attention[j].item()
            expected = a * b / (1 - a) + b * a / (1 - b)
            found = (rows[:, i] & rows[:, j]).float().mean().item()
            assert found == pytest.approx(expected, abs=5 * (expected / DRAWS) ** 0.5), (i, j)

    def test_what_must_stay_stays(self):
        attention = torch.rand(50, 20, generator=seeded())
        maskable = torch.rand(50, 20, generator=seeded(1)) < 0.3
        mask = masking.attended_mask(attention, maskable, 0.15, generator=seeded(2))
        assert not (mask & ~maskable).any()
        assert torch.equal(mask.sum(1), maskable.sum(1).clamp(max=3))

    def test_attention_that_a_token_receives(self):
        layers = tuple(torch.rand(2, 3, 5, 5, generator=seeded(i)).softmax(-1) for i in range(4))
        found = masking.received_attention(layers)
        expected = torch.stack(
            [layer[:, head, query] / 3 for layer in layers for head in range(3) for query in range(5)]
        )
        torch.testing.assert_close(found, expected.sum(0))
        torch.testing.assert_close(found.sum(1), torch.full((2,), 4.0 * 5))


class TestBoth:
    def test_half_of_the_samples_each_way(self):
        """Attention to words alone: a sample masked by it hides no patch, and int(.15 · (20 + 8)) words."""
        grid, words = (2, 3, 3), torch.ones(DRAWS, 8, dtype=torch.bool)
        attention = torch.cat([torch.zeros(DRAWS, 20), torch.ones(DRAWS, 8)], dim=1)
        patches, hidden = masking.draw_masks(attention, words, grid, 0.15, generator=seeded())
        attended = ~patches.flatten(1).any(1)
        assert attended.float().mean().item() == pytest.approx(0.5, abs=0.05)
        assert (hidden[attended].sum(1) == 4).all()
        assert hidden[~attended].float().mean().item() == pytest.approx(0.15, abs=0.015)

    def test_tokens_split_and_joined(self):
        mask = torch.rand(2, 3 * 7 + 4, generator=seeded()) < 0.5
        patches, words = masking.split_tokens(mask, (3, 2, 3))
        again = masking.join_tokens(patches, words)
        mask[:, [0, 7, 14]] = False  # frames' own tokens
        assert torch.equal(again, mask)


class TestHide:
    def hidden(self, **options):
        model, given = tiny(VioletForPreTraining, mask_probability=0.3), pairs()
        codes = torch.arange(3 * 64).view(3, 4, 4, 4) % 32
        return given, codes, model.hide(**given, visual_tokens=codes, generator=seeded(), **options)

    def test_black_patches_and_their_codes(self):
        given, codes, made = self.hidden()
        mask = made["mvm_labels"] != -100
        assert mask.any()
        assert not mask.all()
        assert torch.equal(made["mvm_labels"][mask], codes[mask])
        pixels = mask.repeat_interleave(8, 2).repeat_interleave(8, 3)[:, :, None].expand(-1, -1, 3, -1, -1)
        mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        assert (made["pixel_values"] * std + mean)[pixels].abs().max() < 1e-6
        assert torch.equal(made["pixel_values"][~pixels], given["pixel_values"][~pixels])

    def test_hidden_words_and_their_labels(self):
        given, _, made = self.hidden()
        mask = made["mtm_labels"] != -100
        assert mask.any()
        assert (made["input_ids"][mask] == TOKENIZER.mask_token_id).all()
        assert torch.equal(made["mtm_labels"][mask], given["input_ids"][mask])
        assert torch.equal(made["input_ids"][~mask], given["input_ids"][~mask])
        assert not (mask & (given["attention_mask"] == 0)).any()
        assert not mask[:, 0].any()  # [CLS]
        assert torch.equal(made["attention_mask"], given["attention_mask"])

    def test_one_seed_one_mask(self):
        first, again = self.hidden()[2], self.hidden()[2]
        assert all(torch.equal(first[name], again[name]) for name in first)

    def test_codes_of_another_shape(self):
        model, given = tiny(VioletForPreTraining), pairs()
        with pytest.raises(ModelInputError, match=r"\(3, 4, 4, 4\)"):
            model(**given, visual_tokens=torch.zeros(3, 4, 16, dtype=torch.int64))


class TestLosses:
    def test_by_hand(self):
        model, given = tiny(VioletForPreTraining), pairs()
        codes = torch.arange(3 * 64).view(3, 4, 4, 4) % 32
        made = model.hide(**given, visual_tokens=codes, generator=seeded(1))
        negatives = torch.tensor([[1, 2], [2, 0], [0, 1]])
        output = model(**made, negatives=negatives)
        words, places = made["mtm_labels"], (made["mvm_labels"] != -100).nonzero()
        found = [-output.mtm_logits[i, j].log_softmax(0)[words[i, j]] for i, j in (words != -100).nonzero().tolist()]
        torch.testing.assert_close(output.mtm_loss, torch.stack(found).mean())
        found = [
            -output.mvm_logits[i, t * 17 + 1 + y * 4 + x].log_softmax(0)[codes[i, t, y, x]]
            for i, t, y, x in places.tolist()
        ]
        torch.testing.assert_close(output.mvm_loss, torch.stack(found).mean())
        torch.testing.assert_close(output.vtm_loss, -output.vtm_logits.log_softmax(1)[:, 0].mean())
        torch.testing.assert_close(output.loss, output.mtm_loss + output.mvm_loss + output.vtm_loss)

    def test_matching_scores_are_those_of_single_pairs(self):
        model, given = tiny(VioletForPreTraining), pairs()
        negatives = torch.tensor([[1, 2], [2, 0], [0, 1]])
        logits = model(**given, negatives=negatives).vtm_logits
        for video, row in enumerate(negatives.tolist()):
            for place, text in enumerate((video, *row)):
                pair = {
                    "pixel_values": given["pixel_values"][[video]],
                    "input_ids": given["input_ids"][[text]],
                    "attention_mask": given["attention_mask"][[text]],
                }
                torch.testing.assert_close(model(**pair).vtm_logits[0, 0], logits[video, place], atol=1e-4, rtol=0)

    def test_wrong_texts_are_others(self):
        for batch, count in ((4, 3), (8, 3), (2, 1), (1, 0)):
            rows = other_rows(batch, count, torch.device("cpu"))
            assert rows.shape == (batch, count)
            for i, row in enumerate(rows.tolist()):
                assert len(set(row) - {i}) == count

    def test_nothing_hidden_is_no_loss(self):
        model, given = tiny(VioletForPreTraining).train(), pairs(1)
        labels = torch.full((1, 7), -100)
        output = model(**given, mtm_labels=labels, mvm_labels=torch.full((1, 4, 4, 4), -100))
        assert output.loss.item() == 0  # one text alone can't be mismatched either
        output.loss.backward()

    def test_errors(self):
        model, given = tiny(VioletForPreTraining), pairs()
        codes = torch.zeros(3, 4, 4, 4, dtype=torch.int64)
        for more, message in (
            ({"mtm_labels": torch.zeros(3, 6, dtype=torch.int64)}, "mtm_labels has shape"),
            ({"mvm_labels": codes[:, :2]}, "mvm_labels has shape"),
            ({"visual_tokens": codes, "mvm_labels": codes}, "not both"),
            ({"negatives": torch.zeros(2, 1, dtype=torch.int64)}, "negatives has shape"),
        ):
            with pytest.raises(ModelInputError, match=message):
                model(**given, **more)

    def test_masks_are_drawn_inside(self):
        model, given = tiny(VioletForPreTraining, mask_probability=0.3).train(), pairs()
        torch.manual_seed(0)
        output = model(**given, visual_tokens=torch.zeros(3, 4, 4, 4, dtype=torch.int64))
        assert output.mtm_labels.shape == (3, 7)
        assert ((output.mvm_labels == 0) | (output.mvm_labels == -100)).all()
        output.loss.backward()
