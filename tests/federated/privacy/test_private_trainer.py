"""Training with video-level privacy: its steps, what they cost of ε, and what is refused."""

from __future__ import annotations

import json

import evaluation_models
import numpy as np
import pytest
import torch
from tiny import LABELS, write_clip
from transformers import EarlyStoppingCallback, TrainerCallback

from hf_video.data import VideoCollator, VideoDataset
from hf_video.data.rows import VideoRow, VideoRows
from hf_video.errors import FederatedError
from hf_video.federated.privacy.ledger import PrivacyLedger
from hf_video.federated.privacy.policy import PrivacyPolicy
from hf_video.federated.privacy.trainer import PoissonSampler, PrivateVideoTrainer
from hf_video.federated.rules.corrections import ProximalTerm
from hf_video.training.arguments import VideoTrainingArguments
from hf_video.training.trainer import VideoTrainer
from hf_video.video.augment.mixing import Mixing

LOUD = PrivacyPolicy("video", clip=1e9, noise_multiplier=0)
ARGUMENTS = {
    "max_grad_norm": 0,
    "per_device_train_batch_size": 3,
    "gradient_accumulation_steps": 2,
    "max_steps": 2,
    "optim": "sgd",
    "learning_rate": 0.1,
    "lr_scheduler_type": "constant",
    "use_cpu": True,
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
}


@pytest.fixture
def arguments(tmp_path):
    return lambda **changes: VideoTrainingArguments(tmp_path / "run", **{**ARGUMENTS, **changes})


def model_of(name="videomae"):
    return evaluation_models.make(name)[0].float()


def samples(model, count=6):
    generator, config = torch.Generator().manual_seed(0), model.config
    shape = (config.num_frames, 3, 32, 32)
    return [{"pixel_values": torch.randn(shape, generator=generator), "labels": n % 3} for n in range(count)]


def farthest(a, b):
    return max(float((one - other).abs().max()) for one, other in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("name", ["videomae", "timesformer", "video_swin", "lora"])
def test_without_clip_and_noise_steps_are_those_of_video_trainer(name, arguments):
    """Of all videos in each step, in two micro-batches."""

    def made():
        model = model_of("videomae" if name == "lora" else name)
        if name == "lora":
            peft = pytest.importorskip("peft")
            torch.manual_seed(0)
            model = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules="all-linear"))
        return model

    plain, private, before = made(), made(), made()
    data = samples(before)
    VideoTrainer(plain, arguments(), train_dataset=data).train()
    trainer = PrivateVideoTrainer(private, arguments(), train_dataset=data, privacy=LOUD)
    trainer.train()
    assert trainer.sample_rate == 1
    assert farthest(plain, before) > 1e-3
    assert farthest(plain, private) <= 1e-6


class Kept(TrainerCallback):
    """The gradients that the optimiser is given."""

    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.steps.append(torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None]))


def gradients_of(arguments, *, count=6, policy=None, model=None, **options):
    kept = Kept()
    model = model or model_of()
    policy = policy or PrivacyPolicy("video", clip=0.1, noise_multiplier=0)
    trainer = PrivateVideoTrainer(
        model, arguments, train_dataset=samples(model, count), privacy=policy, callbacks=[kept], **options
    )
    trainer.train()
    return kept.steps, trainer


def test_a_step_is_the_clipped_sum_over_the_expected_batch(arguments):
    steps, _ = gradients_of(arguments(max_steps=1))
    assert float(steps[0].norm()) <= 0.1 + 1e-6
    alone = [
        gradients_of(arguments(max_steps=1, per_device_train_batch_size=1, gradient_accumulation_steps=1), count=1)[0][
            0
        ]
    ]
    assert float(alone[0].norm()) == pytest.approx(0.1, rel=1e-4)


def test_noise_comes_once_a_step_however_it_is_divided(arguments):
    """Its deviation is noise · clip / expected batch, for 1, 2 and 6 micro-batches."""
    policy = PrivacyPolicy("video", clip=1e-3, noise_multiplier=1000.0, delta=1e-3)
    for size, parts in ((6, 1), (3, 2), (1, 6)):
        changes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": parts, "max_steps": 1}
        steps, _ = gradients_of(arguments(**changes), policy=policy)
        assert float(steps[0].std()) == pytest.approx(1.0 / 6, rel=0.03)


