"""What a run was asked for, and the machine it ran on."""

from __future__ import annotations

import datetime
import importlib
import importlib.metadata
import os
import platform
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("hf_video", "torch", "transformers", "av", "numpy", "pillow", "torchcodec", "decord")


@dataclass(frozen=True)
class Setting:
    """`rounds` of a short job (long ones take fewer), `threads` of torch (decoders always have one), `cache` for
    encoded clips, `clips` further files to read. `quick` shrinks every input: it shows that all runs, its numbers mean
    nothing and no target is judged."""

    rounds: int
    threads: int
    cache: Path
    clips: tuple[Path, ...] = ()
    quick: bool = False

    def target(self, value: float) -> float | None:
        return None if self.quick else value


def machine(setting: Setting, packages: tuple[str, ...] = PACKAGES) -> dict:
    """Versions, processor and date, for the results file."""
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "torch_threads": setting.threads,
        "decoder_threads": 1,
        "rounds": setting.rounds,
        "quick": setting.quick,
        "versions": {name: _version(name) for name in packages},
    }


def why_absent(package: str) -> str | None:
    """None if the package imports, else the reason in one line."""
    try:
        importlib.import_module(package)
    except Exception as error:  # torchcodec raises RuntimeError where it finds no FFmpeg, decord OSError
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            return "not installed"
        return f"does not import: {str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}"
    return None


def _version(package: str) -> str | None:
    if package == "hf_video":  # also right where the source folder is on the path and nothing is installed
        return importlib.import_module("hf_video").__version__
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        # Cloud machines often hide the model behind a bare brand; family and model number then tell the generation.
        return f"{fields['model name']} (family {fields['cpu family']}, model {fields['model']})"
    except (OSError, KeyError):
        return platform.processor() or platform.machine()
