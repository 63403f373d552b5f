"""What a client keeps between rounds, when its server goes back or begins anew."""

from __future__ import annotations

import torch

from hf_video.federated.store import PersonalStore


def test_the_last_two_rounds_are_kept(tmp_path):
    store = PersonalStore(tmp_path)
    for number in range(1, 5):
        store.save("own", number, {"w": torch.full((2,), float(number))})
    assert store.load("own", 5)["w"][0] == 4
    assert store.load("own", 4)["w"][0] == 3  # the round is done again
    assert store.load("own", 3) is None


def test_a_new_run_in_the_same_folder_keeps_what_it_made(tmp_path):
    """What an earlier run left of its later rounds neither counts nor takes the place of the new run's."""
    store = PersonalStore(tmp_path)
    for number in (19, 20):
        store.save("own", number, {"w": torch.zeros(2)})
    assert store.load("own", 1) is None
    store.save("own", 1, {"w": torch.ones(2)})
    assert store.load("own", 2)["w"][0] == 1
    store.save("own", 2, {"w": torch.full((2,), 2.0)})
    assert store.load("own", 3)["w"][0] == 2
    assert store.load("own", 25)["w"][0] == 2
