"""What is promised, what was spent, and what the card says of it."""

from __future__ import annotations

import json

import pytest

from hf_video.errors import FederatedError
from hf_video.federated.privacy.accounting import (
    Release,
    _opacus_epsilon,
    composed_epsilon,
    gaussian_epsilon,
    noise_for,
    sampled_epsilon,
)
from hf_video.federated.privacy.ledger import PrivacyLedger
from hf_video.federated.privacy.policy import PrivacyPolicy
from hf_video.federated.privacy.statement import PrivacyStatement


def test_policies_in_words_and_as_mappings():
    policy = PrivacyPolicy.parse("video:eps=8,delta=1e-6,clip=0.5")
    assert policy == PrivacyPolicy("video", epsilon=8, delta=1e-6, clip=0.5)
    assert PrivacyPolicy.parse(policy.as_dict()) == policy
    words = "client: noise=1.1, adaptive_quantile=0.5, accountant=rdp"
    assert PrivacyPolicy.parse(words) == PrivacyPolicy(
        "client", noise_multiplier=1.1, adaptive_quantile=0.5, accountant="rdp"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("vido:eps=8", "Did you mean 'video'"),
        ("video:epsilonn=8", "Did you mean 'epsilon'"),
        ("video:eps=much", "must be a number"),
        ("video:eps=-1", "above 0"),
        ("video:eps", "has no value"),
        ("video", "needs epsilon"),
        ("video:eps=8,delta=1", "below 1"),
        ("video:eps=8,adaptive_quantile=0.5", "of the unit client"),
        ({"eps": 8}, "needs its unit"),
    ],
)
def test_policies_without_meaning(text, reason):
    with pytest.raises(FederatedError, match=reason):
        PrivacyPolicy.parse(text)


def test_delta_is_below_one_video():
    PrivacyPolicy("video", epsilon=8, delta=1e-3).check_units(999)
    with pytest.raises(FederatedError, match=r"Set delta=0.0001 or less"):
        PrivacyPolicy("video", epsilon=8, delta=1e-3).check_units(1000)


def test_noise_for_a_target():
    """Without sampling it is exact; and what was spent counts."""
    assert noise_for(8, 1e-5, [Release(1.0, 20)]) == pytest.approx(2.6849, rel=2e-3)
    spent = [Release(1.0, 10, 2.6849)]
    more = noise_for(8, 1e-5, [Release(1.0, 10)], spent)
    assert more == pytest.approx(2.6849, rel=5e-3)
    assert composed_epsilon([*spent, Release(1.0, 10, more)], 1e-5) <= 8
    with pytest.raises(FederatedError, match="was spent already"):
        noise_for(1.0, 1e-5, [Release(1.0, 1)], spent)


def test_noise_for_a_target_with_sampling():
    """By few accounts, which take a second each for a long training; and a client with as many videos costs none."""
    pytest.importorskip("opacus")
    _opacus_epsilon.cache_clear()
    noise = noise_for(8, 1e-5, [Release(0.05, 300)])
    assert noise == pytest.approx(0.857, abs=2e-3)
    assert noise_for(8, 1e-5, [Release(0.05, 300)], accountant="rdp") == pytest.approx(0.902, abs=2e-3)
    accounts = _opacus_epsilon.cache_info().misses
    assert accounts <= 20
    assert noise_for(8, 1e-5, [Release(0.05, 300)]) == noise
    assert _opacus_epsilon.cache_info().misses == accounts


def test_releases_of_several_kinds_compose():
    assert composed_epsilon([], 1e-5) == 0
    assert composed_epsilon([Release(1.0, 0, 1.0)], 1e-5) == 0
    assert composed_epsilon([Release(1.0, 1, 0.0)], 1e-5) == float("inf")
    two = [Release(1.0, 8, 2.0), Release(1.0, 2, 1.0)]
    assert composed_epsilon(two, 1e-5) == pytest.approx(gaussian_epsilon(1.0, 1e-5, 4), abs=1e-9)
    pytest.importorskip("opacus")
    halves = [Release(0.1, 10, 1.0), Release(0.1, 10, 1.0)]
    whole = sampled_epsilon(1.0, 0.1, 20, 1e-5, accountant="rdp")
    assert composed_epsilon(halves, 1e-5, accountant="rdp") == pytest.approx(whole)


def test_accounts_of_hardly_any_noise_end_soon():
    """Opacus' PRV account takes minutes there, and says infinity."""
    pytest.importorskip("opacus")
    assert 100 < sampled_epsilon(0.3, 0.5, 200, 1e-5) < 1e6


def test_the_ledger_survives_and_stops_in_time(tmp_path):
    path = tmp_path / "run" / "ledger.jsonl"
    policy = PrivacyPolicy("video", epsilon=8, noise_multiplier=2.6849)
    ledger = PrivacyLedger(path, "a")
    ledger.check(policy, [Release(1.0, 20)])
    ledger.record(policy, Release(1.0, 12), 50)
    again = PrivacyLedger(path, "a")
    assert again.releases("video") == [Release(1.0, 12, 2.6849)]
    again.check(policy, [Release(1.0, 8)])
    with pytest.raises(FederatedError, match=r"a: 9 steps more would spend ε = 8\.\d+ in all"):
        again.check(policy, [Release(1.0, 9)])
    assert again.releases("client") == again.releases("video", "b") == []
    again.check(policy, [Release(1.0, 20)], holder="b")
    again.record(policy, Release(1.0, 3), 50, holder="b")
    assert again.holders("video") == ["a", "b"]
    assert len(path.read_text().splitlines()) == 2
    path.write_text(path.read_text() + '{"holder": "a", "st')
    with pytest.raises(FederatedError, match="Line 3 of the privacy ledger"):
        PrivacyLedger(path)


def test_the_statement():
    policy = PrivacyPolicy("video", epsilon=8, noise_multiplier=2.6849, clip=0.5, batch_norms="freeze")
    said = PrivacyStatement(policy, [Release(1.0, 20, 2.6849)], 60)
    text, facts = said.text(), said.facts()
    assert facts["epsilon_prv"] == pytest.approx(8, abs=0.01)
    assert json.loads(json.dumps(facts)) == facts
    for part in ("one video", "(8, 1e-05)", "PRV", "RDP says ε = 8.", "2.685", "C = 0.5", "20 steps", "60 videos",
                 "every unit in every step", "Not covered", "kept the statistics"):  # fmt: skip
        assert part in text
    quiet = PrivacyStatement(PrivacyPolicy("client", noise_multiplier=0), [Release(0.5, 3, 0.0)], 10).text()
    assert "No guarantee" in quiet
    assert "Poisson" in quiet
    assert "No guarantee" in PrivacyStatement(policy, [Release(1.0, 20, 2.6849)], 60, known_seed=True).text()
