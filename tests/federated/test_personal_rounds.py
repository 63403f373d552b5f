"""Personal rules in whole federations, in one process."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForVideoClassification

pytest.importorskip("flwr")

from hf_video.data.moving_glyphs import DIRECTIONS, moving_glyphs
from hf_video.data.rows import VideoRow, VideoRows
from hf_video.errors import FederatedError
from hf_video.federated.config import FederatedConfig
from hf_video.federated.privacy.ledger import LEDGER_FILE
from hf_video.federated.rules.personal import AdaptedModel, MixedModel
from hf_video.federated.simulation import simulate
from hf_video.training.optim import parameter_groups

VIDEOMAE = {
    "model_type": "videomae", "image_size": 16, "num_frames": 4, "hidden_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2, "intermediate_size": 32, "patch_size": 8,
}  # fmt: skip
I3D = {
    "model_type": "i3d", "architecture": "resnet", "stem_channels": 4, "depths": [1, 1, 1, 1], "image_size": 16,
    "num_frames": 4, "temporal_pool": False, "head_pool": [0, 0, 0], "classifier_dropout": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def rows():
    labels = list(DIRECTIONS)
    clips = moving_glyphs(44, size=16, num_frames=4)
    made = [VideoRow(clip.frames, labels.index(clip.direction), f"{n}.mp4") for n, clip in enumerate(clips)]
    return {"train": VideoRows(made[:36], labels), "test": VideoRows(made[36:], labels)}


def federation(tmp_path, rows, config, model=VIDEOMAE, **options):
    path = tmp_path / "model.json"
    path.write_text(json.dumps(model))
    settings = ["training.per_device_train_batch_size=4", "training.learning_rate=1e-2"]
    config = FederatedConfig(str(path), settings=settings, **{"rounds": 2, "local_steps": 2, **config})
    options = {"clients": 3, "output": tmp_path / "run", **options}
    return simulate(rows, config, **options)


def own_tensors(tmp_path, client, kind="own"):
    return load_file(sorted((tmp_path / "run" / "clients" / client).glob(f"{kind}-*"))[-1])


def own_model(tmp_path, client):
    folder = tmp_path / "run" / "clients" / client / "personal_model"
    return AutoModelForVideoClassification.from_pretrained(folder).state_dict()


@pytest.fixture(scope="module")
def plain(tmp_path_factory, rows):
    """FedAvg of the same federation."""
    return federation(tmp_path_factory.mktemp("plain"), rows, {})


@pytest.mark.parametrize("rule", ["ditto:lam=0.5", "adapt:steps=3"])
def test_the_common_model_is_that_of_fedavg(tmp_path, rows, plain, rule):
    summary = federation(tmp_path, rows, {"personal": rule})
    assert summary["sha256"] == plain["sha256"]
    assert summary["metrics"]["server_loss"] == plain["metrics"]["server_loss"]
    common, own = summary["evaluation"]["common_loss"], summary["evaluation"]["loss"]
    assert common["mean"] == pytest.approx(plain["evaluation"]["loss"]["mean"])
    assert own["mean"] < common["mean"]
    assert own["best"] <= own["mean"] <= own["p10"] <= own["worst"]
    assert own["spread"] > 0


def test_each_client_keeps_its_model_of_ditto(tmp_path, rows):
    federation(tmp_path, rows, {"personal": "ditto"})
    models = [own_model(tmp_path, f"client-{number}") for number in range(3)]
    kept = own_tensors(tmp_path, "client-1", "personal")
    assert all(torch.equal(models[1][name], value) for name, value in kept.items())
    assert not torch.equal(models[0]["classifier.weight"], models[1]["classifier.weight"])


def test_apfl_keeps_a_model_and_a_share_of_it(tmp_path, rows, plain):
    summary = federation(tmp_path, rows, {"personal": "apfl:alpha=0.25"})
    kept = own_tensors(tmp_path, "client-0", "personal")
    alpha = float(kept.pop("apfl.alpha"))
    assert 0 <= alpha <= 1
    assert alpha != 0.25
    mixed, common = own_model(tmp_path, "client-0"), load_file(tmp_path / "run" / "model.safetensors")
    for name, value in kept.items():
        torch.testing.assert_close(mixed[name], alpha * value + (1 - alpha) * common[name])
    assert summary["sha256"] != plain["sha256"]  # one limit of the norm for both models


@pytest.mark.parametrize("rule", ["fedper", "fedrep:head_steps=2,body_steps=1"])
def test_heads_stay_with_their_clients(tmp_path, rows, rule):
    federation(tmp_path, rows, {"personal": rule})
    sent = load_file(tmp_path / "run" / "rounds" / "000002" / "arrays.safetensors")
    assert sent
    assert all(name.startswith("videomae.") for name in sent)
    first, second = (own_model(tmp_path, f"client-{number}") for number in range(2))
    assert all(torch.equal(first[name], value) for name, value in sent.items())
    assert not torch.equal(first["classifier.weight"], second["classifier.weight"])
    assert torch.equal(own_tensors(tmp_path, "client-0")["classifier.weight"], first["classifier.weight"])


@pytest.mark.parametrize("rule", ["perfedavg:alpha=0.05", "reptile"])
def test_models_from_which_few_steps_lead_to_each_client(tmp_path, rows, plain, rule):
    summary = federation(tmp_path, rows, {"personal": rule})
    assert summary["sha256"] != plain["sha256"]
    assert np.isfinite(summary["evaluation"]["loss"]["mean"])
    common, own = load_file(tmp_path / "run" / "model.safetensors"), own_model(tmp_path, "client-0")
    assert not torch.equal(common["classifier.weight"], own["classifier.weight"])


def test_batch_norms_never_travel_with_a_model(tmp_path, rows):
    federation(tmp_path, rows, {"personal": "fedbn"}, I3D)
    sent = load_file(tmp_path / "run" / "rounds" / "000002" / "arrays.safetensors")
    owned = [own_tensors(tmp_path, f"client-{number}") for number in range(3)]
    assert not set(sent) & set(owned[0])
    counters = [name for name in owned[0] if name.endswith("num_batches_tracked")]
    assert counters
    assert all(owned[0][name] == 4 for name in counters)  # two rounds of two steps
    means = [name for name in owned[0] if name.endswith("running_mean")]
    assert all(not torch.equal(owned[0][name], owned[1][name]) for name in means)
    # The model that is written, and any client that comes later, has the mean of the clients' norms.
    written = load_file(tmp_path / "run" / "model.safetensors")
    for name in means:
        torch.testing.assert_close(written[name], torch.stack([one[name] for one in owned]).mean(0))


def test_a_new_client_begins_with_the_norms_of_those_who_trained(tmp_path, rows):
    summary = federation(tmp_path, rows, {"personal": "fedbn", "rounds": 1, "fraction": 0.34, "min_clients": 1}, I3D)
    (trained,) = summary["clients"]
    new = next(name for name in ("client-0", "client-1") if name != trained)
    assert not list((tmp_path / "run" / "clients" / new).glob("own-*"))
    for name, value in own_tensors(tmp_path, trained).items():
        assert torch.equal(own_model(tmp_path, new)[name], value)


@pytest.mark.parametrize(("rule", "trainings"), [("fedrep", 4), ("ditto", 2)])
def test_what_is_sent_is_private_each_time_it_is_trained(tmp_path, rows, rule, trainings):
    """The noise is for all trainings of all rounds; a model that never leaves its client needs none."""
    privacy = {"unit": "video", "epsilon": 8, "delta": 1e-3, "accountant": "rdp"}  # found in less time than by PRV
    summary = federation(tmp_path, rows, {"personal": rule, "privacy": privacy}, clients=2)
    assert summary["privacy"]["largest_epsilon"] == pytest.approx(8, abs=0.02)
    ledger = tmp_path / "run" / "clients" / "client-0" / LEDGER_FILE
    assert [json.loads(line)["steps"] for line in ledger.read_text().splitlines()] == [2] * trainings


def test_a_frozen_backbone_is_nobody_s_own(tmp_path, rows):
    """What is never trained isn't kept by each client anew, and the server can measure the whole model."""
    lora = {"r": 2, "target_modules": ["query"]}
    summary = federation(tmp_path, rows, {"lora": lora, "rounds": 1})
    assert 0 <= summary["metrics"]["server_accuracy"] <= 1
    assert not list((tmp_path / "run" / "clients").glob("*/own-*"))


