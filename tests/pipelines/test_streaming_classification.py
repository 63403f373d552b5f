"""Windows of a stream: the labels of the pipeline on the same frames, each frame encoded once, memory flat."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import tiny_video_text
import torch
from transformers import pipeline

import hf_video
from hf_video.errors import CheckpointError, VideoArrayError, VideoOptionError
from hf_video.pipelines.streaming_classification import StreamingClassifier
from hf_video.video.frames.types import VideoFrames

SIZE = {"image_size": 32, "num_frames": 8, "num_labels": 5}
VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "patch_size": 8}
NETWORK = {"kind": "resnet", "depths": (1,), "widths": (8,), "expansion": 1}
S3D = {"model_type": "s3d", "stem_channels": 8, "projection_dim": 24, "num_frames": 2, "image_size": 32}
MODELS = {
    "timesformer": hf_video.TimesformerConfig(**SIZE, **VIT, attention_type="space_only"),
    "vivit": hf_video.VivitConfig(
        **SIZE, **VIT | {"patch_size": None}, tubelet_size=[2, 8, 8], attention_type="factorized_encoder"
    ),
    "two_stream": hf_video.TwoStreamConfig(**SIZE, spatial_config=NETWORK, temporal_config=None),
    "videomae": hf_video.VideoMAEConfig(**SIZE, **VIT),
}
FRAMES = tiny.moving_frames(40)


@pytest.fixture(scope="module", params=[*MODELS, "videoclip", "videoclip-segments"])
def classify(request, tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp(request.param)
    if request.param.startswith("videoclip"):
        segments = {"video_config": S3D, "segment_frames": 2, "temporal": "mean"}
        changes = {"temporal": "lstm"} if request.param == "videoclip" else segments
        tiny_video_text.save_videoclip(folder, num_frames=8, **changes)
        options = {"candidate_labels": ["a dog", "a cat", "rain"], "num_frames": 8}
        return pipeline("zero-shot-video-classification", model=str(folder), device="cpu", **options)
    row = hf_video.MODELS[request.param]
    model = row.load(row.auto["AutoModelForVideoClassification"])(MODELS[request.param]).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    streams = {"streams": "spatial"} if request.param == "two_stream" else {}
    processor = row.load(row.image_processor)(**size, **streams, num_frames=8)
    return pipeline("video-classification", model=model, image_processor=processor, device="cpu")


def scores(predictions):
    return {row["label"]: row["score"] for row in predictions}


@pytest.mark.parametrize(("stride", "step", "chunk"), [(1, 1, 1), (2, 3, 7), (11, 1, 40)])
def test_a_window_is_a_clip_of_the_pipeline(classify, stride, step, chunk):
    stream = StreamingClassifier(classify, stride=stride, frame_sampling_rate=step, top_k=None, fps=10)
    assert stream.reuses_frames == (classify.model.config.model_type != "videomae")
    rows = [row for first in range(0, 40, chunk) for row in stream.push(FRAMES[first : first + chunk])]
    starts = range(0, 40 - 7 * step, stride)
    assert len(rows) == len(starts)
    for row, start in zip(rows, starts, strict=True):
        assert row["seconds"] == pytest.approx((start / 10, (start + 7 * step + 1) / 10))
        expected = scores(classify(FRAMES[start : start + 7 * step + 1 : step], top_k=None, sampler="uniform"))
        assert scores(row["predictions"]) == pytest.approx(expected, abs=1e-5)


def test_a_frame_is_encoded_once_and_no_longer_held(classify, monkeypatch):
    stream = StreamingClassifier(classify, frame_sampling_rate=1)
    if not stream.reuses_frames:
        pytest.skip("sees whole clips")
    encode, states = classify.model.encode_states, []
    monkeypatch.setattr(
        classify.model, "encode_states", lambda pixel_values: states.append(encode(pixel_values)) or states[-1]
    )
    rows = [row for frame in FRAMES for row in stream.push(frame)]
    group = classify.model.frames_per_state
    assert len(rows) == 33
    assert sum(map(len, states)) == 40 - group + 1
    assert {made.shape[1] for made in states} == {1}
    assert len(stream._frames) == group - 1
    assert max(len(stream._states), len(stream._times)) <= 8


def test_hooks_see_whole_clips(classify):
    """A hook on the model is somebody's, who expects a clip in each call."""
    seen = []
    hook = classify.model.register_forward_pre_hook(lambda *_: seen.append(1))
    try:
        assert not StreamingClassifier(classify).reuses_frames
    finally:
        hook.remove()


def test_seconds_count_on_from_the_last(classify):
    stream = StreamingClassifier(classify, frame_sampling_rate=1)
    assert not stream.push(FRAMES[:2], [-1.0, -0.9])
    (row,) = stream.push(FRAMES[2:8])
    assert row["seconds"] == pytest.approx((-1.0, -0.2))


@pytest.mark.parametrize("streams", ["both", "temporal"])
def test_flow_is_refused_before_a_frame_comes(streams):
    towers = {"both": {}, "temporal": {"spatial_config": None}}[streams]
    config = hf_video.TwoStreamConfig(**{**SIZE, "spatial_config": NETWORK, "temporal_config": NETWORK, **towers})
    model, processor = (
        hf_video.TwoStreamForVideoClassification(config),
        hf_video.TwoStreamImageProcessor(streams=streams),
    )
    classify = pipeline("video-classification", model=model, image_processor=processor, device="cpu")
    with pytest.raises(CheckpointError, match="sees optical flow"):
        StreamingClassifier(classify)


def test_bad_input(classify):
    with pytest.raises(VideoOptionError, match="views"):
        StreamingClassifier(classify, views="2x3")
    stream = StreamingClassifier(classify)
    stream.push(FRAMES[0], 1.0)
    with pytest.raises(VideoArrayError, match="later"):
        stream.push(FRAMES[1], 0.5)
    assert stream.push(VideoFrames(FRAMES[1:3], np.arange(2), np.array([1.5, 2.0]))) == []
