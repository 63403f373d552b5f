"""Versions and backends, and why one is off; or, with FILEs, what is known of them.

hf-video info
hf-video info --json
hf-video info clip.mp4
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import re
import sys
from importlib import import_module, metadata
from typing import Any

from hf_video.base.version import __version__
from hf_video.cli import DONE, SOME_FAILED
from hf_video.cli.files import expand_paths
from hf_video.cli.printing import error_line
from hf_video.errors import HFVideoError, error_entry, pluralize

PACKAGES = ("torch", "transformers", "av", "numpy", "pillow", "safetensors", "huggingface_hub")
RUNTIMES = ("openvino", "nncf", "onnx", "onnxscript", "onnxruntime")
OPTIONAL = ("accelerate", "datasets", "evaluate", "opencv-python-headless", "faiss-cpu", *RUNTIMES)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="*", metavar="FILE", help="videos to describe, instead of this installation")
    parser.add_argument("--stream", type=int, metavar="N", help="the stream of the FILEs to describe, by its number")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(options: argparse.Namespace) -> int:
    if options.files:
        return describe_files(expand_paths(options.files), as_json=options.json, stream=options.stream)
    found = collect_environment()
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print("\n".join(_lines(found)))
    return DONE


def collect_environment() -> dict[str, Any]:
    """What is installed and what works, as plain JSON values. Each backend is imported to find out."""
    try:
        from av import library_versions as libraries
    except Exception:
        libraries = {}
    torchvision = _try("torchvision", "")
    return {
        "hf_video": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES} | {"torch": _torch()},
        "ffmpeg": {name: ".".join(map(str, version)) for name, version in libraries.items()},
        "optional": {name: _version(name) for name in OPTIONAL},
        "backends": {
            "pyav": _try("av", "reads every file"),
            "torchcodec": _try("torchcodec.decoders", 'the same frames; only used with backend="torchcodec"'),
            "torchvision": {**torchvision, "why": f"never used ({torchvision['why']})".removesuffix(" ()")},
            **_devices(),
            "flash-attn": _try("flash_attn", 'usable with attn_implementation="flash_attention_2"'),
        },
        "models": _models(),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _torch() -> str | None:
    """The version with its build, such as 2.14.1+cu130, which the package's metadata may leave out."""
    try:
        import torch
    except Exception:
        return _version("torch")
    return str(torch.__version__)


def _try(module: str, use: str) -> dict[str, Any]:
    """Whether a backend can be imported; if not, the reason."""
    try:
        import_module(module)
    except Exception as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]
        return {"works": False, "why": "not installed" if absent else _reason(error)}
    return {"works": True, "why": use}


def _devices() -> dict[str, dict[str, Any]]:
    try:
        import torch
    except Exception as error:
        return {"cuda": {"works": False, "why": _reason(error)}}
    no_cuda = "torch is a CPU build" if torch.version.cuda is None else "no usable NVIDIA GPU or driver"
    gpus = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    mps = torch.backends.mps
    no_mps = "not a Mac, or macOS too old" if mps.is_built() else "torch is built without MPS"
    return {
        "cuda": {"works": torch.cuda.is_available(), "why": gpus if torch.cuda.is_available() else no_cuda},
        "mps": {
            "works": mps.is_available(),
            "why": "" if mps.is_available() else no_mps,
        },
    }


def _models() -> dict[str, Any]:
    from hf_video.auto import override_wanted
    from hf_video.registry import MODELS

    stock = override_wanted()
    return {
        name: "ours" if stock or not row.stock else "transformers' own (HF_VIDEO_OVERRIDE=0)"
        for name, row in MODELS.items()
    }


def _reason(error: BaseException) -> str:
    """The type and first line of an error, with the lines that follow a first line such as "Likely causes:", and with
    the shared libraries that the system doesn't find."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = " ".join(lines[:4] if lines and lines[0].endswith(":") else lines[:1])[:300]
    absent = dict.fromkeys(re.findall(r"[\w.+-]+\.(?:so|dylib|dll)[\w.]*: cannot open shared object file", str(error)))
    found = "; ".join(filter(None, (first, *list(absent)[:2])))
    return f"{type(error).__name__}: {found}" if found else type(error).__name__


def _lines(found: dict[str, Any]) -> list[str]:
    packages = {"hf_video": found["hf_video"], "python": found["python"], **found["packages"]}
    ffmpeg = ", ".join(f"{name} {version}" for name, version in found["ffmpeg"].items())
    lines = [f"{name:<17} {version or 'NOT INSTALLED'}" for name, version in packages.items()]
    lines += [f"{'ffmpeg':<17} {ffmpeg}", "", "backends"]
    lines += [f"  {name:<15} {'on ' if b['works'] else 'off'}  {b['why']}" for name, b in found["backends"].items()]
    lines += ["", "models"] + [f"  {name:<15} {state}" for name, state in found["models"].items()]
    lines += ["", "optional packages"]
    return lines + [f"  {name:<24} {version or '-'}" for name, version in found["optional"].items()]


def describe_files(files: list[str], *, as_json: bool, stream: int | None = None) -> int:
    """Prints the metadata of each file and returns the exit code; files that can't be read are named on stderr."""
    from hf_video.video.reader import VideoReader

    rows: list[dict[str, Any]] = []
    for file in files:
        try:
            with VideoReader(file, stream=stream) as reader:
                about = dataclasses.asdict(reader.metadata)
            rows.append({"file": file, **about, "sample_aspect_ratio": str(about["sample_aspect_ratio"])})
        except HFVideoError as error:
            print(error_line(file, str(error)), file=sys.stderr)
            rows.append({"file": file, **error_entry(error)})
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        for row in rows:
            if "error" not in row:
                print(_describe(row))
    return SOME_FAILED if any("error" in row for row in rows) else DONE


def _describe(row: dict[str, Any]) -> str:
    from hf_video.video.frames.types import VideoStreamMetadata

    turned = f", turned by {row['rotation']} degrees" if row["rotation"] else ""
    shape = row["sample_aspect_ratio"].replace("/", ":")
    turned += f", pixels {shape}" if shape != "1" else ""
    begin = f", begins at {row['begin']:.3f} s" if row["begin"] else ""
    rebuilt = ", times counted from the rate: the file's contradict its frames" if row["rebuilt_timestamps"] else ""
    streams = [str(VideoStreamMetadata(**stream)) for stream in row["streams"]]
    several = f"\n  stream {row['stream']} of {'; '.join(streams)}" if len(streams) > 1 else ""
    return (
        f"{row['file']}  {pluralize(row['num_frames'], 'frame')}, {row['fps']:.3f} fps, {row['duration']:.3f} s{begin}"
        f", {row['width']}x{row['height']}{turned}, {row['codec']}{rebuilt}{several}"
    )
