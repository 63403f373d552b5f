"""Makes the model card of a folder from the files that lie in it.

    write_card("runs/my-model", repo_id="me/my-model")

Every number in it was read from a file of the folder; what no file says is named as missing. The metadata at its top
are `huggingface_hub`'s, so that the Hub shows task, licence, base model and measured metrics. See `card_facts` for what
is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_video.base.version import __version__
from hf_video.errors import pluralize
from hf_video.hub.card_facts import PAPERS, ModelFacts, read_facts
from hf_video.hub.markdown import (
    bullet_list,
    collapsible,
    escape_markdown,
    format_duration,
    format_number,
    format_percent,
    markdown_table,
    picture,
    protocol,
    results_section,
)

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

MARK = (
    "<!-- Made by hf-video from the files of this folder, and made anew from them; without this line it is yours. -->"
)
_NO_PRIVACY = (
    "There is no guarantee of differential privacy: the updates that clients sent, and the model itself, may tell "
    "something of single videos."
)


def write_card(folder: str | Path, *, repo_id: str | None = None, license: str | None = None) -> Path:
    """Writes the model card, `README.md`, of a saved model, unless a person wrote one (without our mark).

    Args:
        folder: The model's.
        repo_id: The name that the usage example loads.
        license: A licence of the Hub's list, such as "apache-2.0"; default that of the weights it started from.

    Returns:
        The path of the card.

    Raises:
        CheckpointError: The folder is not a saved model.
    """
    path = Path(folder) / "README.md"
    if not path.exists() or is_generated_card(path):
        make_card(read_facts(folder), repo_id=repo_id, license=license).save(path)
    return path


def is_generated_card(path: Path) -> bool:
    """Whether a card may be made anew: ours, or one that transformers generated."""
    text = path.read_text(encoding="utf-8", errors="replace")
    return MARK in text or "has been generated automatically according to the information the Trainer" in text


def make_card(facts: ModelFacts, *, repo_id: str | None = None, license: str | None = None) -> ModelCard:
    """Makes the card of these facts; see `write_card`."""
    from huggingface_hub import ModelCard

    name = repo_id or facts.folder.resolve().name
    license = license or facts.base_license
    sections = [
        [MARK, f"# {name.split('/')[-1]}", _what(facts)],
        ["## Use", "With the package `hf_video` installed:", _snippet(facts, name), _input(facts)],
        ["## Results", *results_section(facts)],
        ["## Data", *_data(facts)],
        ["## Training", *_training(facts)],
        ["## Privacy", statement] if (statement := _privacy(facts)) else [],
        ["## Limits", bullet_list(_limits(facts))],
        ["## Licence", _license(facts, license)],
        ["## How this was made", _made(facts)],
    ]
    body = "\n\n".join(part for section in sections for part in section if part)
    return ModelCard(f"---\n{_metadata(facts, name, license).to_yaml()}\n---\n\n{body}\n")


def _metadata(facts: ModelFacts, name: str, license: str | None) -> ModelCardData:
    from huggingface_hub import ModelCardData

    model_type = facts.config.get("model_type", "")
    results = _eval_results(facts)
    source = _data_facts(facts)
    return ModelCardData(
        base_model=None if facts.base_is_local else facts.base_model,
        datasets=[source["dataset_id"]] if source.get("dataset_id") else None,
        eval_results=results or None,
        library_name="transformers",
        license=license,
        metrics=["accuracy" if facts.is_classifier and not facts.is_multi_label else "mean_average_precision"]
        if results
        else None,
        model_name=name.split("/")[-1] if results else None,
        pipeline_tag="video-classification" if facts.is_classifier else None,
        tags=["hf-video", "video", model_type, *(["masked-pretraining"] if facts.is_pretraining else [])],
    )


def _eval_results(facts: ModelFacts) -> list[EvalResult]:
    from huggingface_hub import EvalResult

    data = _data_facts(facts)
    results = []
    for split, report in facts.reports.items():
        found = [("accuracy", "Top-1 accuracy", "top1"), ("accuracy", "Top-5 accuracy", "top5")]
        found.append(("mean_average_precision", "Mean average precision", "mean_average_precision"))
        found.append(("f1", "Macro F1", "macro_f1"))
        for kind, title, key in found:
            if report.get(key) is None or (key == "top5" and report.get("classes", 6) <= 5):
                continue
            results.append(
                EvalResult(
                    task_type="temporal-action-detection" if facts.is_detector else "video-classification",
                    task_name="Temporal action detection" if facts.is_detector else "Video classification",
                    dataset_type=data.get("dataset_id") or "unknown",
                    dataset_name=data.get("name") or "not recorded",
                    dataset_split=split,
                    dataset_args={"videos": report.get("found"), "protocol": protocol(report, "name")},
                    metric_type=kind,
                    metric_name=title,
                    metric_value=round(report[key], 4),
                )
            )
    return results


# ---- sections ----


def _what(facts: ModelFacts) -> str:
    model_type = facts.config.get("model_type", "")
    title, paper = PAPERS.get(model_type, (model_type or "video model", None))
    link = f"[{title}](https://arxiv.org/abs/{paper})" if paper else title
    task = "turns video clips into features"
    if facts.is_classifier:
        shown = ", ".join(f"*{escape_markdown(label)}*" for label in facts.labels[:8])
        more = f", and {len(facts.labels) - 8} more" if len(facts.labels) > 8 else ""
        labels = pluralize(len(facts.labels), "label")
        task = f"gives a video clip {'any number' if facts.is_multi_label else 'one'} of {labels}: {shown}{more}"
    elif facts.is_detector:
        shown = ", ".join(f"*{escape_markdown(label)}*" for label in facts.labels[:8])
        more = f", and {len(facts.labels) - 8} more" if len(facts.labels) > 8 else ""
        task = f"finds events in videos, with start and end, of {pluralize(len(facts.labels), 'label')}: {shown}{more}"
    elif facts.is_pretraining:
        told = "telling the features of" if facts.config.get("model_type") == "vjepa2" else "filling in"
        task = f"was pretrained on unlabelled clips by {told} what was masked; it is a start for fine-tuning"
    begun = {True: "trained from random weights", False: f"trained from {_base(facts)}"}
    origin = begun.get(facts.from_scratch, "started from weights that are not recorded")
    kind = f"`{facts.architecture}`, {facts.parameters:,} parameters, {'/'.join(facts.dtypes)}"
    return f"A {link} model ({kind}) that {task}. It was {origin}."


def _base(facts: ModelFacts) -> str:
    if facts.base_is_local:
        return f"a checkpoint named `{facts.base_model}`, of no public name"
    return f"[{facts.base_model}](https://huggingface.co/{facts.base_model})"


def _snippet(facts: ModelFacts, name: str) -> str:
    if facts.is_classifier:
        lines = [
            "import hf_video",
            "from transformers import pipeline",
            "",
            f'classify = pipeline("video-classification", model="{name}")',
            'print(classify("clip.mp4", top_k=None, threshold="model"))'
            if facts.is_multi_label
            else 'print(classify("clip.mp4", top_k=3))',
        ]
    elif facts.is_detector:
        lines = [
            "import hf_video",
            "from transformers import pipeline",
            "",
            f'detect = pipeline("temporal-action-detection", model="{name}")',
            'for event in detect("video.mp4"):',
            "    print(event.label, event.score, event.start, event.end)",
        ]
    else:
        lines = [
            "import hf_video",
            "from transformers import AutoImageProcessor, AutoModel",
            "",
            f'processor = AutoImageProcessor.from_pretrained("{name}")',
            f'encoder = AutoModel.from_pretrained("{name}")',
            'clip = processor("clip.mp4", return_tensors="pt")',
            "print(encoder.get_video_features(**clip).embedding.shape)",
        ]
    return "\n".join(["```python", *lines, "```"])


def _input(facts: ModelFacts) -> str:
    config, processor = facts.config, facts.processor
    if facts.is_detector:
        encoder, rate = config.get("encoder") or {}, config.get("feature_fps")
        named = f" of `{Path(str(encoder['name'])).name}`" if encoder.get("name") else ""
        kept = ", which lies in `encoder/`" if (facts.folder / "encoder").is_dir() else ""
        counted = f" on a timeline of {rate:g} frames a second" if rate else ""
        return (
            f"It works on features{named}{kept}: a vector for {config.get('feature_frames', 16):g} frames, a new one "
            f"every {config.get('feature_stride', 4):g}{counted}."
        )
    if processor is None:
        return "The folder holds no processor, so how frames are resized and normalised is not recorded."
    count = processor.get("num_frames") or config.get("num_frames")
    frames = f"{count} frames a clip" if count else "the model's own number of frames a clip"
    sampler = processor.get("sampler") or "uniform"
    options = ", ".join(f"{key} {value}" for key, value in (processor.get("sampler_options") or {}).items())
    cropped = processor.get("do_center_crop", True) and processor.get("crop_size")
    sizes = f"resized to {_size(processor.get('size'))}" + (f", cropped to {_size(cropped)}" if cropped else "")
    return f"It sees {frames}, sampled `{sampler}`{f' ({options})' if options else ''}, {sizes} pixels; RGB."


def _size(size: dict[str, int] | int | None) -> str:
    if not isinstance(size, dict):
        return str(size)
    return f"{size['shortest_edge']} (short side)" if "shortest_edge" in size else f"{size['height']} x {size['width']}"


def _data(facts: ModelFacts) -> Iterable[str]:
    data = _data_facts(facts)
    if not data.get("splits"):
        yield "Which videos it was trained on is not recorded in the folder."
        return
    splits = data["splits"]
    where = f" from `{escape_markdown(data['name'])}`" if data.get("name") else ""
    yield f"Videos{where}: " + ", ".join(f"{split['videos']} for {name}" for name, split in splits.items()) + "."
    labels = list(dict.fromkeys(label for split in splits.values() for label in split["classes"]))
    if labels:
        counts = [split["classes"] for split in splits.values()]
        rows = [(escape_markdown(label), *(one.get(label, 0) for one in counts)) for label in labels]
        title = f"Videos of each class, {pluralize(len(labels), 'class', 'classes')}"
        yield collapsible(title, ("class", *splits), rows)
    yield _skipped(data["skipped"])


def _skipped(entries: Sequence[dict[str, Any]]) -> str:
    if not entries:
        return "No file was left out."
    sentences = []
    for title, used in (("Left out", False), ("Used, and worth a look", True)):
        kinds = Counter(entry.get("kind", "unknown") for entry in entries if bool(entry.get("used")) == used)
        if kinds:
            sentences.append(f"{title}: {', '.join(f'{count} {kind}' for kind, count in kinds.items())}.")
    return " ".join(sentences)


def _data_facts(facts: ModelFacts) -> dict[str, Any]:
    """Of the summary's `data`: `name` (no path of somebody's machine), `dataset_id` on the Hub, `splits`, `skipped`."""
    data = (facts.summary or {}).get("data") or {}
    source = data.get("source")
    on_hub = bool(data.get("dataset_id"))
    name = data["dataset_id"] if on_hub else Path(str(source)).name if source else None
    splits = {
        split: {"videos": found.get("videos", 0), "classes": found.get("classes") or {}}
        for split, found in (data.get("splits") or {}).items()
    }
    return {"name": name, "dataset_id": data.get("dataset_id"), "splits": splits, "skipped": data.get("skipped") or []}


def _training(facts: ModelFacts) -> Iterable[str]:
    summary = facts.summary
    if facts.federated is not None:
        yield from _federated(facts)
        return
    if summary is None:
        yield "How it was trained is not recorded: the folder holds no `training_summary.json`."
        return
    facts_in_words = [
        ("recipe", summary.get("recipe")),
        ("epochs", summary.get("epochs")),
        ("steps", summary.get("steps")),
        ("time", format_duration(summary.get("seconds"))),
        ("clips a second", summary.get("clips_per_second")),
        ("share of the time waiting for decoding", format_percent(summary.get("decode_wait"))),
        ("final training loss", summary.get("train_loss")),
        ("final evaluation loss", summary.get("eval_loss")),
        ("device", summary.get("device")),
    ]
    known = [(name, format_number(value)) for name, value in facts_in_words if value is not None]
    if known:
        yield markdown_table(("", ""), known)
    yield picture(facts, "figures/loss_curve.png", "Loss curve") or picture(
        facts, "training_curve.png", "Loss, measurements and learning rate over the steps"
    )
    rows = [(f"`{key}`", format_number(one)) for key, one in sorted((summary.get("hyper_parameters") or {}).items())]
    if rows:
        yield collapsible(pluralize(len(rows), "hyper-parameter"), ("hyper-parameter", "value"), rows)
    else:
        yield "Its hyper-parameters are not recorded."


def _federated(facts: ModelFacts) -> Iterable[str]:
    """How sites trained the model together, and what each could learn of the others."""
    summary = facts.federated or {}
    config = summary.get("config") or {}
    clients = pluralize(len(summary.get("clients") or ()), "client")
    yield f"{clients} trained it together in {pluralize(summary.get('rounds', 0), 'round')}; no videos left their site."
    yield str((summary.get("privacy") or {}).get("statement") or _NO_PRIVACY)
    measured = [
        (f"{name}, {which}", format_number(value))
        for name, values in sorted((summary.get("evaluation") or {}).items())
        for which, value in values.items()
    ]
    if measured:
        alike = "" if str(config.get("secure")).startswith("secagg") else ", each client alike"
        yield f"What clients measured on their own held-out videos{alike}:"
        yield markdown_table(("", ""), measured)
    yield picture(facts, "rounds.png", "Accuracy by round and by megabyte sent")
    rows = [(f"`{key}`", format_number(value)) for key, value in sorted(config.items()) if value is not None]
    if rows:
        yield collapsible("The federation", ("field", "value"), rows)


def _privacy(facts: ModelFacts) -> str | None:
    """What a private training states of itself."""
    return ((facts.summary or {}).get("privacy") or {}).get("statement")


def _limits(facts: ModelFacts) -> Iterable[str]:
    classes = pluralize(len(facts.labels), "class", "classes")
    if facts.is_multi_label:
        yield f"It knows {classes}; a video of something else gets some scores all the same."
    elif facts.is_classifier:
        yield f"It knows {classes} and always answers one of them, whatever a video shows."
    elif facts.is_detector:
        yield f"It knows {classes} of events; its scores are for ranking, and most events of a low score are wrong."
    for split, report in facts.reports.items():
        if report.get("found", 1000) < 1000 and report.get("top1_interval"):
            low, high = report["top1_interval"]
            yield (
                f"{pluralize(report['found'], 'video')} of {split} can't tell more about the true top-1 than that it "
                f"lies from {format_percent(low)} to {format_percent(high)} (95 % interval)."
            )
        unseen = report.get("classes", 0) - report.get("classes_seen", report.get("classes", 0))
        if unseen > 0:
            yield f"{unseen} of its classes had no video in {split}, so that they were not measured."
    counts = [n for split in list(_data_facts(facts)["splits"].values())[:1] for n in split["classes"].values()]
    if counts and max(counts) >= 3 * max(min(counts), 1):
        yield f"Classes are uneven in training: from {min(counts)} to {max(counts)} videos."
    yield "Videos of another kind (cameras, places, people, frame rates) than those of its data were not measured."
    if facts.is_pretraining:
        yield "It labels nothing until it is fine-tuned."


def _license(facts: ModelFacts, license: str | None) -> str:
    lines = []
    if facts.base_model is None:
        started = "It was not trained from other weights." if facts.from_scratch else ""
        lines.append(started or "Which weights it started from is not recorded; theirs may restrict its use.")
    elif facts.base_license is None:
        lines.append(f"The licence of the weights it started from, {_base(facts)}, was not found; look there.")
    else:
        is_noncommercial = "-nc" in facts.base_license.lower()
        noncommercial = " They may not be used commercially, nor what was made from them." if is_noncommercial else ""
        lines.append(
            f"It started from {_base(facts)}, whose weights are under **{facts.base_license}**.{noncommercial}"
        )
    if license is None:
        lines.append("No licence was chosen for this model.")
    elif license != facts.base_license:
        lines.append(f"This model: **{license}**.")
    return " ".join(lines)


def _made(facts: ModelFacts) -> str:
    versions = dict((facts.summary or {}).get("versions") or {})
    if not versions:
        known = ((facts.summary or {}).get("hf_video"), facts.config.get("transformers_version"))
        versions = {name: version for name, version in zip(("hf_video", "transformers"), known, strict=True) if version}
    used = ", ".join(f"{name} {version}" for name, version in versions.items())
    made = f"Trained with {used}." if facts.summary and used else f"Saved with {used}." if used else ""
    return f"{made} This card was written by hf_video {__version__} from the files of the folder.".strip()
