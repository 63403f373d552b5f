"""Numbers that the authors' own code answered, in `golden/`: outputs only. Weights and inputs are functions of a name,
a shape and a seed, made here anew, and a stored checksum says whether this machine draws the same numbers.

A case's tolerance is the largest of 30 times what float32 rounding does to the official code, 2e-5 of its largest
output, and 1e-6. It is not to be widened: every weight that matters moves the outputs by far more.
"""

from __future__ import annotations

import json
import zlib
from math import prod
from pathlib import Path

import torch
from safetensors.torch import load_file

FOLDER = Path(__file__).parent / "golden"
CASES = json.loads((FOLDER / "index.json").read_text())["cases"]


def weight(key: str, shape: list[int], seed: int, gain: float) -> torch.Tensor:
    """One tensor of an official state dict, standard normal t scaled by what the name says it is."""
    name = key.rsplit(".", 1)[-1]
    if name == "num_batches_tracked":
        return torch.zeros(tuple(shape), dtype=torch.int64)
    t = torch.randn(tuple(shape), generator=torch.Generator().manual_seed(zlib.crc32(key.encode()) ^ seed))
    if name == "running_var":
        return (1 + 0.1 * t).abs()
    if len(shape) >= 2:
        return gain * t / prod(shape[1:]) ** 0.5
    if len(shape) == 1 and name.endswith("weight"):
        return 1 + 0.1 * t
    if name == "running_mean" or (len(shape) == 1 and "bias" in name):
        return 0.1 * t
    return 0.2 * t


def parts_of(state: dict) -> dict:
    """A file of several models, whose keys here are "encoder/module.…", and "classifiers/0/…" for a list's first."""
    parts: dict = {}
    for key, value in state.items():
        *names, name = key.split("/")
        if names == ["classifiers", "0"]:
            parts.setdefault("classifiers", [{}])[0][name] = value
        else:
            parts.setdefault(names[0], {})[name] = value
    return parts


class Golden:
    """A case: `config` (official names), `checkpoint` (as published, with its wrapper), `inputs` (video as (batch,
    frames, channels, height, width), token ids and their masks as int64, other masks as bool)."""

    def __init__(self, name: str) -> None:
        self.case = CASES[name]
        self.config = self.case["config"]
        stored = load_file(FOLDER / self.case["file"])
        self.expected = {k[4:]: v for k, v in stored.items() if k.startswith("out.")}
        inputs = {k[3:]: v for k, v in stored.items() if k.startswith("in.")}
        self.inputs = {k: v if v.dtype == torch.int64 else v.bool() for k, v in inputs.items()}  # ids, or masks
        for key, value in self.case["inputs"].items():
            if "made_by" in value:
                generator = torch.Generator().manual_seed(value["seed"])
                video = torch.randn(tuple(value["shape"]), generator=generator)
                frames_first = not value["layout"].startswith("(batch, channels")
                self.inputs[key] = video if frames_first else video.transpose(1, 2)

    @property
    def checkpoint(self) -> dict:
        keys = json.loads((FOLDER / self.case["keys_file"]).read_text())
        keys = {k: shape for k, shape in keys.items() if k not in self.case.get("derived", ())}
        state = {k: weight(k, shape, self.case["seed"], self.case["gain"]) for k, shape in keys.items()}
        state |= {k: state[first] for k, first in self.case["tied"].items()}  # two names of one tensor
        total = float(sum(t.double().abs().sum() for t in state.values()))
        if abs(total - self.case["weights_checksum"]) > 1e-6 * total:
            raise ValueError(f"This machine draws other random numbers: {total}, not {self.case['weights_checksum']}.")
        wrapper = self.case.get("checkpoint_wrapper")  # not every file has one
        if self.case.get("parts"):
            return parts_of(state)
        return {wrapper: state} if wrapper else state

    def compare(self, outputs: dict[str, torch.Tensor]) -> None:
        """Fails unless every stored output is there and within its tolerance."""
        assert set(outputs) == set(self.expected)
        for name, want in self.expected.items():
            got = outputs[name].detach()
            assert got.shape == want.shape, name
            difference = (got.double() - want.double()).abs().max().item()
            assert difference <= self.case["outputs"][name]["tolerance"], (name, difference)
