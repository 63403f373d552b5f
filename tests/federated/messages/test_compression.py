"""Fewer bytes: what is sent, what stays, and the error."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hf_video.errors import FederatedError
from hf_video.federated.arrays import BFLOAT16, narrowed, widened
from hf_video.federated.messages.compression import (
    Compression,
    compress_payload,
    decompress_payload,
    parse_compression,
    to_int8,
    top_k,
)
from hf_video.federated.messages.payload import Payload

FACTS = json.loads((Path(__file__).parent.parent.parent / "golden_federated" / "golden_federated.json").read_text())


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


# -- answers of clients ------------------------------------------------------------------------------------------------


def sent_and_answered(seed=0):
    rng = np.random.default_rng(seed)
    sent = {
        "weight": rng.normal(size=(30, 20)).astype(np.float32),
        "double": rng.normal(size=7),
        "scalar": np.array(0.5, dtype=np.float32),
        "brain": narrowed(rng.normal(size=11), np.zeros(1, dtype=BFLOAT16)),
        "count": np.array(4, dtype=np.int64),
    }
    answered = {
        name: one + 3 if name == "count" else narrowed(widened(one) + rng.normal(0, 0.01, one.shape), one)
        for name, one in sent.items()
    }
    return sent, Payload({"num_examples": 5}, {"model": answered, "control": {"weight": np.zeros(3)}})


BYTES = {"int8": 600 + 7 + 1 + 11 + 4 * 4, "fp16": 2 * 619, "topk:0.1": 8 * (60 + 1 + 1 + 1)}


@pytest.mark.parametrize("text", BYTES)
@pytest.mark.parametrize("seed", [0, 3])
def test_an_answer_arrives(text, seed):
    sent, payload = sent_and_answered(seed)
    compression = parse_compression(text)
    small, residual = compress_payload(payload, sent, compression)
    assert small.nbytes == BYTES[text] + 8 + 24 + 8  # the count, the control, num_examples
    arrived = decompress_payload(small, sent, compression, "a")
    assert arrived.values == payload.values
    assert set(arrived.arrays) == {"model", "control"}
    assert list(arrived.arrays["model"]) == list(sent)
    assert arrived.arrays["model"]["count"] == 7
    for name, before in sent.items():
        after, found = payload.arrays["model"][name], arrived.arrays["model"][name]
        assert (found.dtype, found.shape) == (before.dtype, before.shape)
        if name in residual:  # what is left is exactly what did not arrive
            change = widened(after) - widened(before)
            np.testing.assert_array_equal(found, narrowed(widened(before) + (change - residual[name]), before))
        elif name != "count":
            np.testing.assert_allclose(
                widened(found), widened(after), rtol=8e-3 if name == "brain" else 1e-3, atol=1e-5
            )
    assert set(residual) == (set() if text == "fp16" else {"weight", "double", "scalar", "brain"})


@pytest.mark.parametrize("text", ["int8", "topk:0.05"])
def test_the_sum_of_rounds_is_the_sum_of_changes(text):
    """With error feedback, what arrived and what is left are what was changed, in every round."""
    compression, residual = parse_compression(text), None
    rng = np.random.default_rng(1)
    sent, changed, arrived = {"w": np.zeros((20, 5))}, np.zeros((20, 5)), np.zeros((20, 5))
    for _ in range(6):
        update = rng.normal(size=(20, 5))
        small, residual = compress_payload(Payload(arrays={"model": {"w": update}}), sent, compression, residual)
        changed += update
        arrived += decompress_payload(small, sent, compression, "a").arrays["model"]["w"]
        np.testing.assert_allclose(arrived + residual["w"], changed, atol=1e-12)


def test_a_residual_of_another_model_is_dropped():
    sent, payload = sent_and_answered()
    compression = Compression("topk", 0.1)
    expected = compress_payload(payload, sent, compression)
    found = compress_payload(payload, sent, compression, {"weight": np.ones(3), "gone": np.ones(4)})
    for name, one in expected[1].items():
        np.testing.assert_array_equal(found[1][name], one)


@pytest.mark.parametrize(
    ("text", "change", "words"),
    [
        ("int8", {"model.scale": {}}, "'weight', but it is not compressed by int8"),
        ("int8", {"model.int8": {"weight": np.zeros(600)}}, "not compressed by int8"),
        ("int8", {"model.int8": {"weight": np.zeros(599, np.int8)}}, "another size"),
        ("int8", {"model.scale": {"weight": np.array(np.nan, np.float32)}}, "not finite"),
        ("fp16", {"model.fp16": {"weight": np.full(600, np.inf, np.float16)}}, "not finite"),
        ("fp16", {"model.fp16": {"ghost": np.zeros(6, np.float16)}}, "'ghost', which nobody asked for"),
        ("topk:0.1", {"model.indices": {"weight": np.array([600], np.int32)}, "model.values": 1}, "outside the tensor"),
        ("topk:0.1", {"model.indices": {"weight": np.array([-1], np.int32)}, "model.values": 1}, "outside the tensor"),
        ("topk:0.1", {"model.indices": {"weight": np.array([3, 3], np.int32)}, "model.values": 2}, "not in order"),
        ("topk:0.1", {"model.indices": {"weight": np.array([1, 2], np.int32)}, "model.values": 3}, "not in order"),
    ],
)
def test_answers_that_can_t_be_decoded(text, change, words):
    sent, payload = sent_and_answered()
    compression = parse_compression(text)
    small, _ = compress_payload(payload, sent, compression)
    arrays = {purpose: dict(group) for purpose, group in small.arrays.items()}
    for purpose, group in change.items():
        given = {"weight": np.ones(group, np.float32)} if isinstance(group, int) else group
        arrays[purpose] = {**arrays[purpose], **given} if given else {}
    with pytest.raises(FederatedError, match=f"'bank'.*{words}"):
        decompress_payload(Payload({}, arrays), sent, compression, "bank")


def test_changes_past_sixteen_bits():
    with pytest.raises(FederatedError, match="65,504"):
        Compression("fp16").encode(np.array([70_000.0]), None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("int9", "Did you mean 'int8'"),
        ("int8:2", "takes no number"),
        ("topk", "lacks the share"),
        ("topk:x", "lacks the share"),
        ("topk:0", "above 0"),
        ("topk:1.5", "at most 1"),
    ],
)
def test_names_of_compressions(text, words):
    with pytest.raises(FederatedError, match=words):
        parse_compression(text)
    assert parse_compression(None) is parse_compression("none") is None
    assert parse_compression("topk:0.01") == Compression("topk", 0.01)
