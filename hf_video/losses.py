"""Losses of the tasks, each exact under gradient accumulation: with `num_items_in_batch`, the count over the whole
effective batch that Trainer hands in, a sum over it is returned in place of the mean over one micro-batch."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def classification_loss(logits, labels, problem_type: str | None = None, num_items_in_batch=None, ignore_index=-100):
    """Loss of class logits (B, classes), in float32.

    - class numbers (B,), integer: cross-entropy, `ignore_index` left out ("single_label_classification");
    - soft targets (B, classes), floating, with "single_label_classification" (mixup): soft cross-entropy;
    - floating (B, classes) otherwise: binary cross-entropy ("multi_label_classification");
    - one logit or "regression": mean squared error.

    `num_items_in_batch` counts label entries as Trainer does: one per class number, classes per row of soft or multiple
    labels.
    """
    logits = logits.float()
    labels = labels.to(logits.device)
    classes = logits.shape[-1]
    if problem_type is None:
        if classes == 1:
            problem_type = "regression"
        else:
            problem_type = "multi_label_classification" if labels.is_floating_point() else "single_label_classification"
    if problem_type == "single_label_classification" and labels.is_floating_point():
        total, count = F.cross_entropy(logits, labels, reduction="sum"), labels.shape[0]
        num_items_in_batch = None if num_items_in_batch is None else num_items_in_batch / classes
    elif problem_type == "single_label_classification":
        labels = labels.long().view(-1)
        total = F.cross_entropy(logits.view(-1, classes), labels, ignore_index=ignore_index, reduction="sum")
        count = (labels != ignore_index).sum()
    elif problem_type == "multi_label_classification":
        total, count = F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="sum"), labels.numel()
    else:
        total, count = F.mse_loss(logits.view(labels.shape), labels.float(), reduction="sum"), labels.numel()
    if isinstance(num_items_in_batch, torch.Tensor):
        num_items_in_batch = num_items_in_batch.to(total.device)
    return total / (count if num_items_in_batch is None else num_items_in_batch)