def test_clients_whose_videos_look_different(tmp_path, rows, plain):
    summary = federation(tmp_path, rows, {}, shift=2.0)
    assert summary["sha256"] != plain["sha256"]


def test_rules_that_a_model_has_no_use_for(tmp_path, rows):
    with pytest.raises(FederatedError, match=r"FedAvg\. fedln keeps layer norms"):
        federation(tmp_path, rows, {"personal": "fedbn"})
    with pytest.raises(FederatedError, match="Did you mean 'ditto'"):
        FederatedConfig("videomae", personal="dito")
    with pytest.raises(FederatedError, match="Did you mean 'lam'"):
        FederatedConfig("videomae", personal="ditto:lamb=1")
    with pytest.raises(FederatedError, match="leave no tensor"):
        federation(tmp_path, rows, {"personal": "fedper", "keys": "head"})


def test_modules_around_a_model_have_the_groups_of_the_model():
    model = AutoModelForVideoClassification.from_config(AutoConfig.for_model(**VIDEOMAE))
    options = {"learning_rate": 1.0, "weight_decay": 0.1, "layer_decay": 0.5}

    def settings(module):
        groups = parameter_groups(module, **options, described_by=model)
        return {id(one): (group["lr"], group["weight_decay"]) for group in groups for one in group["params"]}

    expected = settings(model)
    assert len({*expected.values()}) > 3
    assert settings(AdaptedModel(model, 0.1)) == expected
    mixture = MixedModel(model, {}, 0.5)
    found = settings(mixture)
    assert {key: found[key] for key in expected} == expected
    for one, other in zip(mixture.own.parameters(), model.parameters(), strict=True):
        assert found[id(one)] == expected[id(other)]
