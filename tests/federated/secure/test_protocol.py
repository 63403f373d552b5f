"""Secure sums as messages: the mean, who may drop out when, and what a lying server gets."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("cryptography")

from hf_video.errors import FederatedError
from hf_video.federated.arrays import weighted_mean
from hf_video.federated.messages.payload import Payload
from hf_video.federated.secure import roster
from hf_video.federated.secure.client import SecureClient
from hf_video.federated.secure.layout import Contribution, SumLayout, SumSettings
from hf_video.federated.secure.protocol import CONFIRM, KEYS, KINDS, MASKED, MEASURE, PREFIX, SHARES, UNMASK
from hf_video.federated.secure.roster import Member, Roster, Session, default_threshold, neighbour_count
from hf_video.federated.secure.server import SecureSum
from hf_video.federated.secure.signatures import new_signing_key, public_part

MODEL = {
    "head.weight": np.linspace(-1, 1, 60, dtype=np.float32).reshape(6, 10),
    "norm.num_batches_tracked": np.array(7, dtype=np.int64),
    "scale": np.ones(3, dtype=np.float64),
}
SITES: dict[str, bytes] = {}


def signing_key(name):
    if name not in SITES:
        SITES[name] = new_signing_key()
    return SITES[name]


class Federation:
    """Clients in this process, with a folder each anew for every message, from what it remembers there; `gone` says
    who does not answer what, `change` may change messages."""

    def __init__(self, folder=None, count=5, seed=0, **options):
        self.names = [f"site{number:02}" for number in range(count)]
        self.registered = {name: public_part(signing_key(name)) for name in self.names}
        self.folder, self.options = folder, options
        self.clients: dict[str, SecureClient] = {}
        rng = np.random.default_rng(seed)
        self.contributions = {
            name: Contribution(
                {
                    "head.weight": MODEL["head.weight"] + rng.normal(size=(6, 10)).astype(np.float32),
                    "norm.num_batches_tracked": np.array(10, dtype=np.int64),
                    "scale": MODEL["scale"] + rng.uniform(-3, 3, 3),
                },
                int(rng.integers(1, 400)),
                {"loss": float(rng.uniform(0, 5))},
            )
            for name in self.names
        }
        self.gone: dict[str, set[str]] = {}
        self.sent: list[tuple[str, str, Payload, Payload]] = []
        self.refusals: dict[str, str] = {}

    def client(self, name):
        if self.folder is None and name in self.clients:
            return self.clients[name]
        state_file = None if self.folder is None else self.folder / name / "secure.json"
        self.clients[name] = SecureClient(
            name,
            signing_key(name),
            self.registered,
            lambda task: self.contributions[name],
            state_file=state_file,
            **self.options,
        )
        return self.clients[name]

    def change(self, kind, name, payload):
        return payload

    def ask(self, kind, messages):
        answers = {}
        for name, payload in messages.items():
            if name in self.gone.get(kind, ()):
                continue
            payload = self.change(kind, name, payload)
            try:
                answers[name] = self.client(name).handle(kind, payload)
            except FederatedError as error:
                self.refusals[name] = str(error)
            else:
                self.sent.append((kind, name, payload, answers[name]))
        return answers

    def run(self, settings=None, *, round_number=1, **options):
        task = Payload(values={"epochs": 1}, arrays={"model": MODEL})
        server = SecureSum(settings or SumSettings(metrics=("loss",)), **options)
        return server.run(self.ask, self.names, task, run="run", round_number=round_number)

    def expected(self, survivors):
        given = {name: self.contributions[name] for name in survivors}
        return weighted_mean(
            {name: one.arrays for name, one in given.items()}, {n: one.num_examples for n, one in given.items()}
        )


def assert_mean(federation, result, survivors):
    assert list(result.survivors) == sorted(survivors)
    expected = federation.expected(survivors)
    assert list(result.arrays) == list(MODEL)
    for name, array in expected.items():
        assert isinstance(result.arrays[name], np.ndarray)
        assert result.arrays[name].dtype == array.dtype
        assert result.arrays[name].shape == array.shape
        np.testing.assert_allclose(result.arrays[name], array, atol=2e-6)
    weights = {name: federation.contributions[name].num_examples for name in survivors}
    assert result.num_examples == sum(weights.values())
    loss = sum(federation.contributions[n].metrics["loss"] * w for n, w in weights.items()) / sum(weights.values())
    assert result.metrics["loss"] == pytest.approx(loss, abs=1e-4)


@pytest.mark.parametrize(("count", "seed"), [(3, 0), (5, 1), (8, 7)])
def test_the_sum_is_the_plain_mean(tmp_path, count, seed):
    federation = Federation(tmp_path, count, seed)
    result = federation.run()
    assert_mean(federation, result, federation.names)
    assert result.dropped == ()
    assert result.faults == {}


def test_many_rounds_of_one_run():
    federation = Federation()
    for number in (1, 2, 3):
        assert_mean(federation, federation.run(round_number=number), federation.names)


@pytest.mark.parametrize("kind", KINDS)
def test_one_client_drops_out(tmp_path, kind):
    federation = Federation(tmp_path, seed=3)
    federation.gone[kind] = {"site02"}
    result = federation.run()
    left = federation.names if kind in (CONFIRM, UNMASK) else [name for name in federation.names if name != "site02"]
    assert_mean(federation, result, left)
    assert result.faults == {"site02": f"{kind}: no answer"}
    # It takes part in the next round again.
    federation.gone.clear()
    assert_mean(federation, federation.run(round_number=2), federation.names)


def test_clients_drop_out_one_after_the_other():
    federation = Federation(count=9)
    federation.gone = {KEYS: {"site00"}, SHARES: {"site01"}, MASKED: {"site02"}, UNMASK: {"site03"}}
    assert_mean(federation, federation.run(threshold=5), federation.names[3:])


@pytest.mark.parametrize("number", [1, 2])
def test_as_many_drop_out_as_the_threshold_bears(number):
    federation = Federation()
    federation.gone[MASKED] = set(federation.names[:number])
    assert_mean(federation, federation.run(threshold=3), federation.names[number:])


@pytest.mark.parametrize("kind", KINDS)
def test_too_many_drop_out_and_nothing_is_learnt(kind):
    federation = Federation()
    federation.gone[kind] = {"site00", "site02", "site04"}
    with pytest.raises(FederatedError, match=r"2 of .* answered|give the secret back"):
        federation.run(threshold=3)
    # Not one secret of a mask left a client.
    if kind != UNMASK:
        assert not [one for one in federation.sent if one[0] == UNMASK]


def test_what_the_server_gets_looks_uniform():
    """Equal vectors of zero change: their bytes pass a chi-squared test, whose statistic is below 330 with chance .999;
    as uint32 they reach from end to end, and no two clients' are alike."""
    model = {"weight": np.zeros(50_000, dtype=np.float32)}
    federation = Federation(count=3)
    federation.contributions = dict.fromkeys(federation.names, Contribution(model, 1, {}))
    SecureSum().run(federation.ask, federation.names, Payload(arrays={"model": model}), run="run", round_number=1)
    vectors = [answer.arrays["masked"]["vector"] for kind, _, _, answer in federation.sent if kind == MASKED]
    for vector in vectors:
        counts = np.bincount(vector.view(np.uint8), minlength=256)
        expected = counts.sum() / 256
        assert ((counts - expected) ** 2 / expected).sum() < 330
        assert vector.max() > 2**32 - 10**6
        assert vector.min() < 10**6
    assert not any((one == other).mean() > 0.01 for one in vectors for other in vectors if one is not other)


