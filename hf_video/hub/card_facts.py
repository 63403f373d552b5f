"""Reads the facts that a model card is made from.

They come from `config.json`, the processor's file, the headers of the weights, `training_summary.json` (written by
training) and `evaluation/<split>/report.json` (written by evaluation). What none of them says is None here, and named
as missing in the card.
"""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_video.errors import CheckpointError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

# Names on the Hub of weights whose licence is known, from the pages of their authors.
BASE_LICENSES = (
    (r"MCG-NJU/videomae-", "cc-by-nc-4.0"),
    (r"facebook/timesformer-", "cc-by-nc-4.0"),
    (r"facebook/vjepa2-", "mit"),
)
# What a model type is called, and its paper on arXiv.
PAPERS = {
    "actionformer": ("ActionFormer", "2202.07925"),
    "c3d": ("C3D", "1412.0767"),
    "i3d": ("I3D", "1705.07750"),
    "mvit": ("MViT", "2104.11227"),
    "slowfast": ("SlowFast", "1812.03982"),
    "timesformer": ("TimeSformer", "2102.05095"),
    "two_stream": ("two-stream network", "1406.2199"),
    "video_swin": ("Video Swin", "2106.13230"),
    "videomae": ("VideoMAE", "2203.12602"),
    "vivit": ("ViViT", "2103.15691"),
    "vjepa2": ("V-JEPA 2", "2506.09985"),
    "x3d": ("X3D", "2004.04730"),
    "tridet": ("TriDet", "2303.07347"),
}
PROCESSOR_FILES = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")
ABSOLUTE = re.compile(r"""(?<![\w:/.\\-])(?:/[^\s/"'`,;:()\[\]<>|]+){2,}/?|\b[A-Za-z]:\\[^\s"'`,;()<>|]+""")
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass
class ModelFacts:
    """The facts of a folder: `reports` by split; `parameters` counted in the files; `base_model` a name on the Hub, or
    the last part of a local path (`base_is_local`); `federated` the summary of a federation that trained it."""

    folder: Path
    config: dict[str, Any]
    processor: dict[str, Any] | None
    parameters: int
    dtypes: list[str]
    summary: dict[str, Any] | None = None
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    base_model: str | None = None
    base_is_local: bool = False
    base_license: str | None = None
    federated: dict[str, Any] | None = None

    @property
    def architecture(self) -> str:
        return (self.config.get("architectures") or ["a model"])[0]

    @property
    def is_classifier(self) -> bool:
        return self.architecture.endswith("ForVideoClassification")

    @property
    def is_multi_label(self) -> bool:
        """Whether a clip may show several classes."""
        return self.config.get("problem_type") == "multi_label_classification"

    @property
    def is_pretraining(self) -> bool:
        return self.architecture.endswith("ForPreTraining")

    @property
    def is_detector(self) -> bool:
        """Whether it finds events in a sequence of features."""
        return self.architecture.endswith("ForTemporalActionDetection")

    @property
    def labels(self) -> list[str]:
        """Class names in the order of their numbers."""
        names = self.config.get("id2label") or {}
        return [names[number] for number in sorted(names, key=int)]

    @property
    def from_scratch(self) -> bool | None:
        """None: not recorded."""
        if self.base_model is not None:
            return False
        return None if self.summary is None else self.summary.get("from_scratch")


def read_facts(folder: str | Path) -> ModelFacts:
    """Reads the facts of a folder. Raises CheckpointError without `config.json` or safetensors."""
    folder = Path(folder)
    config = read_json_object(folder / "config.json")
    weights = sorted(folder.glob("*.safetensors"))
    if config is None or not weights:
        raise CheckpointError(
            f"{folder} is not a saved model: it needs config.json and model.safetensors, which save_pretrained writes."
        )
    processor = next((found for name in PROCESSOR_FILES if (found := read_json_object(folder / name))), None)
    parameters, dtypes = count_weights(weights)
    summary = read_json_object(folder / "training_summary.json")
    reports = {
        file.parent.name: read_json_object(file) for file in sorted((folder / "evaluation").glob("*/report.json"))
    }  # fmt: skip
    federated = read_json_object(folder / "federated_summary.json")
    facts = ModelFacts(folder, config, processor, parameters, dtypes, summary, reports, federated=federated)
    _find_base(facts)
    return facts


