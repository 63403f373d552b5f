"""Losses of the tasks, each exact under gradient accumulation: with `num_items_in_batch`, the count over the whole
effective batch that Trainer hands in, a sum over it is returned in place of the mean over one micro-batch."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from hf_video.errors import ModelInputError

PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")


def guess_problem_type(logits: torch.Tensor, labels: torch.Tensor) -> str:
    """What labels of this kind mean where the configuration names no `problem_type`."""
    if logits.shape[-1] == 1:
        return "regression"
    return "multi_label_classification" if labels.is_floating_point() else "single_label_classification"


def check_labels(logits: torch.Tensor, labels: torch.Tensor, problem_type: str, ignore_index: int) -> None:
    """Raises ModelInputError for labels of another shape or range. Values are looked at on the CPU only: a GPU would
    have to be waited for."""
    batch, classes = logits.shape
    if problem_type not in PROBLEM_TYPES:
        raise ModelInputError(f"problem_type={problem_type!r} is not one of {', '.join(PROBLEM_TYPES)}.")
    shape = tuple(labels.shape)
    if problem_type == "single_label_classification" and not labels.is_floating_point():
        if labels.numel() != batch:
            raise ModelInputError(
                f"labels has shape {shape}; expected class numbers ({batch},), or, soft or several, a "
                f"floating ({batch}, {classes})."
            )
        if labels.device.type == "cpu" and not torch.compiler.is_compiling():
            wrong = labels[((labels < 0) | (labels >= classes)) & (labels != ignore_index)]
            if wrong.numel():
                raise ModelInputError(
                    f"labels holds {wrong[0].item()}; the model has classes from 0 to {classes - 1}. Check num_labels "
                    f"and label2id. {ignore_index} leaves a row out."
                )
    elif labels.numel() != logits.numel():
        raise ModelInputError(f"labels has shape {shape}; {problem_type} expected {(batch, classes)}.")


def classification_loss(logits, labels, problem_type: str | None = None, num_items_in_batch=None, ignore_index=-100):
    """Loss of class logits (B, classes), in float32.

    - class numbers (B,), integer: cross-entropy, `ignore_index` left out ("single_label_classification");
    - soft targets (B, classes), floating, with "single_label_classification" (mixup): soft cross-entropy;
    - floating (B, classes) otherwise: binary cross-entropy ("multi_label_classification");
    - one logit or "regression": mean squared error.

    `num_items_in_batch` counts label entries as Trainer does: one per class number, classes per row of soft or multiple
    labels. Raises ModelInputError for labels that do not fit.
    """
    logits = logits.float()
    labels = labels.to(logits.device)
    classes = logits.shape[-1]
    problem_type = problem_type or guess_problem_type(logits, labels)
    check_labels(logits, labels, problem_type, ignore_index)
    if problem_type == "single_label_classification" and labels.is_floating_point():
        total, count = F.cross_entropy(logits, labels.view_as(logits), reduction="sum"), labels.shape[0]
        num_items_in_batch = None if num_items_in_batch is None else num_items_in_batch / classes
    elif problem_type == "single_label_classification":
        labels = labels.long().view(-1)
        total = F.cross_entropy(logits.view(-1, classes), labels, ignore_index=ignore_index, reduction="sum")
        count = (labels != ignore_index).sum()
    elif problem_type == "multi_label_classification":
        total, count = (
            F.binary_cross_entropy_with_logits(logits, labels.float().view_as(logits), reduction="sum"),
            labels.numel(),
        )
    else:
        total, count = F.mse_loss(logits.view(labels.shape), labels.float(), reduction="sum"), labels.numel()
    if isinstance(num_items_in_batch, torch.Tensor):
        num_items_in_batch = num_items_in_batch.to(total.device)
    return total / (count if num_items_in_batch is None else num_items_in_batch)
