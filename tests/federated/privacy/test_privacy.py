"""Differential privacy: bounds by construction, numbers of the papers, accounts of the reference libraries."""

from __future__ import annotations

import json
import math
from pathlib import Path

import evaluation_models
import numpy as np
import pytest
import torch
from tiny import moving_frames

from hf_video.errors import FederatedError
from hf_video.federated.privacy.accounting import gaussian_delta, gaussian_epsilon, gaussian_noise, sampled_epsilon
from hf_video.federated.privacy.clients import AdaptiveClip, add_update, clip_update, private_mean, update_norm
from hf_video.federated.privacy.samples import (
    clipped_sum,
    per_video_gradients,
    poisson_batches,
    private_gradient,
)
from hf_video.layers.convolution import BatchNorm
from hf_video.models.videomae.configuration_videomae import VideoMAEConfig
from hf_video.models.videomae.modeling_videomae import VideoMAEForVideoClassification

FACTS = json.loads((Path(__file__).parent.parent.parent / "golden_federated" / "golden_federated.json").read_text())
TINY = {"image_size": 16, "patch_size": 8, "num_frames": 4, "hidden_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 16, "num_labels": 3}  # fmt: skip


class Given:
    """A generator whose normal draws are given."""

    def __init__(self, values):
        self.values = np.array(values)

    def standard_normal(self, shape):
        return self.values.reshape(shape)


def test_client_level_mean():
    given, expected = (FACTS["client_level_dp"]["dp_fedavg_fixed"][key] for key in ("inputs", "expected"))
    updates = {str(n): {"w": np.array(row)} for n, row in enumerate(given["updates"])}
    assert [update_norm(one) for one in updates.values()] == pytest.approx(expected["norms"])
    numbers = (given["clip"], 0.0, given["expected_clients"])
    np.testing.assert_allclose(private_mean(updates, *numbers, Given(np.zeros(4)))["w"], expected["clipped_mean"])
    noisy = private_mean(updates, given["clip"], given["noise_multiplier"], 4, Given(given["standard_normal"]))
    np.testing.assert_allclose(noisy["w"], expected["with_noise"])


def test_one_client_moves_the_sum_by_the_clip_at_most():
    generator = np.random.default_rng(0)
    updates = {str(n): {"a": generator.normal(size=7) * 10**n, "b": generator.normal(size=3)} for n in range(4)}
    silent = {"generator": Given(np.zeros(0))}
    silent["generator"].standard_normal = lambda shape: np.zeros(shape)
    whole = private_mean(updates, 0.5, 1.0, 1.0, **silent)
    for left_out in updates:
        rest = private_mean({k: v for k, v in updates.items() if k != left_out}, 0.5, 1.0, 1.0, **silent)
        moved = update_norm({name: whole[name] - rest[name] for name in whole})
        assert moved <= 0.5 + 1e-12
    assert clip_update({"w": np.zeros(3)}, 1.0)[0]["w"].tolist() == [0, 0, 0]
    assert add_update({"w": np.ones(2, np.float32), "n": np.array(3)}, {"w": np.full(2, 0.5)})["w"].dtype == np.float32


def test_the_adaptive_clip_follows_the_quantile():
    given, expected = (FACTS["client_level_dp"]["adaptive_clip"][key] for key in ("inputs", "expected"))
    rule = AdaptiveClip(given["clip_0"], given["gamma"], given["eta"], given["sigma_b"])
    for norms, noise, after in zip(given["norms"], given["standard_normal_for_count"], expected["trace"], strict=True):
        fraction = rule.unclipped_fraction({str(n): norm for n, norm in enumerate(norms)}, len(norms), noise)
        assert fraction == pytest.approx(after["noisy_unclipped_fraction"])
        rule = rule.following(fraction)
        assert rule.clip == pytest.approx(after["clip_next"])
    assert rule.noise_of_sum(given["noise_multiplier"]) == pytest.approx(expected["noise_multiplier_of_sum"])
    with pytest.raises(FederatedError, match="count_noise"):
        AdaptiveClip(count_noise=0.4).noise_of_sum(1.0)


def test_the_step_of_dp_sgd():
    given, expected = (FACTS["dp_sgd_step"][key] for key in ("inputs", "expected"))
    rows = torch.tensor(given["per_sample_gradients"], dtype=torch.float64)
    total, norms = clipped_sum({"a": rows[:, :2], "b": rows[:, 2:].reshape(4, 2, 2)}, given["clip"])
    assert norms.tolist() == pytest.approx(expected["norms"])
    flat = torch.cat([total["a"].flatten(), total["b"].flatten()])
    assert flat.tolist() == pytest.approx(expected["clipped_sum"])
    noise, numbers = (
        torch.tensor(given["standard_normal"], dtype=torch.float64),
        (given["clip"], given["expected_batch"]),
    )
    quiet = private_gradient({"w": flat}, numbers[0], 0.0, numbers[1])["w"]
    drawn = quiet + given["noise_multiplier"] * numbers[0] * noise / numbers[1]
    assert drawn.tolist() == pytest.approx(expected["gradient"])
    generator = torch.Generator().manual_seed(0)
    many = private_gradient({"w": torch.zeros(200_000)}, 1.5, 2.0, 8.0, generator)["w"]
    assert many.std().item() == pytest.approx(1.5 * 2.0 / 8.0, rel=0.01)


@pytest.mark.parametrize("name", [name for name in evaluation_models.CONFIGS if name != "mvit-large"])
def test_gradients_of_each_video(name):
    """By vmap as by one backward for each; and their mean is the gradient of the batch."""
    model, processor = evaluation_models.make(name)
    model.eval()
    frames = 16 if name.startswith("two_stream") else model.config.num_frames
    options = {"num_frames": 3} if name.startswith("two_stream") else {}
    rows = [processor(moving_frames(frames, seed=seed), return_tensors="pt", **options) for seed in range(3)]
    inputs = {key: torch.cat([row[key] for row in rows]).double() for key in rows[0]}
    inputs["labels"] = torch.tensor([0, 2, 1])
    found, loop = per_video_gradients(model, inputs), per_video_gradients(model, inputs, engine="loop")
    assert set(found) == {key for key, one in model.named_parameters() if one.requires_grad}
    model.zero_grad()
    model(**inputs).loss.backward()
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(found[key], loop[key], atol=1e-6, rtol=1e-4)
            whole = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(found[key].mean(0), whole, atol=1e-6, rtol=1e-4)


def test_gradients_of_adapters_alone():
    peft = pytest.importorskip("peft")
    model, _ = evaluation_models.make("timesformer")
    model = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules="all-linear")).double().eval()
    for key, one in model.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(one)
    inputs = {"pixel_values": torch.randn(2, 4, 3, 32, 32).double(), "labels": torch.tensor([0, 1])}
    found, loop = per_video_gradients(model, inputs), per_video_gradients(model, inputs, engine="loop")
    assert found
    assert all("lora_" in key for key in found)
    for key in found:
        torch.testing.assert_close(found[key], loop[key], atol=1e-6, rtol=1e-4)


