"""`ContrastiveTrainer`: training on pairs of video and text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hf_video.data.datasets.captions import CaptionCollator
from hf_video.data.rows import VideoRows
from hf_video.errors import ConfigError
from hf_video.evaluation.retrieval import evaluate_retrieval
from hf_video.training.gradient_cache import cached_step, check_cacheable
from hf_video.training.optim import WRAPPERS
from hf_video.training.samplers import PairSampler
from hf_video.training.trainer import RowEvaluationTrainer

if TYPE_CHECKING:
    from transformers import ProcessorMixin

    from hf_video.data.datasets.captions import CaptionDataset
    from hf_video.training.arguments import VideoTrainingArguments


class ContrastiveTrainer(RowEvaluationTrainer):
    """A `VideoTrainer` for `CaptionDataset`s and models that give a loss of pairs (`VideoCLIPModel`,
    `VioletForVideoTextRetrieval`).

    - Batches have no video and no caption twice; `hard_negatives` fills them with similar captions (see `PairSampler`).
    - `chunk_size` pairs go through the towers at once, however large the batch is (see `gradient_cache`).
    - The loss is that of the joint batch of all processes. Accumulation is refused: pairs of other micro-batches would
      be no negatives.
    - With `backbone_rate` in the arguments, all but the temporal head learns at this factor of the rate.
    - Evaluation gives `eval_text_to_video_R1`, …, `eval_video_to_text_mean_rank`, of all captions with all videos.

    `processing_class` joins an image processor and a tokenizer.
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        args: VideoTrainingArguments | None = None,
        *,
        processing_class: ProcessorMixin,
        chunk_size: int | None = None,
        hard_negatives: bool = False,
        **kwargs: Any,
    ):
        if args is not None and args.gradient_accumulation_steps > 1:
            raise ConfigError(
                f"gradient_accumulation_steps={args.gradient_accumulation_steps}: a contrastive loss needs its batch "
                "whole. Set per_device_train_batch_size to the batch and chunk_size to what fits into memory."
            )
        if chunk_size is not None:
            check_cacheable(model, chunk_size)
        self.chunk_size, self.hard_negatives = chunk_size, hard_negatives
        kwargs.setdefault(
            "data_collator",
            CaptionCollator(processing_class.tokenizer, padding=getattr(processing_class, "text_padding", True)),
        )
        super().__init__(model, args, processing_class=processing_class, **kwargs)

    def _get_train_sampler(self, train_dataset: CaptionDataset | None = None) -> torch.utils.data.Sampler:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "random":
            return super()._get_train_sampler(train_dataset)
        order = PairSampler(
            dataset.rows,
            rows_per_step=self.args.rows_per_step,
            seed=self.args.seed if self.args.data_seed is None else self.args.data_seed,
            drop_last=self.args.dataloader_drop_last,
            hard_negatives=self.hard_negatives,
        )
        self._epoch_setter.listeners = [dataset, order]
        return order

    def parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """All but the temporal head learns at `backbone_rate` times its rate."""
        rate, groups = self.args.backbone_rate, super().parameter_groups(model, backbone_rate=1.0)
        if rate == 1.0:
            return groups
        names = ((WRAPPERS.sub("", name), p) for name, p in model.named_parameters())
        fresh = {id(p) for name, p in names if name.startswith("temporal_head.")}
        return [part for group in groups for part in _split_by_age(group, fresh, rate)]

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: int | torch.Tensor | None = None
    ) -> torch.Tensor:
        if self.chunk_size is None:
            return super().training_step(model, inputs, num_items_in_batch)
        model.train()
        return cached_step(
            self.accelerator.unwrap_model(model, keep_torch_compile=False),
            self._prepare_inputs(inputs),
            self.chunk_size,
            backward=self.accelerator.backward,
            context=self.compute_loss_context_manager,
        )

    def evaluate_rows(self, model: nn.Module, rows: VideoRows, **options: Any) -> dict[str, float]:
        """Retrieval metrics of the rows, each video read once."""
        return flatten_metrics(evaluate_retrieval(model, self.processing_class, rows, **options)[0])


def flatten_metrics(found: dict[str, Any]) -> dict[str, float]:
    """`RetrievalMetrics` by direction as flat names: `text_to_video_R1`, …, `video_to_text_mean_rank`."""
    flat = {}
    for direction, one in found.items():
        flat |= {f"{direction}_R{k}": value for k, value in one.recall.items()}
        flat |= {f"{direction}_median_rank": one.median_rank, f"{direction}_mean_rank": one.mean_rank}
    return flat


def _split_by_age(group: dict[str, Any], fresh: set[int], rate: float) -> list[dict[str, Any]]:
    """A group in two: new parameters at its rate, the others at `rate` times that. Empty ones are left out."""
    new = [p for p in group["params"] if id(p) in fresh]
    old = [p for p in group["params"] if id(p) not in fresh]
    scaled = {**group, "params": old, "lr": group["lr"] * rate, "lr_scale": group["lr_scale"] * rate}
    return [part for part in ({**group, "params": new}, scaled) if part["params"]]
