"""Processors: parity with transformers' own, every input form, every file form, and refusals that say what to do."""

from __future__ import annotations

import io
import json
import pickle
import time

import forked
import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil

from hf_video.errors import NotAVideoError, SamplingError, VideoArrayError, VideoOptionError, VideoSourceError
from hf_video.models.timesformer.image_processing_timesformer import (
    TimesformerImageProcessor,
    TimesformerVideoProcessor,
)
from hf_video.models.videomae.image_processing_videomae import VideoMAEImageProcessor, VideoMAEVideoProcessor
from hf_video.video.frames.types import VideoFrames
from hf_video.video.reader import VideoReader
from hf_video.video.writer import write_video

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLASSES = (VideoMAEImageProcessor, VideoMAEVideoProcessor, TimesformerImageProcessor, TimesformerVideoProcessor)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def clip():
    return noise(4, 60, 80, 3)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """40 frames at 10 per second, lossless; frame i is brightness 5i."""
    frames = np.broadcast_to((np.arange(40, dtype=np.uint8) * 5)[:, None, None, None], (40, 48, 64, 3))
    return write_video(tmp_path_factory.mktemp("video") / "a.mkv", frames, 10, "ffv1")


def values(processor, given, **kwargs):
    return processor(given, return_tensors="pt", **kwargs)["pixel_values"]


def seen(pixel_values):
    """Which frames of the `video` fixture a (rows, T, 3, H, W) tensor shows."""
    level = pixel_values[:, :, 0].mean((-1, -2)) * STD[0] + MEAN[0]
    return (level * 255 / 5).round().int().tolist()


# --- the same numbers as transformers --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(240, 320), (320, 240), (224, 300), (120, 161), (37, 200)])
@pytest.mark.parametrize("form", ["arrays", "pil", "chw"])
def test_parity_with_transformers(shape, form):
    frames = list(noise(3, *shape, 3))
    given = {
        "arrays": frames,
        "pil": [Image.fromarray(f) for f in frames],
        "chw": [f.transpose(2, 0, 1).copy() for f in frames],
    }[form]
    stock = VideoMAEImageProcessorPil(image_mean=MEAN, image_std=STD)(given, return_tensors="pt")["pixel_values"]
    ours = values(VideoMAEImageProcessor(), given)
    assert ours.shape == stock.shape == (1, 3, 3, 224, 224)
    assert ours.dtype == torch.float32
    level = 1.01 / 255 / torch.tensor(STD)[:, None, None]
    assert ((ours - stock).abs() <= level).all()


@pytest.mark.parametrize(
    "options",
    [
        {"do_resize": False},
        {"do_resize": False, "crop_size": 70},  # larger than the frame one way: black around it
        {"do_resize": False, "do_center_crop": False},
        {"do_resize": False, "do_normalize": False},
        {"do_resize": False, "do_rescale": False, "do_normalize": False},
        {"size": {"height": 30, "width": 30}, "crop_size": {"height": 20, "width": 24}},
        {"resample": 3, "size": 30, "crop_size": 30},
        {"resample": 1, "size": 30, "crop_size": 30},
        {"resample": 0, "size": 30, "crop_size": 30},
        {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3, "do_resize": False},
    ],
)
def test_parity_of_single_steps(clip, options):
    options = {"crop_size": 50, **options}
    stock = VideoMAEImageProcessorPil(image_mean=MEAN, image_std=STD)(list(clip), return_tensors="pt", **options)
    ours = VideoMAEImageProcessor()(list(clip), return_tensors="pt", **options)
    one, two = ours["pixel_values"], stock["pixel_values"]
    assert one.dtype == two.dtype
    exact = options.get("do_resize") is False or options.get("resample") in (0, 1)
    assert (one.double() - two.double()).abs().max() <= (1e-6 if exact else 1.01 / 255 / min(STD))


