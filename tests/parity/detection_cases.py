"""Numbers that the authors' own detection code answered, in `golden_detection/`. As `golden_cases`, with other rules
for weights: norms and scales of shape (1, C, 1) count as one-dimensional, and scales are about 1."""

from __future__ import annotations

import json
import zlib
from math import prod
from pathlib import Path

import torch
from safetensors.torch import load_file

FOLDER = Path(__file__).parents[1] / "golden_detection"
CASES = json.loads((FOLDER / "index.json").read_text())["cases"]


def weight(key: str, shape: list[int], seed: int, gain: float) -> torch.Tensor:
    name = key.rsplit(".", 1)[-1]
    if name == "num_batches_tracked":
        return torch.zeros(tuple(shape), dtype=torch.int64)
    t = torch.randn(tuple(shape), generator=torch.Generator().manual_seed(zlib.crc32(key.encode()) ^ seed))
    per_channel = len(shape) == 1 or (len(shape) == 3 and shape[0] == shape[2] == 1)
    if name == "running_var":
        return (1 + 0.1 * t).abs()
    if (name == "scale" and (per_channel or not shape)) or (per_channel and name.endswith("weight")):
        return 1 + 0.1 * t
    if name == "running_mean" or (per_channel and "bias" in name):
        return 0.1 * t
    return gain * t / prod(shape[1:]) ** 0.5 if len(shape) >= 2 else 0.2 * t


class DetectionCase:
    """`config` (official names), `checkpoint` (official state dict), `inputs`, `expected`."""

    def __init__(self, name: str) -> None:
        self.case = CASES[name]
        self.config = self.case["config"]
        stored = load_file(FOLDER / self.case["file"])
        self.expected = {key[4:]: value for key, value in stored.items() if key.startswith("out.")}
        self.inputs = {key[3:]: value for key, value in stored.items() if key.startswith("in.")}
        for key, value in self.case["inputs"].items():
            if "made_by" in value:
                generator = torch.Generator().manual_seed(value["seed"])
                self.inputs[key] = torch.randn(tuple(value["shape"]), generator=generator)

    @property
    def checkpoint(self) -> dict[str, torch.Tensor]:
        keys = json.loads((FOLDER / self.case["keys_file"]).read_text())
        keys = {key: shape for key, shape in keys.items() if key not in self.case["derived"]}
        state = {key: weight(key, shape, self.case["seed"], self.case["gain"]) for key, shape in keys.items()}
        total = float(sum(value.double().abs().sum() for value in state.values()))
        if abs(total - self.case["weights_checksum"]) > 1e-6 * total:
            raise ValueError(f"This machine draws other random numbers: {total}, not {self.case['weights_checksum']}.")
        return state

    def compare(self, outputs: dict[str, torch.Tensor]) -> None:
        """Fails unless every stored output is there and within its tolerance."""
        assert set(outputs) == set(self.expected)
        for name, want in self.expected.items():
            got = outputs[name].detach()
            assert got.shape == want.shape, name
            if want.numel():
                difference = (got.double() - want.double()).abs().max().item()
                assert difference <= self.case["outputs"][name]["tolerance"], (name, difference)
