"""Federations of generated videos in one process, trained by `VideoTrainer`."""

from __future__ import annotations

import gc
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("flwr", reason="the extra [federated] is not installed")

from small_federations import SETTINGS, VIDEOMAE
from transformers import AutoModelForVideoClassification

from hf_video.data.moving_glyphs import write_moving_glyphs
from hf_video.errors import FederatedError
from hf_video.federated.client import ClientRuntime, Site
from hf_video.federated.config import FederatedConfig
from hf_video.federated.messages.exchange import Exchange
from hf_video.federated.messages.local_grid import Fault, LocalGrid
from hf_video.federated.server import run_federation
from hf_video.federated.simulation import simulate
from hf_video.federated.store import PersonalStore
from hf_video.federated.trainers import ClientTask, FederatedModel, VideoLocalTrainer, make_task

X3D = {"model_type": "x3d", "image_size": 16, "num_frames": 4}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("glyphs")
    write_moving_glyphs(folder / "train", 16, size=16, speed=2, num_frames=4)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "config.json"
    path.write_text(json.dumps(VIDEOMAE))
    return str(path)


def federation(model, **fields):
    return FederatedConfig(
        model, **{"rounds": 2, "settings": SETTINGS, "local_steps": 2, "evaluate_every": 9, **fields}
    )


def weights_of(folder):
    return AutoModelForVideoClassification.from_pretrained(folder).state_dict()


def test_one_whole_step_of_each_client_is_one_step_of_all_videos(videos, model, tmp_path):
    config = federation(model, rounds=1, local_steps=1)
    simulate(videos, config, output=tmp_path / "run", clients=4, test_size=0)
    task = make_task(config, videos)
    together = FederatedModel(config, task)
    trainer = VideoLocalTrainer("all", config, task, together, PersonalStore(tmp_path / "all"), tmp_path / "all")
    before = together.arrays()
    trainer.fit(ClientTask(1, before))
    found, wanted = weights_of(tmp_path / "run"), together.model.state_dict()
    assert max(float((found[name] - wanted[name]).abs().max()) for name in wanted) <= 1e-6
    assert max(np.abs(wanted[name].numpy() - before[name]).max() for name in wanted) > 1e-4
    assert gc.get_freeze_count()  # what the caller took out of Python's garbage collection stays out


def test_the_proximal_term_does_not_depend_on_accumulation(videos, model, tmp_path):
    runs = {}
    for size, steps in ((8, 1), (2, 4)):
        batch = (f"training.per_device_train_batch_size={size}", f"training.gradient_accumulation_steps={steps}")
        small = (*SETTINGS, *batch)
        config = federation(model, rounds=1, local_steps=3, settings=small, strategy="fedprox:mu=5")
        simulate(videos, config, output=tmp_path / str(size), clients=2, test_size=0, partition="labels:2")
        runs[size] = weights_of(tmp_path / str(size))
    free = federation(model, rounds=1, local_steps=3)
    simulate(videos, free, output=tmp_path / "free", clients=2, test_size=0, partition="labels:2")
    free = weights_of(tmp_path / "free")
    apart = max(float((runs[8][name] - runs[2][name]).abs().max()) for name in free)
    effect = max(float((runs[8][name] - free[name]).abs().max()) for name in free)
    assert apart < 1e-6
    assert effect > 1e-3


@pytest.mark.parametrize("strategy", ["scaffold", "feddyn"])
def test_rules_resume_with_what_clients_kept(videos, model, tmp_path, strategy):
    """The server is stopped in the second round, after clients have trained: they are asked for it once more."""
    options = {"clients": 2, "test_size": 0}
    config = federation(model, strategy=strategy, local_steps=1)
    whole = simulate(videos, config, output=tmp_path / "whole", **options)
    average = simulate(videos, replace(config, strategy="fedavg"), output=tmp_path / "average", **options)
    assert whole["sha256"] != average["sha256"]
    with pytest.raises(FederatedError, match="Round 2"):
        simulate(videos, config, output=tmp_path / "run", faults=[Fault("client-1", "train", 2)], **options)
    resumed = simulate(videos, config, output=tmp_path / "run", resume=True, **options)
    assert resumed["sha256"] == whole["sha256"]