def test_statistics_are_the_official_ones(clip):
    for cls, mean, std in (
        (CLASSES[0], MEAN, STD),
        (CLASSES[1], MEAN, STD),
        (CLASSES[2], 0.45, 0.225),
        (CLASSES[3], 0.45, 0.225),
    ):
        pixels = torch.from_numpy(clip).double() / 255
        expected = ((pixels - torch.tensor(mean)) / torch.tensor(std)).permute(0, 3, 1, 2)[None]
        assert (values(cls(), clip, do_resize=False, do_center_crop=False) - expected).abs().max() < 1e-5


# --- every form ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", CLASSES)
def test_every_form_of_one_clip_is_the_same(cls, clip):
    processor = cls(size=32, crop_size=32)
    expected = values(processor, clip)
    assert expected.shape == (1, 4, 3, 32, 32)
    forms = {
        "list": list(clip),
        "tuple": tuple(clip),
        "tensor": torch.from_numpy(clip),
        "tensors": [torch.from_numpy(f) for f in clip],
        "channels first": clip.transpose(0, 3, 1, 2),
        "channels first frames": [f.transpose(2, 0, 1) for f in clip],
        "channels first tensor": torch.from_numpy(clip).permute(0, 3, 1, 2),
        "pil": [Image.fromarray(f) for f in clip],
        "frames": VideoFrames(data=clip, indices=np.arange(4), seconds=np.arange(4) / 25),
        "int64": clip.astype(np.int64),
        "uint16": clip.astype(np.uint16),
        "batch of one": clip[None],
        "list of one": [clip],
        "list of lists": [list(clip)],
        "read only": np.frombuffer(clip.tobytes(), np.uint8).reshape(clip.shape),
        "reversed twice": clip[::-1].copy()[::-1],
    }
    for name, given in forms.items():
        assert torch.equal(values(processor, given), expected), name
    for name, given in {"float": clip / 255, "float32": torch.from_numpy(clip).float() / 255}.items():
        assert (values(processor, given) - expected).abs().max() <= 1.01 / 255 / 0.224, name
    assert torch.equal(processor(images=clip, return_tensors="pt")["pixel_values"], expected)
    assert torch.equal(processor(videos=clip, return_tensors="pt")["pixel_values"], expected)


def test_batches(clip):
    processor = VideoMAEImageProcessor(size=32, crop_size=32)
    other = noise(4, 90, 70, 3, seed=1)
    expected = torch.cat([values(processor, clip), values(processor, other)])
    assert torch.equal(values(processor, [clip, other]), expected)
    assert torch.equal(values(processor, [list(clip), [Image.fromarray(f) for f in other]]), expected)
    assert torch.equal(values(processor, np.stack([clip, clip])), expected[[0, 0]])


def test_a_grey_image_and_a_single_frame(clip):
    processor = VideoMAEImageProcessor(size=32, crop_size=32)
    grey = Image.fromarray(clip[0]).convert("L")
    assert values(processor, [grey]).shape == (1, 1, 3, 32, 32)
    assert torch.equal(values(processor, clip[0]), values(processor, clip[:1]))
    assert torch.equal(values(processor, Image.fromarray(clip[0])), values(processor, clip[:1]))


@pytest.mark.parametrize("size", [32, 90, {"height": 20, "width": 70}])
def test_resizing_while_decoding_changes_nothing(size, tmp_path):
    path = write_video(tmp_path / "a.mkv", noise(6, 60, 83, 3), 10, "ffv1")
    processor = VideoMAEImageProcessor(size=size, do_center_crop=False, num_frames=6)
    with VideoReader(path) as reader:
        assert torch.equal(values(processor, path), values(processor, reader))
        assert torch.equal(values(processor, path), values(processor, reader.get_frames(range(6)).data))