def test_empty_batches_are_steps(arguments, tmp_path):
    """Of 4 videos with the rate 1/4 three steps of ten come out empty, and all are steps and in the ledger."""
    ledger = PrivacyLedger(tmp_path / "ledger.jsonl", "site")
    policy = PrivacyPolicy("video", noise_multiplier=1.0, delta=1e-3, clip=0.5)
    changes = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 1, "max_steps": 20}
    sizes = []

    class Seen(PrivateVideoTrainer):
        def training_step(self, model, inputs, num_items_in_batch=None):
            sizes.append(len(inputs["labels"]) if inputs else 0)
            return super().training_step(model, inputs, num_items_in_batch)

    model = model_of()
    trainer = Seen(
        model, arguments(**changes), train_dataset=samples(model, 4), privacy=policy, ledger=ledger, private_seed=1
    )
    trainer.train()
    assert len(sizes) == trainer.state.global_step == 20
    assert sizes.count(0) >= 2
    assert max(sizes) >= 2
    entry = json.loads((tmp_path / "ledger.jsonl").read_text())
    assert (entry["steps"], entry["sample_rate"], entry["units"], entry["holder"]) == (20, 0.25, 4, "site")


def test_batches_are_secret_unless_a_seed_is_given(arguments):
    changes = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "max_steps": 4}
    policy = PrivacyPolicy("video", noise_multiplier=1.0, delta=1e-3)
    first, second = (gradients_of(arguments(**changes, seed=3), policy=policy)[0] for _ in range(2))
    assert not torch.allclose(first[0], second[0], atol=1e-3)
    first, second = (gradients_of(arguments(**changes), policy=policy, private_seed=5)[0] for _ in range(2))
    assert torch.equal(torch.stack(first), torch.stack(second))


def test_the_sampler():
    draws = torch.Generator().manual_seed(0)
    parts = list(PoissonSampler(40, 0.25, 500, 2, draws))
    assert len(parts) == 1000
    sizes = np.array([len(parts[2 * n]) + len(parts[2 * n + 1]) for n in range(500)])
    assert sizes.mean() == pytest.approx(10, rel=0.05)
    assert sizes.var() == pytest.approx(7.5, rel=0.2)
    assert all(0 <= len(parts[2 * n]) - len(parts[2 * n + 1]) <= 1 for n in range(500))


def test_a_proximal_term_is_added_to_the_private_gradient(arguments):
    model = model_of()
    term = ProximalTerm(dict(model.named_parameters()), mu=0.5)

    class Pull(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            term.add()

    far = PrivacyPolicy("video", clip=1e-9, noise_multiplier=0)
    with torch.no_grad():
        for one in term.received.values():
            one += 1.0
    PrivateVideoTrainer(
        model, arguments(max_steps=1), train_dataset=samples(model), privacy=far, callbacks=[Pull()]
    ).train()
    moved = farthest(model, model_of())
    assert moved == pytest.approx(0.1 * 0.5, rel=1e-3)  # rate · mu · distance


def test_frozen_parameters_get_no_gradients(arguments):
    model = model_of()
    for name, one in model.named_parameters():
        one.requires_grad_(name.startswith("classifier"))
    before = model_of()
    steps, _ = gradients_of(arguments(max_steps=1), model=model)
    assert len(steps[0]) == sum(one.numel() for one in model.classifier.parameters())
    assert farthest(model.videomae, before.videomae) == 0


def test_batch_norms(arguments):
    """Refused in training; frozen, their statistics stay; group norms need no word."""
    model = model_of("i3d-resnet")
    changes = {"model": model, "count": 4, "arguments": arguments(max_steps=1, per_device_train_batch_size=2)}
    with pytest.raises(FederatedError, match="batch norms are in training mode"):
        gradients_of(**changes)
    before = {name: one.clone() for name, one in model.named_buffers()}
    gradients_of(**changes, policy=PrivacyPolicy("video", noise_multiplier=1, delta=1e-3, batch_norms="freeze"))
    assert before
    assert all(torch.equal(one, before[name]) for name, one in model.named_buffers())
    model.config.group_norm = True
    exchanged = type(model)(model.config)
    gradients_of(**{**changes, "model": exchanged}, policy=PrivacyPolicy("video", noise_multiplier=1, delta=1e-3))


def test_gradient_checkpointing_takes_the_loop(arguments):
    plain, _ = gradients_of(arguments(max_steps=1))
    steps, trainer = gradients_of(arguments(max_steps=1, gradient_checkpointing=True))
    assert trainer.engine == "loop"
    torch.testing.assert_close(plain[0], steps[0], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"max_grad_norm": 1.0}, "max_grad_norm=1.0"),
        ({"load_best_model_at_end": True, "eval_strategy": "steps", "save_strategy": "steps"}, "load_best_model"),
        ({"auto_find_batch_size": True}, "auto_find_batch_size"),
        ({"train_sampling_strategy": "sequential"}, "train_sampling_strategy"),
        (
            {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "epoch", "save_strategy": "epoch"},
            "ReduceLROnPlateau|load_best_model",
        ),
    ],
)
def test_arguments_that_break_the_guarantee(changes, reason, arguments):
    model = model_of()
    with pytest.raises(FederatedError, match=reason):
        PrivateVideoTrainer(
            model, arguments(**changes), train_dataset=samples(model), eval_dataset=samples(model), privacy=LOUD
        )