def read_json_object(file: Path) -> dict[str, Any] | None:
    """Reads a JSON object, None without such a file. Raises CheckpointError for anything else."""
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} can't be read as JSON ({error}); it was cut off or edited.") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{file} holds {type(found).__name__}, and a JSON object was written there.")
    return found


def count_weights(files: list[Path]) -> tuple[int, list[str]]:
    """Counts the numbers in all tensors, and lists their types ("F32"), from the headers alone. Raises CheckpointError
    for a file that is cut off or no safetensors."""
    from safetensors import SafetensorError, safe_open

    count, dtypes = 0, set()
    for file in files:
        try:
            with safe_open(file, framework="np") as weights:
                for name in weights.keys():  # noqa: SIM118 - no mapping
                    tensor = weights.get_slice(name)
                    count += math.prod(tensor.get_shape())
                    dtypes.add(tensor.get_dtype())
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{file} can't be read as safetensors ({error}): it is damaged or cut off."
            ) from error
    return count, sorted(dtypes)


def _find_base(facts: ModelFacts) -> None:
    base = (facts.summary or {}).get("base_model")
    if not base:
        return
    local = Path(base).expanduser()
    facts.base_is_local = (
        facts.summary.get("base_model_is_local", False) or local.exists() or not HUB_NAME.fullmatch(base)
    )
    facts.base_model = local.name if facts.base_is_local else base
    if facts.base_is_local and (local / "README.md").is_file():
        from huggingface_hub import ModelCard

        facts.base_license = ModelCard.load(local / "README.md", ignore_metadata_errors=True).data.get("license")
    else:
        known = (licence for pattern, licence in BASE_LICENSES if re.match(pattern, base))
        facts.base_license = next(known, None)


def look_up_base_license(facts: ModelFacts, api: HfApi) -> None:
    """Asks the Hub for the licence of the base model. What is not there was a folder whose path looked like a name."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    if facts.base_model is None or facts.base_is_local:
        return
    try:
        card = api.model_info(facts.base_model).card_data
    except HfHubHTTPError as error:
        missing = isinstance(error, RepositoryNotFoundError) and not isinstance(error, GatedRepoError)
        facts.base_is_local = missing and facts.base_license is None
        return
    stated = card.get("license") if card else None
    facts.base_license = stated if isinstance(stated, str) else facts.base_license


def shareable_files(facts: ModelFacts) -> dict[str, bytes]:
    """Returns the summary, the reports and their tables by name, without paths of this machine."""
    tables = (facts.folder / "evaluation").glob("*/*.csv")
    files = {path.relative_to(facts.folder).as_posix(): path.read_bytes().decode("utf-8", "replace") for path in tables}
    if facts.summary is not None:
        hidden = {"base_model": facts.base_model, "base_model_is_local": True} if facts.base_is_local else {}
        files["training_summary.json"] = _json({**facts.summary, **hidden})
    for split, report in facts.reports.items():
        model = Path(report.get("model") or "")
        named = {**report, "model": model.name} if model.is_absolute() or model.exists() else report
        files[f"evaluation/{split}/report.json"] = _json(named)
    return {name: strip_local_paths(text).encode() for name, text in files.items()}


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def strip_local_paths(text: str) -> str:
    """Shortens the absolute paths in a text to their last parts: `/home/me/clips/a.mp4` becomes `a.mp4`. What begins
    with a folder that this machine doesn't have is not a path of it (`/m/04rlf` is a class of AudioSet)."""

    def last(found: re.Match) -> str:
        parts = re.split(r"[/\\]+", found[0].rstrip("/\\"))
        return parts[-1] if not found[0].startswith("/") or os.path.isdir(f"/{parts[1]}") else found[0]

    for place in sorted({os.getcwd(), os.path.expanduser("~")} - {"/"}, key=len, reverse=True):
        text = re.sub(
            rf"{re.escape(place)}({re.escape(os.sep)}|(?![\w-]))", lambda found: "" if found[1] else ".", text
        )
    return ABSOLUTE.sub(last, text)