def test_bytes_are_those_of_float32():
    model = {"weight": np.zeros(60_000, dtype=np.float32)}
    federation = Federation(count=5)
    federation.contributions = dict.fromkeys(federation.names, Contribution(model, 1, {}))
    SecureSum().run(federation.ask, federation.names, Payload(arrays={"model": model}), run="run", round_number=1)
    for direction in (2, 3):
        total = sum(message[direction].nbytes for message in federation.sent)
        assert 1.0 <= total / (5 * 240_000) < 1.1


def test_nothing_of_a_client_is_sent_in_the_clear():
    federation = Federation(seed=5)
    federation.run()
    for kind, name, _, answer in federation.sent:
        if kind == MASKED:
            assert set(answer.arrays) == {"masked"}
            assert not answer.values
        else:
            assert not answer.arrays
        assert federation.contributions[name].num_examples not in answer.values.values()


# -- a server that lies ------------------------------------------------------------------------------------------------


class Lying(Federation):
    """Changes messages of one kind to some clients."""

    def __init__(self, kind, change, to=None, **options):
        super().__init__(**options)
        self.kind, self.changed, self.to = kind, change, to

    def change(self, kind, name, payload):
        if kind == self.kind and (self.to is None or name in self.to):
            return replace(payload, values={**payload.values, **self.changed(name, payload.values)})
        return payload


