"""The attentive probe: V-JEPA 2's protocol (facebookresearch/vjepa2, `evals/video_classification_frozen`).

The encoder is frozen, so its tokens are made once for every video and kept on disk; what is trained on them is the
pooler of `VJEPA2ForVideoClassification` and its classifier: AdamW, a rate that falls from its start to zero in a
cosine, cross-entropy. The authors draw other crops of a video in every epoch, for which an encoder would have to run in
every step; here each video has one view. With a grid of rates and weight decays, heads are trained side by side, the
best on a part of the training videos is chosen, and trained anew on all of them.
"""

from __future__ import annotations

import copy
import itertools
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from hf_video.base.loading import find_processors, loading
from hf_video.base.written_files import check_output_folder, update_checksums, writing_model_folder
from hf_video.data.rows import Skipped, VideoRows
from hf_video.data.sources.division import Division, choose_test
from hf_video.errors import CheckpointError, ConfigError, DataError
from hf_video.features.extraction import extract_features
from hf_video.training.recipes import load_recipe, override_recipe
from hf_video.training.runs.probe import SPLIT, check_rows, write_report

if TYPE_CHECKING:
    from hf_video.data.types import FrameProcessor
    from hf_video.models.vjepa2.modeling_vjepa2 import VJEPA2ForVideoClassification

CHUNK = 64  # videos whose tokens are in memory at a time


