"""One door for official checkpoints: `from_official(model_type, state_dict)`.

Each model's folder has a `convert_<model>.py` that knows its official key layouts. It reads what the shapes tell, names
our class, and renames; this module unwraps files, builds the model and refuses what does not fit to the last key.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import json
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.initialization import no_init_weights
from transformers.utils import logging

from hf_video.base.configuration import VideoConfig, pair
from hf_video.base.loading import model_entry
from hf_video.base.written_files import writing_model_folder
from hf_video.errors import CheckpointError

logger = logging.get_logger(__name__)

StateDict = dict[str, torch.Tensor]

# What of a processor changes a model's scores.
PIXELS = ("size", "crop_size", "image_mean", "image_std", "do_flip_channel_order", "sampler", "sampler_options")

# The moving average of the weights, where a file holds both, is what its authors evaluate.
WRAPPERS = ("state_dict_ema", "model_state", "state_dict", "model_state_dict", "module", "model", "net")
PREFIXES = ("module.", "model.", "_orig_mod.")
# Where the parameters hang in the trees that flax training states are saved as; beside them lie optimiser states.
FLAX_ROOTS = ("optimizer/target/params/", "optimizer/target/", "params/params/", "params/", "target/")


@dataclass
class Converted:
    """What a layout makes of an official state dict: our class's name, configuration values and renamed tensors.

    `optional` are keys of ours that official files may lack because they are worked out (index tables); `processor` are
    settings of the image processor that this layout's authors trained with, where the configuration doesn't tell them
    (`ClipProcessing.values_for`). `unspecified` are fields that neither tensors nor overrides tell (see
    `missing_overrides`): a warning says what is assumed for them."""

    class_name: str
    config: dict[str, Any]
    state_dict: StateDict
    optional: set[str] = field(default_factory=set)
    processor: dict[str, Any] = field(default_factory=dict)
    unspecified: tuple[str, ...] = ()


def unwrap(checkpoint: Mapping[str, Any]) -> StateDict:
    """The tensors of a checkpoint: wrapper dictionaries opened, prefixes that all keys share taken off, arrays as
    tensors; flax trees as `flax_tree` has them."""
    if tree := flax_tree(checkpoint):
        return tree
    while not any(is_array(value) for value in checkpoint.values()):
        inner = [name for name in WRAPPERS if isinstance(checkpoint.get(name), Mapping)]
        if not inner:
            raise CheckpointError(
                f"No tensors found: the checkpoint holds {sorted(map(str, checkpoint))[:10]}. Expected a state dict, "
                f"or one inside {', '.join(WRAPPERS)}."
            )
        checkpoint = checkpoint[inner[0]]
    state = {str(key): array_to_tensor(value) for key, value in checkpoint.items() if is_array(value)}
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def is_array(value: object) -> bool:
    return isinstance(value, (torch.Tensor, np.ndarray))


def array_to_tensor(value: torch.Tensor | np.ndarray) -> torch.Tensor:
    return value if isinstance(value, torch.Tensor) else torch.from_numpy(np.array(value))


def flatten_tree(tree: Mapping[str, Any], stem: str = "") -> StateDict:
    """All arrays of a tree of dictionaries, under keys joined by "/"."""
    found: StateDict = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= flatten_tree(value, f"{stem}{key}/")
        elif is_array(value):
            found[f"{stem}{key}"] = value
    return found


def flax_tree(checkpoint: Mapping[str, Any]) -> StateDict | None:
    """The parameters of a flax checkpoint, nested or flat, keys joined by "/"; None for what is no flax tree."""
    state = flatten_tree(checkpoint)
    if not any(key.endswith("/kernel") for key in state):
        return None
    root = next((r for r in FLAX_ROOTS if any(k.startswith(r) and k.endswith("/kernel") for k in state)), "")
    return {key.removeprefix(root): array_to_tensor(value) for key, value in state.items() if key.startswith(root)}


def from_official(model_type: str, state_dict: Mapping[str, Any], **config_overrides: Any):
    """A model of ours from the authors' checkpoint.

    Args:
        model_type: a row of `hf_video.MODELS`, such as "videomae" or "timesformer".
        state_dict: the official state dict, or the dictionary that was saved around it; `module.` and `model.`
            prefixes are recognised. Arrays may be tensors or numpy's; flax trees may be nested or joined by "/".
        config_overrides: configuration fields that shapes don't tell (`num_attention_heads`, `image_size`,
            `num_frames`, …), under our names or the official ones. What shapes do tell must not contradict them.

    Returns:
        The `PreTrainedModel` that the keys call for (classification, pretraining or plain encoder), in eval mode.

    Raises:
        CheckpointError: tensors are left over or missing, or differ in shape; all of them are named.
    """
    return build_from_official(model_type, state_dict, config_overrides)[0]


def build_from_official(
    model_type: str, state_dict: Mapping[str, Any], config_overrides: dict[str, Any]
) -> tuple[Any, Converted]:
    """`from_official`, and what its layout told."""
    row = model_entry(model_type)
    module = importlib.import_module(f"{row.package}.convert_{row.home}")
    # Files with several models in them are opened by the layout itself.
    converted: Converted = module.convert(getattr(module, "unwrap", unwrap)(state_dict), config_overrides)
    cls = row.load(converted.class_name)
    config = cls.config_class(**converted.config)
    # Values that the checkpoint replaces need not be drawn first, which takes longer than loading.
    with nullcontext() if converted.optional else no_init_weights():
        model = cls(config)
    load_exactly(model, converted)
    model.tie_weights()
    warn_assumed_values(model_type, model.config, converted.unspecified)
    return model.eval(), converted


def warn_assumed_values(model_type: str, config: VideoConfig, unspecified: tuple[str, ...]) -> None:
    """Warns of values that the checkpoint doesn't tell."""
    if not unspecified:
        return
    values = []
    for name in unspecified:
        part, _, key = name.rpartition(".")
        value = getattr(getattr(config, part) if part else config, key)
        values.append(f"{part}={{{key!r}: {value!r}}}" if part else f"{name}={value!r}")
    logger.warning(
        f"The {model_type} checkpoint does not say all of the model; assumed are {', '.join(values)}. Where it was "
        "made with others, pass them by these names: from_official(..., name=value), or hf-video convert --set "
        "name=value."
    )


