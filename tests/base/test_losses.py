"""Losses against PyTorch's own, and their exactness under gradient accumulation."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from hf_video.base.losses import classification_loss
from hf_video.errors import ModelInputError

LOGITS = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
NUMBERS = torch.tensor([0, 1, 2, 3, 4, 0, 1, 2])
SOFT = torch.rand(8, 5, generator=torch.Generator().manual_seed(1)).softmax(-1)
MANY = (SOFT > 0.2).float()


def close(a, b):
    torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_class_numbers():
    close(classification_loss(LOGITS, NUMBERS), F.cross_entropy(LOGITS, NUMBERS))
    close(classification_loss(LOGITS, NUMBERS.int()), F.cross_entropy(LOGITS, NUMBERS))
    close(classification_loss(LOGITS, NUMBERS[:, None]), F.cross_entropy(LOGITS, NUMBERS))


def test_ignored_rows_do_not_count():
    labels = NUMBERS.clone()
    labels[[1, 4]] = -100
    kept = labels >= 0
    close(classification_loss(LOGITS, labels), F.cross_entropy(LOGITS[kept], labels[kept]))


def test_soft_labels_need_the_problem_named():
    got = classification_loss(LOGITS, SOFT, "single_label_classification")
    close(got, -(SOFT * LOGITS.log_softmax(-1)).sum(-1).mean())
    close(got, classification_loss(LOGITS, SOFT, "single_label_classification", num_items_in_batch=40))


def test_several_labels():
    expected = F.binary_cross_entropy_with_logits(LOGITS, MANY)
    close(classification_loss(LOGITS, MANY), expected)
    close(classification_loss(LOGITS, MANY.long(), "multi_label_classification"), expected)


def test_regression():
    close(classification_loss(LOGITS[:, :1], SOFT[:, 0]), F.mse_loss(LOGITS[:, 0], SOFT[:, 0]))
    close(classification_loss(LOGITS, SOFT, "regression"), F.mse_loss(LOGITS, SOFT))


@pytest.mark.parametrize(
    ("labels", "problem_type"),
    [
        (NUMBERS, None),
        (SOFT, "single_label_classification"),
        (MANY, None),
        (SOFT, "regression"),
    ],
)
@pytest.mark.parametrize("pieces", [[2, 2, 2, 2], [3, 3, 2], [8]])
def test_pieces_of_a_batch_add_up(labels, problem_type, pieces):
    """What Trainer does: each micro-batch is told how many labels the whole batch has, and losses are summed."""
    whole = classification_loss(LOGITS, labels, problem_type)
    items = labels.ne(-100).sum()
    parts = zip(LOGITS.split(pieces), labels.split(pieces), strict=True)
    close(sum(classification_loss(x, y, problem_type, items) for x, y in parts), whole)


def test_half_precision_logits_give_a_full_precision_loss():
    loss = classification_loss(LOGITS.bfloat16(), NUMBERS)
    assert loss.dtype == torch.float32
    close(loss, F.cross_entropy(LOGITS.bfloat16().float(), NUMBERS))


@pytest.mark.parametrize(
    ("labels", "problem_type", "message"),
    [
        (NUMBERS + 1, None, "from 0 to 4"),
        (-NUMBERS, None, "from 0 to 4"),
        (NUMBERS[:7], None, r"\(8,\)"),
        (MANY.long(), None, "floating"),
        (SOFT[:, :4], None, r"\(8, 5\)"),
        (SOFT[:, 0], None, r"\(8, 5\)"),
        (SOFT[:, :3], "regression", r"\(8, 5\)"),
        (NUMBERS, "ranking", "problem_type"),
    ],
)
def test_labels_that_do_not_fit_are_named(labels, problem_type, message):
    with pytest.raises(ModelInputError, match=message):
        classification_loss(LOGITS, labels, problem_type)
