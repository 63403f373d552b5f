"""Events by a detector, by a classifier and by words: against the parts by hand, and against scenes that are known."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import av
import numpy as np
import pytest
import tiny
import torch
from bright import BRIGHT, RED, bright_pipeline, scene
from tiny_video_text import save_videoclip, save_violet
from transformers import pipeline

import hf_video
from hf_video.base.detection.types import merge_windows
from hf_video.clips.grid import FeatureGrid, parse_grid
from hf_video.errors import CheckpointError, ConfigError, DataError, EmptyFileError, VideoOptionError
from hf_video.features.events import find_events
from hf_video.features.sequence_encoder import SequenceEncoder, save_encoder
from hf_video.pipelines.event_classes import default_smoothing
from hf_video.video import VideoFrames, VideoReader, write_video

TASK = "temporal-action-detection"
SMALL = {
    **{"input_size": 32, "hidden_size": 8, "neck_size": 8, "head_size": 8, "branch_layers": 2, "window_size": 3},
    **{"num_attention_heads": 2, "max_length": 32, "num_labels": 3, "feature_stride": 4, "feature_frames": 8},
}


@pytest.fixture(scope="module")
def detect(videomae):
    """By the tiny classifier."""
    return pipeline(TASK, model=str(videomae), device="cpu", grid="8/2")


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """A lossless file of 96 frames at 8 fps, something else every second or so."""
    frames = np.concatenate([tiny.moving_frames(8 + seed % 4, seed=seed) for seed in range(12)])[:96]
    return write_video(tmp_path_factory.mktemp("long") / "long.mkv", frames, 8, codec="ffv1")


def by_start(one):
    return one.start, one.end, one.label


def spans(events):
    return [(one.label, one.start, one.end) for one in sorted(events, key=lambda one: one.start)]


def as_rows(events):
    """To be compared within 1e-6, for batches of another size sum up in another order."""
    return [
        (one.label, *(pytest.approx(value, abs=1e-6) for value in (one.score, one.start, one.end))) for one in events
    ]


def numbers(events):
    return [(one.label, one.score, one.start, one.end) for one in events]


class TestClassifier:
    def test_events_are_the_merged_scores_of_the_grid(self, detect, classify, long):
        """As merged by hand from the classification pipeline's scores of the same clips."""
        shown = classify(long, windows=FeatureGrid(2, 8), top_k=None)
        assert len(shown) == 45
        table = {id: label for label, id in classify.model.config.label2id.items()}
        scores = np.array(
            [[next(p["score"] for p in w["predictions"] if p["label"] == table[i]) for i in range(6)] for w in shown]
        )
        middles = np.array([sum(w["seconds"]) / 2 for w in shown])
        options = {"on": 0.28, "off": 0.25, "smoothing": 3, "min_length": 0.5}
        expected = merge_windows(scores, middles, [table[i] for i in range(6)], bounds=(0.0, 12.0), **options)
        found = detect(long, threshold=0.28, off_threshold=0.25, smoothing=3, min_length=0.5)
        assert len(expected) > 2
        assert as_rows(sorted(found, key=by_start)) == numbers(expected)
        assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
        assert detect(long, threshold=0.28, off_threshold=0.25, smoothing=3, min_length=0.5, top_k=2) == found[:2]
        assert isinstance(found, hf_video.Events)

    def test_many_are_as_one_by_one(self, detect, long, clips):
        options = {"threshold": 0.3}
        alone = [detect(one, **options) for one in [*clips, long]]
        for batch_size in (1, 5):
            together = detect([*clips, long], batch_size=batch_size, **options)
            assert [as_rows(one) for one in together] == [numbers(one) for one in alone]
        streamed = detect(iter([*clips, long]), **options)
        assert [as_rows(one) for one in streamed] == [numbers(one) for one in alone]

    def test_what_is_shifted_by_steps_of_the_grid_is_found_shifted(self, detect, long):
        """The video without its first 24 frames: the same events 3 seconds earlier, but for the one that is cut."""
        with VideoReader(long) as reader:
            frames = reader.get_frames(np.arange(96))
        rest = VideoFrames(frames.data[24:], np.arange(72), frames.seconds[24:] - 3.0)
        whole, part = (detect(one, threshold=0.3, off_threshold=0.3, smoothing=1) for one in (frames, rest))
        later = [dataclasses.replace(one, start=one.start - 3, end=one.end - 3) for one in whole if one.start > 4]
        assert len(later) > 2
        assert as_rows(later) == numbers([one for one in part if one.start > 1])

    def test_a_scene_that_is_known(self):
        times = np.arange(200) / 10
        video = VideoFrames(scene(times, (BRIGHT, 3, 6), (RED, 8, 8.8), (BRIGHT, 12, 20)), np.arange(200), times)
        detect = bright_pipeline(grid="1s/0.2s")
        found = spans(detect(video))
        assert [one[0] for one in found] == ["bright", "red", "bright"]
        assert np.abs(np.array([one[1:] for one in found]) - [(3, 6), (8, 8.8), (12, 20)]).max() <= 0.2 + 1e-9
        assert found[-1][2] == 20.0
        assert spans(detect(video.data, fps=10)) == found
        assert [one[0] for one in spans(detect(video, min_length=2))] == ["bright", "bright"]

    @pytest.mark.parametrize("grid", ["1s/0.25s", "8/2"])
    def test_files_of_uneven_rates_keep_their_seconds(self, grid, tmp_path):
        """The first 5 seconds come at 20, the others at 5 frames a second."""
        times = np.concatenate([np.arange(100) * 0.05, 5 + np.arange(50) * 0.2])
        path = write_uneven(tmp_path / "uneven.mkv", scene(times, (BRIGHT, 2, 4), (RED, 9, 12), size=32), times)
        found = spans(bright_pipeline(grid=grid)(path))
        assert [one[0] for one in found] == ["bright", "red"]
        assert np.abs(np.array([one[1:] for one in found]) - [(2, 4), (9, 12)]).max() <= 0.45

    def test_background_makes_no_events_and_takes_its_share(self):
        times = np.arange(60) / 10
        video = scene(times, (BRIGHT, 2, 4))
        detect = bright_pipeline(grid="1s/0.5s", fps=10)
        assert {one.label for one in detect(video)} == {"bright"}
        assert {one.label for one in detect(video, background=None)} == {"bright", "background"}
        assert {one.label for one in detect(video, background="bright")} == {"background"}
        assert detect(video, background=["bright", "background"]) == []
        with pytest.raises(VideoOptionError, match="Did you mean 'bright'"):
            detect(video, background="brigt")
        with pytest.raises(VideoOptionError, match="All labels are background"):
            detect(video, background=["bright", "red", "background"])

    def test_several_labels_at_once_have_thresholds_of_their_own(self, videomae, long):
        model = hf_video.VideoMAEForVideoClassification.from_pretrained(videomae)
        model.config.problem_type = "multi_label_classification"
        model.config.label_thresholds = [0.9, 0.2, 0.5, 0.5, 0.5, 0.99999]
        processor = hf_video.VideoMAEImageProcessor.from_pretrained(videomae)
        detect = pipeline(TASK, model=model, image_processor=processor, device="cpu", grid="8/4")
        found = detect(long)
        scores = pipeline("video-classification", model=model, image_processor=processor, device="cpu")(
            long, windows=FeatureGrid(4, 8), top_k=None
        )
        best = {
            label: max(p["score"] for w in scores for p in w["predictions"] if p["label"] == label)
            for label in tiny.LABELS
        }
        expected = {n for n, limit in zip(tiny.LABELS, model.config.label_thresholds, strict=True) if best[n] >= limit}
        assert {one.label for one in found} == expected
        assert 1 <= len(expected) <= 5
        assert {one.label for one in detect(long, threshold=0.001)} == set(tiny.LABELS)

    def test_stock_classifiers(self, videomae, long, detect, monkeypatch):
        """transformers' own class of the same weights finds the same; a saved folder of one loads with its classes."""
        from transformers.models.videomae.modeling_videomae import VideoMAEForVideoClassification

        stock = VideoMAEForVideoClassification.from_pretrained(videomae)
        processor = hf_video.VideoMAEImageProcessor.from_pretrained(videomae)
        assert "hf_video" not in type(stock).__module__
        found = pipeline(TASK, model=stock, image_processor=processor, device="cpu", grid="8/2")(long, threshold=0.3)
        expected = detect(long, threshold=0.3)
        assert [one.label for one in found] == [one.label for one in expected]
        assert [one.score for one in found] == pytest.approx([one.score for one in expected], abs=1e-4)

    def test_grids_by_the_model(self, videomae, long, detect):
        """Where the processor says how far frames lie apart, a clip is as long as in its training; else 2 seconds."""
        model = str(videomae)
        assert pipeline(TASK, model=model, device="cpu")._request().windows == FeatureGrid(0.5, 2, 1)
        dense = hf_video.VideoMAEImageProcessor.from_pretrained(
            videomae, sampler="dense", sampler_options={"stride": 4}
        )
        assert pipeline(TASK, model=model, image_processor=dense, device="cpu")._request().windows == FeatureGrid(4, 16)
        rate = {"sampler": "at_fps", "sampler_options": {"rate": 8}}
        timed = hf_video.VideoMAEImageProcessor.from_pretrained(videomae, **rate)
        grid = pipeline(TASK, model=model, image_processor=timed, device="cpu")._request().windows
        assert grid == FeatureGrid(8, 32, 30)
        assert detect._request(frame_sampling_rate=2, windows=FeatureGrid(1, 8)).windows == FeatureGrid(1, 8)

    def test_short_and_empty_videos(self, detect, tmp_path, clips):
        """A video shorter than a clip is one clip; a file without frames is an error of its own."""
        (one,) = detect(tiny.moving_frames(1), threshold=0.001, top_k=1, fps=8)
        assert (one.start, one.end) == (0.0, 0.125)
        (one,) = detect(tiny.moving_frames(5), threshold=0.001, top_k=1, fps=8)
        assert (one.start, one.end) == (0.0, 0.625)
        (tmp_path / "empty.mp4").touch()
        with pytest.raises(EmptyFileError):
            detect(str(tmp_path / "empty.mp4"))
        found = detect([clips[0], str(tmp_path / "empty.mp4"), clips[1]], bad_files="report", threshold=0.3)
        assert found[1]["error"] == "EmptyFileError"
        assert found[0] == detect(clips[0], threshold=0.3)
        assert found[2] == detect(clips[1], threshold=0.3)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"grid": "2s/0s"}, "above 0"),
            ({"grid": "2.5/1"}, "can't be cut into parts"),
            ({"windows": "2s"}, "grid="),
            ({"candidate_labels": ["jump"]}, "6 labels of its own: archery"),
            ({"nms": "soft"}, "for a detector"),
            ({"smoothing": 2}, "odd"),
            ({"threshold": 0.3, "off_threshold": 0.4}, "at most the beginning"),
            ({"threshold": "high"}, "threshold='high'"),
            ({"min_length": -1}, "min_length=-1"),
            ({"top_k": 0}, "top_k=0"),
            ({"thresold": 0.5}, "Did you mean 'threshold'"),
            ({"gird": "2s"}, "Did you mean 'grid'"),
        ],
    )
    def test_options_without_a_meaning(self, detect, clips, options, message):
        with pytest.raises(VideoOptionError, match=message):
            detect(clips[0], **options)

    def test_features_are_for_detectors(self, detect):
        with pytest.raises(VideoOptionError, match="Features are for detectors"):
            detect(np.zeros((4, 8), dtype=np.float32))