def swapped(values, entry, name, new):
    """A list of the roster's with another value for one client."""
    return {entry: [new if one == name else old for one, old in zip(values["names"], values[entry], strict=True)]}


LIES = {
    "a key of its own": (
        SHARES,
        lambda n, v: swapped(v, "mask_keys", "site01", bytes(31) + b"\1"),
        "not signed|keys that",
    ),
    "a signature that is none": (SHARES, lambda n, v: swapped(v, "signatures", "site01", b"0"), "not signed"),
    "no signature": (SHARES, lambda n, v: {"signatures": [b""] * len(v["names"])}, "not signed"),
    "a client of its own": (
        SHARES,
        lambda n, v: {"names": [*v["names"][:-1], "zeus"]},
        "no registered site|keys that",
    ),
    "a threshold of one": (SHARES, lambda n, v: {"threshold": 1}, "more than half"),
    "half as threshold": (SHARES, lambda n, v: {"threshold": 2}, "more than half"),
    "more shares than there are": (SHARES, lambda n, v: {"threshold": 6}, "more than half"),
    "another round's roster": (SHARES, lambda n, v: {"round": 4}, "another round"),
    "too few members": (
        SHARES,
        lambda n, v: {
            key: v[key][-2:] if n in v["names"][-2:] else v[key][:2]
            for key in ("names", "share_keys", "mask_keys", "signatures")
        },
        "2 clients is refused|keys that",
    ),
    "a member twice": (
        SHARES,
        lambda n, v: {key: [*v[key], v[key][-1]] for key in ("names", "share_keys", "mask_keys", "signatures")},
        "twice",
    ),
    "settings that mean nothing": (SHARES, lambda n, v: {"terms": '{"clip": 0}'}, "clip=0"),
    "only two to mask for": (MASKED, lambda n, v: {PREFIX + "clients": sorted({n, "site00"})}, "needed"),
    "masks without the client": (
        MASKED,
        lambda n, v: {PREFIX + "clients": [one for one in v[PREFIX + "clients"] if one != n]},
        "not those of its partners",
    ),
    "shares changed": (MASKED, lambda n, v: {PREFIX + "shares": [bytes(160)] * 4}, "can't be opened"),
    "shares of another": (MASKED, lambda n, v: {PREFIX + "shares": v[PREFIX + "shares"][::-1]}, "can't be opened"),
    "all but one gone": (CONFIRM, lambda n, v: {"survivors": [n]}, "nothing is told"),
    "the client gone": (CONFIRM, lambda n, v: {"survivors": [one for one in v["survivors"] if one != n]}, "is gone"),
    "left twice": (CONFIRM, lambda n, v: {"survivors": sorted([*v["survivors"], n])}, "twice"),
    "left though never there": (CONFIRM, lambda n, v: {"survivors": [*v["survivors"], "zeus"]}, "did not take part"),
    "no signatures": (UNMASK, lambda n, v: {"signatures": [b""] * 5}, "Only 0 clients signed"),
    "one signature many times": (
        UNMASK,
        lambda n, v: {"signers": v["signers"][:1] * 5, "signatures": v["signatures"][:1] * 5},
        "Only 1 clients signed",
    ),
    "lists that are none": (CONFIRM, lambda n, v: {"survivors": "site00"}, "must have the names"),
}


