"""Video models with the Hugging Face treatment.

`import hf_video` registers every model with transformers' Auto classes and the video pipelines (see
`register_auto_classes`; the environment variable HF_VIDEO_OVERRIDE=0 leaves transformers' own classes alone). All
public names below load when they are first used.
"""

from __future__ import annotations

import sys

import lazy_loader

from hf_video.base.moved import MovedModules

# The names and where they live are in `__init__.pyi`, which type checkers read too.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
sys.meta_path.append(MovedModules())


def _is_command() -> bool:
    """Whether this process is `hf-video` or `python -m hf_video.cli`, which registers once it knows its verb, so that
    its help answers at once."""
    command = sys.modules.get("hf_video_command")
    return getattr(command, "running", False) or sys.orig_argv[1:3] == ["-m", "hf_video.cli"]


if not _is_command():
    from hf_video.auto import register_auto_classes

    register_auto_classes()
