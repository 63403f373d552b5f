"""Every entrance sees the same frames of a file for the same request, also where a model's files disagree."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import LABELS, write_clip
from transformers import pipeline

import hf_video
from hf_video.clips.request import ClipRequest
from hf_video.clips.windows import Windows
from hf_video.data.datasets.dataset import VideoDataset
from hf_video.data.rows import VideoRow, VideoRows
from hf_video.errors import VideoOptionError
from hf_video.evaluation.classification import evaluate_videos
from hf_video.features.extraction import extract_features
from hf_video.retrieval.encoders import ModelEncoder
from hf_video.training.runs.model_loading import find_source, load_model
from hf_video.video.reader import VideoReader

TOKENS = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "patch_size": 8}
MODELS = {"videomae": TOKENS, "timesformer": TOKENS, "i3d": {"stem_channels": 8}}
FILE, CONFIG = 8, 4  # frames of a clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return str(write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", 50, fps=25))


@pytest.fixture(scope="module", params=MODELS)
def folder(request, tmp_path_factory):
    """A model whose configuration says 4 frames and whose processor says 8."""
    folder, row = tmp_path_factory.mktemp(request.param), hf_video.MODELS[request.param]
    labels = {"id2label": dict(enumerate(LABELS)), "label2id": {name: i for i, name in enumerate(LABELS)}}
    config = row.load(row.config)(image_size=32, num_frames=CONFIG, **MODELS[request.param], **labels)
    row.load(row.auto["AutoModelForVideoClassification"])(config).save_pretrained(folder)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    row.load(row.image_processor)(**size, num_frames=FILE).save_pretrained(folder)
    return folder


@pytest.fixture
def read(monkeypatch):
    """The clips that were read, as sets of frame numbers: what any entrance asks the reader for."""
    seen: list[tuple[int, ...]] = []
    get, clips = VideoReader.get_frames, VideoReader.frames_of_clips

    def get_frames(self, indices, *args, **kwargs):
        seen.append(tuple(np.unique(indices).tolist()))
        return get(self, indices, *args, **kwargs)

    def frames_of_clips(self, numbers, *args, **kwargs):
        seen.extend(tuple(np.unique(one).tolist()) for one in numbers)
        return clips(self, numbers, *args, **kwargs)

    monkeypatch.setattr(VideoReader, "get_frames", get_frames)
    monkeypatch.setattr(VideoReader, "frames_of_clips", frames_of_clips)

    def taken(call):
        seen.clear()
        call()
        return {frame for one in seen for frame in one}

    return taken


def loaded(folder):
    from transformers import AutoImageProcessor, AutoModelForVideoClassification

    return AutoModelForVideoClassification.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)


ASKED = [{}, {"num_frames": 4}, {"sampler": "dense", "sampler_options": {"stride": 3}}, {"num_frames": 2}]


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: "-".join(asked) or "nothing")
def test_entrances_that_take_options(folder, clip, read, asked):
    model, processor = loaded(folder)
    if model.config.model_type == "i3d" and asked.get("num_frames") == 2:
        pytest.skip("too short for its strides")
    rows = VideoRows([VideoRow(clip, 0, "clip.mp4")], LABELS)
    tasks = ("video-classification", "video-feature-extraction")
    pipelines = [pipeline(task, model=model, image_processor=processor) for task in tasks]
    frames = [read(lambda: processor(clip, return_tensors="pt", **asked))]
    frames += [read(lambda run=run: run(clip, **asked)) for run in pipelines]
    frames.append(read(lambda: extract_features(model, processor, rows, on_error="raise", **asked)))
    frames.append(read(lambda: VideoDataset(rows, processor, **asked)[0]))
    assert len(frames[0]) == asked.get("num_frames", FILE)
    assert all(one == frames[0] for one in frames), frames


def test_entrances_that_take_none(folder, clip, read):
    model, processor = loaded(folder)
    rows = VideoRows([VideoRow(clip, 0, "clip.mp4")], LABELS)
    frames = [read(lambda: processor(clip, return_tensors="pt"))]
    frames.append(read(lambda: evaluate_videos(model, processor, rows, progress=False)))
    frames.append(read(lambda: ModelEncoder(model, processor).embed(clip, Windows(60, 60))))
    trained = load_model(find_source(folder), labels=LABELS)
    frames.append(read(lambda: VideoDataset(rows, trained.processor)[0]))
    assert len(frames[0]) == FILE
    assert all(one == frames[0] for one in frames), frames


def test_windows(folder, clip, read):
    model, processor = loaded(folder)
    rows = VideoRows([VideoRow(clip, 0, "clip.mp4")], LABELS)
    classify = pipeline("video-classification", model=model, image_processor=processor)
    frames = [read(lambda: classify(clip, windows=1.0))]
    frames.append(read(lambda: extract_features(model, processor, rows, on_error="raise", windows=1.0)))
    frames.append(read(lambda: ModelEncoder(model, processor).embed(clip, Windows(1.0, 1.0))))
    assert frames[0] == frames[1] == frames[2]
    assert len(frames[0]) > FILE


def test_training_with_frames_asked_saves_a_processor_that_agrees(folder):
    trained = load_model(find_source(folder), labels=LABELS, settings={"num_frames": 6})
    assert trained.model.config.num_frames == trained.processor.num_frames == 6


class TestPrecedence:
    config = hf_video.VideoMAEConfig(num_frames=4)

    @pytest.mark.parametrize(("asked", "file", "count"), [(2, 8, 2), (None, 8, 8), (None, None, 4)])
    def test_call_then_file_then_config(self, asked, file, count):
        processor = hf_video.VideoMAEImageProcessor(num_frames=file)
        assert ClipRequest.resolve(processor, self.config, num_frames=asked).num_frames == count

    def test_stock_processors_and_names_of_frames(self):
        from transformers import VivitImageProcessor, VJEPA2Config

        request = ClipRequest.resolve(VivitImageProcessor(), VJEPA2Config(frames_per_clip=6))
        assert request.num_frames == 6
        assert request.decode == {}

    def test_a_number_of_the_models_file_is_not_the_processors(self, tmp_path):
        """Who loads a model with other frames than its file says is heeded."""
        self.config.save_pretrained(tmp_path)
        hf_video.VideoMAEImageProcessor().save_pretrained(tmp_path)
        processor = hf_video.VideoMAEImageProcessor.from_pretrained(tmp_path)
        assert processor.num_frames == 4
        assert ClipRequest.resolve(processor, hf_video.VideoMAEConfig(num_frames=2)).num_frames == 2

    def test_nothing_says_it(self):
        with pytest.raises(VideoOptionError, match="how many frames"):
            ClipRequest.resolve(hf_video.VideoMAEImageProcessor(), None)

    def test_options_of_the_files_sampler(self):
        processor = hf_video.VideoMAEImageProcessor(num_frames=4, sampler="dense", sampler_options={"stride": 2})
        with_options = ClipRequest.resolve(processor, None, sampler_options={"start": "begin"})
        assert with_options.sampling.options == {"stride": 2, "start": "begin"}
        assert ClipRequest.resolve(processor, None, sampler="uniform").sampling.options == {}
