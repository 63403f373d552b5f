"""What one message between server and client carries, apart from any engine, and how Flower carries it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from hf_video.errors import FederatedError
from hf_video.federated.arrays import Arrays

if TYPE_CHECKING:
    from flwr.app import RecordDict

Scalar: TypeAlias = "bool | int | float | str | bytes"
Value: TypeAlias = "Scalar | list[bool] | list[int] | list[float] | list[str] | list[bytes]"
_VALUES = "values"  # the name of Flower's record of numbers and texts


@dataclass(frozen=True)
class Payload:
    """Arrays, and numbers and texts.

    Args:
        values: By name; a list holds one type.
        arrays: By purpose ("model", "control", …) and tensor.
    """

    values: Mapping[str, Value] = field(default_factory=dict)
    arrays: Mapping[str, Arrays] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of arrays and values, without names and headers."""
        arrays = sum(array.nbytes for group in self.arrays.values() for array in group.values())
        return arrays + sum(_size(value) for value in self.values.values())

    def number(self, name: str, sender: str) -> float:
        """A finite number that must be there. Raises FederatedError, which names the sender."""
        value = self.values.get(name)
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or value != value
            or abs(value) == float("inf")
        ):
            raise FederatedError(f"{sender} must send a finite number {name!r}, and {value!r} came.")
        return value


def _size(value: Value) -> int:
    if isinstance(value, list):
        return sum(map(_size, value))
    return len(value) if isinstance(value, bytes) else len(value.encode()) if isinstance(value, str) else 8


def to_record(payload: Payload) -> RecordDict:
    """A payload as Flower's records."""
    from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

    records = RecordDict({_VALUES: ConfigRecord(dict(payload.values))})
    for purpose, arrays in payload.arrays.items():
        records[f"arrays.{purpose}"] = ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})
    return records


def from_record(record: RecordDict) -> Payload:
    """The reverse of `to_record`."""
    arrays = {
        purpose.removeprefix("arrays."): {name: array.numpy() for name, array in group.items()}
        for purpose, group in record.array_records.items()
    }
    return Payload(dict(record.config_records.get(_VALUES, {})), arrays)
