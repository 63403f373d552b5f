"""Weights come from safetensors only. A pickle can run code when it is opened, so none is, whoever wrote it."""

from __future__ import annotations

import logging
import os
from typing import Any

from huggingface_hub import is_offline_mode
from transformers.utils import (
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
    has_file,
)

from hf_video.base.exported import exported_on_hub, is_exported, load_exported
from hf_video.base.written_files import ChecksumsOnSave, check_model_folder
from hf_video.errors import UnsafeWeightsError

logger = logging.getLogger(__name__)


class SafeWeights(ChecksumsOnSave):
    """Mixed in before `PreTrainedModel`: `from_pretrained` reads `.safetensors` and refuses `pytorch_model.bin`, and
    folders that are not finished or whose files are damaged."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | None,
        *model_args,
        use_safetensors: bool | None = None,
        **kwargs,
    ):
        """As transformers'. Raises UnsafeWeightsError where there are pickles and no safetensors, and for
        `use_safetensors=False`; nothing is downloaded then, and nothing unpickled. Raises CheckpointError for a folder
        that is not finished, or of which a file is not what was written (see `check_model_folder`)."""
        if use_safetensors is False:
            raise UnsafeWeightsError(
                "use_safetensors=False asks for pickled weights, which are never loaded. Leave it out, and convert the "
                "file once: hf-video convert MODEL --output DIR."
            )
        if pretrained_model_name_or_path is not None and os.path.isdir(pretrained_model_name_or_path):
            check_model_folder(os.path.join(pretrained_model_name_or_path, kwargs.get("subfolder") or ""))
            if is_exported(pretrained_model_name_or_path):
                return load_exported(cls, pretrained_model_name_or_path, **kwargs)
        logger.debug("%s is loaded as %s.%s", pretrained_model_name_or_path, cls.__module__, cls.__qualname__)
        # Only `True` where they are there: transformers would ask a web service to convert what is not.
        safe = pretrained_model_name_or_path is not None and has_safetensors(pretrained_model_name_or_path, **kwargs)
        remote = pretrained_model_name_or_path is not None and not os.path.exists(pretrained_model_name_or_path)
        if remote and not safe and (folder := exported_on_hub(pretrained_model_name_or_path, **kwargs)):
            return load_exported(cls, folder, **kwargs)
        return super().from_pretrained(
            pretrained_model_name_or_path, *model_args, use_safetensors=safe or None, **kwargs
        )


def has_safetensors(
    model: str | os.PathLike,
    *,
    variant: str | None = None,
    subfolder: str = "",
    gguf_file: str | None = None,
    **hub: Any,
) -> bool:
    """Whether a folder, file or repository holds its weights as safetensors (False: nothing that is known).

    Raises UnsafeWeightsError if it holds pickles instead, whole or in shards. Arguments are those of `from_pretrained`;
    those that say where to look are used. A repository costs a question for one file's head (offline: the cache).
    """
    if gguf_file is not None:
        return False
    if os.path.isfile(model):
        if str(model).endswith((".bin", ".pt", ".pth", ".pyth", ".ckpt", ".pkl", ".pickle")):
            raise _refusal(model, os.path.basename(model))
        return str(model).endswith(".safetensors")
    where = {key: hub[key] for key in ("revision", "token", "cache_dir", "local_files_only") if key in hub}
    where["local_files_only"] = where.get("local_files_only", False) or is_offline_mode()

    def first(*names: str) -> str | None:
        if variant is not None:  # `model.safetensors` -> `model.fp16.safetensors`, as transformers puts it in
            names = tuple(f"{name.rpartition('.')[0]}.{variant}.{name.rpartition('.')[2]}" for name in names)
        files = [f"{subfolder}/{name}" if subfolder else name for name in names]
        return next((file for file in files if has_file(model, file, **where)), None)

    if first(SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME):
        return True
    if pickled := first(WEIGHTS_NAME, WEIGHTS_INDEX_NAME):
        raise _refusal(model, pickled)
    return False


def _refusal(model: str | os.PathLike, file: str) -> UnsafeWeightsError:
    elsewhere = f' On the Hub an open pull request often has {SAFE_WEIGHTS_NAME}: revision="refs/pr/1".'
    return UnsafeWeightsError(
        f"{model} holds its weights as a pickle, {file}, which could run any code when it is opened; hf_video loads "
        f"safetensors only. Convert it once, reading nothing but tensors: hf-video convert {model} --output DIR, and "
        f"load DIR.{'' if os.path.exists(model) else elsewhere}"
    )
