"""The pipeline: every form of input, batches, views, windows, and what goes wrong."""

from __future__ import annotations

import functools
import http.server
import io
import json
import pickle
import sys
import threading

import numpy as np
import pytest
import tiny
import torch
import transformers
from PIL import Image
from transformers import AutoModelForVideoClassification, pipeline
from transformers.pipelines.pt_utils import KeyDataset

import hf_video
from hf_video.clips.batching import MOST_AHEAD
from hf_video.errors import CheckpointError, DamagedVideoError, SamplingError, VideoOptionError, VideoSourceError
from hf_video.video import VideoReader


def scores(result):
    return {row["label"]: row["score"] for row in result}


def same(one, other, tolerance=1e-5):
    one, other = scores(one), scores(other)
    return one.keys() == other.keys() and all(abs(one[label] - other[label]) <= tolerance for label in one)


@pytest.fixture(scope="module")
def lossless(tmp_path_factory):
    return tiny.write_clip(tmp_path_factory.mktemp("lossless") / "clip.mkv")


@pytest.fixture
def served(lossless):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=lossless.parent)
    handler.log_message = lambda *_: None
    handler.func.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{lossless.name}"
        server.shutdown()


# --- what comes in ---------------------------------------------------------------------------------------------------


def test_it_is_ours_and_returns_what_stock_returns(classify, clips):
    assert isinstance(classify, hf_video.VideoClassificationPipeline)
    result = classify(str(clips[0]))
    assert [set(row) for row in result] == [{"score", "label"}] * 5
    assert json.loads(json.dumps(result)) == result
    assert [row["score"] for row in result] == sorted((row["score"] for row in result), reverse=True)
    assert len(scores(classify(str(clips[0]), top_k=None))) == 6
    assert sum(scores(classify(str(clips[0]), top_k=None)).values()) == pytest.approx(1)


