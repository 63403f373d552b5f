"""Steps and optimisers: fine-tuning with `VideoTrainer`, recipes of the papers, the plan before and the summary after.

Everything here loads when it is first used: `transformers.Trainer` is slow to import.
"""

from __future__ import annotations

import importlib

_LAZY = {
    "VideoTrainer": "hf_video.training.trainer",
    "VideoTrainingArguments": "hf_video.training.arguments",
    "load_recipe": "hf_video.training.recipes",
    "recipe_names": "hf_video.training.recipes",
}

__all__ = list(_LAZY)


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'hf_video.training' has no attribute {name!r}")
