"""`VideoTrainer`: the same weights however a step is split and whenever a run is broken off."""

from __future__ import annotations

import json
import multiprocessing

import pytest
import torch
from training.small import Rows, arguments, classifier, losses, trainer, weights
from transformers import TrainerCallback

import hf_video
from hf_video.data.datasets.collate import VideoCollator
from hf_video.errors import CheckpointError, ConfigError
from hf_video.training import VideoTrainer
from hf_video.training.run_folder import checkpoints
from hf_video.training.samplers import EpochSampler
from hf_video.video.augment.mixing import Mixing


class Break(TrainerCallback):
    """Stops a run where a crash would: in the middle of an epoch, at a step without a checkpoint."""

    def __init__(self, at: int):
        self.at = at

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.at:
            raise KeyboardInterrupt


def broken_and_resumed(folder, make, at=5):
    with pytest.raises(KeyboardInterrupt):
        make(folder, callbacks=[Break(at)]).train()
    second = make(folder)
    torch.manual_seed(123)  # what a new process would not have in common with the first
    second.train(resume_from_checkpoint=str(checkpoints(folder)[-1]))
    return second


class TestExactness:
    def test_eight_is_two_times_four(self, tmp_path):
        whole = trainer(tmp_path / "a", schedule="cosine", warmup_epochs=0.5, layer_decay=0.75)
        whole.train()
        parts = trainer(
            tmp_path / "b", schedule="cosine", warmup_epochs=0.5, layer_decay=0.75,
            per_device_train_batch_size=2, gradient_accumulation_steps=4,
        )  # fmt: skip
        parts.train()
        assert losses(parts) == pytest.approx(losses(whole), abs=1e-5)
        torch.testing.assert_close(weights(parts.model), weights(whole.model), rtol=0, atol=1e-5)

    def test_soft_labels_under_accumulation(self, tmp_path):
        """Smoothed labels are (B, classes): transformers counts each entry, the loss a clip once."""
        smooth = VideoCollator(num_labels=3, label_smoothing=0.2)
        whole = trainer(tmp_path / "a", collator=smooth)
        parts = trainer(tmp_path / "b", collator=smooth, per_device_train_batch_size=2, gradient_accumulation_steps=4)
        whole.train()
        parts.train()
        assert whole.model.config.problem_type == "single_label_classification"
        assert losses(parts) == pytest.approx(losses(whole), abs=1e-5)
        assert losses(whole)[0] == pytest.approx(1.1, abs=0.3)  # a mean over clips: ln 3 at the start

    @pytest.mark.parametrize("workers", [0, 2])
    def test_resuming_changes_nothing(self, tmp_path, workers):
        """With everything that draws: drop path, mixing, samples drawn for each epoch, averaging, workers."""

        def make(folder, **more):
            return trainer(
                folder, model=classifier(drop_path_rate=0.2, classifier_dropout=0.2), rows=Rows(repeats=2),
                collator=VideoCollator(Mixing(), num_labels=3), schedule="cosine", warmup_steps=2, layer_decay=0.75,
                ema_decay=0.9, dataloader_num_workers=workers, dataloader_persistent_workers=workers > 0, **more,
            )  # fmt: skip

        unbroken = make(tmp_path / "a")
        unbroken.train()
        resumed = broken_and_resumed(tmp_path / "b", make)
        assert losses(resumed)[-5:] == losses(unbroken)[-5:]
        torch.testing.assert_close(weights(resumed.model), weights(unbroken.model), rtol=0, atol=1e-6)
        averages = [weights(t.average.average.module) for t in (resumed, unbroken)]
        torch.testing.assert_close(*averages, rtol=0, atol=1e-6)

    def test_epochs_reach_data_and_order(self, tmp_path):
        class Telling(Rows):
            seen = ()

            def __getitem__(self, index):
                Telling.seen += ((self.epoch, index),)
                return super().__getitem__(index)

        trainer(tmp_path, rows=Telling(16), num_train_epochs=2, save_strategy="no").train()
        orders = [[index for epoch, index in Telling.seen if epoch == number] for number in (0, 1)]
        assert all(sorted(order) == list(range(16)) for order in orders)
        assert orders[0] != orders[1]


class TestOrder:
    def test_whole_steps(self):
        order = EpochSampler(10, rows_per_step=4, seed=0)
        drawn = list(order)
        assert len(drawn) == len(order) == 12
        assert sorted(drawn[:10]) == list(range(10))
        assert drawn[10:] == drawn[:2]

    def test_drop_last(self):
        assert len(list(EpochSampler(10, rows_per_step=4, seed=0, drop_last=True))) == 8

    def test_depends_on_seed_and_epoch_alone(self):
        orders = []
        for seed, epoch in ((0, 0), (0, 1), (1, 0), (0, 0)):
            order = EpochSampler(30, rows_per_step=5, seed=seed)
            order.set_epoch(epoch)
            orders.append(list(order))
        assert orders[0] == orders[3]
        assert orders[0] != orders[1] != orders[2]


