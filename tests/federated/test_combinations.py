"""What can't go together is refused in a sentence, and nothing else is."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from hf_video.errors import FederatedError
from hf_video.federated.combinations import RULES, Combination, check_combination, find_conflicts
from hf_video.federated.config import STRATEGIES

# Each pair that is refused: two choices, and the words that say why.
OPTIMIZERS = ("fedavgm", "fedadagrad", "fedadam", "fedyogi", "reptile")
SECURE = ("secagg", "he")
OF_SINGLE_ANSWERS = {
    "median": "sees their sum alone",
    "trimmed_mean": "sees their sum alone",
    "krum": "sees their sum alone",
    "qfedavg": "losses",
    "fednova": "number of steps in the clear",
    "scaffold": "control variates in the clear",
    "feddyn": "one weighted sum",
}
OF_THE_SUM = [
    *(({"strategy": name}, words) for name, words in OF_SINGLE_ANSWERS.items()),
    *(({"compression": text}, "no place in a secure sum") for text in ("int8", "fp16", "topk:0.01")),
    ({"max_update_norm": True}, "norm of each client"),
    ({"privacy": "client"}, "clips each client's change at the server"),
]
REFUSED = [
    *((choice, {"secure": kind}, words) for choice, words in OF_THE_SUM for kind in SECURE),
    ({"clients": 1}, {"secure": "secagg"}, "1 clients hides nothing"),
    ({"clients": 2}, {"secure": "secagg"}, "three or more"),
    ({"clients": 1}, {"secure": "he"}, "two or more"),
    *(({"strategy": name}, {"secure": "he"}, "more of the clients' answers than their mean") for name in OPTIMIZERS),
    ({"server_evaluation": True}, {"secure": "he"}, "clients evaluate"),
    *(({"trains_batch_norms": True}, {"privacy": unit}, "mix the videos") for unit in ("video", "client")),
    *(({"strategy": name}, {"privacy": "client"}, "mean of clipped changes") for name in OF_SINGLE_ANSWERS),
    *(({"personal": name}, {"privacy": "video"}, "loss of two models") for name in ("apfl", "perfedavg")),
    *(
        ({"strategy": strategy}, {"personal": name}, "counts every step")
        for strategy in ("scaffold", "feddyn")
        for name in ("fedrep", "apfl", "perfedavg", "reptile")
    ),
]
CHOICES = {
    "strategy": list(STRATEGIES),
    "secure": [None, "secagg", "he"],
    "compression": [None, "int8", "fp16", "topk:0.01"],
    "privacy": [None, "video", "client"],
    "personal": [None, "ditto", "apfl", "fedrep"],
    "clients": [None, 1, 2, 3],
    "max_update_norm": [False, True],
    "server_evaluation": [False, True],
    "trains_batch_norms": [False, True],
}


@pytest.mark.parametrize(("one", "other", "words"), REFUSED, ids=str)
def test_a_pair_that_is_refused(one, other, words):
    with pytest.raises(FederatedError, match=words) as caught:
        check_combination(Combination(**one, **other))
    assert "{" not in str(caught.value)
    check_combination(Combination(**one))
    check_combination(Combination(**other))


def test_nothing_else_is_refused():
    pairs = [{**one, **other} for one, other, _ in REFUSED]
    for values in product(*CHOICES.values()):
        chosen = dict(zip(CHOICES, values, strict=True))
        expected = any(pair.items() <= chosen.items() for pair in pairs)
        assert bool(find_conflicts(Combination(**chosen))) == expected, chosen


def test_every_rule_has_its_pair():
    given = [Combination(**one, **other) for one, other, _ in REFUSED]
    for applies, sentence in RULES:
        assert any(applies(one) for one in given), sentence
        assert sentence.endswith((".", "!"))


def test_all_reasons_are_told():
    both = Combination(strategy="krum", secure="secagg", compression="int8", clients=2)
    assert len(find_conflicts(both)) == 3
    assert find_conflicts(replace(both, secure=None)) == []


def test_rules_that_nobody_has_named_are_refused_where_the_server_can_only_add():
    assert find_conflicts(Combination(strategy="one of a user's own", secure="he"))
