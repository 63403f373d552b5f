"""A tiny classifier and rows in memory, for tests of training."""

from __future__ import annotations

import torch

import hf_video
from hf_video.data.datasets.dataset import generator, sample_seed
from hf_video.training import VideoTrainer, VideoTrainingArguments

CONFIG = {
    "image_size": 16,
    "patch_size": 8,
    "num_frames": 4,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_labels": 3,
}


def classifier(**changes):
    torch.manual_seed(0)
    return hf_video.VideoMAEForVideoClassification(hf_video.VideoMAEConfig(**{**CONFIG, **changes}))


class Rows(torch.utils.data.Dataset):
    """Noise whose mean tells the class, drawn anew for each epoch from (epoch, index) alone, as `VideoDataset` does."""

    def __init__(self, count: int = 22, *, repeats: int = 1):
        self.count, self.repeats = count, repeats
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # also for workers that live on

    def __len__(self):
        return self.count

    def set_epoch(self, epoch):
        self._epoch.fill_(epoch)

    @property
    def epoch(self):
        return int(self._epoch)

    def __getitem__(self, index):
        label = index % 3
        samples = []
        for repeat in range(self.repeats):
            seed = sample_seed(0, self.epoch, index, repeat)
            clip = torch.randn(4, 3, 16, 16, generator=generator(seed)) + label - 1
            samples.append({"pixel_values": clip, "labels": label, "seed": seed})
        return samples if self.repeats > 1 else samples[0]


def arguments(folder, **changes):
    values = {
        "per_device_train_batch_size": 8,
        "num_train_epochs": 3,
        "learning_rate": 3e-3,
        "weight_decay": 0.05,
        "save_steps": 2,
        "logging_steps": 1,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return VideoTrainingArguments(str(folder), **{**values, **changes})


def trainer(folder, *, model=None, rows=None, collator=None, callbacks=None, eval_rows=None, **changes):
    return VideoTrainer(
        model or classifier(),
        arguments(folder, **changes),
        collator,
        train_dataset=rows or Rows(),
        eval_dataset=eval_rows,
        callbacks=callbacks,
    )


def weights(model) -> torch.Tensor:
    return torch.cat([value.detach().flatten().float() for value in model.state_dict().values()])


def losses(trained) -> list[float]:
    return [entry["loss"] for entry in trained.state.log_history if "loss" in entry]
