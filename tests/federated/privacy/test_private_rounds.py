"""Rounds with a guarantee: of clients, by the server, and of single videos, by the clients."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hf_video.errors import FederatedError
from hf_video.federated.client import ClientRuntime, Site
from hf_video.federated.config import FederatedConfig
from hf_video.federated.messages.exchange import Exchange
from hf_video.federated.privacy.ledger import LEDGER_FILE, PrivacyLedger
from hf_video.federated.privacy.policy import PrivacyPolicy
from hf_video.federated.privacy.server import ClientLevelPrivacy, change
from hf_video.federated.rules.server_optimizers import FedAdam, FedAvgM
from hf_video.federated.rules.strategies import AggregationStrategy, ClientResult, FedProx, ServerState
from hf_video.federated.trainers import LocalTrainer

CLIENTS = ("a", "b", "c", "d")


def state_of(**more):
    return ServerState({"w": np.zeros(3, np.float32), "count": np.array(5)}, **more)


def answers():
    """Changes of the norms 3, 4, .5 and 0."""
    rows = {"a": [3, 0, 0], "b": [0, 4, 0], "c": [0, 0, 0.5], "d": [0, 0, 0]}
    return {
        client: ClientResult({"w": np.array(row, np.float32), "count": np.array(9)}, num_examples=10**n)
        for n, (client, row) in enumerate(rows.items())
    }


def privacy_of(tmp_path, **policy):
    policy = PrivacyPolicy("client", **{"noise_multiplier": 0.0, "delta": 1e-3, "clip": 1.0, **policy})
    return ClientLevelPrivacy(policy, 4, 1.0, PrivacyLedger(tmp_path / LEDGER_FILE), np.random.default_rng(0))


@pytest.mark.parametrize("strategy", [AggregationStrategy(), FedProx(), FedAvgM(), FedAdam()], ids=lambda s: s.name)
def test_any_mean_is_of_clipped_changes_with_equal_weights(strategy, tmp_path):
    """However many videos clients say that they have; and counts stay."""
    after = privacy_of(tmp_path).aggregate(strategy, state_of(), answers())
    mean = {"w": np.array([0.25, 0.25, 0.125], np.float32), "count": np.array(5)}
    expected = strategy.aggregate(state_of(), {"one": ClientResult(mean, 1)})
    np.testing.assert_allclose(after.arrays["w"], expected.arrays["w"], atol=1e-6)
    assert after.arrays["count"] == 5
    assert after.round == 1


def test_one_client_more_moves_the_model_by_the_clip_at_most(tmp_path):
    whole = privacy_of(tmp_path, clip=0.7).aggregate(AggregationStrategy(), state_of(), answers())
    for left in CLIENTS:
        rest = {client: one for client, one in answers().items() if client != left}
        less = privacy_of(tmp_path, clip=0.7).aggregate(AggregationStrategy(), state_of(), rest)
        moved = np.linalg.norm(change(less.arrays, whole.arrays)["w"])
        assert moved <= 0.7 / 4 + 1e-6


def test_the_noise_of_the_mean(tmp_path):
    """noise · clip / expected clients, also where nobody was drawn."""
    privacy = privacy_of(tmp_path, noise_multiplier=2.0, clip=0.5)
    state = ServerState({"w": np.zeros(20_000)})
    after = privacy.aggregate(AggregationStrategy(), state, {})
    assert after.arrays["w"].std() == pytest.approx(2.0 * 0.5 / 4, rel=0.02)
    assert privacy.ledger.releases("client")[0].noise_multiplier == 2.0


def test_the_clip_follows_the_quantile_and_is_kept(tmp_path):
    """Two of four are within 1: at the median it stays, at .9 it grows; the next round takes it up."""
    stays = privacy_of(tmp_path, adaptive_quantile=0.5).aggregate(AggregationStrategy(), state_of(), answers())
    assert float(stays.slots["privacy"]["clip"]) == pytest.approx(1.0)
    privacy = privacy_of(tmp_path, adaptive_quantile=0.9)
    grown = privacy.aggregate(AggregationStrategy(), state_of(), answers())
    clip = float(grown.slots["privacy"]["clip"])
    assert clip == pytest.approx(np.exp(0.2 * 0.4))
    again = privacy.aggregate(AggregationStrategy(), state_of(slots=grown.slots), answers())
    np.testing.assert_allclose(again.arrays["w"], np.array([clip, clip, 0.5]) / 4, rtol=1e-6)


def test_clients_are_drawn_on_their_own(tmp_path):
    policy = PrivacyPolicy("client", noise_multiplier=1.0, delta=1e-3)
    privacy = ClientLevelPrivacy(policy, 4, 0.3, PrivacyLedger(tmp_path / "l"), np.random.default_rng(0))
    sizes = np.array([len(privacy.select(CLIENTS)) for _ in range(4000)])
    assert sizes.mean() == pytest.approx(1.2, rel=0.05)
    assert sizes.var() == pytest.approx(4 * 0.3 * 0.7, rel=0.1)
    assert privacy.statement().known_seed
    with pytest.raises(FederatedError, match="below 1 / 4 clients"):
        ClientLevelPrivacy(PrivacyPolicy("client", epsilon=1, delta=0.3), 4, 1.0, PrivacyLedger(tmp_path / "l"))


class Mover(LocalTrainer):
    """Adds one to the first weight."""

    def fit(self, task):
        arrays = {"w": task.arrays["w"] + np.array([1, 0, 0], np.float32)}
        return ClientResult(arrays, 3, 1, metrics={"loss": 1.0})

    def evaluate(self, task):
        return {}


def run_of(folder, **changes):
    pytest.importorskip("flwr")
    from hf_video.federated.messages.local_grid import LocalGrid
    from hf_video.federated.rounds import FederatedRun

    config = FederatedConfig("videomae", **{"rounds": 3, "privacy": "client:noise=2,delta=1e-3,clip=0.5", **changes})
    handlers = {name: ClientRuntime(Site(name, None, folder / name), make_trainer=lambda c: Mover()).handle
                for name in CLIENTS}  # fmt: skip
    exchange = Exchange(LocalGrid(handlers, ()))
    exchange.discover(len(handlers))
    return FederatedRun(config, exchange, folder, {"w": np.zeros(3, np.float32)})


def test_a_run_keeps_its_ledger_and_stops_before_the_target(tmp_path):
    """Of noise 2 four rounds are within ε = 5.3 at 1e-3 and a fifth is not."""
    policy = "client:eps=5.3,noise=2,delta=1e-3,clip=0.5"
    run_of(tmp_path, rounds=2, privacy=policy).run()
    ledger = PrivacyLedger(tmp_path / LEDGER_FILE)
    assert sum(one.steps for one in ledger.releases("client")) == 2
    most = next(n for n in range(3, 30) if ledger_epsilon(n + 1) > 5.3)
    with pytest.raises(FederatedError, match="1 steps more would spend"):
        run_of(tmp_path, rounds=most + 1, privacy=policy).run(resume=True)
    assert sum(one.steps for one in ledger.releases("client")) == most
    history = json.loads((tmp_path / "history.json").read_text())
    assert len(history["rounds"]) == most
    spent = [line["metrics"]["epsilon"] for line in log_of(tmp_path) if line["event"] == "round"]
    assert spent == pytest.approx([ledger_epsilon(n + 1) for n in range(most)])


def log_of(folder):
    return [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]


def ledger_epsilon(rounds):
    from hf_video.federated.privacy.accounting import gaussian_epsilon

    return gaussian_epsilon(2.0, 1e-3, rounds)


def test_noise_for_the_rounds_of_a_run(tmp_path):
    from hf_video.federated.server import privacy_facts

    run = run_of(tmp_path, privacy="client:eps=8,delta=1e-3")
    run.run()
    facts = privacy_facts(run)
    assert 7.98 < facts["epsilon_prv"] <= 8
    assert facts["units"] == 4
    assert "one client" in facts["statement"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"privacy": "clients:eps=1"}, "Did you mean 'client'"),
        ({"strategy": "median"}, "proven for the mean"),
        ({"privacy": "video:eps=1,adaptive_quantile=0.5"}, "of the unit client"),
    ],
)
def test_federations_that_cannot_be_private(changes, reason):
    with pytest.raises(FederatedError, match=reason):
        FederatedConfig("videomae", **{"privacy": "client:eps=1", **changes})


def test_each_client_keeps_to_video_level_privacy(tmp_path):
    """Its steps are private and in a ledger of its own; a round that passes the target is refused by the client."""
    pytest.importorskip("flwr")
    from hf_video.data.moving_glyphs import DIRECTIONS, moving_glyphs
    from hf_video.data.rows import VideoRow, VideoRows
    from hf_video.federated.simulation import simulate

    model = {"model_type": "videomae", "image_size": 16, "num_frames": 4, "hidden_size": 16, "num_hidden_layers": 1,
             "num_attention_heads": 2, "intermediate_size": 32, "patch_size": 8}  # fmt: skip
    (tmp_path / "model.json").write_text(json.dumps(model))
    labels = list(DIRECTIONS)
    clips = moving_glyphs(16, size=16, num_frames=4)
    rows = [VideoRow(clip.frames, labels.index(clip.direction), f"{n}.mp4") for n, clip in enumerate(clips)]
    settings = ["training.per_device_train_batch_size=8", "training.optim=sgd"]
    policy = {"unit": "video", "epsilon": 8, "delta": 1e-3, "clip": 0.5}
    config = FederatedConfig(
        str(tmp_path / "model.json"), settings=settings, rounds=2, local_steps=2, privacy=policy, labels=labels
    )
    options = {"clients": 2, "test_size": 0, "output": tmp_path / "run"}
    summary = simulate({"train": VideoRows(rows, labels)}, config, **options)
    assert summary["privacy"]["largest_epsilon"] == pytest.approx(8, abs=0.02)
    assert "for each client on its own" in summary["privacy"]["statement"]
    for client in ("client-0", "client-1"):
        folder = next(path for path in (tmp_path / "run" / "clients").iterdir() if path.name.endswith(client[-1]))
        entries = [json.loads(line) for line in (folder / LEDGER_FILE).read_text().splitlines()]
        assert [entry["steps"] for entry in entries] == [2, 2]
        assert {entry["sample_rate"] for entry in entries} == {1.0}
        assert {entry["holder"] for entry in entries} == {folder.name}
    log = log_of(tmp_path / "run")
    said = [line["epsilon"] for line in log if line["event"] == "received"]
    assert said[:2] < said[2:]
    assert said[2:] == pytest.approx([8, 8], abs=0.02)
    assert [line["metrics"]["epsilon"] for line in log if line["event"] == "round"] == [max(said[:2]), max(said[2:])]
    more = FederatedConfig.from_dict({**config.to_dict(), "rounds": 3})
    with pytest.raises(FederatedError, match="2 steps more would spend"):
        simulate({"train": VideoRows(rows, labels)}, more, resume=True, **options)
