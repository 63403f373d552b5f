"""Sequences of clips with sentences, as Moment-DETR is trained on them, and its trainer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from transformers import TrainerControl

from hf_video.data.datasets.dataset import generator, sample_seed
from hf_video.data.rows import Skipped
from hf_video.data.sources.moments import MomentRow
from hf_video.evaluation.detection.moments import moment_metrics
from hf_video.training.arguments import VideoTrainingArguments
from hf_video.training.trainer import VideoTrainer

if TYPE_CHECKING:
    from hf_video.models.moment_detr.modeling_moment_detr import MomentDetrForMomentRetrieval

MOST_MOMENTS = 5  # of a sentence that training sees at once, as in the official code
SCORED = {"mAP": "MR-full-mAP", "R1@0.5": "MR-full-R1@0.5", "R1@0.7": "MR-full-R1@0.7"}


class MomentDataset(Dataset[dict[str, Any]]):
    """Sentences as samples of `video_features` (T, D), `text_features` (L, D), `moments` (N, 2), centre and width as
    parts of the video, and `pairs` (2, 2) of clips, highlights above others.

    Args:
        rows: The sentences.
        videos: The features of each one's video.
        texts: The states of its words.
        clip_seconds: Seconds of a clip.
        seed: Of the moments and pairs that are drawn, anew in each epoch.
    """

    repeats = 1

    def __init__(
        self,
        rows: Sequence[MomentRow],
        videos: Sequence[torch.Tensor],
        texts: Sequence[torch.Tensor],
        clip_seconds: float,
        *,
        seed: int = 0,
    ) -> None:
        self.rows, self.videos, self.texts = list(rows), list(videos), list(texts)
        self.clip_seconds, self.seed = clip_seconds, seed
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # also for workers that live on

    def set_epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    def skipped(self) -> list[Skipped]:
        return []

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        query, video = self.rows[index].query, self.videos[index]
        draw = generator(sample_seed(self.seed, int(self._epoch), index))
        seconds = torch.tensor(query["relevant_windows"], dtype=torch.float32).reshape(-1, 2)
        kept = torch.randperm(len(seconds), generator=draw)[:MOST_MOMENTS]
        parts = seconds[kept] / (len(video) * self.clip_seconds)
        moments = torch.stack((parts.mean(1), parts[:, 1] - parts[:, 0]), dim=1)
        pairs = self.pairs(query, len(video), draw)
        return {"video_features": video, "text_features": self.texts[index], "moments": moments, "pairs": pairs}

    def pairs(self, query: dict[str, Any], clips: int, draw: torch.Generator) -> torch.Tensor:
        """Clips (2, 2), in the first row highlights and in the second what is less of one: the clips of the highest and
        the lowest sum of annotators' scores, and a random clip of a moment with one outside. Without scores both are
        random; where nothing is outside, the first pair stands twice."""
        last = clips - 1
        if query.get("saliency_scores"):
            relevant = [min(number, last) for number in query["relevant_clip_ids"]]
            order = torch.tensor([sum(scores) for scores in query["saliency_scores"]]).argsort(stable=True)
            hard = relevant[order[-1]], relevant[order[0]]
        else:
            begin = [(int(a / self.clip_seconds), b / self.clip_seconds) for a, b in query["relevant_windows"]]
            relevant = [number for a, b in begin for number in range(min(a, last), min(max(int(b), a + 1), clips))]
            hard = None
        others = sorted(set(range(clips)) - set(relevant))
        if not relevant or not (others or hard):
            return torch.zeros(2, 2, dtype=torch.int64)  # nothing to tell apart
        drawn = [hard] if hard else []
        while len(drawn) < 2:
            if not others:
                drawn.append(drawn[0])
                continue
            more, less = (
                many[int(torch.randint(len(many), (), generator=draw))] for many in (sorted(relevant), others)
            )
            drawn.append((more, less))
        return torch.tensor(drawn).T


class MomentCollator:
    """Samples to a batch, padded to the longest, with masks."""

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = {}
        for name in ("video", "text"):
            rows = [one[f"{name}_features"] for one in samples]
            lengths = torch.tensor([len(one) for one in rows])
            batch[f"{name}_features"] = pad_sequence(rows, batch_first=True)
            batch[f"{name}_mask"] = (torch.arange(int(lengths.max())) < lengths[:, None]).float()
        pairs = torch.stack([one["pairs"] for one in samples])
        return {**batch, "moments": [one["moments"] for one in samples], "saliency_pairs": (pairs[:, 0], pairs[:, 1])}


class MomentTrainer(VideoTrainer):
    """Trains on `MomentDataset`s. Evaluation gives `eval_mAP`, `eval_R1@0.5` and `eval_R1@0.7` of QVHighlights'
    metrics, from 0 to 1."""

    control: TrainerControl

    def __init__(
        self, model: nn.Module | None = None, args: VideoTrainingArguments | None = None, **kwargs: Any
    ) -> None:
        super().__init__(model, args, MomentCollator(), **kwargs)

    def evaluate(
        self,
        eval_dataset: MomentDataset | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """The measures by name, with the prefix in front; found on the first process for all of them."""
        from accelerate.utils import broadcast_object_list

        found: list[dict[str, float]] = [{}]
        if self.is_world_process_zero():
            dataset = self.eval_dataset if eval_dataset is None else eval_dataset
            brief = moment_metrics(self.predict_moments(dataset), [row.query for row in dataset.rows])["brief"]
            found[0] = {name: brief[theirs] / 100 for name, theirs in SCORED.items()}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in broadcast_object_list(found)[0].items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @torch.no_grad()
    def predict_moments(self, dataset: MomentDataset) -> list[dict[str, Any]]:
        """Predictions of QVHighlights' form for every sentence, by the averaged weights where there are any."""
        model: MomentDetrForMomentRetrieval = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        training, collate, found = model.training, MomentCollator(), []
        model.eval()
        try:
            with self.averaged():
                for first in range(0, len(dataset), self.args.eval_batch_size):
                    numbers = range(first, min(first + self.args.eval_batch_size, len(dataset)))
                    batch = collate([dataset[number] for number in numbers])
                    inputs = {
                        name: batch[name].to(model.device) for name in batch if name.startswith(("video", "text"))
                    }
                    output = model(**inputs, return_dict=True)
                    lengths = [len(dataset.videos[number]) for number in numbers]
                    moments = model.find_moments(output, [length * dataset.clip_seconds for length in lengths])
                    for place, number in enumerate(numbers):
                        query = dataset.rows[number].query
                        saliency = output.saliency[place, : lengths[place]].float().tolist()
                        found.append(
                            {
                                **{name: query[name] for name in ("qid", "query", "vid")},
                                "pred_relevant_windows": moments[place].tolist(),
                                **({"pred_saliency_scores": saliency} if query.get("saliency_scores") else {}),
                            }
                        )
        finally:
            model.train(training)
        return found