@pytest.mark.parametrize("lie", LIES)
def test_clients_refuse_a_server_that_lies(lie):
    kind, change, words = LIES[lie]
    federation = Lying(kind, change, seed=1)
    with pytest.raises(FederatedError, match="clients answered"):
        federation.run()
    assert set(federation.refusals) == set(federation.names)
    for text in federation.refusals.values():
        assert re.search(words, text), text
    assert not [one for one in federation.sent if one[0] == UNMASK]


def test_a_client_is_never_left_and_gone():
    """A server that tells two groups different survivors could get both secrets of one client: it gets nothing."""
    names = [f"site{number:02}" for number in range(5)]
    lie = lambda n, v: {"survivors": names[:4] if n in names[:2] else v["survivors"]}  # noqa: E731
    federation = Lying(CONFIRM, lie)
    with pytest.raises(FederatedError):
        federation.run()
    assert not [one for one in federation.sent if one[0] == UNMASK]
    assert all("tells clients different things" in text for text in federation.refusals.values())


def test_other_lists_of_clients_can_t_read_each_other():
    federation = Lying(SHARES, lambda n, v: {"threshold": 5}, to={"site01", "site02"})
    with pytest.raises(FederatedError, match=r"clients answered train\.masked"):
        federation.run()
    assert all("different lists of clients" in text for text in federation.refusals.values())


def test_clients_that_were_sent_other_models_add_up_to_nothing():
    """A server that sends all but one a model whose changes it knows would learn that one's: their masks stay."""

    class Poisoned(Federation):
        def change(self, kind, name, payload):
            if kind == MASKED and name != "site03":
                return replace(payload, arrays={"model": {n: one * 0 for n, one in payload.arrays["model"].items()}})
            return payload

    federation = Poisoned()
    with pytest.raises(FederatedError, match="worth nothing"):
        federation.run()
    assert "tells clients different things" in federation.refusals["site03"]


@pytest.mark.parametrize("kind", KINDS)
def test_no_message_is_answered_twice(kind):
    federation = Federation()
    federation.run()
    name, message = next((name, message) for sent, name, message, _ in federation.sent if sent == kind)
    with pytest.raises(FederatedError, match=r"replay|refuses"):
        federation.client(name).handle(kind, message)


@pytest.mark.parametrize("kind", [SHARES, MASKED, CONFIRM, UNMASK])
def test_nor_twice_within_a_round(kind):
    class Twice(Federation):
        def change(self, sent, name, payload):
            if sent == kind:
                self.client(name).handle(kind, payload)
            return payload

    federation = Twice()
    with pytest.raises(FederatedError):
        federation.run()
    assert all("refuses" in text for text in federation.refusals.values())


def test_an_earlier_round_is_a_replay(tmp_path):
    federation = Federation(tmp_path)
    federation.run(round_number=5)
    for number in (5, 4):
        with pytest.raises(FederatedError, match="0 of 5 clients"):
            federation.run(round_number=number)
        assert "replay" in federation.refusals["site00"]
    federation.run(round_number=6)


def test_secrets_are_gone_after_a_round_and_for_no_other_user(tmp_path):
    federation = Federation(tmp_path)
    federation.gone[CONFIRM] = {"site01"}
    federation.run()
    kept = (tmp_path / "site00" / "secure.json").read_text()
    assert "secrets" not in kept
    assert "held" not in kept
    assert (tmp_path / "site01" / "secure.json").stat().st_mode & 0o077 == 0


# -- clients that do not keep to the protocol --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_of_another_form_is_as_none(kind):
    class Strange(Federation):
        def ask(self, asked, messages):
            answers = super().ask(asked, messages)
            if asked == kind and "site01" in answers:
                answers["site01"] = Payload(values={"owners": "x"}, arrays={"masked": {"vector": np.zeros(3)}})
            return answers

    federation = Strange()
    result = federation.run()
    assert result.faults == {"site01": f"{kind}: not an answer of the protocol"}
    assert_mean(federation, result, result.survivors)


