"""Moments at keyframes: each frame is processed once, and encoded once where the model looks at frames apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from library import save_videoclip

from hf_video import VideoCLIPModel, VideoMAEConfig, VideoMAEImageProcessor, VideoMAEModel
from hf_video.clips.read import ClipInputs, clip_processor, read_clips
from hf_video.clips.request import ClipRequest, Windows
from hf_video.errors import NotAVideoError
from hf_video.features.extraction import ClipVectors
from hf_video.retrieval.encoders import ModelEncoder
from hf_video.retrieval.frame_vectors import encodes_frames_apart
from hf_video.video.writer import write_video

FPS, WINDOWS = 10, Windows(2.0, 1.0)


@pytest.fixture(scope="module", params=[10, 50])
def clip(request, tmp_path_factory):
    options = {"preset": "ultrafast", "sc_threshold": "0"}
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    frames = tiny.moving_frames(250, height=40, width=56)
    return write_video(path, frames, FPS, "h264", keyframe_interval=request.param, options=options)


@pytest.mark.parametrize("views", ["1x1", "2x1", "2x3"])
def test_frames_are_processed_once_to_the_same_inputs(clip, views):
    processor = VideoMAEImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 24, "width": 24})
    options = {"num_frames": 8, "windows": WINDOWS, "views": views, "sampler": "dense", "snap": "keyframe"}
    options["sampler_options"] = {"stride": 2}
    request = ClipRequest.resolve(processor, None, **options)
    calls = []

    def process(frames, crops):
        calls.append(len(frames))
        return clip_processor(processor)(frames, crops)

    seen, *clips = read_clips(clip, request, process)
    assert calls == [1] * len(seen.frames)
    _, *others = read_clips(clip, replace(request, keeps_frames=False), clip_processor(processor))
    assert len(others) == len(clips) > 5
    for one, other in zip(clips, others, strict=True):
        assert one.window == other.window
        torch.testing.assert_close(one.inputs["pixel_values"], other.inputs["pixel_values"], rtol=0, atol=0)


def test_processors_with_steps_of_their_own_see_whole_clips(clip):
    class Own(VideoMAEImageProcessor):
        def _inputs(self, clips, settings):
            assert all(len(one.frames) == 8 for one in clips)
            return super()._inputs(clips, settings)

    request = ClipRequest.resolve(Own(), None, num_frames=8, windows=WINDOWS, snap="keyframe")
    assert not request.keeps_frames
    assert sum(isinstance(one, ClipInputs) for one in read_clips(clip, request, clip_processor(Own()))) > 5
    exact = ClipRequest.resolve(VideoMAEImageProcessor(), None, num_frames=8, windows=WINDOWS)
    assert not exact.keeps_frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_videoclip(tmp_path_factory.mktemp("videoclip"))


def whole_clips(encoder, path):
    """Unit vectors of whole clips, the mean of their views, and the windows' seconds."""
    processor = encoder.processor.image_processor
    request = ClipRequest.resolve(processor, encoder.model.config, windows=WINDOWS, snap="keyframe")
    seen, *clips = read_clips(path, request, clip_processor(processor))
    found = [[] for _ in seen]
    with ClipVectors(encoder.model) as forward:
        for one in clips:
            found[one.window] += list(forward(one.inputs))
    vectors = torch.stack([torch.stack(rows).mean(0) for rows in found])
    return torch.nn.functional.normalize(vectors, dim=1).numpy(), seen


@pytest.mark.parametrize("views", [1, 2, 6])
def test_frames_are_encoded_once_to_the_same_vectors(clip, folder, views, monkeypatch):
    encoder = ModelEncoder(str(folder))
    if views > 1:
        settings = {"sampler": "dense", "sampler_options": {"stride": 5, "num_clips": 2}, "num_crops": views // 2}
        vars(encoder.processor.image_processor).update(settings)
    expected, windows = whole_clips(encoder, clip)
    encoded = []
    encode = VideoCLIPModel.encode_states

    def counting(self, pixel_values):
        encoded.append(tuple(pixel_values.shape[:2]))
        return encode(self, pixel_values)

    monkeypatch.setattr(VideoCLIPModel, "encode_states", counting)
    vectors, found = encoder.embed(clip, WINDOWS, snap="keyframe")
    np.testing.assert_array_equal(found, [one.seconds for one in windows])
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=2e-6)
    assert sum(rows for rows, _ in encoded) == len(windows.frames) * max(views // 2, 1)
    assert {frames for _, frames in encoded} == {1}
    encoded.clear()
    encoder.embed(clip, WINDOWS)  # exact moments are whole clips
    assert not encoded


def test_a_hook_sees_whole_clips(clip, folder):
    encoder = ModelEncoder(str(folder))
    expected, _ = whole_clips(encoder, clip)
    shapes = set()
    hook = encoder.model.register_forward_pre_hook(lambda *_: None)
    watched = encoder.model.vision_model.register_forward_pre_hook(lambda _, given: shapes.add(len(given[0])))
    assert not encodes_frames_apart(encoder.model)
    vectors, _ = encoder.embed(clip, WINDOWS, snap="keyframe")
    assert min(shapes) >= encoder.model.config.num_frames
    hook.remove()
    watched.remove()
    assert encodes_frames_apart(encoder.model)
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=2e-6)


def test_models_that_look_at_whole_clips_are_shown_these():
    model = VideoMAEModel(VideoMAEConfig(num_hidden_layers=1, hidden_size=12, num_attention_heads=1))
    assert not encodes_frames_apart(model)


def test_a_file_that_is_no_video_says_so(tmp_path, folder):
    (tmp_path / "a.mp4").write_bytes(b"no video at all")
    with pytest.raises(NotAVideoError):
        ModelEncoder(str(folder)).embed(tmp_path / "a.mp4", WINDOWS, snap="keyframe")