def test_data_that_break_the_guarantee(arguments, tmp_path):
    model, processor = evaluation_models.make("videomae")
    paths = [write_clip(tmp_path / f"{n}.mkv", 6, seed=n, height=32, width=32) for n in range(3)]
    rows = [VideoRow(str(path), n, path.name) for n, path in enumerate(paths)]

    def trainer(rows=rows, collator=None, **options):
        data = VideoDataset(VideoRows(rows, LABELS), processor, **{"num_frames": 4, **options})
        return PrivateVideoTrainer(
            model.float(),
            arguments(per_device_train_batch_size=1, max_steps=1),
            collator,
            train_dataset=data,
            privacy=PrivacyPolicy("video", noise_multiplier=1, delta=1e-3),
        )

    for options, reason in (
        ({"repeats": 2}, "repeats=2"),
        ({"views": 2}, "views"),
        ({"rows": [*rows, VideoRow(rows[0].source, 2, "again")]}, "again is in several rows"),
        ({"collator": VideoCollator(Mixing(), num_labels=6)}, "holds two videos"),
    ):
        with pytest.raises(FederatedError, match=reason):
            trainer(**options)
    stopped = trainer()
    stopped.add_callback(EarlyStoppingCallback())
    with pytest.raises(FederatedError, match="Early stopping"):
        stopped.train()


def test_a_file_that_cannot_be_read_adds_nothing(arguments, tmp_path):
    """Another one in its place would be in the step twice."""
    model, processor = evaluation_models.make("videomae")
    paths = [write_clip(tmp_path / f"{n}.mkv", 6, seed=n, height=32, width=32) for n in range(3)]
    rows = [VideoRow(str(path), n, path.name) for n, path in enumerate(paths)]
    paths[1].write_bytes(b"no video")
    data = VideoDataset(VideoRows(rows, LABELS), processor, num_frames=4, max_errors=0.4)
    seen = []

    class Seen(PrivateVideoTrainer):
        def training_step(self, model, inputs, num_items_in_batch=None):
            seen.append(sorted(inputs["labels"].tolist()))
            return super().training_step(model, inputs, num_items_in_batch)

    trainer = Seen(
        model.float(),
        arguments(per_device_train_batch_size=3, gradient_accumulation_steps=1, max_steps=2),
        train_dataset=data,
        privacy=PrivacyPolicy("video", noise_multiplier=1, delta=1e-3),
    )
    trainer.train()
    assert seen == [[0, 2], [0, 2]]
    assert [one.name for one in data.skipped()] == ["1.mkv"]


def test_a_resumed_run_adds_to_its_ledger(arguments, tmp_path):
    ledger = PrivacyLedger(tmp_path / "ledger.jsonl")
    changes = {"save_strategy": "steps", "save_steps": 2, "per_device_train_batch_size": 1, "max_steps": 4}
    policy = PrivacyPolicy("video", noise_multiplier=1.0, delta=1e-3)

    def trainer(model, steps):
        return PrivateVideoTrainer(
            model,
            arguments(**{**changes, "max_steps": steps}),
            train_dataset=samples(model),
            privacy=policy,
            ledger=ledger,
        )

    trainer(model_of(), 2).train()
    trainer(model_of(), 4).train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert sum(one.steps for one in ledger.releases("video")) == 4
    assert not list((tmp_path / "run").rglob("rng_state*"))


def test_noise_is_what_the_steps_need(arguments):
    """Without sampling, where the account is exact."""
    policy = PrivacyPolicy("video", epsilon=8, delta=1e-3)
    model = model_of()
    trainer = PrivateVideoTrainer(model, arguments(), train_dataset=samples(model), privacy=policy)
    assert trainer.sample_rate == 1
    assert 7.98 < trainer.privacy.spent([trainer.planned()]) <= 8
    with pytest.raises(FederatedError, match="below 1 / 6 videos"):
        PrivateVideoTrainer(
            model, arguments(), train_dataset=samples(model), privacy=PrivacyPolicy("video", epsilon=8, delta=0.2)
        )