@pytest.mark.parametrize("cls", [VideoMAEImageProcessor, VideoMAEVideoProcessor])
def test_sources(cls, video):
    processor = cls(size=32, crop_size=32, num_frames=4)
    expected = values(processor, str(video))
    assert seen(expected) == [[5, 15, 25, 35]]
    with VideoReader(video) as reader:
        forms = [video, video.read_bytes(), io.BytesIO(video.read_bytes()), reader, {"bytes": None, "path": str(video)}]
        for given in [*forms, {"bytes": video.read_bytes(), "path": None}]:
            assert torch.equal(values(processor, given), expected)
        frames = reader.get_frames([5, 15, 25, 35])
    assert torch.equal(values(processor, frames), expected)
    assert torch.equal(values(processor, [video, str(video)]), expected[[0, 0]])
    assert torch.equal(values(processor, [video, frames]), expected[[0, 0]])


def test_the_calls_that_transformers_pipeline_makes(video):
    """pipelines/video_classification.py: frames that it decoded, or a path that the processor should sample."""
    with VideoReader(video) as reader:
        frames = list(reader.get_frames(range(8)).data)
    batch = VideoMAEImageProcessor(size=32, crop_size=32)(frames, return_tensors="pt").to(torch.bfloat16)
    assert batch["pixel_values"].dtype == torch.bfloat16
    assert seen(batch["pixel_values"].float()) == [list(range(8))]
    sampled = VideoMAEVideoProcessor(size=32, crop_size=32)(
        str(video), num_frames=4, do_sample_frames=True, return_tensors="pt"
    ).to(torch.float32)
    assert seen(sampled["pixel_values"]) == [[5, 15, 25, 35]]


def test_sampling_options(video):
    processor = VideoMAEImageProcessor(size=32, crop_size=32)
    assert seen(values(processor, video, num_frames=3, sampler="center")) == [[18, 19, 20]]
    stride = {"stride": 2}
    assert seen(values(processor, video, num_frames=3, sampler="dense", sampler_options=stride)) == [[16, 18, 20]]
    assert seen(values(processor, video, num_frames=2, sampler=lambda total, count: [0, total - 1])) == [[0, 39]]
    assert seen(values(processor, video, fps=1)) == [[5, 15, 25, 35]]
    assert seen(values(processor, video, fps=1, num_frames=2)) == [[10, 30]]  # num_frames is the more definite one
    assert values(processor, video, do_sample_frames=False).shape[1] == 40
    assert values(VideoMAEImageProcessor(num_frames=2, size=32, crop_size=32), video, fps=1).shape[1] == 4
    with pytest.raises(VideoOptionError, match="num_frames"):
        values(processor, video)
    with pytest.raises(SamplingError, match="Did you mean 'dense'"):
        values(processor, video, num_frames=2, sampler="dens")


def test_ready_frames_are_sampled_only_when_asked(video):
    frames = VideoReader(video).get_frames(range(40)).data
    processor = VideoMAEImageProcessor(size=32, crop_size=32, num_frames=4)
    assert values(processor, frames).shape[1] == 40
    assert seen(values(processor, frames, do_sample_frames=True)) == [[5, 15, 25, 35]]
    assert seen(values(processor, frames, num_frames=2)) == [[10, 30]]
    assert values(processor, frames, num_frames=2, do_sample_frames=False).shape[1] == 40
    as_float = values(processor, frames / 255, num_frames=2)
    assert seen(as_float) == [[10, 30]]


def test_views_are_rows_clips_first(video):
    processor = VideoMAEImageProcessor(size=32, crop_size=32)
    options = {"sampler": "dense", "sampler_options": {"num_clips": 3, "stride": 4}, "num_crops": 3}
    pixels = values(processor, [video, video], num_frames=4, **options)
    assert pixels.shape == (2 * 3 * 3, 4, 3, 32, 32)
    one = [[0, 4, 8, 12]] * 3 + [[12, 16, 20, 24]] * 3 + [[24, 28, 32, 36]] * 3
    assert seen(pixels) == one * 2


def test_three_crops_go_along_the_longer_side():
    clip = noise(2, 40, 73, 3)
    processor = VideoMAEImageProcessor(do_resize=False, crop_size=40, num_crops=3)
    crops = values(processor, clip)
    plain = values(processor, clip, do_center_crop=False, num_crops=1)
    for row, left in zip(crops, (0, 16, 33), strict=True):
        assert torch.equal(row, plain[0][..., left : left + 40])
    tall = values(processor, clip.transpose(0, 2, 1, 3))
    assert torch.equal(tall, crops.transpose(-1, -2))