def load_exactly(model: torch.nn.Module, converted: Converted) -> None:
    """Loads every tensor; raises CheckpointError that lists keys left over, missing or of another shape."""
    ours, theirs = model.state_dict(), converted.state_dict
    left_over = sorted(set(theirs) - set(ours))
    missing = sorted(set(ours) - set(theirs) - converted.optional)
    shapes = [
        f"{key}: {tuple(theirs[key].shape)} in the file, {tuple(ours[key].shape)} in the model"
        for key in sorted(set(ours) & set(theirs))
        if ours[key].shape != theirs[key].shape
    ]
    problems = {"left over": left_over, "missing": missing, "of another shape": shapes}
    if any(problems.values()):
        lines = [f"{len(keys)} {what}:\n  " + "\n  ".join(keys) for what, keys in problems.items() if keys]
        raise CheckpointError(
            f"The checkpoint does not fit {type(model).__name__}. Tensors " + "\nTensors ".join(lines) + "\nCheck the "
            "model type, and pass configuration values that shapes don't tell (image_size, num_attention_heads)."
        )
    model.load_state_dict(theirs, strict=not converted.optional)


def rename(state: StateDict, rules: Callable[[str], str]) -> StateDict:
    """New names for all keys; two that would fall together are an error."""
    renamed = {rules(key): value for key, value in state.items()}
    if len(renamed) != len(state):
        raise CheckpointError("Two tensors of the checkpoint would get the same name; its layout is not known.")
    return renamed


# A ViT block in timm's names, which many authors kept, and in transformers'.
VIT_BLOCK = (
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)


def substitute(key: str, rules: Iterable[tuple[str, str | Callable]]) -> str:
    """The key after every rule in turn: (pattern, replacement) of `re.sub`."""
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def rename_overrides(overrides: Mapping[str, Any], aliases: Mapping[str, str | None]) -> dict[str, Any]:
    """Overrides under our field names. `aliases` maps official names to ours, or to None for what shapes tell."""
    named = {aliases.get(key, key): value for key, value in overrides.items()}
    named.pop(None, None)
    return named