def test_changed_shares_are_noticed():
    class Changed(Federation):
        def ask(self, asked, messages):
            answers = super().ask(asked, messages)
            if asked == UNMASK:
                values = answers["site00"].values
                shares = [bytes(one[:-1]) + bytes([one[-1] ^ 1]) for one in values["shares"]]
                answers["site00"] = Payload(values={**values, "shares": shares})
            return answers

    with pytest.raises(FederatedError, match="were changed"):
        Changed().run()


# -- what can't be summed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2])
def test_two_clients_are_refused(count):
    with pytest.raises(FederatedError, match="3 clients or more"):
        Federation(count=count).run()


def test_of_three_clients_none_may_drop_out():
    federation = Federation(count=3)
    federation.gone[MASKED] = {"site00"}
    with pytest.raises(FederatedError, match=r"2 of 3 clients answered train.masked, and a secure sum needs 3.*site00"):
        federation.run()
    with pytest.raises(FederatedError, match="min_survivors=2"):
        SecureSum(min_survivors=2)


def test_a_site_may_ask_for_more_company():
    federation = Federation(count=5, min_clients=6)
    with pytest.raises(FederatedError):
        federation.run()
    assert "6 are needed" in federation.refusals["site00"]


def test_bits_that_pass_the_modulus():
    with pytest.raises(FederatedError, match="use 29 bits or fewer"):
        Federation(count=5).run(SumSettings(bits=32))
    assert [SumSettings().bits_for(count) for count in (3, 10, 60, 4096)] == [30, 28, 26, 20]


def test_what_is_clipped_is_reported():
    federation = Federation(count=3)
    result = federation.run(SumSettings(clip=1.0))
    changes = {
        name: np.concatenate([(one.arrays[key] - MODEL[key]).ravel() for key in ("head.weight", "scale")])
        for name, one in federation.contributions.items()
    }
    weights = [federation.contributions[name].num_examples for name in changes]
    expected = np.average([(np.abs(one) > 1).mean() for one in changes.values()], weights=weights)
    assert result.metrics["clipped_share"] == pytest.approx(expected, abs=1e-5)
    assert expected > 0.1
    clipped = np.average([np.clip(one, -1, 1) for one in changes.values()], axis=0, weights=weights)[:60]
    np.testing.assert_allclose((result.arrays["head.weight"] - MODEL["head.weight"]).ravel(), clipped, atol=2e-6)


def test_uniform_weights():
    federation = Federation(count=4)
    result = federation.run(SumSettings(weighting="uniform"))
    mean = np.mean([one.arrays["scale"] for one in federation.contributions.values()], axis=0)
    np.testing.assert_allclose(result.arrays["scale"], mean, atol=1e-7)
    assert result.num_examples == 4


def layout(**settings):
    return SumLayout(MODEL, SumSettings(**settings), 5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_examples": 10_001}, "Raise max_examples"),
        ({"num_examples": 0}, "num_examples=0"),
        ({"arrays": {**MODEL, "scale": np.array([1.0, np.nan, 0])}}, "'scale' with numbers that are not finite"),
        ({"arrays": {"scale": MODEL["scale"]}}, "left out 2 tensors"),
    ],
)
def test_contributions_that_can_t_be_summed(change, words):
    given = Contribution(MODEL, 10, {"loss": 1.0})
    with pytest.raises(FederatedError, match=words):
        layout(metrics=("loss",)).encode("site00", replace(given, **change))


def test_metrics_alone():
    """Of clients of whom one has nothing to measure with, and one lacks a metric; the model is sent and not summed."""
    federation = Federation()
    measured = [
        {"accuracy": 0.5, "loss": 2.0},
        {"accuracy": 1.0},
        {},
        {"accuracy": 0.25, "loss": float("nan")},
        {"loss": 7},
    ]
    counts = [10, 40, 0, 2, 6]
    federation.contributions = {
        name: Contribution({}, count, metrics)
        for name, count, metrics in zip(federation.names, counts, measured, strict=True)
    }
    task = Payload({MEASURE: True}, {"model": MODEL})
    server = SecureSum(SumSettings(metrics=("accuracy", "loss", "unknown")))
    result = server.run(federation.ask, federation.names, task, run="run", round_number=1)
    assert result.arrays == {}
    assert result.num_examples == 58
    assert result.metrics == pytest.approx({"accuracy": (5 + 40 + 0.5) / 52, "loss": (20 + 42) / 16}, abs=1e-3)