def test_channel_order_and_layouts(clip):
    processor = VideoMAEImageProcessor(do_resize=False, do_center_crop=False, image_mean=0.0, image_std=1.0)
    plain = values(processor, clip)
    assert torch.equal(values(processor, clip, do_flip_channel_order=True), plain.flip(2))
    assert torch.equal(values(processor, clip, data_format="channels_last"), plain.movedim(2, -1))
    two = values(processor, [clip, clip[::-1].copy()], data_format="channels_last")
    assert torch.equal(two, torch.stack([plain[0], plain[0].flip(0)]).movedim(2, -1))
    assert values(processor, clip, device="cpu").device.type == "cpu"


def test_return_tensors(clip):
    processor = VideoMAEImageProcessor(size=32, crop_size=32)
    tensor = values(processor, [clip, clip])
    array = processor([clip, clip], return_tensors="np")["pixel_values"]
    assert isinstance(array, np.ndarray)
    assert np.array_equal(array, tensor.numpy())
    loose = processor([clip, clip[:2]])["pixel_values"]
    assert [x.shape for x in loose] == [(4, 3, 32, 32), (2, 3, 32, 32)]
    raw = processor(clip, do_rescale=False, do_normalize=False, return_tensors="pt")["pixel_values"]
    assert raw.dtype == torch.uint8


def test_metadata(video):
    processor = VideoMAEImageProcessor(size=32, crop_size=32, num_frames=4)
    batch = processor(video, return_tensors="pt", return_metadata=True).to(torch.float16)
    (metadata,) = batch["video_metadata"]
    assert metadata["frames_indices"].tolist() == [5, 15, 25, 35]
    assert metadata["seconds"] == pytest.approx([0.5, 1.5, 2.5, 3.5])
    assert metadata["span"] == pytest.approx((0.5, 3.6))
    assert metadata["fps"] == pytest.approx(10)


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([], VideoArrayError, "empty"),
        ([[]], VideoArrayError, "without a single frame"),
        (noise(0, 60, 80, 3), VideoArrayError, "no pixels"),
        ([noise(60, 80, 3), noise(60, 81, 3)], VideoArrayError, "Frame 1"),
        (noise(4, 60, 80, 4), VideoArrayError, "alpha"),
        (noise(4, 60, 80, 1), VideoArrayError, "grey"),
        ([noise(60, 80)], VideoArrayError, "shape"),
        (noise(4, 3, 80, 3), VideoArrayError, "input_data_format"),
        (noise(4), VideoArrayError, r"shape \(4,\)"),
        (np.full((2, 60, 80, 3), np.nan), VideoArrayError, "NaN"),
        (np.full((2, 60, 80, 3), 254.0), VideoArrayError, "second time"),
        (np.full((2, 60, 80, 3), -0.5), VideoArrayError, "second time"),
        (np.full((2, 60, 80, 3), 300), VideoArrayError, "0..255"),
        (np.zeros((2, 60, 80, 3), complex), VideoArrayError, "complex"),
        (np.array([["a"]]), VideoArrayError, "dtype"),
        ([noise(60, 80, 3), "a.mp4"], VideoArrayError, "mixes"),
        (5, VideoSourceError, "int"),
        (None, VideoSourceError, "NoneType"),
        ({"path": None}, VideoSourceError, "dict"),
        ("no such file.mp4", VideoSourceError, "does not exist"),
        (b"not a video at all" * 100, NotAVideoError, "video"),
        ([noise(2, 60, 80, 3), noise(3, 60, 80, 3)], VideoArrayError, "num_frames"),
    ],
)
@pytest.mark.parametrize("cls", [VideoMAEImageProcessor, TimesformerVideoProcessor])
def test_wrong_videos(cls, given, error, message):
    with pytest.raises(error, match=message):
        values(cls(num_frames=2), given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_crop": 3}, "Did you mean 'num_crops'"),
        ({"num_crops": 2}, "num_crops"),
        ({"num_crops": 3, "do_center_crop": False}, "do_center_crop"),
        ({"size": 0}, "size"),
        ({"size": {"longest_edge": 3}}, "shortest_edge"),
        ({"crop_size": {"height": 4}}, "height"),
        ({"resample": 9}, "resample"),
        ({"image_std": 0}, "image_std"),
        ({"image_mean": [1, 2]}, "image_mean"),
        ({"do_resize": 1}, "do_resize"),
        ({"num_frames": 0}, "num_frames"),
        ({"fps": -1}, "fps"),
        ({"do_pad": True}, "do_pad"),
        ({"return_tensors": "tf"}, "return_tensors"),
        ({"data_format": "NHWC"}, "data_format"),
    ],
)
def test_wrong_options(clip, options, message):
    with pytest.raises(VideoOptionError, match=message):
        VideoMAEImageProcessor()(clip, **{"return_tensors": "pt", **options})


