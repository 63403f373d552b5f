"""The part of an attentive probe that learns: tokens of a frozen encoder, made once and kept in a file, and heads
trained on them side by side."""

from __future__ import annotations

import copy
import itertools
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from hf_video.clips.request import parse_views
from hf_video.data.rows import Skipped, VideoRows
from hf_video.data.sources.division import choose_test
from hf_video.errors import DataError, VideoOptionError
from hf_video.features.extraction import extract_features
from hf_video.training.runs.probe import SPLIT

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
    return model.encode_tokens(**inputs).flatten(1)


def extract_tokens(
    model: VJEPA2ForVideoClassification,
    processor: FrameProcessor,
    rows: VideoRows,
    file: str | os.PathLike[str],
    **options: Any,
) -> TokenMaps:
    """Runs the encoder once over every video and writes its tokens, those of several clips one behind the other, to
    `file` (.npy); `options` as in `extract_features`.

    Raises DataError where no video could be read, and VideoOptionError for views of several crops.
    """
    if parse_views(options.get("views")).crops > 1:
        raise VideoOptionError(
            f"views={options['views']!r}: an attentive probe joins clips, not crops, in training. Pass clips x 1, such "
            'as "2x1"; hf-video evaluate --protocol paper tests with 3 crops.'
        )
    options |= {"compute": encoder_tokens, "join_views": True}
    bar = tqdm(total=len(rows), desc="encoding", unit="video", file=sys.stderr, disable=None)
    tokens: np.ndarray | None = None
    labels: list[torch.Tensor] = []
    names: list[str] = []
    skipped: list[Skipped] = []
    for start in range(0, len(rows), CHUNK):
        part = list(rows)[start : start + CHUNK]
        found = extract_features(model, processor, part, on_video=bar.update, **options)
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
    bar.close()
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
    """How heads are trained: `pairs` of learning rate and weight decay, one head each; as many more than `epochs` as
    `min_steps` need; `seconds` of a step go to `times`."""

    pairs: tuple[tuple[float, float], ...]
    epochs: int
    batch_size: int
    seed: int = 0
    device: str = "cpu"
    min_steps: int = 0
    times: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, recipe: Mapping[str, Any], seed: int, device: str = "cpu") -> HeadTraining:
        training, grid = recipe["training"], recipe.get("probe") or {}
        rates = grid.get("learning_rates") or [training["learning_rate"]]
        decays = grid.get("weight_decays") or [training["weight_decay"]]
        pairs = tuple(itertools.product(map(float, rates), map(float, decays)))
        epochs, size = int(training["num_train_epochs"]), int(training["per_device_train_batch_size"])
        return cls(pairs, epochs, size, seed, device, int(training.get("min_train_steps") or 0))

    def duration(self, videos: int) -> tuple[int, int]:
        """Epochs and steps of a training on so many videos."""
        steps_of_epoch = -(-videos // self.batch_size)
        epochs = max(self.epochs, -(-self.min_steps // steps_of_epoch))
        return epochs, epochs * steps_of_epoch

    def train(self, start: AttentiveHead, maps: TokenMaps, index: torch.Tensor) -> list[AttentiveHead]:
        """Trains a copy of `start` for each pair on the rows `index`, all on the same batches."""
        heads = [copy.deepcopy(start).to(self.device).train() for _ in self.pairs]
        optimizers = [self.optimizer(head, *pair) for head, pair in zip(heads, self.pairs, strict=True)]
        epochs, steps = self.duration(len(index))
        schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps) for optimizer in optimizers]
        generator = torch.Generator().manual_seed(self.seed)
        for _ in tqdm(range(epochs), "training", unit="epoch", file=sys.stderr, disable=None):
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
