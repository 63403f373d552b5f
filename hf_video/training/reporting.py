"""Where training writes its numbers, and how much memory it takes.

TensorBoard wherever it is installed; others by name (`report_to="wandb"`, `"trackio"`), as in transformers. All of them
get what `VideoTrainer` logs: losses, clips a second, the share of time spent waiting for data, and `memory_figures()`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

from hf_video.errors import ConfigError

# Reporters that a name alone can't tell the package of.
_PACKAGES = {"azure_ml": "azureml.core", "comet_ml": "comet_ml", "flyte": "flytekit"}


# Limit, use, statistics and the name in them of pages that can be taken back.
_GROUP_FILES = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)


def default_report_to() -> list[str]:
    """What to report to where nobody said: `["tensorboard"]` if it is installed, else nothing."""
    return ["tensorboard"] if _installed("tensorboard") else []


def reporters(report_to: str | Sequence[str] | None) -> list[str]:
    """`report_to` as a list of names that will work: None is the default, "none" is nothing, "all" what is installed.

    Raises ConfigError for a name that transformers does not know, or whose package is missing: before training, not at
    its first log.
    """
    from transformers.integrations import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

    if report_to is None:
        return default_report_to()
    names = [report_to] if isinstance(report_to, str) else list(report_to)
    if names == ["none"]:
        return []
    if names == ["all"]:
        return get_available_reporting_integrations()
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
            raise ConfigError(f"report_to={name!r} is not known. Allowed are none, all, or some of: {known}.")
        if not _installed(name):
            package = _PACKAGES.get(name, name)
            raise ConfigError(
                f"report_to={name!r} needs the package {package}, which is not installed: pip install {package}, or "
                "leave it out."
            )
    return names


def memory_figures() -> dict[str, float]:
    """Memory of this process in GiB, as names and numbers to log.

    `memory_gb` is what it holds of the machine's memory now, `memory_peak_gb` the most so far; loader workers are
    processes of their own and not in it. With a GPU also `gpu_memory_gb` and `gpu_memory_peak_gb` (what tensors take)
    and `gpu_memory_reserved_gb` (what was taken from the device). Figures that the system does not tell are left out.
    """
    figures = _host_memory()
    if torch.cuda.is_available():
        figures["gpu_memory_gb"] = torch.cuda.memory_allocated()
        figures["gpu_memory_peak_gb"] = torch.cuda.max_memory_allocated()
        figures["gpu_memory_reserved_gb"] = torch.cuda.memory_reserved()
    return {name: round(size / 2**30, 3) for name, size in figures.items()}


def _host_memory() -> dict[str, int]:
    """Bytes. Linux is asked itself: `getrusage` there counts the process that this one was started from."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return {
            name: int(lines[key].split()[0]) * 1024
            for name, key in (("memory_gb", "VmRSS"), ("memory_peak_gb", "VmHWM"))
            if key in lines
        }
    if sys.platform == "win32":
        return {}
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"memory_peak_gb": peak if sys.platform == "darwin" else peak * 1024}


def gigabytes(size: float) -> str:
    """ "12 MB", "3.4 GB"."""
    return f"{size / 1e6:.3g} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"


def available_memory(device: torch.device) -> int | None:
    """Bytes that are free on a GPU, or to this process on the host: what the system says, and at most what its group
    (a container, a job of a cluster) may still take. None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = [size for size in (_free_of_host(), _free_of_group()) if size is not None]
    return min(found, default=None)


def _free_of_host() -> int | None:
    lines = Path("/proc/meminfo")
    if lines.exists():
        found = dict(line.split(":", 1) for line in lines.read_text().splitlines() if ":" in line)
        return int(found["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in found else None
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _free_of_group() -> int | None:
    """Of control groups, version 2 and 1; pages of files count as free, for the kernel takes them back."""
    root = Path("/sys/fs/cgroup")
    for limit, used, stat, key in _GROUP_FILES:
        try:
            most = (root / limit).read_text().strip()
            taken = int((root / used).read_text())
            pages = dict(line.split() for line in (root / stat).read_text().splitlines())
        except (OSError, ValueError):
            continue
        if most.isdigit() and int(most) < 1 << 60:
            return max(int(most) - taken + int(pages.get(key, 0)), 0)
    return None


def _installed(name: str) -> bool:
    if name == "tensorboard":
        return bool(find_spec("tensorboard") or find_spec("tensorboardX"))
    try:
        return find_spec(_PACKAGES.get(name, name)) is not None
    except ModuleNotFoundError:  # the parent of a dotted name
        return False
