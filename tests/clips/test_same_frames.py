"""Every entrance sees the same frames of a file for the same request, also where a model's files disagree."""

from __future__ import annotations

import os

import numpy as np
import pytest
import tiny_video_text
from tiny import LABELS
from tiny_text import tiny_tokenizer
from transformers import AutoImageProcessor, AutoVideoProcessor, pipeline

import hf_video
from hf_video.clips.request import ClipRequest, Windows
from hf_video.data.datasets.dataset import VideoDataset
from hf_video.data.rows import VideoRow, VideoRows
from hf_video.errors import VideoOptionError
from hf_video.evaluation.classification import evaluate_videos
from hf_video.evaluation.protocol import Protocol
from hf_video.features.extraction import extract_features
from hf_video.retrieval.encoders import ModelEncoder
from hf_video.retrieval.index import VideoIndex
from hf_video.training.runs.model_loading import find_source, load_model
from hf_video.video.writer import write_video

TOKENS = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "patch_size": 8}
STREAM = {"kind": "resnet", "depths": [1], "widths": [6], "dropout": [0.0]}
MODELS = {
    "c3d": {"stem_channels": 4, "fc_size": 8},
    "i3d": {"stem_channels": 8},
    "mvit": {
        **{"embed_dim": 16, "num_hidden_layers": 1, "dim_mul": [], "head_mul": [], "pool_q_stride": []},
        **{"pool_kv_stride_adaptive": [1, 4, 4]},
    },
    "s3d": {"stem_channels": 8, "projection_dim": 8},
    "slowfast": {
        **{"stem_channels": 8, "beta_inverse": 4, "depths": [1], "slow_kernels": [1], "fast_kernels": [3]},
        **{"head_pool": [0, 0]},
    },
    "timesformer": TOKENS,
    "two_stream": {"spatial_config": STREAM, "temporal_config": STREAM, "flow_length": 2},
    "video_swin": {"embed_dim": 8, "depths": (1,), "num_heads": (1,), "window_size": (4, 3, 3)},
    "videoclip": {},
    "videomae": TOKENS,
    "videoprism": {},
    "videoprism_vision_model": {
        **{"tubelet_size": [1, 8, 8], "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16},
        **{"num_spatial_layers": 1, "num_temporal_layers": 1, "num_auxiliary_layers": 1},
    },
    "violet": {},
    "vivit": {**{k: v for k, v in TOKENS.items() if k != "patch_size"}, "tubelet_size": [2, 8, 8]},
    "vjepa2": {
        **{"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 8},
        **{"pred_hidden_size": 24, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1, "num_pooler_layers": 1},
    },
    "x3d": {"stem_channels": 4, "depth_factor": 0.2, "head_size": 8},
}
FILE, CONFIG, ASKED = 8, 4, 12  # frames of a clip, of those that say it
COUNTS = {"c3d": (18, 16, 20), "violet": (6, 4, 2)}  # fc6 takes no fewer; there are positions for six
LENGTH = 50
WORDS = ["moving left", "right"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Frames that tell their numbers: each is of one grey."""
    frames = np.broadcast_to((4 * np.arange(LENGTH, dtype=np.uint8))[:, None, None, None], (LENGTH, 32, 40, 3))
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    return str(write_video(path, np.ascontiguousarray(frames), 25, codec="ffv1"))


def counts(model_type: str) -> tuple[int, int, int]:
    return COUNTS.get(model_type, (FILE, CONFIG, ASKED))


def save(model_type: str, folder, **file):
    """A tiny model, saved; `file` are settings of its processor's file."""
    row, config_frames = hf_video.MODELS[model_type], counts(model_type)[1]
    if model_type == "videoclip":
        tiny_video_text.save_videoclip(folder, num_frames=config_frames)
    elif model_type == "violet":
        tiny_video_text.save_violet(folder)
    elif model_type == "videoprism":
        sizes = {"image_size": 32, "num_frames": config_frames, **MODELS["videoprism_vision_model"]}
        text = {"vocab_size": 60, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 16}
        text |= {"hidden_size": 16, "intermediate_size": 16}
        config = hf_video.VideoPrismConfig(vision_config=sizes, text_config=text)
        hf_video.VideoPrismClipModel(config).save_pretrained(folder)
    else:
        labels = {"id2label": dict(enumerate(LABELS)), "label2id": {name: i for i, name in enumerate(LABELS)}}
        config = row.load(row.config)(image_size=32, num_frames=config_frames, **MODELS[model_type], **labels)
        auto = "AutoModel" if model_type == "s3d" else "AutoModelForVideoClassification"
        row.load(row.auto[auto])(config).save_pretrained(folder)
    size = {"size": {"height": 32, "width": 32}, "crop_size": {"height": 32, "width": 32}}
    flow = {"flow_length": 2} if model_type == "two_stream" else {}
    kind = row.video_processor if model_type == "videoprism" else row.image_processor
    images = row.load(kind)(**size, **flow, **file)
    if row.processor:
        images = row.load(row.processor)(images, tiny_tokenizer())
    images.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=hf_video.MODELS)
def folder(request, tmp_path_factory):
    """A model whose configuration and processor say different numbers of frames."""
    return save(request.param, tmp_path_factory.mktemp(request.param), num_frames=counts(request.param)[0])


@pytest.fixture(scope="module", params=hf_video.MODELS)
def plain_folder(request, tmp_path_factory):
    """A model whose processor's file says nothing about frames."""
    return save(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture
def read(monkeypatch):
    """The frames that a call makes inputs of, numbered, of each clip in order and with repeats."""

    def taken(processor, call):
        clips: list[list[int]] = []
        kind, make = type(processor), type(processor)._inputs

        def inputs(self, given, settings):
            clips.extend((np.asarray(one.frames)[:, 9, 9].mean(-1) / 4).round().astype(int).tolist() for one in given)
            return make(self, given, settings)

        with monkeypatch.context() as patch:
            patch.setattr(kind, "_inputs", inputs)
            call()
        return clips

    return taken


def loaded(folder):
    """The model, its image processor, and its tokenizer where it has one."""
    from transformers import AutoConfig, AutoTokenizer

    row = hf_video.MODELS[AutoConfig.from_pretrained(folder).model_type]
    name = {"violet": "VioletForVideoTextRetrieval", "videoclip": "VideoCLIPModel", "s3d": "S3DModel"}
    name |= {"videoprism": "VideoPrismClipModel"}
    model = getattr(hf_video, name.get(row.model_type) or row.auto["AutoModelForVideoClassification"])
    tokenizer = AutoTokenizer.from_pretrained(folder) if row.processor else None
    auto = AutoVideoProcessor if row.model_type == "videoprism" else AutoImageProcessor
    return model.from_pretrained(folder), auto.from_pretrained(folder), tokenizer


def entrances(model, processor, tokenizer, clip, asked, index):
    """Calls by name; those that take no options are there where nothing is asked."""
    rows, kind = VideoRows([VideoRow(clip, 0, "clip.mkv")], LABELS), model.config.model_type
    sampling = {name: value for name, value in asked.items() if name != "frame_sampling_rate"}
    if "frame_sampling_rate" in asked:  # which only pipelines have
        sampling |= {"sampler": "dense", "sampler_options": {"stride": asked["frame_sampling_rate"]}}
    calls = {
        "processor": lambda: processor(clip, return_tensors="pt", **sampling),
        "data set": lambda: VideoDataset(rows, processor, **sampling)[0],
    }

    def run(task, model=model, **options):
        built = pipeline(task, model=model, image_processor=processor, tokenizer=tokenizer)
        calls[task] = lambda: built(clip, **options, **asked)

    if kind == "violet":
        run("video-question-answering", hf_video.VioletForQuestionAnswering(model.config), question="moving")
    else:
        run("video-feature-extraction")
        calls["extract_features"] = lambda: extract_features(model, processor, rows, on_error="raise", **sampling)
    if tokenizer is not None:
        run("zero-shot-video-classification", candidate_labels=WORDS)
        run("video-text-retrieval", texts=WORDS)
    elif kind != "s3d":
        run("video-classification")
        options = {"options" if name == "sampler_options" else name: value for name, value in sampling.items()}
        protocol = Protocol("asked", **options)
        calls["evaluate_videos"] = lambda: evaluate_videos(model, processor, rows, protocol=protocol, progress=False)
        if not asked:
            calls["evaluate_videos, 1x1"] = lambda: evaluate_videos(model, processor, rows, progress=False)
    if not asked and kind != "violet":
        calls["encoder"] = lambda: ModelEncoder(model, processor).embed(clip, Windows(60, 60))
        made = VideoIndex.create(index)
        calls["index"] = lambda: made.update(os.path.dirname(clip), model, processor, window=60)
    return calls


@pytest.mark.parametrize(
    ("num_frames", "asked"),
    [
        (False, {}),
        (True, {}),
        (False, {"frame_sampling_rate": 2}),
        (True, {"sampler": "center", "sampler_options": {"stride": 2}}),
    ],
    ids=["file", "frames", "rate", "sampler"],
)
def test_files_that_disagree(folder, clip, read, tmp_path, num_frames, asked):
    model, processor, tokenizer = loaded(folder)
    count = counts(model.config.model_type)[2 if num_frames else 0]
    asked = {**asked, "num_frames": count} if num_frames else asked
    calls = entrances(model, processor, tokenizer, clip, asked, tmp_path / "index")
    frames = {name: read(processor, call) for name, call in calls.items()}
    assert [len(one) for one in frames["processor"]] == [count]
    assert frames == dict.fromkeys(frames, frames["processor"])


def test_a_file_that_says_nothing(plain_folder, clip, read, tmp_path):
    """The model's configuration decides, where the processor's class has no number of its own."""
    model, processor, tokenizer = loaded(plain_folder)
    calls = entrances(model, processor, tokenizer, clip, {}, tmp_path / "index")
    frames = {name: read(processor, call) for name, call in calls.items()}
    assert [len(one) for one in frames["processor"]] == [type(processor).num_frames or model.config.num_frames]
    assert frames == dict.fromkeys(frames, frames["processor"])


@pytest.mark.parametrize("model_type", ["videomae", "i3d", "slowfast"])
def test_what_training_loads(model_type, clip, read, tmp_path):
    """`load_model` gives the data set the processor of the file."""
    file = counts(model_type)[0]
    _, processor, _ = loaded(save(model_type, tmp_path, num_frames=file))
    trained = load_model(find_source(tmp_path), labels=LABELS).processor
    rows = VideoRows([VideoRow(clip, 0, "clip.mkv")], LABELS)
    frames = read(trained, lambda: VideoDataset(rows, trained)[0])
    assert frames == read(processor, lambda: processor(clip))
    assert len(frames[0]) == file


def test_windows(clip, read, tmp_path):
    model, processor, _ = loaded(save("videomae", tmp_path, num_frames=FILE))
    rows = VideoRows([VideoRow(clip, 0, "clip.mkv")], LABELS)
    classify = pipeline("video-classification", model=model, image_processor=processor)
    frames = [read(processor, lambda: classify(clip, windows=1.0))]
    frames.append(read(processor, lambda: extract_features(model, processor, rows, on_error="raise", windows=1.0)))
    frames.append(read(processor, lambda: ModelEncoder(model, processor).embed(clip, Windows(1.0, 1.0))))
    assert frames[0] == frames[1] == frames[2]
    assert [len(one) for one in frames[0]] == [FILE, FILE]


def test_training_with_frames_asked_saves_a_processor_that_agrees(tmp_path):
    save("videomae", tmp_path, num_frames=FILE)
    trained = load_model(find_source(tmp_path), labels=LABELS, settings={"num_frames": 6})
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
