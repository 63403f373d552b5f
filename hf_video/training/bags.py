"""Videos of which only is known whether they are normal, as pairs to learn anomalies from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import TrainerControl

from hf_video.data.datasets.dataset import generator, sample_seed
from hf_video.data.rows import Skipped
from hf_video.evaluation.detection.anomaly import roc_auc
from hf_video.training.arguments import VideoTrainingArguments
from hf_video.training.trainer import VideoTrainer

if TYPE_CHECKING:
    from hf_video.base.detection.anomaly import WeakAnomalyPreTrainedModel


class BagPairs(Dataset):
    """Pairs of a normal and an abnormal video, their segments (S, D) float32 each; an epoch shows every video of the
    more frequent kind once, in pairs that are drawn anew.

    Args:
        bags: segments of each video.
        labels: 1 for abnormal ones, of which there must be one, as of normal ones.
        seed: of the pairs, the same in every process and after resuming.
    """

    repeats = 1  # samples of one item

    def __init__(self, bags: Sequence[torch.Tensor], labels: Sequence[int], seed: int = 0) -> None:
        self.bags, self.labels, self.seed = list(bags), list(labels), seed
        self.kinds = [[number for number, label in enumerate(labels) if label == kind] for kind in (0, 1)]
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # also for workers that live on

    def set_epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    def skipped(self) -> list[Skipped]:
        return []

    def __len__(self) -> int:
        return max(map(len, self.kinds))

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        pair = []
        for kind, numbers in enumerate(self.kinds):
            turn, place = divmod(index, len(numbers))
            draw = generator(sample_seed(self.seed + kind, int(self._epoch), turn))
            order = torch.randperm(len(numbers), generator=draw)
            pair.append(self.bags[numbers[int(order[place])]])
        return {"normal": pair[0], "abnormal": pair[1]}


def collate_pairs(pairs: Sequence[dict[str, torch.Tensor]]) -> dict[str, Any]:
    """Pairs to a batch: `features` (2B, S, D), normal videos first, and `labels` (2B,)."""
    features = torch.stack([one[kind] for kind in ("normal", "abnormal") for one in pairs])
    return {"features": features, "labels": (torch.arange(2 * len(pairs)) >= len(pairs)).float()}


class BagTrainer(VideoTrainer):
    """Trains on `BagPairs`. Evaluation scores a video by its highest segment and gives `eval_video_auc`, how well this
    tells abnormal videos from normal ones."""

    control: TrainerControl

    def __init__(
        self, model: nn.Module | None = None, args: VideoTrainingArguments | None = None, **kwargs: Any
    ) -> None:
        super().__init__(model, args, collate_pairs, **kwargs)

    def evaluate(
        self,
        eval_dataset: BagPairs | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """The measures by name, with the prefix in front; found on the first process for all of them."""
        from accelerate.utils import broadcast_object_list

        found = [self.video_auc(self.eval_dataset if eval_dataset is None else eval_dataset)]
        metrics = {f"{metric_key_prefix}_video_auc": broadcast_object_list(found)[0]}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def video_auc(self, dataset: BagPairs) -> float:
        """With the averaged weights where there are any."""
        model: WeakAnomalyPreTrainedModel = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        training = model.training
        model.eval()
        try:
            with self.averaged(), torch.inference_mode():
                scores = [
                    float(model(bag[None].to(model.device), return_dict=True).scores.max()) for bag in dataset.bags
                ]
        finally:
            model.train(training)
        return roc_auc(torch.tensor(scores).double().numpy(), torch.tensor(dataset.labels).bool().numpy())
