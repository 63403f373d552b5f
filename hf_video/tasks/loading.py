"""Models for tasks that have no Auto class of their own."""

from __future__ import annotations

from typing import Any


class SavedVideoModel:
    """`from_pretrained` gives a model of the very class that was saved, where that is one of ours (its `config.json`
    names it), and what `AutoModel` gives for all others."""

    @classmethod
    def from_pretrained(cls, name: str, **options: Any) -> Any:
        from transformers import AutoConfig, AutoModel

        from hf_video.registry import MODELS

        where = ("revision", "token", "cache_dir", "subfolder", "local_files_only", "trust_remote_code")
        config = AutoConfig.from_pretrained(name, **{key: options[key] for key in where if key in options})
        model = MODELS.get(config.model_type)
        saved = (config.architectures or [""])[0]
        chosen = model.load(saved) if model is not None and saved in model.class_names else AutoModel
        return chosen.from_pretrained(name, **options)
