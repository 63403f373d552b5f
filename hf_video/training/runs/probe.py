"""The linear probe: how much of the classes lies open in a frozen model's features.

Features are made once; a multinomial logistic regression on them is solved to its end (L-BFGS, standardised features),
its penalty chosen on a split of the training videos alone. The result is an ordinary model: the standardisation is
folded into its classifier, so it works in `pipeline("video-classification")`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from hf_video.base.exported import exported_on_hub, is_exported, refuse_exported
from hf_video.base.loading import loading
from hf_video.base.processing import ClipProcessing
from hf_video.base.processing_config import frames_per_clip
from hf_video.base.saved_model import SavedVideoModel
from hf_video.base.written_files import check_output_folder, update_checksums, writing_model_folder
from hf_video.data.rows import VideoRows
from hf_video.data.sources.division import Division, choose_test
from hf_video.errors import CheckpointError, DataError
from hf_video.features.compiled import compile_model
from hf_video.features.extraction import ClipVectors, Features, extract_features

# Weights of the squared norm beside the mean cross-entropy, strongest first: each solution starts the next.
PENALTIES = tuple(10.0**k for k in range(0, -7, -1))
SPLIT = 0.2


@dataclass(frozen=True)
class LinearHead:
    """`weight` (classes, D) and `bias` (classes,), float64, for features as they come: standardisation is folded in.
    `penalty` is the one that was chosen, `curve` the accuracy on the split for each that was tried."""

    weight: torch.Tensor
    bias: torch.Tensor
    penalty: float
    curve: dict[float, float]

    def logits(self, embeddings: np.ndarray | torch.Tensor) -> torch.Tensor:
        return F.linear(torch.as_tensor(embeddings, dtype=torch.float64), self.weight, self.bias)

    def accuracy(self, embeddings: np.ndarray | torch.Tensor, labels: np.ndarray | torch.Tensor) -> float:
        return float((self.logits(embeddings).argmax(1) == torch.as_tensor(labels)).double().mean())


def solve(x: torch.Tensor, labels: torch.Tensor, classes: int, penalty: float, start: torch.Tensor | None = None):
    """(classes, D + 1), the last column the bias: the minimum of mean cross-entropy + penalty/2 · |weights|², float64.

    The bias is not penalised. The problem is convex: where it starts decides how long it takes, not what comes out.
    """
    found = torch.zeros(classes, x.shape[1] + 1, dtype=x.dtype) if start is None else start.clone()
    found.requires_grad_(True)
    solver = torch.optim.LBFGS(
        [found],
        max_iter=500,
        history_size=20,
        tolerance_grad=1e-7,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def loss() -> torch.Tensor:
        solver.zero_grad()
        value = F.cross_entropy(F.linear(x, found[:, :-1], found[:, -1]), labels)
        value = value + penalty / 2 * found[:, :-1].square().sum()
        value.backward()
        return value

    solver.step(loss)
    return found.detach()


def fit_head(embeddings: np.ndarray, labels: np.ndarray, held_out: np.ndarray, classes: int) -> LinearHead:
    """A probe for features (N, D) and class numbers (N,). The penalty is the one with the best accuracy on the rows
    `held_out` (N,) bool, the stronger of equals; the head is then fitted on all rows.

    Raises DataError for features that are not finite, and for a split without training or held-out rows.
    """
    x, y = torch.as_tensor(embeddings, dtype=torch.float64), torch.as_tensor(labels, dtype=torch.int64)
    held_out = torch.as_tensor(held_out)
    if not torch.isfinite(x).all():
        raise DataError("Some features are not finite (NaN or infinite): the model's output is broken for some video.")
    if not 0 < int(held_out.sum()) < len(y):
        raise DataError(f"{int(held_out.sum())} of {len(y)} rows are held out to choose the penalty; some, not all.")
    mean, scale = x.mean(0), x.std(0)
    scale = torch.where(scale > 1e-8 * x.abs().amax(0).clamp(min=1e-30), scale, torch.inf)  # constant: no say
    x = (x - mean) / scale
    curve, start = {}, None
    for penalty in PENALTIES:
        start = solve(x[~held_out], y[~held_out], classes, penalty, start)
        right = F.linear(x[held_out], start[:, :-1], start[:, -1]).argmax(1) == y[held_out]
        curve[penalty] = float(right.double().mean())
    best = max(PENALTIES, key=lambda penalty: curve[penalty])
    found = solve(x, y, classes, best)
    weight = found[:, :-1] / scale
    return LinearHead(weight, found[:, -1] - weight @ mean, best, curve)


@dataclass(frozen=True)
class ProbeReport:
    """Top-1 on the training and test videos (0 to 1), how many of each were read, what was chosen, and the head."""

    train_top1: float
    test_top1: float
    train_found: int
    test_found: int
    penalty: float
    head: LinearHead
    skipped: list[Any]

    def as_dict(self) -> dict[str, Any]:
        names = ("train_top1", "test_top1", "train_found", "test_found", "penalty")
        return {**{name: getattr(self, name) for name in names}, "skipped": [one.as_dict() for one in self.skipped]}


def linear_probe(
    model: PreTrainedModel,
    processor: ClipProcessing,
    train: VideoRows,
    test: VideoRows,
    *,
    seed: int = 0,
    **options: Any,
) -> ProbeReport:
    """Probes a model with labelled videos: one vector per video, `options` as in `extract_features`.

    Raises DataError where a class has no training video that can be read, or there is nothing to test on.
    """
    check_rows(train, test)
    seen = extract_features(model, processor, train, **options)
    unseen = extract_features(model, processor, test, **options)
    return probe_features(seen, unseen, train, seed=seed)


def probe_features(train: Features, test: Features, rows: VideoRows, *, seed: int = 0) -> ProbeReport:
    """The probe on features that are there; `rows` are the training videos, for the split and the names of classes."""
    for name, part in (("train", train), ("test", test)):
        if not len(part):
            raise DataError(f"None of the {name} videos could be read: {'; '.join(map(str, part.skipped[:3]))}")
    empty = [label for number, label in enumerate(rows.labels) if not (train.labels == number).any()]
    if empty:
        raise DataError(f"{len(empty)} of {len(rows.labels)} classes have no training video: {', '.join(empty[:5])}.")
    by_name = {row.name: row for row in rows}
    held_out = np.array(choose_test([by_name[name] for name in train.names], SPLIT, seed))
    head = fit_head(train.embeddings, train.labels, held_out, len(rows.labels))
    return ProbeReport(
        train_top1=head.accuracy(train.embeddings, train.labels),
        test_top1=head.accuracy(test.embeddings, test.labels),
        train_found=len(train),
        test_found=len(test),
        penalty=head.penalty,
        head=head,
        skipped=[*train.skipped, *test.skipped],
    )


def check_rows(train: VideoRows, test: VideoRows) -> None:
    """Raises DataError for videos that no probe can be fitted to or measured on."""
    for name, rows in (("train", train), ("test", test)):
        if not len(rows):
            raise DataError(f"There are no {name} videos to probe with.")
        if not rows.labelled:
            raise DataError(f"Some {name} videos have no label; a probe needs one for each.")
        if rows.multi_label:
            raise DataError("Videos of several labels came, and a probe takes one for each: train a model on them.")
    if train.labels != test.labels:
        raise DataError(f"The classes differ: train has {train.labels[:5]}, test {test.labels[:5]}.")


def load_encoder(
    model: str, labels: list[str], *, random: bool = False, revision: str | None = None, dtype: str = "auto"
) -> Any:
    """A classifier for `labels` around the encoder of a model folder or name on the Hub, its head still random, in
    eval mode; `random=True` gives an untrained one of the same shape: what the probe has to be compared with.

    A VideoMAE that comes from pretraining pools over all tokens, as in fine-tuning. Where a classifier would have more
    random weights than its last layer (the poolers of V-JEPA 2 and VideoPrism), and where a model type of clips has
    none, the encoder itself comes. Raises CheckpointError for a model type that takes no clips.
    """
    import transformers

    with loading(model):
        exported = model if os.path.exists(model) else exported_on_hub(model, revision=revision)
        if exported is not None and is_exported(exported):
            return SavedVideoModel.from_pretrained(exported)
    auto = transformers.AutoModelForVideoClassification
    with loading(model):
        config = transformers.AutoConfig.from_pretrained(model, revision=revision)
    if type(config) not in auto._model_mapping:
        encoder = transformers.MODEL_MAPPING.get(type(config), None)
        if encoder is None or not hasattr(encoder, "get_video_features"):
            raise CheckpointError(
                f"{model} is a {config.model_type}: there is no video classifier of that type to probe."
            )
        auto = transformers.AutoModel
    if "VideoMAEForPreTraining" in (config.architectures or ()):
        config.use_mean_pooling = True
    config.id2label, config.label2id = dict(enumerate(labels)), {label: i for i, label in enumerate(labels)}
    if random:
        return auto.from_config(config).eval()
    level = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()  # that the classifier is new is what is wanted here
    try:
        with loading(model):
            options = {"config": config, "revision": revision, "dtype": dtype, "ignore_mismatched_sizes": True}
            loaded, found = auto.from_pretrained(model, **options, output_loading_info=True)
            new = {name for name in found["missing_keys"] if not name.startswith("classifier.")}
            if any(parameter.ndim > 1 for name, parameter in loaded.named_parameters() if name in new):
                loaded = transformers.AutoModel.from_pretrained(model, **options)
    finally:
        transformers.utils.logging.set_verbosity(level)
    return loaded.eval()


def set_head(model: PreTrainedModel, head: LinearHead, sample: dict[str, torch.Tensor]) -> None:
    """Makes the probe the model's classifier. `sample` are model inputs of a clip or more, on which the model must then
    give the probe's own logits: raises CheckpointError where it does not (a head that is more than one linear layer on
    the features)."""
    classifier = getattr(model, "classifier", None)
    if not isinstance(classifier, nn.Linear) or classifier.in_features != head.weight.shape[1]:
        raise CheckpointError(
            f"{type(model).__name__} has no linear classifier of {head.weight.shape[1]} features: its probe can be "
            "measured, but not saved as a model."
        )
    fresh = nn.Linear(*head.weight.T.shape).to(classifier.weight)
    with torch.no_grad():
        fresh.weight.copy_(head.weight)
        fresh.bias.copy_(head.bias)
    model.classifier = fresh
    model.config.num_labels = model.num_labels = len(head.bias)
    vectors = ClipVectors(model)
    with vectors as embed, torch.inference_mode():
        expected = head.logits(embed(sample))
        given = model(**{k: v.to(model.device, model.dtype) for k, v in sample.items()}).logits.double().cpu()
    if not torch.allclose(given, expected, rtol=1e-2, atol=1e-2 * float(expected.abs().max())):
        raise CheckpointError(f"{type(model).__name__} does not answer with one linear layer on its features.")


def save_probe(
    folder: str | os.PathLike[str],
    model: PreTrainedModel,
    processor: ClipProcessing,
    report: ProbeReport,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """The model with its probe as a folder for `from_pretrained` and `pipeline`, and `probe.json` with the report and
    `facts`."""
    with writing_model_folder(folder) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        write_report(folder, {**report.as_dict(), **(facts or {})})


def write_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Writes the `probe.json` of a folder."""
    (folder / "probe.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")


