"""Fewer bytes on the way to the server: 8 bits for each number, 16, or only the largest numbers.

What travels is the change of each tensor. What 8 bits or the largest numbers leave out is added to the next round's
change (error feedback), and is the client's own meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from hf_video.errors import FederatedError, check_choice, check_count, check_number
from hf_video.federated.arrays import Arrays, is_floating, narrowed, widened
from hf_video.federated.messages.payload import Payload

KINDS = ("int8", "fp16", "topk")


@dataclass(frozen=True)
class Int8Tensor:
    """A tensor as int8 numbers times one scale."""

    values: np.ndarray
    scale: float

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + 4

    def decode(self) -> np.ndarray:
        return self.values.astype(np.float64) * self.scale


def to_int8(tensor: np.ndarray) -> Int8Tensor:
    """Rounds a tensor to 255 levels from -max|x| to max|x|; the error is half a level at most.

    Raises:
        FederatedError: It holds numbers that are not finite.
    """
    tensor = np.asarray(tensor, dtype=np.float64)
    if not np.isfinite(tensor).all():
        raise FederatedError("A tensor with numbers that are not finite can't be compressed.")
    scale = float(np.abs(tensor).max(initial=0.0)) / 127
    return Int8Tensor(np.rint(tensor / scale if scale else tensor).astype(np.int8), scale)


@dataclass(frozen=True)
class SparseTensor:
    """Some numbers of a flat tensor, float32, and their places, int32 ascending."""

    indices: np.ndarray
    values: np.ndarray
    size: int

    @property
    def nbytes(self) -> int:
        return self.indices.nbytes + self.values.nbytes

    def decode(self) -> np.ndarray:
        dense = np.zeros(self.size)
        dense[self.indices] = self.values
        return dense


def top_k(update: np.ndarray, residual: np.ndarray | None, count: int) -> tuple[SparseTensor, np.ndarray]:
    """Keeps the `count` largest numbers of update + residual; what is not sent stays for the next round (error
    feedback, Stich et al., NeurIPS 2018).

    Args:
        update: Of one tensor, of any shape.
        residual: What earlier rounds left, of the same shape; None in the first one.
        count: Numbers to send.

    Returns:
        What is sent, of the flat tensor, and the next residual.
    """
    check_count("count", count, FederatedError, most=update.size)
    total = np.asarray(update, dtype=np.float64) + (0 if residual is None else residual)
    flat = total.ravel()
    # Stable, so that equal numbers are chosen by their place.
    indices = np.sort(np.argsort(-np.abs(flat), kind="stable")[:count]).astype(np.int32)
    left = flat.copy()
    values = flat[indices].astype(np.float32)
    left[indices] -= values
    return SparseTensor(indices, values, flat.size), left.reshape(total.shape)


@dataclass(frozen=True)
class Compression:
    """How clients send what they changed.

    Args:
        kind: "int8", "fp16" or "topk".
        share: Of the numbers of each tensor that "topk" sends; one at least.
    """

    kind: str
    share: float = 0.0

    @property
    def feeds_back(self) -> bool:
        """Whether clients keep what was not sent for the next round."""
        return self.kind != "fp16"

    def encode(self, change: np.ndarray, residual: np.ndarray | None) -> tuple[Arrays, np.ndarray]:
        """What travels of a float64 change, by part, and what of it arrives."""
        total = change if residual is None else change + residual
        if self.kind == "int8":
            small = to_int8(total)
            scale = np.array(small.scale, dtype=np.float32)
            return {"int8": small.values, "scale": scale}, Int8Tensor(small.values, float(scale)).decode()
        if self.kind == "fp16":
            if not (np.abs(total) <= np.finfo(np.float16).max).all():
                raise FederatedError("A change that is not finite or past 65,504 can't travel in 16 bits.")
            half = total.astype(np.float16)
            return {"fp16": half}, half.astype(np.float64)
        sparse, left = top_k(total, None, max(int(self.share * total.size), 1))
        return {"indices": sparse.indices, "values": sparse.values}, total - left

    def decode(self, parts: Arrays, size: int) -> np.ndarray:
        """The float64 change, flat, of what travelled.

        Raises:
            FederatedError: It is not of this form, or of a tensor of another size.
        """
        expected: dict[str, dict[str, type[np.generic]]] = {
            "int8": {"int8": np.int8, "scale": np.float32},
            "fp16": {"fp16": np.float16},
        }
        expected["topk"] = {"indices": np.int32, "values": np.float32}
        if {name: part.dtype for name, part in parts.items()} != {
            n: np.dtype(kind) for n, kind in expected[self.kind].items()
        }:
            raise FederatedError(f"it is not compressed by {self.kind}")
        if not all(np.isfinite(part).all() for part in parts.values()):
            raise FederatedError("it has numbers that are not finite")
        if self.kind == "topk":
            indices, values = parts["indices"], parts["values"]
            if indices.shape != values.shape or indices.ndim != 1 or not (np.diff(indices) > 0).all():
                raise FederatedError("its places are not in order")
            if indices.size and (indices[0] < 0 or indices[-1] >= size):
                raise FederatedError("it has places outside the tensor")
            return SparseTensor(indices, values, size).decode()
        dense = parts[self.kind]
        if dense.size != size or parts.get("scale", np.zeros(())).shape != ():
            raise FederatedError("it is of another size")
        return (
            Int8Tensor(dense, float(parts["scale"])).decode() if self.kind == "int8" else dense.astype(float)
        ).ravel()


def parse_compression(text: str | None) -> Compression | None:
    """Reads "int8", "fp16", "topk:0.01", or "none".

    Raises:
        FederatedError: It is something else.
    """
    if text is None or text == "none":
        return None
    kind, colon, share = str(text).partition(":")
    check_choice("compression", kind, KINDS, FederatedError, hint=" Or none.")
    if kind != "topk":
        if colon:
            raise FederatedError(f"compression={text!r}: {kind} takes no number.")
        return Compression(kind)
    try:
        number = float(share)
    except ValueError:
        raise FederatedError(f"compression={text!r} lacks the share that is sent: topk:0.01.") from None
    return Compression(kind, check_number("topk", number, FederatedError, above=0, most=1))


def compress_payload(
    payload: Payload, sent: Arrays, compression: Compression, residual: Mapping[str, np.ndarray] | None = None
) -> tuple[Payload, Arrays]:
    """A client's answer with its arrays "model" compressed, and what it keeps for the next round.

    Args:
        payload: The answer.
        sent: What the client was sent.
        compression: How.
        residual: What the last round left, float64; of tensors with other shapes than now it is dropped.

    Returns:
        The answer whose arrays are "model.int8", "model.scale", … and "model.counts", and the next residual.
    """
    parts: dict[str, Arrays] = {}
    kept: Arrays = {}
    for name, after in payload.arrays["model"].items():
        if not is_floating(after):
            parts.setdefault("counts", {})[name] = after
            continue
        before = (residual or {}).get(name)
        usable = before is not None and before.shape == after.shape and compression.feeds_back
        total = widened(after) - widened(sent[name])
        encoded, arrived = compression.encode(total, before if usable else None)
        if compression.feeds_back:
            kept[name] = (total + before if usable else total) - arrived.reshape(after.shape)
        for part, array in encoded.items():
            parts.setdefault(part, {})[name] = array
    others = {purpose: arrays for purpose, arrays in payload.arrays.items() if purpose != "model"}
    return replace(payload, arrays={**others, **{f"model.{part}": arrays for part, arrays in parts.items()}}), kept


def decompress_payload(payload: Payload, sent: Arrays, compression: Compression, client: str) -> Payload:
    """The reverse of `compress_payload`; tensors have the dtypes of those that were sent.

    Raises:
        FederatedError: A tensor is missing or can't be decoded; it names client and tensor.
    """
    parts = {
        purpose.removeprefix("model."): arrays for purpose, arrays in payload.arrays.items() if "model." in purpose
    }
    counts = parts.pop("counts", {})
    known = {name for arrays in (counts, *parts.values()) for name in arrays}
    if strange := sorted(known - set(sent)):
        raise FederatedError(f"Client {client!r} sent {strange[0]!r}, which nobody asked for.")
    model: Arrays = {}
    for name, before in sent.items():
        if not is_floating(before):
            if name in counts:
                model[name] = counts[name]
            continue
        given = {part: arrays[name] for part, arrays in parts.items() if name in arrays}
        try:
            change = compression.decode(given, before.size)
        except FederatedError as error:
            raise FederatedError(f"Client {client!r} sent {name!r}, but {error}.") from None
        model[name] = narrowed(widened(before) + change.reshape(before.shape), before)
    others = {purpose: arrays for purpose, arrays in payload.arrays.items() if not purpose.startswith("model.")}
    return replace(payload, arrays={**others, "model": model})
