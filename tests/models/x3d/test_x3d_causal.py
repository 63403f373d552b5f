"""X3D as a causal network: the contract, and that a stream is the clip."""

from __future__ import annotations

import logging
from typing import ClassVar

import pytest
import tiny
import torch
from contract import assert_close, randomise
from transformers import pipeline
from x3d.test_x3d import TestX3D as OfX3D

import hf_video
from hf_video.errors import CheckpointError, ModelInputError, VideoOptionError
from hf_video.pipelines.streaming_classification import StreamingClassifier

TINY = {**OfX3D.tiny, "num_labels": 5, "causal": True}


class TestCausalX3D(OfX3D):
    variant = True
    tiny: ClassVar = {**OfX3D.tiny, "causal": True}
    other_clips = ((1, 40, 64), (9, 32, 32))


def make(**changes) -> hf_video.X3DForVideoClassification:
    torch.manual_seed(0)
    return randomise(hf_video.X3DForVideoClassification(hf_video.X3DConfig(**{**TINY, **changes}))).eval()


@torch.no_grad()
def test_no_frame_sees_a_later_one():
    model, other = make(), make(causal=False)
    clip = torch.randn(1, 7, 3, 40, 64)
    changed = torch.cat([clip[:, :4], torch.randn(1, 3, 3, 40, 64)], dim=1)
    for one in (model, other):
        maps, new = (
            [state.unflatten(1, (7, -1)) for state in one(x, output_hidden_states=True).hidden_states]
            for x in (clip, changed)
        )
        same = [torch.allclose(a[:, :4], b[:, :4], atol=1e-6) for a, b in zip(maps, new, strict=True)]
        assert all(same) if one is model else not any(same)
        assert not any(torch.allclose(a[:, 4], b[:, 4], atol=1e-3) for a, b in zip(maps, new, strict=True))


@torch.no_grad()
@pytest.mark.parametrize("size", [(32, 32), (40, 64)])
@pytest.mark.parametrize("chunks", [[1] * 11, [3, 1, 7], [11]])
def test_a_stream_in_parts_is_the_clip(size, chunks):
    """Also of more frames than a clip of the training has (4), whose means forget."""
    model, clip, stream = make(), torch.randn(2, 11, 3, *size), {}
    states = torch.cat([model.encode_states(part, stream) for part in clip.split(chunks, 1)], dim=1)
    for end in (1, 3, 4, 5, 11):
        expected = model(clip[:, :end]).logits
        assert_close(model.classify_states(states[:, max(end - 4, 0) : end]), expected, atol=1e-5)
    held = sum(tensor.numel() for tensor in stream.values())
    model.encode_states(clip, stream)
    assert sum(tensor.numel() for tensor in stream.values()) == held  # memory is flat


@pytest.fixture(scope="module")
def classify():
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    processor = hf_video.X3DImageProcessor(**size, num_frames=4, sampler="uniform", sampler_options={})
    return pipeline("video-classification", model=make(), image_processor=processor, device="cpu")


@torch.no_grad()
@pytest.mark.parametrize(("stride", "step", "chunk"), [(1, 1, 1), (4, 2, 7), (11, 1, 40)])
def test_streaming_labels_are_those_of_all_frames_so_far(classify, stride, step, chunk):
    frames = tiny.moving_frames(40)
    stream = StreamingClassifier(classify, stride=stride, frame_sampling_rate=step, top_k=None, fps=10)
    assert stream.reuses_frames
    rows = [row for first in range(0, 40, chunk) for row in stream.push(frames[first : first + chunk])]
    starts = range(0, 40 - 3 * step, stride)
    assert len(rows) == len(starts)
    clip = classify._process(frames, 1)["pixel_values"]
    for row, start in zip(rows, starts, strict=True):
        assert row["seconds"] == pytest.approx((start / 10, (start + 3 * step + 1) / 10))
        expected = classify.model(clip[:, : start + 3 * step + 1 : step]).logits[0].softmax(-1)
        found = {one["label"]: one["score"] for one in row["predictions"]}
        assert found == pytest.approx({f"LABEL_{i}": p for i, p in enumerate(expected.tolist())}, abs=1e-5)
    assert len(stream._frames) == 0
    assert max(len(stream._states), len(stream._times)) <= 4 * step + stride


def test_bad_streams(classify):
    with pytest.raises(VideoOptionError, match="leave num_frames out"):
        StreamingClassifier(classify, num_frames=8)
    with pytest.raises(VideoOptionError, match="stride=3 must be a multiple"):
        StreamingClassifier(classify, stride=3, frame_sampling_rate=2)
    hook = classify.model.register_forward_hook(lambda *_: None)
    try:
        with pytest.raises(CheckpointError, match="Remove the hook"):
            StreamingClassifier(classify)
    finally:
        hook.remove()


def test_weights_of_the_other_kind_are_not_taken_in_silence(tmp_path, caplog):
    make(causal=False).save_pretrained(tmp_path / "plain")
    logging.getLogger("transformers").propagate = True
    with caplog.at_level(logging.WARNING):
        model = hf_video.X3DForVideoClassification.from_pretrained(tmp_path / "plain", causal=True)
    assert "trained with causal=False" in caplog.text
    assert model.config.causal
    model.save_pretrained(tmp_path / "causal")
    caplog.clear()
    again = hf_video.X3DForVideoClassification.from_pretrained(tmp_path / "causal")
    assert "trained with causal" not in caplog.text
    clip = torch.randn(1, 4, 3, 32, 32)
    assert_close(again.eval()(clip).logits, model.eval()(clip).logits, atol=0)


def test_states_of_what_is_no_stream():
    with pytest.raises(ModelInputError, match="causal=True"):
        make(causal=False).encode_states(torch.randn(1, 2, 3, 32, 32))
    model, stream = make(), {}
    model.encode_states(torch.randn(1, 2, 3, 32, 32), stream)
    with pytest.raises(ModelInputError, match="begin another stream"):
        model.encode_states(torch.randn(1, 2, 3, 32, 64), stream)


def test_official_weights_are_refused():
    state = {"blocks.0.conv.conv_t.weight": torch.zeros(24, 3, 1, 3, 3)}
    state |= {f"blocks.5.pool.{name}.weight": torch.zeros(8, 4, 1, 1, 1) for name in ("pre_conv", "post_conv")}
    state |= {f"blocks.{i}.res_blocks.0.branch2.conv_a.weight": torch.zeros(2) for i in (1, 2, 3, 4)}
    with pytest.raises(CheckpointError, match="sees frames before and behind"):
        hf_video.from_official("x3d", state, causal=True)