def test_counts_below_those_sent():
    lower = {**MODEL, "norm.num_batches_tracked": np.array(3, dtype=np.int64)}
    one = layout()
    total = sum((one.encode("a", Contribution(lower, 5, {})) for _ in range(3)), np.zeros(one.size, np.uint32))
    arrays, weight, _ = one.decode(total, 3)
    assert arrays["norm.num_batches_tracked"] == 3
    assert weight == 15
    with pytest.raises(FederatedError, match="worth nothing"):
        one.decode(total + np.uint32(1), 20)


# -- many clients ------------------------------------------------------------------------------------------------------


def test_clients_on_a_circle_share_with_some(monkeypatch):
    monkeypatch.setattr(roster, "MOST_ON_COMPLETE_GRAPH", 10)
    monkeypatch.setattr(roster, "neighbour_count", lambda clients: 8)
    federation = Federation(count=14, seed=2)
    federation.gone = {SHARES: {"site07"}, MASKED: {"site03"}}
    result = federation.run(threshold=5)
    assert_mean(federation, result, [name for name in federation.names if name not in {"site03", "site07"}])
    shares = [answer.values["recipients"] for kind, _, _, answer in federation.sent if kind == SHARES]
    assert {len(one) for one in shares} == {8}


@pytest.mark.slow
def test_sixty_clients_share_with_some():
    federation = Federation(count=60, seed=2)
    federation.gone = {SHARES: {"site07"}, MASKED: {"site00", "site31", "site59"}}
    result = federation.run()
    assert_mean(federation, result, [n for n in federation.names if n not in {"site00", "site07", "site31", "site59"}])
    shares = [answer.values["recipients"] for kind, _, _, answer in federation.sent if kind == SHARES]
    assert {len(one) for one in shares} == {neighbour_count(60)} == {36}


def test_survivors_in_two_groups_are_refused(monkeypatch):
    """Masks tie neighbours alone: where two gaps part the circle, the sum of each part would be learnt."""
    monkeypatch.setattr(roster, "MOST_ON_COMPLETE_GRAPH", 10)
    monkeypatch.setattr(roster, "neighbour_count", lambda clients: 4)
    members = tuple(
        Member(f"{number:02}", bytes([number]) * 32, bytes([99 + number]) * 32, b"") for number in range(20)
    )
    everyone = Roster(Session("run", 1), members, 3)
    circle = everyone.circle
    for gone, refused in (([0, 1, 10, 11], True), ([0, 1], False), ([0, 10], False), ([18, 19, 0, 5, 7], False)):
        left = sorted(set(circle) - {circle[place] for place in gone})
        if refused:
            with pytest.raises(FederatedError, match="fall into groups"):
                everyone.check_survivors(left, everyone.names, 3)
        else:
            everyone.check_survivors(left, everyone.names, 3)
    for place, name in enumerate(circle):
        near = {circle[(place + step) % 20] for step in (-2, -1, 0, 1, 2)}
        assert set(everyone.holders(name)) == near


def test_neighbours_bear_what_drops_out():
    """A fifth of the clients gone by chance: no client's secrets are lost, in all but one of a thousand rounds."""
    from math import comb

    for clients in (51, 60, 100, 300, 1000):
        others, threshold = neighbour_count(clients), default_threshold(clients)
        assert others + 1 < 2 * threshold <= others + 3
        assert others < clients
        lost = sum(comb(others, left) * 0.8**left * 0.2 ** (others - left) for left in range(threshold - 1))
        assert lost * clients < 1e-3
    assert [default_threshold(count) for count in (3, 4, 5, 6, 9, 50)] == [2, 3, 4, 4, 6, 34]