def missing_overrides(given: Mapping[str, Any], *names: str) -> tuple[str, ...]:
    """Those of `names` that are not among the overrides `given`; `"text_config.hidden_act"` is a field of a part."""
    parts = [name.rpartition(".") for name in names]
    return tuple(f"{part}{dot}{key}" for part, dot, key in parts if key not in (given.get(part, {}) if part else given))


def count_layers(state: StateDict, prefix: str) -> int:
    """The number of layers whose keys are `prefix`, their number and a dot."""
    numbers = [int(match[1]) for key in state if (match := re.match(re.escape(prefix) + r"(\d+)\.", key))]
    return 1 + max(numbers, default=-1)


def number_of_heads(width: int, known: Mapping[int, int], name: str) -> int:
    """Heads of an official model of that width: from `known`, else 64 channels each as in every other ViT."""
    if width in known:
        return known[width]
    if width % 64:
        raise CheckpointError(
            f"The number of heads can't be read from the shapes, and a width of {width} is no official model. "
            f"Pass {name}=..."
        )
    return width // 64


def load_official_file(path: str | Path) -> dict[str, Any]:
    """An official checkpoint file: `.safetensors`, `.npz`, a flax checkpoint (needs the package msgpack), or a PyTorch
    file read with `weights_only=True`. So a file can only hold tensors and plain data. Raises CheckpointError for
    anything else."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"No file at {path}.")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f"{path} is damaged or no safetensors file: {error}.") from error
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return dict(arrays)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise CheckpointError(f"{path} is no .npz file of plain arrays: {error}.") from error
    if is_flax_file(path):
        return load_flax_file(path)
    # Training scripts keep their arguments and a few numpy numbers in the file: plain data, no code.
    scalar = np.float64(0).__reduce__()[0]
    plain = [argparse.Namespace, scalar, np.dtype, *(type(np.dtype(t)) for t in (np.float64, np.float32, np.int64))]
    try:
        with torch.serialization.safe_globals(plain):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # What torch says first is how to load it all the same, with the code in it: its own reason stands behind.
        said = str(error).rpartition("WeightsUnpickler error:")[2].strip() or type(error).__name__
        reason = said.splitlines()[0][:200]
        raise CheckpointError(
            f"{path} is refused: it is no PyTorch file of plain tensors ({reason}). Files "
            "that need arbitrary pickled code are never loaded; save the state dict alone, best as .safetensors."
        ) from error


def is_flax_file(path: Path) -> bool:
    """Whether a file begins like a msgpack dictionary: PyTorch's begin with a zip's or a pickle's mark."""
    with path.open("rb") as file:
        first = file.read(1)
    return b"\x81" <= first <= b"\x8f" or first in (b"\xde", b"\xdf")