def test_scores_are_those_of_model_and_processor_by_hand(classify, clips):
    with VideoReader(clips[0]) as reader:
        frames = reader.get_frames([3, 9, 15, 21]).data  # the middles of 4 equal parts of 24
    pixels = classify.image_processor(frames, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = classify.model(pixel_values=pixels).logits.softmax(-1)[0]
    result = classify(clips[0], top_k=None)
    by_id = [scores(result)[tiny.LABELS[i]] for i in range(6)]
    np.testing.assert_allclose(by_id, expected, atol=1e-6)
    assert result.indices.tolist() == [[3, 9, 15, 21]]
    assert result.seconds == pytest.approx((3 / 8, 22 / 8))


def test_every_form_of_a_video_has_the_same_scores(classify, lossless, served, tmp_path):
    frames = tiny.moving_frames()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{number}.png")
    with VideoReader(lossless) as reader:
        assert np.array_equal(reader.get_frames(range(24)).data, frames)
        everything = reader.get_frames(range(24))
        forms = {
            "path": lossless,
            "bytes": lossless.read_bytes(),
            "file": io.BytesIO(lossless.read_bytes()),
            "url": served,
            "array": frames,
            "planes": frames.transpose(0, 3, 1, 2),
            "tensor": torch.from_numpy(frames),
            "floats": frames.astype(np.float32) / 255,
            "images": [Image.fromarray(frame) for frame in frames],
            "list of arrays": list(frames),
            "tuple": tuple(frames),
            "folder": tmp_path,
            "frames": everything,
            "reader": reader,
            "row": {"bytes": None, "path": str(lossless)},
            "row of a dataset": {"video": {"bytes": lossless.read_bytes(), "path": None}, "label": 3},
        }
        expected = classify(str(lossless))
        # Floats are resized as floats, without rounding to whole levels: up to half a level away.
        differing = [
            n for n, form in forms.items() if not same(classify(form), expected, 2e-2 if n == "floats" else 1e-5)
        ]
    assert differing == []


def test_lists_are_videos_and_lists_of_images_are_one(classify, clips):
    paths = [str(clip) for clip in clips]
    alone = [classify(path) for path in paths]
    images = [Image.fromarray(frame) for frame in tiny.moving_frames()]
    batches = {
        "list": paths,
        "tuple": tuple(clips),
        "mixed": [paths[0], clips[1].read_bytes(), io.BytesIO(clips[2].read_bytes())],
    }
    for name, batch in batches.items():
        results = classify(batch)
        assert isinstance(results, list), name
        assert all(same(a, b) for a, b in zip(results, alone, strict=True)), name
    assert isinstance(classify([paths[0]])[0], list)
    assert len(classify([images, images])) == 2
    assert isinstance(classify(images)[0], dict)
    assert len(classify(np.stack([tiny.moving_frames(seed=i) for i in range(2)]))) == 2
    assert classify([]) == []


def test_streams_give_results_one_by_one(classify, clips):
    read = []

    def endless():
        while True:
            read.append(len(read))
            yield str(clips[len(read) % 3])

    results = classify(endless())
    first = next(results)
    assert len(read) <= 1 + MOST_AHEAD
    assert same(first, classify(clips[1]))

    rows = [{"file": str(clip)} for clip in clips]
    from_dataset = list(classify(KeyDataset(rows, "file"), batch_size=2))
    assert all(same(a, classify(c)) for a, c in zip(from_dataset, clips, strict=True))


@pytest.mark.parametrize("wrong", [None, 3, object(), ["a.mp4", 3], [Image.new("RGB", (8, 8)), "a.mp4"]])
def test_what_is_no_video(classify, wrong):
    with pytest.raises(hf_video.HFVideoError):
        classify(wrong)


# --- batches, views, windows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", ["videomae", "timesformer"])
def test_batch_size_and_workers_change_nothing(request, clips, model_type):
    classify = pipeline("video-classification", model=str(request.getfixturevalue(model_type)), device="cpu")
    files = [*clips, clips[0]]
    alone = [classify(file, views="2x3") for file in files]
    for options in ({"batch_size": 1}, {"batch_size": 3}, {"batch_size": 64}, {"batch_size": 4, "num_workers": 2}):
        together = classify(files, views="2x3", **options)
        assert all(same(a, b) for a, b in zip(together, alone, strict=True)), options


def test_batches_hold_as_many_views_as_asked(classify, clips, monkeypatch):
    sizes = []
    forward = type(classify.model).forward

    def counting(self, pixel_values=None, **kwargs):
        sizes.append(len(pixel_values))
        return forward(self, pixel_values=pixel_values, **kwargs)

    monkeypatch.setattr(type(classify.model), "forward", counting)
    classify(clips, views="1x3", batch_size=4)
    assert sizes == [4, 4, 1]
    sizes.clear()
    classify(clips[0], views="4x3")
    assert sizes == [8, 4]


def test_clips_of_different_sizes_share_no_batch(videomae, tmp_path):
    processor = hf_video.VideoMAEImageProcessor(size={"shortest_edge": 32}, do_center_crop=False)
    classify = pipeline("video-classification", model=str(videomae), image_processor=processor, device="cpu")
    files = [
        tiny.write_clip(tmp_path / "a.mp4", height=48, width=48),
        tiny.write_clip(tmp_path / "b.mp4", height=48, width=96),
    ]
    alone = [classify(file) for file in files]
    assert all(same(a, b) for a, b in zip(classify(files, batch_size=2), alone, strict=True))


def test_views_are_the_mean_of_views(classify, clips):
    result = classify(clips[0], views="2x3", top_k=None)
    with VideoReader(clips[0]) as reader:
        probabilities = []
        for indices in ([0, 6, 12, 18], [3, 9, 15, 21]):
            pixels = classify.image_processor(reader.get_frames(indices).data, num_crops=3, return_tensors="pt")
            with torch.no_grad():
                probabilities.append(classify.model(**pixels).logits.softmax(-1))
    expected = torch.cat(probabilities).mean(0)
    np.testing.assert_allclose([scores(result)[label] for label in tiny.LABELS], expected, atol=1e-6)
    assert result.clips == [pytest.approx((0, 19 / 8)), pytest.approx((3 / 8, 22 / 8))]
    assert not same(result, classify(clips[0], top_k=None))
    assert same(classify(clips[0], views=(2, 3)), classify(clips[0], views="2x3"))


def test_each_file_is_decoded_once_for_all_views(classify, clips, monkeypatch):
    reads = []
    get_frames = VideoReader.get_frames

    def counting(self, indices):
        reads.append(list(indices))
        return get_frames(self, indices)

    monkeypatch.setattr(VideoReader, "get_frames", counting)
    classify(clips[0], views="5x3", frame_sampling_rate=2)
    assert len(reads) == 1
    assert reads[0] == sorted(set(reads[0]))


def test_one_file_is_decoded_by_the_threads_that_wait_for_it(classify, clips, monkeypatch):
    opened = []

    class Counting(VideoReader):
        def __init__(self, source, **options):
            opened.append(options["num_threads"])
            super().__init__(source, **options)

    monkeypatch.setattr("hf_video.clips.read.VideoReader", Counting)
    before = torch.get_num_threads()
    alone = classify(str(clips[0]))
    torch.set_num_threads(3)
    try:
        assert same(classify(str(clips[0])), alone, 1e-6)
        classify([str(clips[0]), str(clips[1])])  # here the model is at work meanwhile
        classify(str(clips[0]), windows=0.5)
    finally:
        torch.set_num_threads(before)
    assert opened == [before, 3, 1, 1, 1]


def test_memory_is_bounded_by_reading_in_stretches(classify, clips, monkeypatch):
    expected = classify(clips[0], windows="1s/0.5s", views="2x3")
    reads = []
    get_frames = VideoReader.get_frames
    monkeypatch.setattr(VideoReader, "get_frames", lambda self, i: reads.append(len(i)) or get_frames(self, i))
    monkeypatch.setattr("hf_video.clips.read.FRAME_BUDGET", 32 * 53 * 3 * 6)  # six frames as they are decoded
    monkeypatch.setattr("hf_video.video.decode.clip_frames.MOST_DECODED", np.inf)  # never the whole video in one pass
    stretched = classify(clips[0], windows="1s/0.5s", views="2x3")
    assert len(reads) > 2
    assert max(reads) <= 6
    assert all(same(a["predictions"], b["predictions"]) for a, b in zip(stretched, expected, strict=True))


def test_frames_resized_while_decoding_give_the_same_scores(classify, clips):
    with VideoReader(clips[0]) as reader:  # an open reader is taken as it is, at full size
        for options in ({}, {"views": "2x3"}, {"frame_sampling_rate": 3}):
            assert classify(reader, **options) == classify(clips[0], **options)


def test_windows_are_videos_of_their_own(classify, clips):
    result = classify(clips[0], windows="1s", top_k=2)
    assert [window["seconds"] for window in result] == [pytest.approx((k, k + 1)) for k in range(3)]
    assert [len(window["predictions"]) for window in result] == [2, 2, 2]
    with VideoReader(clips[0]) as reader:
        for k, window in enumerate(result):
            part = reader.get_frames(range(8 * k, 8 * k + 8)).data
            assert same(classify(part, top_k=2), window["predictions"])
            assert window["predictions"].indices.tolist() == [[8 * k + i for i in (1, 3, 5, 7)]]
    assert classify([clips[0]], windows=1, top_k=2)[0] == result
    assert len(classify(clips[0], windows=100)) == 1
    adaptive = classify(clips[0], windows=1, sampler="adaptive")
    assert all(w["seconds"][0] <= w["predictions"].seconds[0] for w in adaptive)


def test_samplers_and_rates(classify, clips):
    assert classify(clips[0], num_frames=4, frame_sampling_rate=2).indices.tolist() == [[8, 10, 12, 14]]
    assert classify(clips[0], sampler="dense", sampler_options={"stride": 3}).indices.shape == (1, 4)
    assert classify(clips[0], sampler=lambda n, t: range(t)).indices.tolist() == [[0, 1, 2, 3]]
    assert classify(clips[0], num_frames=2).indices.shape == (1, 2)
    protocol = classify(clips[0], views="1x3", sampler="at_fps", frame_sampling_rate=8)
    assert protocol.indices[0, 0] == 0
    assert classify(clips[0]) == classify(clips[0])


def test_options_of_the_processor_and_of_the_pipeline(videomae, clips):
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    processor = hf_video.VideoMAEImageProcessor(
        **size, sampler="dense", sampler_options={"stride": 2, "num_clips": 3}, num_crops=3
    )
    classify = pipeline("video-classification", model=str(videomae), image_processor=processor, top_k=1, device="cpu")
    by_file = classify(clips[0])
    assert len(by_file) == 1
    assert by_file.indices.shape == (3, 4)
    assert same(by_file, classify(clips[0], views="3x3"))
    assert classify(clips[0], views="1x1").indices.shape == (1, 4)
    assert classify(clips[0], sampler="uniform").indices.tolist() == [[3, 9, 15, 21]]
    assert classify.preprocess(clips[0])["pixel_values"].shape == (9, 4, 3, 32, 32)


def test_function_to_apply(classify, clips, monkeypatch):
    raw = scores(classify(clips[0], function_to_apply="none", top_k=None))
    sigmoid = scores(classify(clips[0], function_to_apply="sigmoid", top_k=None))
    assert sigmoid == pytest.approx({label: 1 / (1 + np.exp(-value)) for label, value in raw.items()}, abs=1e-6)
    monkeypatch.setattr(classify.model.config, "problem_type", "multi_label_classification")
    assert scores(classify(clips[0], top_k=None)) == sigmoid


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"top_k": 0}, VideoOptionError),
        ({"num_frames": 0}, VideoOptionError),
        ({"frame_sampling_rate": 1.5}, VideoOptionError),
        ({"function_to_apply": "tanh"}, VideoOptionError),
        ({"views": "5x5"}, VideoOptionError),
        ({"windows": "long"}, VideoOptionError),
        ({"sampler": "unifrom"}, SamplingError),
        ({"sampler": "center", "views": "3x1"}, SamplingError),
        ({"sampler_options": {"nonsense": 1}}, SamplingError),
        ({"on_error": "skip"}, VideoOptionError),
        ({"bad_files": "ignore"}, VideoOptionError),
        ({"batch_size": 0}, VideoOptionError),
        ({"backend": "gpu"}, VideoOptionError),
    ],
)
def test_wrong_options_are_errors_of_ours_even_where_bad_files_are_reported(classify, clips, options, error):
    with pytest.raises(error):
        classify([str(clips[0])], **{"bad_files": "report", **options})


