"""Fewer bytes: what is sent, what stays, and the error."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hf_video.errors import FederatedError
from hf_video.federated.compression import to_int8, top_k

FACTS = json.loads((Path(__file__).parent.parent / "golden_federated" / "golden_federated.json").read_text())


def test_top_k_with_error_feedback():
    given, expected = (FACTS["compression"]["top_k_error_feedback"][key] for key in ("inputs", "expected"))
    sent, residual = top_k(np.array(given["update"]), np.array(given["residual"]), given["k"])
    assert sent.indices.tolist() == expected["indices"]
    np.testing.assert_allclose(sent.values, expected["values"], rtol=1e-6)
    np.testing.assert_allclose(residual, expected["residual"], atol=1e-6)
    np.testing.assert_allclose(sent.decode() + residual, np.add(given["update"], given["residual"]), atol=1e-12)


def test_what_is_not_sent_arrives_later():
    update = np.random.default_rng(0).normal(size=(4, 5))
    residual, arrived = None, np.zeros(20)
    for number in range(5):
        sent, residual = top_k(update if number == 0 else np.zeros((4, 5)), residual, 4)
        arrived += sent.decode()
    np.testing.assert_allclose(arrived, update.ravel(), atol=1e-6)


def test_int8():
    given, expected = (FACTS["compression"]["int8"][key] for key in ("inputs", "expected"))
    found = to_int8(np.array(given["x"]))
    assert found.scale == pytest.approx(expected["scale"])
    assert found.values.tolist() == expected["q"]
    assert np.abs(found.decode() - given["x"]).max() == pytest.approx(expected["max_error"])
    assert to_int8(np.zeros(3)).decode().tolist() == [0, 0, 0]


def test_bytes_of_top_k():
    case = FACTS["communication"]["top_k"]
    size = case["inputs"]["size"]
    sent, _ = top_k(np.random.default_rng(0).normal(size=size), None, int(size * case["inputs"]["share"]))
    assert sent.nbytes == case["expected"]["bytes_values_and_int32_indices"]


def test_what_can_t_be_compressed():
    with pytest.raises(FederatedError, match="not finite"):
        to_int8(np.array([1.0, np.nan]))
    with pytest.raises(FederatedError, match="count"):
        top_k(np.zeros(3), None, 4)