def load_flax_file(path: Path) -> dict[str, Any]:
    """A flax checkpoint (`flax.serialization.to_bytes`) as nested dictionaries of numpy arrays. Raises CheckpointError
    where the package msgpack is missing, or for a file that is none."""
    try:
        import msgpack
    except ImportError as error:
        raise CheckpointError(
            f"{path} looks like a flax checkpoint, and reading those needs msgpack: pip install msgpack."
        ) from error

    def extension(code: int, data: bytes) -> Any:
        """flax writes arrays as extension 1, numpy scalars as 3: (shape, name of the dtype, bytes)."""
        if code not in (1, 3):
            return None
        shape, name, raw = msgpack.unpackb(data, raw=False)
        if name == "bfloat16":  # numpy has none; the upper half of a float32
            values = (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.frombuffer(raw, np.dtype(name))
        return values.reshape(shape)

    try:
        tree = msgpack.unpackb(path.read_bytes(), ext_hook=extension, raw=False, strict_map_key=False)
    except Exception as error:
        raise CheckpointError(f"{path} is no flax checkpoint: {str(error)[:200] or type(error).__name__}.") from error
    return tree


def convert_file(path: str | Path, *, model_type: str, output: str | Path, **config_overrides: Any):
    """Converts an official file and saves model and image processor to the folder `output`, as safetensors. Returns the
    model. `config_overrides` as in `from_official`; a `processor` dictionary among them sets processor values."""
    given, row = config_overrides.pop("processor", {}), model_entry(model_type)
    model, converted = build_from_official(model_type, load_official_file(path), config_overrides)
    kinds = [row.load(name) for name in (row.image_processor, row.video_processor)]
    kind = kinds[kinds[0].model_input_names[0] != "pixel_values"]  # of which transformers has a video processor alone
    processor = kind(**{**processor_values(kind, model.config), **converted.processor, **given})
    with writing_model_folder(output) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    assumed = ", ".join(f"{name}={getattr(processor, name)!r}" for name in PIXELS if name not in given)
    logger.warning(
        f"No checkpoint says what its frames looked like; assumed is what the authors of {model_type} published: "
        f"{assumed}. Where it was trained on others, pass them: convert_file(..., processor={{'name': value}}), or "
        "hf-video convert --processor name=value."
    )
    return model


def processor_values(processor: type, config: VideoConfig) -> dict[str, Any]:
    """Settings of a processor of that class for a model's configuration: sizes, and what its authors trained with."""
    height, width = pair(config.image_size, "image_size")
    usual = processor()
    # Some models resize to more than they crop: by the same share at every size.
    margin = min(height, width) / min(usual.crop_size.values())
    resized = {name: round(edge * margin) for name, edge in usual.size.items()}
    values = {"size": resized, "crop_size": {"height": height, "width": width}, **processor.values_for(config)}
    return copy.deepcopy(values)


def convert_pickles(model: str | Path, *, output: str | Path, **hub: Any):
    """Saves a model in transformers' layout (`config.json` and `pytorch_model.bin`, whole or in shards) as safetensors.

    Args:
        model: a folder, or a name on the Hub. The pickles are read with `weights_only=True`.
        output: the folder to write; the image processor goes along where there is one.
        hub: `revision`, `token`, `cache_dir`, `local_files_only`, as in `from_pretrained`.

    Returns:
        The model, in eval mode.

    Raises:
        CheckpointError: nothing pickled is there, files hold more than tensors, or tensors do not fit the model; all of
            them are named.
    """
    from transformers import AutoConfig, AutoImageProcessor
    from transformers.utils import has_file

    config = AutoConfig.from_pretrained(model, **hub)
    row, architecture = model_entry(config.model_type), (config.architectures or [None])[0]
    if architecture not in row.auto.values():
        known = ", ".join(row.auto.values())
        raise CheckpointError(f"{model}: `architectures` in config.json must be one of {known}; {architecture} came.")
    state = {}
    for file in _pickled_files(model, hub):
        state |= unwrap(load_official_file(file))
    loaded, report = row.load(architecture).from_pretrained(
        None, config=config, state_dict=state, output_loading_info=True
    )
    problems = {name: sorted(map(str, report[name])) for name in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    if any(problems.values()):
        lines = [f"{name.replace('_', ' ')}: {', '.join(keys)}" for name, keys in problems.items() if keys]
        raise CheckpointError(f"The weights of {model} do not fit {architecture}; " + "; ".join(lines))
    with writing_model_folder(output) as folder:
        loaded.save_pretrained(folder)
        if has_file(model, "preprocessor_config.json", **hub):
            AutoImageProcessor.from_pretrained(model, **hub).save_pretrained(folder)
    return loaded.eval()


def _pickled_files(model: str | Path, hub: Mapping[str, Any]) -> list[Path]:
    """`pytorch_model.bin`, or the shards that its index names, downloaded where they are on the Hub."""
    from transformers.utils import WEIGHTS_INDEX_NAME, WEIGHTS_NAME, cached_file

    def found(name: str) -> Path | None:
        file = cached_file(model, name, _raise_exceptions_for_missing_entries=False, **hub)
        return None if file is None else Path(file)

    if whole := found(WEIGHTS_NAME):
        return [whole]
    index = found(WEIGHTS_INDEX_NAME)
    if index is None:
        raise CheckpointError(f"{model} has no {WEIGHTS_NAME} and no {WEIGHTS_INDEX_NAME}: nothing to convert.")
    shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    files = [found(shard) for shard in shards]
    if None in files:
        raise CheckpointError(f"{model} lacks {shards[files.index(None)]}, which {WEIGHTS_INDEX_NAME} names.")
    return files