def probe_model(
    data: Any,
    model: str,
    *,
    output: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    random: bool = False,
    device: str | None = None,
    seed: int | None = None,
    data_format: str | None = None,
    videos: str | os.PathLike[str] | None = None,
    compile: bool | Callable[[str], Any] = False,
    **options: Any,
) -> dict[str, Any]:
    """`linear_probe` from names: labelled videos as `load_videos` takes them (`data_format`, `videos`), and a model
    folder or name on the Hub.

    Data without splits are divided as the model of a folder was trained on them, else by `seed` (default 0): see
    `hf_video.evaluation.rows.evaluation_splits`.

    `compile` has torch compile the encoder (`hf_video.compile_model`), True or what takes the lines that say so.
    `random=True` probes the same model with random weights too. With `output` the probe is saved there (`save_probe`),
    with `split.json`. `options` are those of `extract_features`. Returns the report, with `chance`, the share of the
    most frequent class among the test videos, and the class names `labels`.
    """
    from hf_video.base.loading import find_processors
    from hf_video.evaluation.rows import evaluation_splits

    no_use_of_exports = "saved with a probe, or made anew with random weights (it can be probed without both)"
    if output is not None or random:
        refuse_exported(model, no_use_of_exports)
    if output is not None:
        check_output_folder(output)
    splits = evaluation_splits(data, model, seed=seed, data_format=data_format, videos=videos)
    seed = seed or 0
    test = splits.get("test") or splits.get("validation")
    if "train" not in splits or test is None:
        raise DataError(f"{data} has the splits {', '.join(splits)}; a probe needs train and test.")
    train = splits["train"]
    encoder = load_encoder(model, train.labels, revision=revision)
    if (output is not None or random) and hasattr(encoder, "graphs"):  # of the Hub
        refuse_exported(encoder.folder, no_use_of_exports)
    if output is not None and not isinstance(getattr(encoder, "classifier", None), nn.Linear):
        raise CheckpointError(
            f"{type(encoder).__name__} has no linear classifier: its probe can be measured, but not saved as a model. "
            "Leave the output out."
        )
    processor = next(one for one in find_processors(encoder, None, None) if one is not None)
    options["device"] = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if compile:
        compile_model(encoder.to(options["device"]), say=compile if callable(compile) else None)
    report = linear_probe(encoder, processor, train, test, seed=seed, **options)
    facts: dict[str, Any] = {
        "model": model,
        "labels": train.labels,
        "chance": max(test.counts().values()) / len(test),
        "random_top1": None,
    }
    if random:
        torch.manual_seed(seed)
        untrained = type(encoder)._from_config(encoder.config).eval()
        facts["random_top1"] = linear_probe(untrained, processor, train, test, seed=seed, **options).test_top1
    if output is not None:
        row = next(row for row in train if row.name not in {one.name for one in report.skipped})
        set_head(
            encoder,
            report.head,
            dict(processor(row.source, num_frames=frames_per_clip(processor, encoder.config), return_tensors="pt")),
        )
        save_probe(output, encoder, processor, report, facts)
        Division.of(data, splits).save(output)
        update_checksums(output)
    return {**report.as_dict(), **facts}
