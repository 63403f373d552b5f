"""Video-level privacy: gradients of each video, clipped, summed, with noise (DP-SGD, Abadi et al., CCS 2016).

The gradient of each video is that of the whole model on one video, run over videos by `torch.func.vmap`. Hooks on
layers, as Opacus has them, are wrong for models that fold frames or windows into the batch, and miss parameters that no
layer owns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from hf_video.errors import FederatedError, check_choice, check_count, check_number
from hf_video.federated.privacy.attention import FoldedAttention

Tensors = dict[str, torch.Tensor]
Loss = Callable[[torch.nn.Module, Tensors], torch.Tensor]
ENGINES = ("vmap", "loop")


def model_loss(model: torch.nn.Module, inputs: Tensors) -> torch.Tensor:
    """The loss that a model of transformers gives for inputs with labels."""
    return model(**inputs).loss


def check_private(model: torch.nn.Module) -> None:
    """Raises FederatedError for what mixes videos, so that no video's influence is bounded: losses that compare or
    count the samples of a batch, and batch norms that learn from one. Subclasses of PyTorch's are found too."""
    if getattr(model, "loss_joins_samples", False):
        raise FederatedError(
            f"The loss of {type(model).__name__} joins the samples of a batch: no video has a gradient of its own. "
            "Take privacy of the unit client, or a model whose loss is of single videos."
        )
    coupled = [name for name, module in model.named_modules() if isinstance(module, _BatchNorm) and module.training]
    if coupled:
        raise FederatedError(
            f"{len(coupled)} batch norms are in training mode, {coupled[0]!r} among them: their statistics mix videos, "
            "and no video's influence is bounded. Keep their statistics (batch_norms=freeze, for a model that was "
            "trained before), or take a model with other norms (exchange_batch_norms)."
        )


