"""People in space and time: boxes, clips around key frames, links, files; and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from contract import randomise
from transformers import (
    RTDetrConfig,
    RTDetrForObjectDetection,
    RTDetrImageProcessorPil,
    RTDetrResNetConfig,
    YolosConfig,
    YolosForObjectDetection,
    YolosImageProcessorPil,
    pipeline,
)

import hf_video
from hf_video.base.detection.tubes import IoULinker, KeyFrameBoxes, link_tubes
from hf_video.base.processing_config import clip_geometry
from hf_video.clips.key_frames import frames_around
from hf_video.errors import CheckpointError, FrameIndexError, VideoOptionError
from hf_video.evaluation.detection.spatio_temporal import video_map
from hf_video.video.frames.types import VideoFrames

VIDEOS = next((one / "shared/videos" for one in Path(__file__).parents if (one / "shared/videos").is_dir()), None)
FRAMES = np.random.default_rng(0).integers(0, 255, (40, 48, 64, 3), dtype=np.uint8)
VIDEO = VideoFrames(data=FRAMES, indices=np.arange(40), seconds=np.arange(40) / 10)
BOXES = {0.5: [[3, 4, 30, 40]], 1.5: [[4, 4, 31, 40], [40, 2, 60, 44]], 2.5: [], 3.5: [[5, 4, 32, 40]]}


def people(**options):
    config = hf_video.SlowFastConfig(
        stem_channels=8, depths=[1, 1], slow_kernels=[1, 3], fast_kernels=[3, 3], fast_pathway=False, num_frames=4,
        num_labels=3, image_size=48, spatial_strides=[1, 1],
    )  # fmt: skip
    processor = hf_video.SlowFastImageProcessor(
        size={"shortest_edge": 24}, do_center_crop=False, sampler="at_fps", sampler_options={"rate": 6}
    )
    model = randomise(hf_video.SlowFastForSpatioTemporalActionDetection(config))
    return pipeline("spatio-temporal-action-detection", model=model, image_processor=processor, **options)


def detector(**names):
    config = YolosConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=[32, 32],
        num_detection_tokens=5, id2label={0: "ball", 1: "Person"} | names,
    )  # fmt: skip
    torch.manual_seed(0)
    return YolosForObjectDetection(config).eval(), YolosImageProcessorPil(size={"height": 32, "width": 32})


def test_boxes_that_are_given():
    detect = people()
    found = detect(VIDEO, boxes=BOXES, threshold=0.0)
    assert [(one.second, len(one.boxes)) for one in found.key_frames] == [(0.5, 1), (1.5, 2), (2.5, 0), (3.5, 1)]
    assert {event.label for event in found} == {"LABEL_0", "LABEL_1", "LABEL_2"}
    long = [event for event in found if len(event.boxes) == 3]  # the frame without people is a gap
    assert [(event.start, event.end) for event in long] == [(0.0, 4.0)] * 3
    assert long[0].boxes[0] == (0.5, 3, 4, 30, 40)
    rows = found.rows("clip", action_ids=[4, 5, 6])
    assert len(rows) == 4 * 3 + 1
    assert rows[0][:7] == ("clip", 0.5, 3 / 64, 4 / 48, 30 / 64, 40 / 48, 4)
    assert ("clip", 2.5) in rows


def test_scores_are_the_model_s_on_the_clip_around_the_key_frame():
    detect = people()
    (frame, *_) = detect(VIDEO, boxes=BOXES).key_frames
    key = 5
    indices = frames_around(VIDEO.seconds, np.array([0.5]), 4, 6, 30.0)[0]
    assert indices.tolist() == [key - 4, key - 2, key, key + 2, key]
    pixels = detect.image_processor(FRAMES[indices[:4]], do_sample_frames=False, return_tensors="pt").pixel_values
    box = torch.tensor([[[1.5, 2.0, 15.0, 20.0]]])  # half as large
    with torch.no_grad():
        expected = detect.model(pixels, box).logits.sigmoid()
    torch.testing.assert_close(torch.from_numpy(frame.scores), expected[0])


def test_batches_workers_and_several_videos_change_nothing():
    detect = people()
    one = detect(VIDEO, boxes=BOXES, threshold=0.0)
    other = detect([VIDEO, VIDEO], boxes=[BOXES, {1.5: BOXES[1.5]}], threshold=0.0, batch_size=3)
    for found, wanted in ((other[0], one.key_frames), (other[1], one.key_frames[1:2])):
        for a, b in zip(found.key_frames, wanted, strict=True):
            np.testing.assert_allclose(a.scores, b.scores, atol=1e-6)


def test_people_are_found_by_a_detector():
    detect = people(detector=detector(), person_threshold=0.0)
    found = detect(VIDEO, threshold=0.0)
    assert [one.second for one in found.key_frames] == [0.5, 1.5, 2.5, 3.5]
    again = detect(VIDEO, threshold=0.0, boxes={one.second: one.boxes for one in found.key_frames})
    for a, b in zip(found.key_frames, again.key_frames, strict=True):
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-6)
    few = detect(VIDEO, key_frames=[1.0, 3.0], max_boxes=1)
    assert [(one.second, len(one.boxes) <= 1) for one in few.key_frames] == [(1.0, True), (3.0, True)]
    assert detect(VIDEO, person_threshold=1.0) == []


def test_a_detector_in_a_folder(tmp_path):
    for part in detector():
        part.save_pretrained(tmp_path)
    assert len(people(detector=str(tmp_path))(VIDEO).key_frames) == 4


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, VideoOptionError, "detector="),
        ({"detector": 3}, VideoOptionError, "a int came"),
        ({"detector": "/nowhere/at/all"}, CheckpointError, "no folder"),
        ({"detector": detector(**{"1": "human"})}, VideoOptionError, r"no class 'person'.*person_label"),
        ({"boxes": {1.0: [[0, 0, 70, 40]]}}, VideoOptionError, "out of the frame of 64x48"),
        ({"boxes": {1.0: [[0.1, 0.1, 0.5, 1.0]], 2.0: [[-3, 0, 1, 1]]}}, VideoOptionError, "shares"),
        ({"boxes": {1.0: [[30, 0, 20, 40]]}}, VideoOptionError, "ends before it begins"),
        ({"boxes": {1.0: [[30, 0, 20]]}}, VideoOptionError, r"\(N, 4\)"),
        ({"boxes": {9.0: [[3, 0, 20, 40]]}}, FrameIndexError, "from 0 to 4 s"),
        ({"boxes": [BOXES, BOXES]}, VideoOptionError, "for 2 videos"),
        ({"boxes": BOXES, "tracker": 3}, VideoOptionError, "tracker"),
        ({"boxes": BOXES, "tracker": lambda boxes, scores: [1]}, VideoOptionError, "1 numbers for 2 boxes"),
        ({"boxes": BOXES, "sampler": "uniform"}, VideoOptionError, "frame_sampling_rate"),
        ({"boxes": BOXES, "key_frame": 1}, VideoOptionError, "key_frames"),
    ],
)
def test_what_is_refused(options, error, words):
    with pytest.raises(error, match=words):
        people()(VIDEO, **options)


def test_a_model_without_boxes_is_refused():
    config = hf_video.SlowFastConfig(stem_channels=8, depths=[1], slow_kernels=[1], fast_kernels=[1])
    processor = hf_video.SlowFastImageProcessor()
    with pytest.raises(CheckpointError, match="does not classify boxes"):
        pipeline(
            "spatio-temporal-action-detection",
            model=hf_video.SlowFastForVideoClassification(config),
            image_processor=processor,
        )


def test_a_saved_folder_is_of_the_class_that_was_saved(tmp_path):
    detect = people()
    detect.model.save_pretrained(tmp_path)
    detect.image_processor.save_pretrained(tmp_path)
    again = pipeline("spatio-temporal-action-detection", model=str(tmp_path))
    assert again(VIDEO, boxes=BOXES, threshold=0.3) == detect(VIDEO, boxes=BOXES, threshold=0.3)


@pytest.mark.parametrize("crop", [None, 20, 40])
@pytest.mark.parametrize("shape", [(48, 64), (65, 33)])
def test_boxes_go_where_the_pixels_go(crop, shape):
    """A bright rectangle, resized and cropped, lies where its box comes to lie."""
    frames = np.zeros((2, *shape, 3), np.uint8)
    frames[:, 16:32, 8:24] = 255
    processor = hf_video.SlowFastImageProcessor(
        size={"shortest_edge": 32}, do_center_crop=crop is not None, crop_size=crop or 1, do_normalize=False
    )
    pixels = processor(frames, do_sample_frames=False, return_tensors="pt").pixel_values[0, 0, 0].numpy()
    geometry = clip_geometry(processor, *shape)
    assert pixels.shape == geometry.size
    x1, y1, x2, y2 = geometry.place(np.array([[8.0, 16, 24, 32]]))[0]
    rows, columns = np.flatnonzero(pixels.max(1) > 0.5), np.flatnonzero(pixels.max(0) > 0.5)
    np.testing.assert_allclose([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], [x1, y1, x2, y2], atol=1)


def frame(second, boxes, scores):
    boxes = np.array(boxes, dtype=float).reshape(-1, 4)
    return KeyFrameBoxes(second, boxes, np.ones(len(boxes)), np.array(scores, dtype=float).reshape(-1, 1), (100, 100))


def test_the_linker_follows_overlap_over_a_gap():
    link = IoULinker(iou=0.3, gap=1)
    left, right, far = [0, 0, 10, 10], [50, 50, 60, 60], [80, 80, 90, 90]
    ones = np.ones(2)
    assert link(np.array([left, right]), ones) == [0, 1]
    assert link(np.array([[51, 50, 61, 60], [1, 0, 11, 10]]), ones) == [1, 0]
    assert link(np.array([far]), ones[:1]) == [2]
    assert link(np.array([[2, 0, 12, 10]]), ones[:1]) == [0]
    assert link(np.zeros((0, 4)), ones[:0]) == []
    assert link(np.array([right]), ones[:1]) == [3]  # two frames missed
    # The best box chooses first.
    link.reset()
    link(np.array([left]), ones[:1])
    assert link(np.array([[1, 0, 11, 10], left]), np.array([0.9, 0.5])) == [0, 1]


def test_tubes_are_runs_of_a_person_and_class():
    box, other = [0, 0, 10, 10], [50, 50, 60, 60]
    frames = [
        frame(0.5, [box, other], [0.9, 0.1]),
        frame(1.5, [box, other], [0.7, 0.8]),
        frame(2.5, [box], [0.2]),
        frame(3.5, [box], [0.1]),
        frame(4.5, [box], [0.6]),
    ]
    found = link_tubes(frames, {0: "sit"}, threshold=0.5, gap=0, bounds=(0.0, 4.8))
    assert [(one.start, one.end, round(one.score, 6), len(one.boxes)) for one in found] == [
        (0.0, 2.0, 0.8, 2),
        (1.0, 2.0, 0.8, 1),
        (4.0, 4.8, 0.6, 1),
    ]
    joined = link_tubes(frames, {0: "sit"}, threshold=0.5, gap=2, bounds=(0.0, 4.8))
    assert [(one.start, one.end) for one in joined] == [(0.0, 4.8), (1.0, 2.0)]
    alone = link_tubes(frames, {0: "sit"}, gap=2, tracker=lambda boxes, scores: [-1] * len(boxes))
    assert [len(one.boxes) for one in alone] == [1] * 4
    assert link_tubes([], {0: "sit"}) == []


def test_video_map():
    tube = [(s + 0.5, 0.0, 0.0, 10.0, 10.0) for s in range(4)]
    half = [(s + 0.5, 0.0, 0.0, 10.0, 5.0) for s in range(2)]  # half the time, half the box: 3-D IoU .25
    event = lambda boxes, score: hf_video.base.detection.types.Detection("sit", score, 0.0, 4.0, tuple(boxes))  # noqa: E731
    truth = {"a": [event(tube, 1.0)], "b": [event(tube, 1.0)]}
    found = video_map(truth, {"a": [event(half, 0.9), event(tube, 0.8)], "b": []}, thresholds=(0.2, 0.25, 0.5))
    # At .2 and .25 the first takes the tube and the second is a copy; at .5 it is wrong and the second is right.
    np.testing.assert_allclose(found.ap["sit"], [0.5, 0.5, 0.25])
    np.testing.assert_allclose(found.mean, found.ap["sit"])


@pytest.mark.skipif(VIDEOS is None, reason="needs a real video")
def test_rt_detr_from_a_file_to_events():
    config = RTDetrConfig(
        backbone_config=RTDetrResNetConfig(
            embedding_size=16, hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], layer_type="basic",
            out_features=["stage2", "stage3", "stage4"],
        ),
        encoder_hidden_dim=32, encoder_in_channels=[32, 48, 64], encoder_ffn_dim=32, encoder_attention_heads=2,
        d_model=32, num_queries=20, decoder_in_channels=[32, 32, 32], decoder_ffn_dim=32, decoder_attention_heads=2,
        decoder_layers=1, num_denoising=0, id2label={0: "ball", 1: "person"},
    )  # fmt: skip
    finder = RTDetrForObjectDetection(config), RTDetrImageProcessorPil(size={"height": 160, "width": 160})
    found = people(detector=finder, person_threshold=0.0, max_boxes=3)(VIDEOS / "basketball.mp4", threshold=0.0)
    assert len(found.key_frames) == 10
    assert all(len(one.boxes) <= 3 and one.scores.shape == (len(one.boxes), 3) for one in found.key_frames)
    assert found[0].start == 0.0
    assert max(event.end for event in found) == pytest.approx(10.0, abs=0.5)