def test_one_video_moves_the_clipped_sum_by_the_clip_at_most():
    torch.manual_seed(1)
    model = VideoMAEForVideoClassification(VideoMAEConfig(**TINY)).eval()
    inputs = {"pixel_values": torch.randn(4, 4, 3, 16, 16), "labels": torch.tensor([0, 2, 1, 1])}
    gradients = per_video_gradients(model, inputs, chunk_size=3)
    whole, _ = clipped_sum(gradients, 0.1)
    rest, _ = clipped_sum({key: one[1:] for key, one in gradients.items()}, 0.1)
    moved = math.sqrt(sum(float((whole[key] - rest[key]).pow(2).sum()) for key in whole))
    assert moved == pytest.approx(0.1, rel=1e-4)


def test_batch_norms_of_any_kind_are_refused_in_training():
    net = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 1), BatchNorm(2))
    inputs, loss = {"x": torch.randn(3, 1, 2, 2, 2)}, lambda model, batch: model(batch["x"]).sum()
    with pytest.raises(FederatedError, match="1 batch norms are in training mode, '1'"):
        per_video_gradients(net, inputs, loss=loss)
    found = per_video_gradients(net.eval(), inputs, loss=loss)
    assert found["0.weight"].shape == (3, 2, 1, 1, 1, 1)


def test_poisson_batches():
    generator = torch.Generator().manual_seed(0)
    drawn = poisson_batches(50, 0.1, 2000, generator)
    sizes = np.array([len(one) for one in drawn])
    assert sizes.mean() == pytest.approx(5, rel=0.03)
    assert sizes.var() == pytest.approx(50 * 0.1 * 0.9, rel=0.1)
    assert sizes.min() == 0


def test_the_gaussian_mechanism_exactly():
    for row in FACTS["gaussian_mechanism"]["composition"]:
        found = gaussian_epsilon(row["noise_multiplier"], row["delta"], row["releases"])
        assert found == pytest.approx(row["epsilon"], abs=1e-7)
    for row in FACTS["gaussian_mechanism"]["one_release_sensitivity_1"]:
        assert gaussian_noise(row["epsilon"], row["delta"]) == pytest.approx(row["sigma_exact"], abs=1e-7)
    assert gaussian_delta(0.0, 1e6) == pytest.approx(0, abs=1e-6)
    assert gaussian_epsilon(3.0, 1e-5, 0) == 0
    assert 0 < gaussian_epsilon(0.05, 1e-9) < math.inf


@pytest.mark.parametrize("row", FACTS["accountants"]["rows"], ids=lambda row: f"{row['noise_multiplier']}")
def test_accounts_of_sampled_steps(row):
    numbers = (row["noise_multiplier"], row["sample_rate"], row["steps"], row["delta"])
    if not row["steps"]:
        assert sampled_epsilon(*numbers) == row["epsilon"]
        return
    if row["sample_rate"] == 1:
        assert sampled_epsilon(*numbers) == pytest.approx(row["google_pld"], abs=1e-4)
    pytest.importorskip("opacus")
    assert sampled_epsilon(*numbers) == pytest.approx(row["google_pld"], abs=0.02)
    assert sampled_epsilon(*numbers, accountant="rdp") == pytest.approx(row["opacus_rdp"], abs=1e-6)


@pytest.mark.parametrize(
    "numbers", [(0, 0.1, 10, 1e-5), (1, 0, 10, 1e-5), (1, 1.1, 10, 1e-5), (1, 0.1, -1, 1e-5), (1, 0.1, 10, 0)]
)
def test_accounts_of_numbers_without_meaning(numbers):
    with pytest.raises(FederatedError):
        sampled_epsilon(*numbers)