# --- files that are odd ----------------------------------------------------------------------------------------------


def test_short_videos_are_answered(classify, tmp_path):
    three = tiny.write_clip(tmp_path / "three.mp4", 3)
    assert classify(three).indices.tolist() == [[0, 1, 1, 2]]
    assert len(classify(three, views="3x3")) == 5
    assert len(classify(three, windows=0.125)) == 3
    assert classify(three, frame_sampling_rate=4).indices.tolist() == [[0, 0, 0, 0]]
    Image.fromarray(tiny.moving_frames(1)[0]).save(tmp_path / "one.gif")
    assert classify(tmp_path / "one.gif").indices.tolist() == [[0, 0, 0, 0]]
    assert len(classify(tmp_path / "one.gif", windows=1, views="2x1")) == 1


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    good = tiny.write_clip(folder / "good.mp4").read_bytes()
    contents = {"text.mp4": b"these are words\n" * 99, "empty.mp4": b"", "cut.mp4": good[: len(good) // 3]}
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in (*contents, "missing.mp4")]


def test_bad_files_raise_ours_or_are_reported(classify, clips, bad):
    for file in bad:
        with pytest.raises(hf_video.HFVideoError) as caught:
            classify(file)
        assert file.name in str(caught.value)
    names = ["NotAVideoError", "EmptyFileError", "NoFramesError", "VideoSourceError"]
    files = [bad[0], clips[0], *bad[1:], clips[1]]
    for options in ({}, {"batch_size": 4}, {"num_workers": 1}):
        results = classify(files, bad_files="report", **options)
        assert [r["error"] for r in results if isinstance(r, dict)] == names
        assert same(results[1], classify(clips[0]))
        assert same(results[5], classify(clips[1]))
    with pytest.raises(VideoSourceError):
        classify([clips[0], bad[-1]], num_workers=1)


def test_damaged_frames_raise_or_repeat(classify, tmp_path):
    data = bytearray(tiny.write_clip(tmp_path / "good.mp4").read_bytes())
    start = len(data) // 2
    data[start : start + len(data) // 8] = bytes(len(data) // 8)
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(data)
    with VideoReader(damaged) as reader, pytest.raises(DamagedVideoError) as caught:
        reader.get_frames(range(24))
    bad = caught.value.indices[-1]

    def on_damage(total, count):
        return [0, 0, bad, bad]

    with pytest.raises(DamagedVideoError, match=r"damaged\.mp4"):
        classify(damaged, sampler=on_damage)
    mended = classify(damaged, sampler=on_damage, on_error="repeat")
    assert mended.repeated == (bad,)
    assert classify(damaged, sampler=lambda total, count: [0] * count).repeated == ()
    report = classify([damaged], sampler=on_damage, bad_files="report")[0]
    assert report["error"] == "DamagedVideoError"


# --- models and processors -------------------------------------------------------------------------------------------


def test_a_model_in_memory_finds_its_processor(videomae, clips, classify):
    model = AutoModelForVideoClassification.from_pretrained(videomae)
    model.train()
    ours = pipeline("video-classification", model=model, device="cpu")
    assert same(ours(clips[0]), classify(clips[0]))
    assert model.training


def test_no_processor_and_no_classifier_are_errors(classify, videomae, clips):
    fresh = type(classify.model)(classify.model.config)
    fresh.config._name_or_path = fresh.name_or_path = ""
    with pytest.raises(CheckpointError, match="image_processor="):
        pipeline("video-classification", model=fresh, device="cpu")
    encoder = hf_video.VideoMAEModel(classify.model.config)
    headless = pipeline("video-classification", model=encoder, image_processor=classify.image_processor, device="cpu")
    with pytest.raises(CheckpointError, match="no logits"):
        headless(clips[0])


def test_bf16_and_saving(videomae, clips, classify, tmp_path):
    half = pipeline("video-classification", model=str(videomae), dtype="bfloat16", device="cpu")
    assert half.model.dtype == torch.bfloat16
    assert scores(half(clips[0], top_k=None)) == pytest.approx(scores(classify(clips[0], top_k=None)), abs=0.05)
    classify.save_pretrained(tmp_path)
    again = pipeline("video-classification", model=str(tmp_path), device="cpu")
    assert again(clips[0]) == classify(clips[0])


def test_results_survive_pickling(classify, clips):
    result = classify(clips[0])
    copy = pickle.loads(pickle.dumps(result))
    assert copy == result
    assert copy.seconds == result.seconds


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("many", [list, iter])
def test_the_error_of_one_of_many_says_how_the_others_are_kept(classify, clips, tmp_path, many):
    files = [str(clips[0]), str(tmp_path / "gone.mp4"), str(clips[1])]
    with pytest.raises(
        VideoSourceError, match=r'gone.mp4.*\. bad_files="report" keeps the results of the other videos'
    ):
        list(classify(many(files)))
    assert ["error" in result for result in classify(files, bad_files="report")] == [False, True, False]
    for alone in (files[1], files[1:2]):
        with pytest.raises(VideoSourceError) as caught:
            classify(alone)
        assert "bad_files" not in str(caught.value)


def test_several_videos_have_a_progress_bar_on_a_terminal(classify, clips, monkeypatch):
    def shown(inputs, stream):
        monkeypatch.setattr(sys, "stderr", stream)
        classify(inputs)
        return stream.getvalue()

    transformers.utils.logging.enable_progress_bar()  # a command that ran before in this process switches it off
    files = [str(clip) for clip in clips]
    assert "3/3" in (bar := shown(files, Terminal()))
    assert "video/s" in bar or "s/video" in bar
    assert shown(files[:1], Terminal()) == shown(files[0], Terminal()) == shown(files, io.StringIO()) == ""
    transformers.utils.logging.disable_progress_bar()
    try:
        assert shown(files, Terminal()) == ""
    finally:
        transformers.utils.logging.enable_progress_bar()