@pytest.mark.parametrize("cls", [VideoMAEImageProcessor, VideoMAEVideoProcessor])
def test_misspelt_settings(cls, tmp_path):
    with pytest.raises(VideoOptionError, match="Did you mean 'num_crops'"):
        cls(num_crop=3)
    cls().save_pretrained(tmp_path)
    with pytest.raises(VideoOptionError, match="Did you mean 'do_resize'"):
        cls.from_pretrained(tmp_path, do_resise=False)
    file = next(tmp_path.glob("*.json"))
    write_json(file, {"num_crop": 3, "do_resise": False})  # in a file it is another tool's business
    for processor in (cls.from_pretrained(tmp_path), cls.from_json_file(file)):
        assert (processor.num_crop, processor.num_crops) == (3, 1)


def test_adaptive_sampling_of_a_file(tmp_path):
    frames = np.zeros((60, 48, 64, 3), np.uint8)
    for i in range(20, 40):
        frames[i:, 10:30, i : i + 20] = 6 * i
    path = write_video(tmp_path / "a.mkv", frames, 10, "ffv1")
    batch = VideoMAEImageProcessor()(path, num_frames=12, sampler="adaptive", return_metadata=True)
    chosen = batch["video_metadata"][0]["frames_indices"]
    assert ((chosen >= 20) & (chosen < 40)).sum() >= 8


def test_a_processor_travels_to_a_worker(clip):
    processor = pickle.loads(pickle.dumps(VideoMAEImageProcessor(size=32, crop_size=32)))
    assert torch.equal(values(processor, clip), values(VideoMAEImageProcessor(size=32, crop_size=32), clip))


def test_floats_of_any_range_without_rescaling(clip):
    processor = VideoMAEImageProcessor(do_rescale=False, do_normalize=False, do_resize=False, do_center_crop=False)
    given = clip.astype(np.float32) * 3 - 200
    assert torch.equal(values(processor, given), torch.from_numpy(given).permute(0, 3, 1, 2)[None])


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", CLASSES)
def test_round_trip(cls, tmp_path):
    settings = {
        "size": {"shortest_edge": 40},
        "crop_size": {"height": 32, "width": 36},
        "num_crops": 3,
        "num_frames": 7,
        "sampler": "dense",
        "sampler_options": {"stride": 2},
        "do_flip_channel_order": True,
        "image_mean": [0.1, 0.2, 0.3],
        "resample": 3,
        "a_key_of_another_tool": {"kept": 1},
    }
    cls(**settings).save_pretrained(tmp_path)
    back = cls.from_pretrained(tmp_path)
    for name, value in settings.items():
        assert getattr(back, name) == value, name
    assert back.to_dict() == cls(**settings).to_dict()
    assert cls.from_pretrained(tmp_path, num_crops=1).num_crops == 1
    with pytest.raises(VideoOptionError, match="callable"):
        cls(sampler=len).to_dict()


