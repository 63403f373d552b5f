"""Two streams from one file: the processor's two inputs, its cache, and the pipeline from file to flow to label."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from contract import randomise
from tiny import LABELS, moving_frames

import hf_video
from hf_video.errors import BackendError, ShortVideoError, VideoOptionError
from hf_video.models.two_stream import image_processing_two_stream as processing
from hf_video.models.two_stream.image_processing_two_stream import TwoStreamImageProcessor, TwoStreamVideoProcessor
from hf_video.video.flow import estimation as flow
from hf_video.video.writer import write_video

CV2 = "OpenCV is an extra: pip install hf_video[flow]"
SMALL = {"size": {"height": 48, "width": 80}, "crop_size": {"height": 32, "width": 40}, "flow_length": 3}
VGG = {"kind": "vgg", "depths": [2, 1], "widths": [6, 8], "fc_width": 8, "pool_size": 2}


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """24 lossless frames of 48x80."""
    return write_video(tmp_path_factory.mktemp("flow") / "a.mkv", moving_frames(24), fps=8, codec="ffv1")


def call(processor, video, **options):
    return processor(video, return_tensors="pt", **options)


@pytest.mark.parametrize("cls", [TwoStreamImageProcessor, TwoStreamVideoProcessor])
def test_both_inputs_are_of_the_same_frames(cls, video):
    """Written out: centre crops, ImageNet statistics, and (image of flow / 255 - .5) / .226, channels x1, y1, …"""
    pytest.importorskip("cv2", reason=CV2)
    inputs = call(cls(**SMALL), video, num_frames=4, return_metadata=True)
    frames = moving_frames(24)
    indices = inputs["video_metadata"][0]["frames_indices"]
    assert indices.tolist() == [3, 9, 15, 21]
    assert inputs["pixel_values"].shape == (1, 4, 3, 32, 40)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (torch.from_numpy(frames[indices, 8:40, 20:60]) / 255 - mean) / std
    torch.testing.assert_close(inputs["pixel_values"][0], pixels.movedim(-1, 1), atol=1e-5, rtol=0)
    images = flow.quantize(flow.optical_flow(frames))
    for k, start in enumerate([3, 9, 15, 20]):  # the last stack begins where its three fields still exist
        stack = flow.flow_stacks(images[start : start + 3, 8:40, 20:60])
        expected = (torch.from_numpy(stack) / 255 - 0.5) / 0.226
        torch.testing.assert_close(inputs["flow_values"][0, k], expected, atol=1e-5, rtol=0)
    assert inputs["flow_values"].dtype == torch.float32


def test_every_form_of_a_video_gives_the_same(video):
    pytest.importorskip("cv2", reason=CV2)
    processor = TwoStreamImageProcessor(**SMALL, num_frames=3)
    expected = call(processor, video)
    frames = moving_frames(24)
    with hf_video.VideoReader(video) as reader:
        forms = [str(video), video.read_bytes(), frames, torch.from_numpy(frames), list(frames), reader,
                 {"path": str(video), "bytes": None}, frames.astype(np.float32) / 255]  # fmt: skip
        for form in forms:
            got = call(processor, form)
            for name in expected:
                torch.testing.assert_close(got[name], expected[name], atol=1e-5, rtol=0)
    both = call(processor, [video, frames])
    assert both["flow_values"].shape == (2, 3, 6, 32, 40)
    whole = call(processor, frames, do_sample_frames=False)
    assert whole["flow_values"].shape[:2] == whole["pixel_values"].shape[:2] == (1, 24)


def test_views_crops_layouts_and_streams(video):
    pytest.importorskip("cv2", reason=CV2)
    processor = TwoStreamImageProcessor(**SMALL, num_frames=3)
    options = {"sampler": "dense", "sampler_options": {"num_clips": 2, "stride": 2}, "num_crops": 3}
    inputs = call(processor, video, **options)
    assert inputs["pixel_values"].shape == (6, 3, 3, 32, 40)
    assert inputs["flow_values"].shape == (6, 3, 6, 32, 40)
    plain = call(processor, video)
    last = call(processor, video, data_format="channels_last")["flow_values"]
    assert torch.equal(last.movedim(-1, -3), plain["flow_values"])
    listed = processor(video)["flow_values"]
    assert np.array_equal(listed[0], plain["flow_values"][0].numpy())
    assert np.array_equal(processor(video, return_tensors="np")["flow_values"], plain["flow_values"].numpy())
    assert torch.equal(call(processor, video, do_flip_channel_order=True)["flow_values"], plain["flow_values"])
    for stream, name in (("spatial", "pixel_values"), ("temporal", "flow_values")):
        one = call(processor, video, streams=stream)
        assert list(one) == [name]
        assert torch.equal(one[name], plain[name])


def test_a_flip_mirrors_both_and_negates_x(video):
    pytest.importorskip("cv2", reason=CV2)
    processor = TwoStreamImageProcessor(**SMALL, num_frames=3)
    plain, flipped = call(processor, video), call(processor, video, do_horizontal_flip=True)
    torch.testing.assert_close(flipped["pixel_values"], plain["pixel_values"].flip(-1))
    mirrored = plain["flow_values"].flip(-1)
    torch.testing.assert_close(flipped["flow_values"][:, :, 0::2], -mirrored[:, :, 0::2], atol=1e-6, rtol=0)
    torch.testing.assert_close(flipped["flow_values"][:, :, 1::2], mirrored[:, :, 1::2], atol=1e-6, rtol=0)


def test_a_crop_larger_than_the_frame_is_filled_with_no_motion(video):
    pytest.importorskip("cv2", reason=CV2)
    processor = TwoStreamImageProcessor(**{**SMALL, "crop_size": {"height": 60, "width": 80}}, num_frames=2)
    values = call(processor, video)["flow_values"]
    border = torch.tensor((128 / 255 - 0.5) / 0.226)
    torch.testing.assert_close(values[..., :6, :], border.expand_as(values[..., :6, :]))


def test_a_second_epoch_reads_the_cache(video, tmp_path, monkeypatch):
    pytest.importorskip("cv2", reason=CV2)
    processor = TwoStreamImageProcessor(**SMALL, num_frames=3, flow_cache=str(tmp_path))
    first = call(processor, video)
    assert len(list(tmp_path.rglob("*.png"))) == 9
    asked = []

    def watched(frames, *, pairs, **options):
        asked.append(len(pairs))
        return flow.optical_flow(frames, pairs=pairs, **options)

    monkeypatch.setattr(processing, "optical_flow", watched)
    again = call(processor, video)
    assert not asked
    assert torch.equal(again["flow_values"], first["flow_values"])
    next(tmp_path.rglob("*.png")).unlink()
    assert torch.equal(call(processor, video)["flow_values"], first["flow_values"])
    assert asked == [1]
    call(processor, video, flow_options={"preset": "fast"})  # other numbers are other files
    assert asked == [1, 9]
    assert len(list(tmp_path.rglob("*.png"))) == 18
    assert "flow_cache" not in processor.to_dict()


def test_settings_travel_in_the_file(tmp_path):
    settings = {**SMALL, "streams": "temporal", "flow_method": "farneback", "flow_options": {"winsize": 9},
                "flow_bound": 15.0, "flow_mean": 0.4, "flow_std": 0.2}  # fmt: skip
    TwoStreamImageProcessor(**settings).save_pretrained(tmp_path)
    from transformers import AutoImageProcessor

    back = AutoImageProcessor.from_pretrained(tmp_path)
    assert type(back) is TwoStreamImageProcessor
    for name, value in settings.items():
        assert getattr(back, name) == value


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"streams": "rgb"}, "spatial"),
        ({"flow_method": "raft"}, "farneback"),
        ({"flow_length": 0}, "flow_length"),
        ({"flow_bound": -1}, "flow_bound"),
        ({"flow_std": 0}, "flow_std"),
        ({"flow_options": 3}, "dictionary"),
        ({"do_horizontal_flip": 1}, "True or False"),
        ({"flow_lenght": 3}, "Did you mean 'flow_length'"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(VideoOptionError, match=message):
        TwoStreamImageProcessor(**settings)
    with pytest.raises(VideoOptionError, match=message):
        TwoStreamImageProcessor()(moving_frames(4), num_frames=2, **settings)


def test_one_frame_has_no_flow():
    with pytest.raises(ShortVideoError, match="two frames"):
        call(TwoStreamImageProcessor(**SMALL), moving_frames(1), num_frames=1)


# -- pipeline ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two_stream")
    config = hf_video.TwoStreamConfig(
        spatial_config=VGG, temporal_config=VGG, flow_length=3, num_frames=3, id2label=dict(enumerate(LABELS))
    )
    randomise(hf_video.TwoStreamForVideoClassification(config)).save_pretrained(folder)
    TwoStreamImageProcessor(**SMALL).save_pretrained(folder)
    return folder


def scores(result):
    return {item["label"]: item["score"] for item in result}


def test_file_to_flow_to_label(folder, video):
    pytest.importorskip("cv2", reason=CV2)
    from transformers import pipeline

    classify = pipeline("video-classification", model=str(folder))
    result = classify(str(video), top_k=None)
    inputs = call(TwoStreamImageProcessor(**SMALL), video, num_frames=3)
    with torch.no_grad():
        expected = classify.model(**inputs).logits[0].softmax(-1)
    assert scores(result) == pytest.approx(dict(zip(LABELS, expected.tolist(), strict=True)), abs=1e-5)
    assert result.indices.tolist() == [[4, 12, 20]]
    frames = scores(classify(moving_frames(24), top_k=None))
    assert frames == pytest.approx(scores(result), abs=1e-5)


def test_views_windows_and_batches(folder, video):
    pytest.importorskip("cv2", reason=CV2)
    from transformers import pipeline

    classify = pipeline("video-classification", model=str(folder))
    result = scores(classify(str(video), views="2x3", frame_sampling_rate=2, top_k=None))
    options = {"sampler": "dense", "sampler_options": {"num_clips": 2, "stride": 2}, "num_crops": 3}
    inputs = call(TwoStreamImageProcessor(**SMALL), video, num_frames=3, **options)
    with torch.no_grad():
        expected = classify.model(**inputs).logits.softmax(-1).mean(0)
    assert result == pytest.approx(dict(zip(LABELS, expected.tolist(), strict=True)), abs=1e-5)
    windows = classify(str(video), windows=1.0, top_k=None)
    assert [w["seconds"] for w in windows] == [(0, 1), (1, 2), (2, 3)]
    # A window is scored as a video of its own: no flow from beyond its end.
    alone = scores(classify(moving_frames(24)[:8], top_k=None))
    assert scores(windows[0]["predictions"]) == pytest.approx(alone, abs=1e-5)
    many = classify([str(video)] * 2, batch_size=4, top_k=None)
    assert [scores(r) for r in many] == [pytest.approx(scores(classify(str(video), top_k=None)), abs=1e-5)] * 2


def test_a_model_of_one_stream_needs_no_opencv(folder, video, tmp_path, monkeypatch):
    from transformers import pipeline

    config = hf_video.TwoStreamConfig(spatial_config=VGG, temporal_config=None, num_frames=3)
    randomise(hf_video.TwoStreamForVideoClassification(config)).save_pretrained(tmp_path)
    TwoStreamImageProcessor(**{**SMALL, "streams": "spatial"}).save_pretrained(tmp_path)

    def refuse(*_):
        raise BackendError("no OpenCV")

    monkeypatch.setattr(flow, "load_opencv", refuse)
    assert len(pipeline("video-classification", model=str(tmp_path))(str(video))) == 2
    with pytest.raises(BackendError, match="no OpenCV"):
        pipeline("video-classification", model=str(folder))(str(video))
