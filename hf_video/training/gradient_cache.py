"""Gradient caching (Gao et al. 2021, arXiv:2101.06983): a contrastive batch of any size in the memory of a small one.

A contrastive loss looks at all pairs of a batch, so a batch can't be split over micro-batches as that of a classifier
can. But all that the towers need to know is the gradient of the loss with respect to their vectors:

1. vectors of the whole batch, in chunks, without a graph;
2. the loss of all vectors, and its gradient with respect to each;
3. each chunk once more, now with a graph, and backward from the gradients of its vectors.

The price is one more forward. The second forward of a chunk draws the same random numbers as its first (dropout, drop
path), so the result is that of one step through everything, to rounding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import get_device_states, set_device_states

from hf_video.base.modeling import CLIP_NAMES
from hf_video.errors import ConfigError, ModelInputError, check_count

Inputs = Mapping[str, Any]
VIDEO_INPUTS = (*CLIP_NAMES, "video_mask", "segment_features")
TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def cached_step(
    model: nn.Module,
    inputs: Inputs,
    chunk_size: int,
    *,
    backward: Callable[[torch.Tensor], None] = torch.Tensor.backward,
    context: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
) -> torch.Tensor:
    """The loss of a batch of pairs, detached; its gradients are added to the parameters' `.grad`.

    `model` is a dual encoder (`VideoCLIPModel` with vectors of its own), not wrapped; `inputs` are its forward's, text
    i being that of video i; `chunk_size` pairs go through the towers at once. `backward` is called with the loss and
    may scale it; `context` is entered for every forward (autocast).

    In a process group the loss is that of the joint batch, as in the model's own forward, and gradients are averaged
    over processes here, as DistributedDataParallel would do it.

    Raises ConfigError for a model that has no vectors for a video alone, or whose batch norms see only a chunk, and
    ModelInputError for numbers of texts and videos that differ.
    """
    check_cacheable(model, chunk_size)
    chunks = list(_chunks(inputs, chunk_size))
    clamp_temperature(model)
    states, vectors = [], []
    with torch.no_grad(), context():
        for chunk in chunks:
            states.append(_RandomState(chunk))
            vectors.append(_embed(model, chunk))
    video, text = (torch.cat(part).detach().requires_grad_() for part in zip(*vectors, strict=True))
    before = _gradients(model)
    with context():
        loss = model._loss(text, (video,), model.similarity(text, video))
    backward(loss)
    starts = range(0, len(video), chunk_size)
    for chunk, state, start in zip(chunks, states, starts, strict=True):
        with state.replayed(), context():
            own = _embed(model, chunk)
        cached = [part.grad[start : start + chunk_size] for part in (video, text)]
        torch.autograd.backward(own, [grad.to(one.dtype) for grad, one in zip(cached, own, strict=True)])
    _average(model, before)
    return loss.detach()


def check_cacheable(model: nn.Module, chunk_size: int) -> None:
    """Raises ConfigError where gradient caching is not exact."""
    check_count("chunk_size", chunk_size, ConfigError, unit="pairs")
    temporal = getattr(getattr(model, "config", None), "temporal", None)
    if not hasattr(model, "similarity") or not hasattr(model, "get_text_features") or temporal == "tight":
        raise ConfigError(
            f"Gradient caching needs vectors of video and text apart, and {type(model).__name__}"
            f"{' with temporal=tight' if temporal == 'tight' else ''} scores pairs. Lower the batch size instead."
        )
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    if norms:
        raise ConfigError(
            f"{type(model).__name__} has {len(norms)} batch norms in training mode, which would see a chunk and not "
            "the batch. Freeze them (eval mode), or train without gradient caching."
        )


def clamp_temperature(model: nn.Module) -> None:
    """What a training forward of the model begins with."""
    scale = getattr(model, "logit_scale", None)
    if model.training and scale is not None:
        with torch.no_grad():
            scale.clamp_(max=model.config.logit_scale_max)


def _embed(model: nn.Module, chunk: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors of videos (B, D) and texts (B, D)."""
    video = model.get_video_features(**{n: chunk[n] for n in VIDEO_INPUTS if n in chunk}, return_dict=True)
    text = model.get_text_features(**{n: chunk[n] for n in TEXT_INPUTS if n in chunk}, return_dict=True)
    return video.embedding, text.embedding


def _chunks(inputs: Inputs, size: int) -> Iterator[dict[str, torch.Tensor]]:
    given = {name: inputs[name] for name in (*VIDEO_INPUTS, *TEXT_INPUTS) if inputs.get(name) is not None}
    if "input_ids" not in given or not set(VIDEO_INPUTS) & given.keys():
        raise ModelInputError(f"A batch has videos and texts; {sorted(inputs)} came.")
    counts = {name: len(value) for name, value in given.items()}
    if len(set(counts.values())) > 1:
        raise ModelInputError(f"Text i is that of video i, and there are {counts}.")
    for start in range(0, len(given["input_ids"]), size):
        yield {name: value[start : start + size] for name, value in given.items()}


class _RandomState:
    """The state of all generators that a forward on these inputs may draw from, as it is now."""

    def __init__(self, chunk: Mapping[str, torch.Tensor]) -> None:
        self._cpu = torch.get_rng_state()
        self._devices, self._states = get_device_states(*chunk.values())

    @contextlib.contextmanager
    def replayed(self) -> Iterator[None]:
        """Inside, random numbers are those that were drawn after this state; afterwards as if none had been drawn."""
        with torch.random.fork_rng(devices=self._devices):
            torch.set_rng_state(self._cpu)
            set_device_states(self._devices, self._states)
            yield


def _gradients(model: nn.Module) -> dict[nn.Parameter, torch.Tensor] | None:
    """What is in `.grad` already, set aside: only this step's part is to be averaged over processes."""
    if _processes() == 1:
        return None
    before = {parameter: parameter.grad for parameter in model.parameters() if parameter.grad is not None}
    for parameter in before:
        parameter.grad = None
    return before


def _average(model: nn.Module, before: dict[nn.Parameter, torch.Tensor] | None) -> None:
    if before is None:
        return
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        if parameter.grad is None:  # all processes must take part
            parameter.grad = torch.zeros_like(parameter)
        torch.distributed.all_reduce(parameter.grad)
        parameter.grad /= _processes()
        if parameter in before:
            parameter.grad += before[parameter]


def _processes() -> int:
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