def write_uneven(path, frames, times):
    """A file whose frames are shown at these times, in milliseconds."""
    milliseconds = Fraction(1, 1000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        stream.codec_context.time_base = stream.time_base = milliseconds
        for pixels, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(time * 1000), milliseconds
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


class TestText:
    @pytest.fixture(scope="class")
    def clip(self, tmp_path_factory):
        return pipeline(TASK, model=str(save_videoclip(tmp_path_factory.mktemp("clip"))), device="cpu", grid="8/2")

    def test_events_are_the_merged_scores_of_the_labels(self, clip, long):
        folder = clip.model.name_or_path
        labels = ["ring", "square", "nothing happening"]
        zero_shot = pipeline("zero-shot-video-classification", model=folder, device="cpu")
        shown = zero_shot(long, candidate_labels=labels, windows=FeatureGrid(2, 8))
        scores = np.array(
            [[{p["label"]: p["score"] for p in w["predictions"]}[name] for name in labels] for w in shown]
        )
        middles = np.array([sum(w["seconds"]) / 2 for w in shown])
        on = float(np.median(scores[:, :2]))
        expected = merge_windows(scores[:, :2], middles, labels[:2], on=on, bounds=(0.0, 12.0), smoothing=5)
        assert len(expected) >= 2
        for more in (
            {},
            {"background": "nothing happening"},
            {"candidate_labels": [*labels[:2], "nothing happening"], "background": "nothing happening"},
        ):
            found = clip(long, **{"candidate_labels": labels[:2], "threshold": on, **more})
            assert as_rows(sorted(found, key=by_start)) == numbers(expected)
        with_it = clip(long, candidate_labels="ring, square", background=None, threshold=on)
        assert as_rows(with_it) != as_rows(clip(long, candidate_labels=labels[:2], threshold=on))

    def test_one_label_needs_something_to_compare_with(self, clip, long):
        assert all(one.score < 1 for one in clip(long, candidate_labels=["ring"], threshold=0.01))
        assert clip(long, candidate_labels=["ring"], background=None, function_to_apply="sigmoid", threshold=0.01)
        with pytest.raises(VideoOptionError, match="is always 1"):
            clip(long, candidate_labels=["ring"], background=None)
        with pytest.raises(VideoOptionError, match="candidate_labels is missing"):
            clip(long)
        with pytest.raises(VideoOptionError, match="compares videos with texts"):
            clip(long, candidate_labels=["ring"], nms="soft")

    def test_pairs_are_scored_too(self, tmp_path, long):
        detect = pipeline(TASK, model=str(save_violet(tmp_path)), device="cpu", grid="24/12")
        assert detect(long, candidate_labels=["ring", "square"], threshold=0.01)


class TestDetector:
    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory, videomae):
        """An ActionFormer with the tiny classifier as its encoder."""
        return save_detector(tmp_path_factory.mktemp("detector"), videomae)

    def test_events_of_files_are_those_of_their_features(self, folder, videomae, long, clips):
        detect = pipeline(TASK, model=str(folder), device="cpu")
        encoder = SequenceEncoder(str(videomae), grid="8/4", device="cpu")
        for one, found in zip([long, *clips], detect([long, *clips], batch_size=3), strict=True):
            sequence = encoder(one)
            expected = find_events(detect.model, sequence)
            assert len(found) == len(expected) > 3
            for a, b in zip(found, expected, strict=True):
                assert (a.label, a.start, a.end, a.score) == (b.label, *map(pytest.approx, (b.start, b.end, b.score)))
            assert detect(sequence) == expected
            assert min(e.start for e in found) >= 0
            assert max(e.end for e in found) <= sequence.bounds[1]
        sequences = [encoder(one) for one in clips]
        assert detect(sequences) == [detect(one) for one in sequences]

    def test_arrays_of_features(self, folder, long, videomae):
        detect = pipeline(TASK, model=str(folder), device="cpu")
        sequence = SequenceEncoder(str(videomae), grid="8/4", device="cpu")(long)
        one, other = detect(sequence.vectors, fps=8), detect(torch.from_numpy(sequence.vectors), fps=8)
        assert one == other
        assert [e.start for e in one] == pytest.approx([e.start for e in detect(sequence)])
        assert max(e.end for e in one) > 11.9
        with pytest.raises(VideoOptionError, match="pass fps="):
            detect(sequence.vectors)
        with pytest.raises(DataError, match="3 columns"):
            detect(sequence.vectors[:, :3], fps=8)

    def test_options_choose_and_merge(self, folder, long):
        detect = pipeline(TASK, model=str(folder), device="cpu")
        all_of_them = detect(long)
        middle = all_of_them[len(all_of_them) // 2].score
        assert detect(long, threshold=middle) == [one for one in all_of_them if one.score >= middle]
        assert detect(long, top_k=2) == all_of_them[:2]
        assert detect(long, min_length=2.0) == [one for one in all_of_them if one.end - one.start >= 2.0]
        assert len(all_of_them) > len(detect(long, nms="hard", nms_iou_threshold=0.01)) > 3
        assert len(detect(long, nms_min_score=middle)) < len(all_of_them)
        assert len(detect(long, max_detections=3)) == 3
        assert detect(long) == all_of_them  # the model's own settings are as they were
        for wrong in ({"nms": "sfot"}, {"nms_sigma": "a"}):
            with pytest.raises(ConfigError, match=next(iter(wrong))):
                detect(long, **wrong)

    @pytest.mark.parametrize("name", ["grid", "views", "num_frames", "sampler", "background", "candidate_labels"])
    def test_clips_and_labels_are_those_of_the_training(self, folder, long, name):
        value = {"grid": "8/2", "views": "2x1", "num_frames": 8}.get(name, "dense")
        with pytest.raises(VideoOptionError, match="those that it was trained on"):
            pipeline(TASK, model=str(folder), device="cpu")(long, **{name: value})

    def test_other_encoders_are_refused(self, folder, long, tmp_path, videomae):
        detect = pipeline(TASK, model=str(folder), device="cpu")
        torch.manual_seed(1)
        other = tiny.save_tiny(tmp_path / "other", "timesformer")
        features = SequenceEncoder(str(other), grid="8/4", device="cpu")(long)
        with pytest.raises(DataError, match="another encoder"):
            detect(features)
        with pytest.raises(DataError, match="grid"):
            detect(SequenceEncoder(str(videomae), grid="8/2", device="cpu")(long))
        with pytest.raises(CheckpointError, match="is not what the detector was trained on"):
            pipeline(TASK, model=str(folder), encoder=str(other), device="cpu")

    def test_a_detector_without_an_encoder_takes_features(self, tmp_path, long, videomae):
        model = detector()
        model.save_pretrained(tmp_path)
        detect = pipeline(TASK, model=str(tmp_path), device="cpu")
        sequence = SequenceEncoder(str(videomae), grid="8/4", device="cpu")(long)
        assert len(detect(sequence)) > 3
        with pytest.raises(CheckpointError, match="takes ready-made features only"):
            detect(long)
        given = pipeline(TASK, model=str(tmp_path), encoder=str(videomae), device="cpu")
        assert given(long) == detect(sequence)

    def test_videos_are_stretched_where_the_detector_was_trained_so(self, tmp_path, long, videomae):
        folder = save_detector(tmp_path, videomae, fixed_length=True)
        found = pipeline(TASK, model=str(folder), device="cpu")(long)
        sequence = SequenceEncoder(str(videomae), grid="8/4", device="cpu")(long).resized(32)
        model = detector(fixed_length=True)
        with torch.inference_mode():
            (segments,) = model.find_segments(model(torch.from_numpy(sequence.vectors)[None]))
        expected = sequence.to_seconds(segments.segments.double().numpy())
        assert np.array([(e.start, e.end) for e in found]) == pytest.approx(expected, abs=1e-4)


def detector(**changes):
    torch.manual_seed(0)
    model = hf_video.ActionFormerForTemporalActionDetection(hf_video.ActionFormerConfig(**{**SMALL, **changes})).eval()
    torch.nn.init.normal_(model.class_head.output.weight, std=1.0)
    torch.nn.init.constant_(model.class_head.output.bias, 0.0)
    torch.nn.init.constant_(model.offset_head.output.bias, 1.0)
    return model


def save_detector(folder, encoder, **changes):
    model = detector(**changes)
    model.config.encoder = save_encoder(SequenceEncoder(str(encoder), grid="8/4", device="cpu"), folder)
    model.save_pretrained(folder)
    return folder


def test_models_that_find_no_events(tmp_path, videomae):
    model = hf_video.VideoMAEModel.from_pretrained(videomae)
    with pytest.raises(CheckpointError, match="VideoMAEModel finds no events"):
        pipeline(TASK, model=model, image_processor=hf_video.VideoMAEImageProcessor.from_pretrained(videomae))


@pytest.mark.parametrize(
    ("grid", "clips"), [("2s/0.5s", 5), ("8/2", 5), ("4s/4s", 1), ("1s/0.2s", 5), ("2s/4s", 1), ("3s/1s", 3)]
)
def test_scores_are_smoothed_over_one_clip(grid, clips):
    assert default_smoothing(parse_grid(grid)) == clips


def test_clips_are_as_long_as_in_the_training():
    """What `hf-video train` saves with a model whose processor spreads frames over any length."""
    detect = bright_pipeline()
    assert detect._request().windows == FeatureGrid(0.5, 2.0, 1.0)
    detect.model.config.clip_seconds = 0.8
    assert detect._request().windows == FeatureGrid(0.2, 0.8, 1.0)