OLD_VIDEOMAE = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "feature_extractor_type": "VideoMAEFeatureExtractor",
    "image_mean": [0.485, 0.456, 0.406],
    "image_processor_type": "VideoMAEImageProcessor",
    "image_std": [0.229, 0.224, 0.225],
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 224},
}
FIRST_VIDEOMAE = {
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "VideoMAEFeatureExtractor",
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 2,
    "size": 224,
    "crop_size": 224,
}
HUB_TIMESFORMER = {
    **OLD_VIDEOMAE,
    "image_mean": [0.45] * 3,
    "image_std": [0.225] * 3,
    "size": {"shortest_edge": 448},
    "crop_size": {"height": 448, "width": 448},
}


def write_json(path, content):
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("config", [OLD_VIDEOMAE, FIRST_VIDEOMAE, HUB_TIMESFORMER], ids=["old", "first", "timesformer"])
@pytest.mark.parametrize("cls", CLASSES)
def test_files_of_the_hub(cls, config, tmp_path):
    write_json(tmp_path / "preprocessor_config.json", config)
    clip = noise(1, 250, 280, 3)
    stock = VideoMAEImageProcessorPil.from_pretrained(tmp_path)(list(clip), return_tensors="pt")["pixel_values"]
    ours = values(cls.from_pretrained(tmp_path), clip)
    assert ours.shape == stock.shape
    assert (ours - stock).abs().max() <= 1.01 / 255 / min(config["image_std"])


@pytest.mark.parametrize("cls", CLASSES)
def test_files_that_transformers_saved(cls, tmp_path):
    clip = noise(2, 70, 80, 3)
    stock = VideoMAEImageProcessorPil(size={"shortest_edge": 64}, crop_size=48, image_std=[0.3, 0.4, 0.5])
    stock.save_pretrained(tmp_path / "image")
    as_video = {**stock.to_dict(), "video_processor_type": "VideoMAEVideoProcessor", "do_sample_frames": False}
    as_video.pop("image_processor_type")
    for name, content in {
        "video": {"video_preprocessor_config.json": as_video},
        "nested": {"processor_config.json": {"processor_class": "X", "video_processor": as_video}},
    }.items():
        (tmp_path / name).mkdir()
        for file, text in content.items():
            write_json(tmp_path / name / file, text)
    expected = stock(list(clip), return_tensors="pt")["pixel_values"]
    for name in ("image", "video", "nested"):
        ours = cls.from_pretrained(tmp_path / name)
        assert (values(ours, clip) - expected).abs().max() <= 1.01 / 255 / 0.3, name
        assert not any(key.endswith("processor_type") for key in vars(ours))


def test_no_file_is_an_error(tmp_path):
    for cls in CLASSES:
        with pytest.raises(OSError, match="processor"):
            cls.from_pretrained(tmp_path)


@pytest.mark.parametrize("cls", CLASSES)
def test_frame_count_comes_from_the_model_beside_it(cls, tmp_path, video):
    cls(size=32, crop_size=32).save_pretrained(tmp_path)
    write_json(tmp_path / "config.json", {"model_type": "videomae", "num_frames": 4})
    processor = cls.from_pretrained(tmp_path)
    assert values(processor, video).shape[1] == 4
    assert "num_frames" not in processor.to_dict()  # the model's file goes on saying it
    assert cls.from_pretrained(tmp_path, num_frames=6).to_dict()["num_frames"] == 6
    cls(num_frames=5).save_pretrained(tmp_path)
    assert cls.from_pretrained(tmp_path).num_frames == 5


PLAIN = """
import sys, numpy as np
from transformers import AutoImageProcessor
processor = AutoImageProcessor.from_pretrained(sys.argv[1])
assert type(processor).__module__.startswith("transformers."), type(processor)
assert "hf_video" not in sys.modules
np.save(sys.argv[3], processor(list(np.load(sys.argv[2])), return_tensors="np")["pixel_values"])
"""