@dataclass(frozen=True)
class TokenMaps:
    """Tokens of videos, (N, tokens, D) float16 in a file, with their labels (N,) and names; the videos left out."""

    tokens: np.ndarray
    labels: torch.Tensor
    names: list[str]
    skipped: list[Skipped] = field(default_factory=list)

    def batches(self, index: torch.Tensor, size: int, device: str) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Tokens and labels of the rows `index`, `size` at a time, in that order."""
        for part in index.split(size):
            yield torch.from_numpy(self.tokens[part.numpy()]).to(device).float(), self.labels[part].to(device)


def encoder_tokens(model: VJEPA2ForVideoClassification, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """What the pooler reads of clips, (B, tokens · D)."""
    outputs = model.encode(**inputs, attentions=False, hidden_states=False)
    return model.pooler_tokens(outputs).flatten(1)


def extract_tokens(
    model: VJEPA2ForVideoClassification,
    processor: FrameProcessor,
    rows: VideoRows,
    file: str | os.PathLike[str],
    **options: Any,
) -> TokenMaps:
    """Runs the encoder once over every video and writes its tokens to `file` (.npy); `options` as in
    `extract_features`. Raises DataError where no video could be read."""
    tokens: np.ndarray | None = None
    labels: list[torch.Tensor] = []
    names: list[str] = []
    skipped: list[Skipped] = []
    for start in range(0, len(rows), CHUNK):
        found = extract_features(model, processor, list(rows)[start : start + CHUNK], compute=encoder_tokens, **options)
        skipped += found.skipped
        if not len(found):
            continue
        maps = found.embeddings.reshape(len(found), -1, model.config.hidden_size)
        if tokens is None:
            shape = (len(rows), *maps.shape[1:])
            tokens = np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=shape)
        tokens[len(names) : len(names) + len(maps)] = maps
        labels.append(torch.from_numpy(found.labels))
        names += found.names
    if tokens is None:
        raise DataError(f"None of the videos could be read: {'; '.join(map(str, skipped[:3]))}")
    return TokenMaps(tokens[: len(names)], torch.cat(labels), names, skipped)


class AttentiveHead(nn.Module):
    """Pooler and classifier: tokens (B, n, D) -> logits (B, classes)."""

    def __init__(self, model: VJEPA2ForVideoClassification) -> None:
        super().__init__()
        self.pooler = copy.deepcopy(model.pooler).float()
        self.classifier = copy.deepcopy(model.classifier).float()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.pooler(tokens))


@dataclass(frozen=True)
class HeadTraining:
    """How heads are trained: `pairs` of learning rate and weight decay, one head each; `seconds` of a step go to
    `times`."""

    pairs: tuple[tuple[float, float], ...]
    epochs: int
    batch_size: int
    seed: int = 0
    device: str = "cpu"
    times: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, recipe: Mapping[str, Any], seed: int, device: str = "cpu") -> HeadTraining:
        training, grid = recipe["training"], recipe.get("probe") or {}
        rates = grid.get("learning_rates") or [training["learning_rate"]]
        decays = grid.get("weight_decays") or [training["weight_decay"]]
        pairs = tuple(itertools.product(map(float, rates), map(float, decays)))
        epochs, size = int(training["num_train_epochs"]), int(training["per_device_train_batch_size"])
        return cls(pairs, epochs, size, seed, device)

    def train(self, start: AttentiveHead, maps: TokenMaps, index: torch.Tensor) -> list[AttentiveHead]:
        """Trains a copy of `start` for each pair on the rows `index`, all on the same batches."""
        heads = [copy.deepcopy(start).to(self.device).train() for _ in self.pairs]
        optimizers = [self.optimizer(head, *pair) for head, pair in zip(heads, self.pairs, strict=True)]
        steps = self.epochs * -(-len(index) // self.batch_size)
        schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps) for optimizer in optimizers]
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(self.epochs):
            order = index[torch.randperm(len(index), generator=generator)]
            for tokens, labels in maps.batches(order, self.batch_size, self.device):
                began = time.process_time()
                for head, optimizer, schedule in zip(heads, optimizers, schedules, strict=True):
                    optimizer.zero_grad()
                    F.cross_entropy(head(tokens), labels).backward()
                    optimizer.step()
                    schedule.step()
                self.times.append(time.process_time() - began)
        return [head.eval() for head in heads]

    def optimizer(self, head: AttentiveHead, rate: float, decay: float) -> torch.optim.AdamW:
        matrices = [p for p in head.parameters() if p.ndim > 1]
        vectors = [p for p in head.parameters() if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=rate)

    @torch.inference_mode()
    def accuracy(self, head: AttentiveHead, maps: TokenMaps, index: torch.Tensor | None = None) -> float:
        """Top-1, 0 to 1, on the rows `index`, or on all."""
        index = torch.arange(len(maps.names)) if index is None else index
        right = [
            head(tokens).argmax(1) == labels for tokens, labels in maps.batches(index, self.batch_size, self.device)
        ]
        return float(torch.cat(right).double().mean())


def fit_attentive_head(
    start: AttentiveHead, maps: TokenMaps, rows: VideoRows, training: HeadTraining
) -> tuple[AttentiveHead, tuple[float, float]]:
    """The trained head, and its learning rate and weight decay: of several, the pair that is best on a part of the
    training videos, trained on all."""
    everything = torch.arange(len(maps.names))
    best = training.pairs[0]
    if len(training.pairs) > 1:
        by_name = {row.name: row for row in rows}
        chosen: list[Any] = [by_name[name] for name in maps.names]
        held_out = torch.tensor(choose_test(chosen, SPLIT, training.seed))
        heads = training.train(start, maps, everything[~held_out])
        scores = [training.accuracy(head, maps, everything[held_out]) for head in heads]
        best = training.pairs[scores.index(max(scores))]
    return replace(training, pairs=(best,)).train(start, maps, everything)[0], best


def load_frozen(model: str, labels: list[str], fields: Mapping[str, Any], *, revision: str | None = None) -> Any:
    """A classifier for `labels` with the encoder of a folder or name on the Hub, in eval mode; its pooler, made after
    `fields` of the configuration, and its classifier are new. Raises CheckpointError for other model types."""
    import transformers

    from hf_video.registry import MODELS

    with loading(model):
        config = transformers.AutoConfig.from_pretrained(model, revision=revision)
    row = MODELS["vjepa2"]
    if not isinstance(config, row.load(row.config)):
        raise CheckpointError(
            f"{model} is a {config.model_type}; an attentive probe reads the tokens of a vjepa2. Leave the recipe out "
            "for a linear probe."
        )
    config.id2label, config.label2id = dict(enumerate(labels)), {label: i for i, label in enumerate(labels)}
    for name, value in fields.items():
        setattr(config, name, value)
    config.check()
    with loading(model):
        encoder = row.load("VJEPA2Model").from_pretrained(model, config=config, revision=revision)
    classifier = row.load("VJEPA2ForVideoClassification")(config).to(encoder.dtype)
    classifier.vjepa2 = encoder
    return classifier.eval()


def attentive_probe_model(
    data: Any,
    model: str,
    *,
    recipe: str = "vjepa2_attentive_probe",
    settings: list[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    device: str | None = None,
    seed: int | None = None,
    data_format: str | None = None,
    videos: str | os.PathLike[str] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Trains an attentive probe on a frozen encoder.

    Args:
        data: Labelled videos, as `load_videos` takes them with `data_format` and `videos`.
        model: A folder or name on the Hub of a vjepa2.
        recipe: Name or file of a recipe of the task "attentive_probe"; `settings` change it.
        output: Where the encoder with the probe is saved, as a model for `pipeline("video-classification")`.
        revision, device, seed: Of the model on the Hub; where it runs; of the division, first weights and batches.
        options: As in `extract_features`.

    Returns:
        `train_top1`, `test_top1` (0 to 1), `learning_rate`, `weight_decay`, `step_seconds` (CPU seconds of a training
        step, the median), `chance`, `labels` and what `ProbeReport` has besides.

    Raises:
        ConfigError: The recipe is of another task.
        DataError: A class has no training video, or there is nothing to test on.
        CheckpointError: The model is no vjepa2.
    """
    from hf_video.evaluation.rows import evaluation_splits

    chosen = override_recipe(load_recipe(recipe), settings or [])
    if chosen.get("task") != "attentive_probe":
        raise ConfigError(f"The recipe {recipe!r} is for another task. Probes take vjepa2_attentive_probe.")
    if output is not None:
        check_output_folder(output)
    splits = evaluation_splits(data, model, seed=seed, data_format=data_format, videos=videos)
    test = splits.get("test") or splits.get("validation")
    if "train" not in splits or test is None:
        raise DataError(f"{data} has the splits {', '.join(splits)}; a probe needs train and test.")
    check_rows(splits["train"], test)
    torch.manual_seed(seed or 0)
    frozen = load_frozen(model, splits["train"].labels, chosen["model"], revision=revision)
    processor: Any = next(one for one in find_processors(frozen.vjepa2, None, None) if one is not None)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    training = HeadTraining.of(chosen, seed or 0, device)
    options["device"] = device
    with tempfile.TemporaryDirectory(prefix="hf_video_tokens_") as folder:
        seen, unseen = (
            extract_tokens(frozen, processor, rows, Path(folder, f"{name}.npy"), **options)
            for name, rows in (("train", splits["train"]), ("test", test))
        )
        empty = sorted(set(range(len(test.labels))) - set(seen.labels.tolist()))
        if empty:
            raise DataError(f"Classes have no training video: {', '.join(test.labels[i] for i in empty[:5])}.")
        head, (rate, decay) = fit_attentive_head(AttentiveHead(frozen), seen, splits["train"], training)
        report = {
            "train_top1": training.accuracy(head, seen),
            "test_top1": training.accuracy(head, unseen),
            "train_found": len(seen.names),
            "test_found": len(unseen.names),
            "learning_rate": rate,
            "weight_decay": decay,
            "step_seconds": float(np.median(training.times)),
            "model": model,
            "labels": test.labels,
            "chance": max(test.counts().values()) / len(test),
            "skipped": [one.as_dict() for one in (*seen.skipped, *unseen.skipped)],
        }
    if output is not None:
        frozen.pooler.load_state_dict(head.pooler.state_dict())
        frozen.classifier.load_state_dict(head.classifier.state_dict())
        with writing_model_folder(output) as folder_written:
            frozen.save_pretrained(folder_written)
            processor.save_pretrained(folder_written)
            write_report(folder_written, report)
        Division.of(data, splits).save(output)
        update_checksums(output)
    return report