class TestAverage:
    def test_is_the_formula_from_the_first_weights_on(self, tmp_path):
        seen = []

        class Keep(TrainerCallback):
            def on_step_end(self, args, state, control, model=None, **kwargs):
                seen.append(weights(model).clone())

        model = classifier()
        expected = weights(model).clone()
        run = trainer(tmp_path, model=model, ema_decay=0.8, num_train_epochs=1, callbacks=[Keep()])
        run.train()
        for step in seen:
            expected = 0.8 * expected + 0.2 * step
        torch.testing.assert_close(weights(run.average.average.module), expected, rtol=1e-5, atol=1e-6)

    def test_is_evaluated_and_saved_and_the_weights_stay(self, tmp_path):
        run = trainer(tmp_path, ema_decay=0.99, eval_rows=Rows(8))
        run.train()
        raw, average = weights(run.model).clone(), weights(run.average.average.module).clone()
        loss = run.evaluate()["eval_loss"]
        run.save_model()
        assert torch.equal(weights(run.model), raw)
        saved = hf_video.VideoMAEForVideoClassification.from_pretrained(tmp_path)
        assert torch.equal(weights(saved), average)
        assert not torch.equal(raw, average)
        plain = trainer(tmp_path / "again", model=saved, eval_rows=Rows(8))
        assert plain.evaluate()["eval_loss"] == pytest.approx(loss, abs=1e-6)
        checkpoint = hf_video.VideoMAEForVideoClassification.from_pretrained(checkpoints(tmp_path)[-1])
        assert torch.equal(weights(checkpoint), raw)

    def test_a_checkpoint_without_one_is_refused(self, tmp_path):
        trainer(tmp_path, num_train_epochs=1).train()
        with pytest.raises(CheckpointError, match="without ema_decay"):
            trainer(tmp_path, ema_decay=0.9).train(resume_from_checkpoint=str(checkpoints(tmp_path)[-1]))


class TestTrainer:
    def test_logs(self, tmp_path):
        run = trainer(tmp_path, rows=Rows(repeats=2), layer_decay=0.5, num_train_epochs=1)
        result = run.train()
        entry = run.state.log_history[0]
        assert entry["clips_per_second"] > 0
        assert 0 <= entry["decode_wait"] <= 1
        assert entry["memory_gb"] > 0.05
        assert entry["learning_rate"] == 3e-3  # the head's; the first group has a quarter of it
        assert result.metrics["clips_per_second"] > 0

    def test_waiting_is_measured(self, tmp_path):
        import time

        class Slow(Rows):
            def __getitem__(self, index):
                time.sleep(0.02)
                return super().__getitem__(index)

        run = trainer(tmp_path, rows=Slow(16), num_train_epochs=1, save_strategy="no")
        assert run.train().metrics["decode_wait"] > 0.5

    def test_evaluation_does_not_mix(self, tmp_path):
        run = trainer(tmp_path, collator=VideoCollator(Mixing(), num_labels=3), eval_rows=Rows(6))
        assert not next(iter(run.get_eval_dataloader()))["labels"].is_floating_point()
        assert next(iter(run.get_train_dataloader()))["labels"].shape == (8, 3)

    def test_no_pickle_of_arguments(self, tmp_path):
        run = trainer(tmp_path)
        run.save_model()
        assert not list(tmp_path.glob("*.bin"))
        assert json.loads((tmp_path / "training_args.json").read_text())["learning_rate"] == 3e-3

    def test_sgd_as_timesformer_has_it(self, tmp_path):
        run = trainer(tmp_path, optim="sgd", optim_args="momentum=0.9,nesterov=true", decay_all=True)
        optimizer = run.create_optimizer()
        assert isinstance(optimizer, torch.optim.SGD)
        assert [(g["momentum"], g["nesterov"], g["weight_decay"]) for g in optimizer.param_groups] == [
            (0.9, True, 0.05)
        ]

    def test_at_least_so_many_steps(self, tmp_path):
        run = trainer(tmp_path, min_train_steps=20, num_train_epochs=1)
        assert run.args.num_train_epochs == 7  # of 3 steps

    @pytest.mark.parametrize("extra", [{"bf16": True}, {"torch_compile": True, "torch_compile_backend": "eager"}])
    def test_trainers_own_switches(self, tmp_path, extra):
        run = trainer(tmp_path, num_train_epochs=1, layer_decay=0.75, ema_decay=0.9, **extra)
        assert run.train().metrics["train_loss"] > 0
        run.save_model()
        hf_video.VideoMAEForVideoClassification.from_pretrained(tmp_path)

    def test_needs_our_arguments(self, tmp_path):
        from transformers import TrainingArguments

        with pytest.raises(ConfigError, match="VideoTrainingArguments"):
            VideoTrainer(classifier(), TrainingArguments(str(tmp_path)))


class TestArguments:
    def test_effective_batch(self, tmp_path):
        made = arguments(tmp_path, effective_batch_size=32, base_learning_rate=1e-3)
        assert made.gradient_accumulation_steps == 4
        assert made.learning_rate == pytest.approx(1e-3 * 32 / 256)
        assert made.rows_per_step == 32

    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            ({"effective_batch_size": 12}, "not a multiple"),
            ({"schedule": "linear"}, "must be one of"),
            ({"warmup_epochs": 2}, "schedule"),
            ({"schedule": "multistep"}, "milestone"),
            ({"schedule": "cosine", "milestone_epochs": [1]}, "milestone"),
            ({"schedule": "cosine", "warmup_epochs": 2, "warmup_steps": 3}, "not both"),
            ({"layer_decay": 1.5}, "layer_decay"),
            ({"ema_decay": 0}, "ema_decay"),
            ({"report_to": "nothing_like_it"}, "report_to"),
        ],
    )
    def test_contradictions(self, tmp_path, wrong, words):
        with pytest.raises(ConfigError, match=words):
            arguments(tmp_path, **wrong)


def test_no_worker_lives_on_after_training(tmp_path):
    """Python would kill it on its way out, and torch report that as an error."""
    workers = {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}
    made = trainer(tmp_path, eval_rows=Rows(6), max_steps=2, eval_strategy="steps", eval_steps=1, **workers)
    made.train()
    assert not multiprocessing.active_children()
    made.evaluate()
    assert not multiprocessing.active_children()
