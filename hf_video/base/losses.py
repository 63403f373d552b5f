"""Losses of the tasks, each exact under gradient accumulation: with `num_items_in_batch`, the count over the whole
effective batch that Trainer hands in, a sum over it is returned in place of the mean over one micro-batch."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from hf_video.errors import ModelInputError, check_choice

PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")


def guess_problem_type(logits: torch.Tensor, labels: torch.Tensor) -> str:
    """What labels of this kind mean where the configuration names no `problem_type`."""
    if logits.shape[-1] == 1:
        return "regression"
    return "multi_label_classification" if labels.is_floating_point() else "single_label_classification"


def check_labels(logits: torch.Tensor, labels: torch.Tensor, problem_type: str, ignore_index: int) -> None:
    """Raises ModelInputError for labels of another shape or range. Values are looked at on the CPU only: a GPU would
    have to be waited for, and under `torch.compile` and `torch.func.vmap` there are none yet."""
    batch, classes = logits.shape
    check_choice("problem_type", problem_type, PROBLEM_TYPES, ModelInputError)
    shape = tuple(labels.shape)
    if problem_type == "single_label_classification" and not labels.is_floating_point():
        if labels.numel() != batch:
            raise ModelInputError(
                f"labels has shape {shape}; expected class numbers ({batch},), or, soft or several, a "
                f"floating ({batch}, {classes})."
            )
        traced = torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(labels)
        if labels.device.type == "cpu" and not traced:
            wrong = labels[((labels < 0) | (labels >= classes)) & (labels != ignore_index)]
            if wrong.numel():
                raise ModelInputError(
                    f"labels holds {wrong[0].item()}; the model has classes from 0 to {classes - 1}. Check num_labels "
                    f"and label2id. {ignore_index} leaves a row out."
                )
    elif labels.numel() != logits.numel():
        raise ModelInputError(f"labels has shape {shape}; {problem_type} expected {(batch, classes)}.")


def classification_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    problem_type: str | None = None,
    num_items_in_batch: torch.Tensor | int | None = None,
    ignore_index: int = -100,
):
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


class _ScaledGradient(torch.autograd.Function):
    """The value as it is; its gradient times `factor`."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, factor: int) -> torch.Tensor:
        ctx.factor = factor
        return rows.view_as(rows)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient * ctx.factor, None


def gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """Rows (B, ...) of all processes in the order of their ranks, (processes · B, ...); `rows` itself where there is
    one process.

    A loss over all rows is then the same in every process, and that of the joint batch. Only a process's own rows carry
    a gradient, `processes` times larger, because DDP takes the mean of what each of them finds for its own part; what
    is the same in all (a temperature) is right as it is. So nothing has to be sent on the way back. All processes must
    bring as many rows: drop a last, smaller batch.
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return rows
    processes, plain = distributed.get_world_size(), rows.detach().contiguous()
    plain = plain.to(torch.uint8) if plain.dtype == torch.bool else plain  # gloo knows no booleans
    everyone = [torch.empty_like(plain) for _ in range(processes)]
    distributed.all_gather(everyone, plain)
    everyone = [part.to(rows.dtype) for part in everyone]
    everyone[distributed.get_rank()] = _ScaledGradient.apply(rows, processes)
    return torch.cat(everyone)


def contrastive_loss(logits_per_video: torch.Tensor) -> torch.Tensor:
    """CLIP's loss (arXiv:2103.00020, figure 3) of logits (B, B) whose diagonal are the pairs: the mean of both
    directions' cross-entropies, in float32."""
    logits = logits_per_video.float()
    partner = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, partner) + F.cross_entropy(logits.t(), partner)) / 2


def sigmoid_contrastive_loss(logits_per_video: torch.Tensor) -> torch.Tensor:
    """SigLIP's loss (arXiv:2303.15343, algorithm 1) of logits (B, B) whose diagonal are the pairs: every pair is a yes
    or a no; summed over a row, mean over rows, in float32."""
    logits = logits_per_video.float()
    sign = 2 * torch.eye(len(logits), device=logits.device) - 1
    return -F.logsigmoid(sign * logits).sum(-1).mean()
