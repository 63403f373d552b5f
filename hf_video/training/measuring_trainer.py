"""`MeasuringTrainer`: a trainer whose evaluation looks at whole videos once, and not at batches of samples."""

from __future__ import annotations

from typing import Any

from hf_video.data.rows import VideoRows
from hf_video.training.trainer import VideoTrainer


class MeasuringTrainer(VideoTrainer):
    """A `VideoTrainer` that evaluates with `measure`, on the first process for all of them, with the averaged weights
    where there are any."""

    def measure(self, model: Any, rows: VideoRows, **options: Any) -> dict[str, float]:
        """Numbers by name; `options` are `batch_size` and `num_workers`."""
        raise NotImplementedError

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """`measure` of the data set's rows, each name with the prefix in front."""
        from accelerate.utils import broadcast_object_list

        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        found = [self._measured(dataset.rows) if self.is_world_process_zero() else None]
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in broadcast_object_list(found)[0].items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _measured(self, rows: VideoRows) -> dict[str, float]:
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        options = {
            "batch_size": self.args.per_device_eval_batch_size,
            "num_workers": self.args.dataloader_num_workers,
        }
        with self.averaged():
            return self.measure(model, rows, **options)