def test_batch_norms_stay_at_home(videos, tmp_path):
    (tmp_path / "x3d.json").write_text(json.dumps(X3D))
    config = federation(str(tmp_path / "x3d.json"), rounds=1, local_steps=1, keys="without_batch_norms")
    simulate(videos, config, output=tmp_path / "run", clients=2, test_size=0)
    own = [PersonalStore(tmp_path / "run" / "clients" / f"client-{n}").load("own", 2) for n in (0, 1)]
    means = [name for name in own[0] if name.endswith("running_mean")]
    assert means
    assert any(not torch.equal(own[0][name], own[1][name]) for name in means)


def test_adapters_travel_alone_and_are_merged_in_the_end(videos, model, tmp_path):
    pytest.importorskip("peft")
    lora = {"r": 2, "target_modules": ["query", "value"]}
    config = federation(model, lora=lora)
    small = simulate(videos, config, output=tmp_path / "lora", clients=2, test_size=0)
    full = simulate(videos, federation(model), output=tmp_path / "full", clients=2, test_size=0)
    assert small["bytes_up"] < 0.5 * full["bytes_up"]
    saved = weights_of(tmp_path / "lora")
    assert not [name for name in saved if "lora" in name]
    assert set(saved) == set(weights_of(tmp_path / "full"))


def test_sites_with_other_classes_are_named(videos, model, tmp_path):
    write_moving_glyphs(tmp_path / "more" / "train", 8, size=16, speed=2, num_frames=4)
    (tmp_path / "more" / "train" / "up").rename(tmp_path / "more" / "train" / "upwards")

    def run(**fields):
        sites = {"amber": videos, "birch": tmp_path / "more"}
        runtimes = {name: ClientRuntime(Site(name, str(data), tmp_path / name)) for name, data in sites.items()}
        grid = LocalGrid({name: one.handle for name, one in runtimes.items()})
        return run_federation(federation(model, rounds=1, **fields), Exchange(grid), tmp_path / "run")

    with pytest.raises(FederatedError, match=r"'amber' and 'birch' have other classes: 'up', 'upwards'"):
        run()
    with pytest.raises(FederatedError, match=r"birch: .*the label 'upwards'"):
        run(labels=("down", "left", "right", "up"))
    summary = run(labels=("down", "left", "right", "up", "upwards"))
    assert summary["clients"] == ["amber", "birch"]
    assert AutoModelForVideoClassification.from_pretrained(tmp_path / "run").config.num_labels == 5


def test_the_command_simulates_reports_and_resumes(videos, model, tmp_path, capsys):
    from hf_video.cli import main

    file, run = tmp_path / "federation.yaml", tmp_path / "run"
    fields = {"model": model, "rounds": 1, "settings": list(SETTINGS), "local_steps": 1}
    simulation = {"data": str(videos), "clients": 2, "partition": "labels:2", "output": str(run)}
    file.write_text(json.dumps({**fields, "simulation": simulation}))
    command = ["federated", "simulate", str(file), "--clients", "3"]
    assert main(command) == 0
    assert "3/3" in capsys.readouterr().out
    assert "](rounds.png)" in (run / "README.md").read_text()  # drawn before the card is written
    assert main(command) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*command, "--rounds", "2", "--resume"]) == 0
    capsys.readouterr()
    assert main(["federated", "report", str(run)]) == 0
    table = capsys.readouterr().out
    assert "2 rounds" in table
    assert table.count("client-") == 3
    card = (run / "README.md").read_text()
    assert "3 clients trained it together in 2 rounds" in card
    assert "no guarantee of differential privacy" in card
    assert (run / "rounds.png").exists()
    assert main(["federated", "simulate", str(file), "--strategy", "fedprx", "--output", str(tmp_path / "other")]) == 2
    assert "Did you mean 'fedprox'?" in capsys.readouterr().err