def per_video_gradients(
    model: torch.nn.Module,
    inputs: Mapping[str, torch.Tensor],
    *,
    loss: Loss = model_loss,
    engine: str = "vmap",
    chunk_size: int | None = None,
) -> Tensors:
    """Computes the gradient of each video by itself.

    Args:
        model: Its parameters that require gradients are looked at.
        inputs: Tensors of a batch, the first dimension (B) the videos.
        loss: Of the model on a batch of one video.
        engine: "vmap", or "loop", one backward pass for each video, which works where vmap does not (gradient
            checkpointing, autocast).
        chunk_size: Videos at once under vmap; None is all.

    Returns:
        By parameter (B, *shape), 0 where the loss does not depend on it.

    Raises:
        FederatedError: The model has batch norms in training mode, or vmap can't run it.
    """
    parts = [gradients for gradients, _ in gradients_in_chunks(model, inputs, loss, engine, chunk_size)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def gradients_in_chunks(
    model: torch.nn.Module,
    inputs: Mapping[str, torch.Tensor],
    loss: Loss = model_loss,
    engine: str = "vmap",
    chunk_size: int | None = None,
) -> Iterator[tuple[Tensors, torch.Tensor]]:
    """Yields the gradients (b, *shape) and losses (b,) of `chunk_size` videos after the other; see
    `per_video_gradients`."""
    check_choice("engine", engine, ENGINES, FederatedError)
    check_count("chunk_size", chunk_size, FederatedError, optional=True)
    check_private(model)
    for name, one in inputs.items():
        if not isinstance(one, torch.Tensor) or not one.ndim:
            raise FederatedError(
                f"{name} is a {type(one).__name__}: single videos can be told in tensors (B, …) alone."
            )
    rows = {name: len(one) for name, one in inputs.items()}
    if len(set(rows.values())) != 1:
        raise FederatedError(f"Inputs have rows {rows}: each must have one for each video.")
    videos = next(iter(rows.values()))
    size, of_chunk = (1, _by_backward) if engine == "loop" else (chunk_size or videos, _by_vmap)
    for start in range(0, videos, size):
        yield of_chunk(model, {name: one[start : start + size] for name, one in inputs.items()}, loss)


def _by_backward(model: torch.nn.Module, inputs: Tensors, loss: Loss) -> tuple[Tensors, torch.Tensor]:
    """Gradients and loss of one video."""
    parameters = {name: one for name, one in model.named_parameters() if one.requires_grad}
    value = loss(model, inputs)
    found = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
    gradients = {
        name: (torch.zeros_like(one) if gradient is None else gradient)[None]
        for (name, one), gradient in zip(parameters.items(), found, strict=True)
    }
    return gradients, value.detach()[None]


def _by_vmap(model: torch.nn.Module, inputs: Tensors, loss: Loss) -> tuple[Tensors, torch.Tensor]:
    """Gradients and losses of several videos at once: each video has a view of the weights, and the gradient with
    respect to that view is its own. `torch.func.grad` would keep all activations for a second derivative."""
    videos = len(next(iter(inputs.values())))
    trained = {
        name: one.detach().expand(videos, *one.shape).requires_grad_()
        for name, one in model.named_parameters()
        if one.requires_grad
    }
    whole = _LossOf(model, loss)

    def of_one(weights: Tensors, row: Tensors) -> torch.Tensor:
        tensors = {f"model.{name}": value for name, value in weights.items()}
        return torch.func.functional_call(whole, tensors, ({name: value[None] for name, value in row.items()},))

    try:
        # Where attention can't be folded, plain products: PyTorch would call the fused kernel once for each video.
        with sdpa_kernel(SDPBackend.MATH), FoldedAttention():
            losses = torch.func.vmap(of_one, randomness="different")(trained, inputs)
        found = torch.autograd.grad(losses.sum(), list(trained.values()), allow_unused=True, materialize_grads=True)
    except RuntimeError as error:
        raise FederatedError(
            f'{type(model).__name__} can\'t be run over videos by vmap ({error}). Use engine="loop".'
        ) from error
    return dict(zip(trained, found, strict=True)), losses.detach()


class _LossOf(torch.nn.Module):
    """A model and its loss as one module, whose parameters can be exchanged for a call."""

    def __init__(self, model: torch.nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, inputs: Tensors) -> torch.Tensor:
        return self._loss(self.model, inputs)


def clipped_sum(gradients: Tensors, clip: float) -> tuple[Tensors, torch.Tensor]:
    """Sums gradients (B, *shape), each video's scaled down to the norm `clip` over all parameters together. A video
    whose gradient is not finite adds nothing.

    Returns:
        The sum, at least float32, and the norms (B,) that the videos had.
    """
    check_number("clip", clip, FederatedError, above=0)
    exact = {name: one.to(torch.promote_types(one.dtype, torch.float32)) for name, one in gradients.items()}
    norms = torch.stack([torch.linalg.vector_norm(one.flatten(1), dim=1) for one in exact.values()]).norm(dim=0)
    finite = norms.isfinite()
    scales = (clip / norms.clamp_min(torch.finfo(norms.dtype).tiny)).clamp_max(1.0)
    if not finite.all():
        exact, scales = {name: one[finite] for name, one in exact.items()}, scales[finite]
    return {name: torch.einsum("b,b...->...", scales.to(one), one) for name, one in exact.items()}, norms


def private_gradient(
    total: Tensors,
    clip: float,
    noise_multiplier: float,
    expected_batch: float,
    generator: torch.Generator | None = None,
) -> Tensors:
    """Adds noise to a clipped sum and divides by the expected batch, as for a batch that came out empty.

    Args:
        total: Of `clipped_sum`, or zeros.
        clip: The norm that was clipped to.
        noise_multiplier: Deviation of the noise in units of `clip`.
        expected_batch: Rate of sampling times all videos. Dividing by the videos that came would tell how many did.
        generator: Of the noise; a fixed seed voids the guarantee.
    """
    check_number("noise_multiplier", noise_multiplier, FederatedError, least=0)
    check_number("expected_batch", expected_batch, FederatedError, above=0)
    deviation = noise_multiplier * clip
    return {
        name: (one + deviation * torch.randn(one.shape, generator=generator, dtype=one.dtype, device=one.device))
        / expected_batch
        for name, one in total.items()
    }


def poisson_batches(
    num_videos: int, sample_rate: float, steps: int, generator: torch.Generator | None = None
) -> list[list[int]]:
    """Draws batches in which each video is with the same chance, on its own; some may be empty, and are steps too.

    Args:
        num_videos: Of the data set.
        sample_rate: The chance of a video.
        steps: Batches.
        generator: Of the draws; a fixed seed voids the guarantee.
    """
    check_count("num_videos", num_videos, FederatedError)
    check_number("sample_rate", sample_rate, FederatedError, above=0, most=1)
    drawn = (torch.rand(num_videos, generator=generator) < sample_rate for _ in range(steps))
    return [one.nonzero().flatten().tolist() for one in drawn]
