"""The tensors that travel between clients and server: by name, in the order of names, checked when they arrive.

Sums are float64 and run over clients in the order of their names, so that a result does not depend on who answered
first. bfloat16, which NumPy has not, travels as a structured dtype of its 16 bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TypeAlias

import numpy as np
import torch

from hf_video.errors import FederatedError

Arrays: TypeAlias = dict[str, np.ndarray]
BFLOAT16 = np.dtype([("bfloat16", np.uint16)])


def to_arrays(state: Mapping[str, torch.Tensor], names: Iterable[str] | None = None) -> Arrays:
    """Copies tensors into arrays, sorted by name.

    Args:
        state: A state dict.
        names: Which of its tensors; all by default.

    Raises:
        FederatedError: A name that the state dict has not.
    """
    names = sorted(state if names is None else set(names))
    if missing := [name for name in names if name not in state]:
        raise FederatedError(
            f"The model has no tensor {missing[0]!r} ({len(missing)} of {len(names)} names are unknown)."
        )
    return {name: _array(state[name]) for name in names}


def _array(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy().copy().view(BFLOAT16)
    return tensor.numpy().copy()


def to_tensors(arrays: Arrays) -> dict[str, torch.Tensor]:
    """The reverse of `to_arrays`."""
    return {
        name: torch.from_numpy(array.view(np.uint16).copy()).view(torch.bfloat16)
        if array.dtype == BFLOAT16
        else torch.from_numpy(array.copy())
        for name, array in arrays.items()
    }


def is_floating(array: np.ndarray) -> bool:
    """Whether an array holds weights, which are averaged, and not counts."""
    return array.dtype == BFLOAT16 or array.dtype.kind == "f"


def widened(array: np.ndarray) -> np.ndarray:
    """The numbers of an array as float64."""
    if array.dtype == BFLOAT16:
        return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return array.astype(np.float64)


def narrowed(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Float64 numbers in the dtype of another array."""
    if like.dtype == BFLOAT16:
        rounded = torch.from_numpy(np.ascontiguousarray(values)).to(torch.bfloat16)
        return rounded.view(torch.uint16).numpy().view(BFLOAT16)
    return np.asarray(values).astype(like.dtype)


def check_arrays(client: str, arrays: Arrays, expected: Arrays) -> None:
    """Compares what a client answers with what it was sent.

    Args:
        client: Its name.
        arrays: What came.
        expected: Tensors with the names, shapes and dtypes that should come.

    Raises:
        FederatedError: Names, a shape or a dtype differ, or a number is not finite; it names client and tensor.
    """
    if missing := sorted(set(expected) - set(arrays)):
        raise FederatedError(f"Client {client!r} left out {len(missing)} tensors, {missing[0]!r} among them.")
    if extra := sorted(set(arrays) - set(expected)):
        raise FederatedError(
            f"Client {client!r} sent {len(extra)} tensors that nobody asked for, such as {extra[0]!r}."
        )
    for name, like in expected.items():
        array = arrays[name]
        if array.shape != like.shape or array.dtype != like.dtype:
            raise FederatedError(
                f"Client {client!r} sent {name!r} as {array.dtype} {array.shape}, not {like.dtype} {like.shape}."
            )
        if is_floating(array) and not np.isfinite(widened(array)).all():
            raise FederatedError(f"Client {client!r} sent {name!r} with numbers that are not finite.")


def weighted_mean(answers: Mapping[str, Arrays], weights: Mapping[str, float]) -> Arrays:
    """Averages the arrays of clients: sum of w_k · arrays_k / sum of w_k (McMahan et al., AISTATS 2017, algorithm 1).

    Args:
        answers: By client, all of the same names.
        weights: By client, 0 or more.

    Returns:
        Floating arrays in their own dtype; of counts, such as `num_batches_tracked`, the largest.

    Raises:
        FederatedError: No answers, or weights that are negative or sum to 0.
    """
    clients = sorted(answers)
    total = sum(float(weights[client]) for client in clients)
    if not clients or any(weights[client] < 0 for client in clients) or not 0 < total < float("inf"):
        raise FederatedError(f"The weights of clients must be 0 or more, and not all 0: {dict(weights)!r} came.")
    result = {}
    for name, like in answers[clients[0]].items():
        if not is_floating(like):
            result[name] = np.asarray(np.maximum.reduce([answers[client][name] for client in clients]))
            continue
        mean = sum(widened(answers[client][name]) * (weights[client] / total) for client in clients)
        result[name] = narrowed(np.asarray(mean), like)
    return result


def payload_bytes(arrays: Arrays) -> int:
    """Bytes of the arrays themselves, without names and headers."""
    return sum(array.nbytes for array in arrays.values())


def arrays_digest(arrays: Arrays) -> str:
    """64 hex digits that tell models apart, for logs and for comparing runs."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]))
    return digest.hexdigest()