@pytest.mark.parametrize("cls", [VideoMAEImageProcessor, TimesformerImageProcessor])
def test_ours_loads_in_plain_transformers(cls, tmp_path):
    clip = noise(2, 250, 260, 3)
    cls().save_pretrained(tmp_path)
    np.save(tmp_path / "in.npy", clip)
    arguments = [tmp_path, tmp_path / "in.npy", tmp_path / "out.npy"]
    done = forked.run(PLAIN, "-c", *arguments)
    assert done.returncode == 0, done.stderr
    ours = values(cls(), clip).numpy()
    assert np.abs(np.load(tmp_path / "out.npy") - ours).max() <= 1.01 / 255 / 0.224


@pytest.mark.parametrize("config", [OLD_VIDEOMAE, FIRST_VIDEOMAE, HUB_TIMESFORMER], ids=["old", "first", "timesformer"])
def test_auto_class_resolves_to_ours(config, tmp_path):
    from transformers import AutoImageProcessor

    write_json(tmp_path / "preprocessor_config.json", config)
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    assert type(processor) is VideoMAEImageProcessor
    TimesformerImageProcessor().save_pretrained(tmp_path)
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    assert processor.image_mean == [0.45] * 3


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(240, 320), (480, 640)])
def test_a_quarter_of_transformers_cpu_time(shape):
    """CPU seconds of one thread, turn and turn about; the least of each, which a busy machine disturbs least."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        frames = list(noise(16, *shape, 3))
        spent = {VideoMAEImageProcessorPil: [], VideoMAEImageProcessor: []}
        for _ in range(12):
            for cls, seconds in spent.items():
                processor = cls()
                begin = time.process_time()
                processor(frames, return_tensors="pt")
                seconds.append(time.process_time() - begin)
        stock, ours = (min(seconds) for seconds in spent.values())
        assert ours <= 0.25 * stock
    finally:
        torch.set_num_threads(threads)


# --- other numbers of channels, settings that are None --------------------------------------------------------------


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_channels_where_the_layout_is_said(cls, channels):
    clip = noise(3, channels, 40, 36)
    plain = {"do_resize": False, "do_center_crop": False, "input_data_format": "channels_first"}
    expected = torch.from_numpy(clip).float()[None] / 255
    mean = [0.1 * (i + 1) for i in range(channels)]
    each = torch.tensor(mean)[:, None, None]
    for given in (clip, list(clip), [list(clip)]):
        pixels = values(cls(), given, image_mean=mean, image_std=[0.5] * channels, **plain)
        assert (pixels - (expected - each) / 0.5).abs().max() < 1e-6
    assert (values(cls(image_mean=0.5, image_std=0.5), clip, **plain) - (expected - 0.5) / 0.5).abs().max() < 1e-6
    small = {"size": {"shortest_edge": 20}, "crop_size": {"height": 18, "width": 18}, "do_normalize": False}
    last = values(cls(), clip.transpose(0, 2, 3, 1), input_data_format="channels_last", num_frames=2, **small)
    assert last.shape == (1, 2, channels, 18, 18)


def test_other_channels_are_refused_where_nothing_says_so():
    clip = noise(3, 40, 36, 4)
    with pytest.raises(VideoArrayError, match="input_data_format"):
        values(VideoMAEImageProcessor(), clip)
    with pytest.raises(VideoOptionError, match=r"image_mean.*3 numbers.*4 channels"):
        values(VideoMAEImageProcessor(), clip, input_data_format="channels_last")


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("name", ["do_resize", "do_center_crop", "do_rescale", "do_normalize"])
def test_a_switch_that_is_none_is_off_and_stays_so(cls, name, tmp_path):
    processor = cls(**{name: None})
    processor.save_pretrained(tmp_path)
    back = cls.from_pretrained(tmp_path)
    assert (getattr(processor, name), getattr(back, name)) == (None, None)
    clip = noise(2, 240, 250, 3)
    torch.testing.assert_close(values(back, clip), values(cls(), clip, **{name: False}), rtol=0, atol=0)
