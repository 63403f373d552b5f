"""Videos as `datasets`, torchcodec, decord and PyAV hand them over, everywhere a video is taken."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
import torch
from PIL import Image
from tiny import save_tiny
from transformers import pipeline

from hf_video.clips.read import open_video, videos_of
from hf_video.data.check.fingerprint import fingerprint
from hf_video.data.datasets.dataset import VideoDataset
from hf_video.data.rows import VideoRow, VideoRows
from hf_video.errors import VideoArrayError, VideoSourceError
from hf_video.models.two_stream.image_processing_two_stream import TwoStreamImageProcessor
from hf_video.models.videomae.image_processing_videomae import VideoMAEImageProcessor
from hf_video.video import VideoReader, write_video
from hf_video.video.inputs import split_videos

FRAMES = np.random.default_rng(0).integers(0, 256, (40, 32, 48, 3), np.uint8)
TIMES = np.cumsum(np.r_[0.0, np.where(np.arange(39) % 3, 0.04, 0.08)])


def like(package, name, /, **content):
    """An object of a class with this name, of a module of this package."""
    return type(name, (), {"__module__": f"{package}.somewhere", **content})()


class Batch:
    __module__ = "torchcodec._frame"

    def __init__(self, data, times):
        self.data, self.pts_seconds = torch.from_numpy(np.ascontiguousarray(data)), torch.tensor(times)
        self.duration_seconds = torch.full(self.pts_seconds.shape, 0.04)

    def __len__(self):
        return len(self.data)


Batch.__name__ = "FrameBatch"


class Decoder:
    """What torchcodec's VideoDecoder offers to us."""

    __module__ = "torchcodec.decoders._video_decoder"

    def __init__(self, order="NCHW", encoded=None):
        self.order = order
        if encoded is not None:
            self._hf_encoded = encoded

    def __len__(self):
        return len(FRAMES)

    def __getitem__(self, index):
        return self.get_frame_at(index).data

    def get_frames_in_range(self, start, stop, step=1):
        data = FRAMES[start:stop:step]
        return Batch(data.transpose(0, 3, 1, 2) if self.order == "NCHW" else data, TIMES[start:stop:step])

    def get_frame_at(self, index):
        part = self.get_frames_in_range(index, index + 1)
        return like("torchcodec", "Frame", data=part.data[0], pts_seconds=float(TIMES[index]))


Decoder.__name__ = "VideoDecoder"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("clips") / "a.mkv", FRAMES, 25, "ffv1")


FORMS = {
    "datasets, a path": lambda path: Decoder(encoded={"path": str(path), "bytes": None}),
    "datasets, bytes": lambda path: Decoder(encoded={"path": "a.mkv", "bytes": path.read_bytes()}),
    "decoder": lambda path: Decoder(),
    "decoder, channels last": lambda path: Decoder("NHWC"),
    "decoder of a file that went": lambda path: Decoder(encoded={"path": "gone.mkv", "bytes": None}),
    "row": lambda path: {"video": Decoder(encoded={"path": str(path), "bytes": None}), "label": 1},
    "row of a path": lambda path: {"bytes": None, "path": str(path)},
    "container": lambda path: av.open(str(path)),
}


@pytest.mark.parametrize("form", FORMS)
def test_sources_on_every_way_in(form, path):
    video = FORMS[form](path)
    expected = FRAMES[[3, 0, 39]]
    with VideoReader(video) as reader:
        assert len(reader) == 40
        assert np.array_equal(reader.get_frames([3, 0, 39]).data, expected)
        if form.startswith("decoder"):
            assert reader.timestamps == pytest.approx(TIMES)
            assert reader.metadata.duration == pytest.approx(TIMES[-1] + 0.04)
    with open_video(video) as reader:
        assert np.array_equal(reader.get_frames([3, 0, 39]).data, expected)
    assert videos_of(video)[0] == "one"
    kind, videos = videos_of([video, video])
    assert (kind, len(videos)) == ("list", 2)
    assert len(split_videos(video)) == 1
    assert len(split_videos([video, video])) == 2
    processor = VideoMAEImageProcessor(size=32, crop_size=32, num_frames=4)
    assert torch.equal(
        processor([video, video], return_tensors="pt")["pixel_values"],
        processor([str(path)] * 2, return_tensors="pt")["pixel_values"],
    )
    flows = TwoStreamImageProcessor(size=32, crop_size=32, num_frames=1, streams="spatial")
    assert torch.equal(
        flows(video, return_tensors="pt")["pixel_values"], flows(str(path), return_tensors="pt")["pixel_values"]
    )
    rows = VideoRows([VideoRow(video, 0, "a")], ["one"])
    assert VideoDataset(rows, processor)[0]["pixel_values"].shape == (4, 3, 32, 32)
    assert np.array_equal(fingerprint(video), fingerprint(path))


def test_a_pipeline_takes_what_datasets_decodes(path, tmp_path):
    classify = pipeline("video-classification", model=str(save_tiny(tmp_path / "model")), device="cpu")
    expected = classify(str(path))
    for form, make in FORMS.items():
        assert classify(make(path)) == expected, form
        assert classify([make(path)]) == [expected], form
    assert list(classify(make(path) for make in FORMS.values())) == [expected] * len(FORMS)


def frames_of(video):
    with open_video(video) as reader:
        return reader.get_frames(range(len(reader.timestamps))).data


ARRAYS = {
    "torchcodec, channels first": lambda: Batch(FRAMES[:4].transpose(0, 3, 1, 2), TIMES[:4]),
    "torchcodec, channels last": lambda: Batch(FRAMES[:4], TIMES[:4]),
    "decord": lambda: like("decord.ndarray", "NDArray", asnumpy=lambda self: FRAMES[:4], shape=(4, 32, 48, 3)),
    "torchvision": lambda: torch.from_numpy(FRAMES[:4]).permute(0, 3, 1, 2),
    "list of tensors": lambda: list(torch.from_numpy(FRAMES[:4]).permute(0, 3, 1, 2)),
    "list of decord's": lambda: [
        like("decord.ndarray", "NDArray", asnumpy=lambda self, f=f: f, shape=f.shape) for f in FRAMES[:4]
    ],
}


@pytest.mark.parametrize("form", ARRAYS)
def test_frames_on_every_way_in(form):
    video = ARRAYS[form]()
    with VideoReader(video) as reader:
        assert np.array_equal(reader.get_frames(range(4)).data, FRAMES[:4])
        if form.startswith("torchcodec"):
            assert reader.timestamps == pytest.approx(TIMES[:4])
    assert np.array_equal(frames_of(video), FRAMES[:4])
    assert videos_of(video)[0] == "one"
    processor = VideoMAEImageProcessor(do_resize=False, do_center_crop=False, do_rescale=False, do_normalize=False)
    pixels = processor(video, return_tensors="pt")["pixel_values"][0].permute(0, 2, 3, 1)
    assert np.array_equal(pixels, FRAMES[:4])


def test_clips_of_torchcodec(path):
    clips = Batch(FRAMES[:8].reshape(2, 4, 32, 48, 3), TIMES[:8].reshape(2, 4))
    assert videos_of(clips)[0] == "list"
    assert len(split_videos(clips)) == 2


def test_what_we_read_is_read_again(path):
    with VideoReader(path) as reader:
        part = reader.get_frames(range(5, 9))
    with VideoReader(part) as again:
        assert again.timestamps == pytest.approx(part.seconds)
        assert np.array_equal(again.get_frames_at([part.seconds[2]]).data[0], part.data[2])
    with VideoReader(path) as reader, pytest.raises(VideoArrayError, match="order of their times"):
        VideoReader(reader.get_frames([9, 3]))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (like("decord", "VideoReader", __len__=lambda self: 3, __getitem__=lambda self, i: i), "get_batch"),
        (like("av.container", "InputContainer", name="<buffer>", streams=None), "PyAV container"),
        ({"label": 3}, "keys are label"),
        ({}, "keys are none"),
        (object(), "object"),
    ],
)
def test_what_is_no_video_is_refused(given, message):
    for way in (VideoReader, videos_of, split_videos):
        if way is videos_of and isinstance(given, dict):
            continue
        with pytest.raises(VideoSourceError, match=message):
            way(given)


def test_a_real_decoder(path):
    decoders = pytest.importorskip("torchcodec.decoders", exc_type=(ImportError, OSError, RuntimeError))
    decoder = decoders.VideoDecoder(str(path))
    for video, most in ((decoder, 1), (decoder.get_frames_in_range(0, 40), 1)):
        with VideoReader(video) as reader:
            assert len(reader) == 40
            assert reader.timestamps == pytest.approx(np.arange(40) / 25, abs=1e-3)
            assert np.abs(reader.get_frames([3]).data[0].astype(int) - FRAMES[3]).max() <= most
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"video": [str(path)]}).cast_column("video", datasets.Video())
    for given in (table[0]["video"], table[0], table["video"][0]):
        with VideoReader(given) as reader:
            assert reader.backend == "pyav"
            assert np.array_equal(reader.get_frames([3]).data[0], FRAMES[3])


def test_images_that_move_and_that_do_not(tmp_path):
    """All frames of an opened animation, with its times where its file is there."""
    frames = [Image.fromarray(np.full((8, 8, 3), level, np.uint8)) for level in (0, 80, 160, 240)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:], duration=[50, 100, 200, 50])
    still = Image.fromarray(FRAMES[0])
    with Image.open(tmp_path / "a.png") as moving:
        with VideoReader(moving) as reader:
            assert reader.timestamps == pytest.approx([0, 0.05, 0.15, 0.35])
            assert reader.get_frames(range(4)).data[:, 0, 0, 0].tolist() == [0, 80, 160, 240]
        assert frames_of(moving)[:, 0, 0, 0].tolist() == [0, 80, 160, 240]
        processor = VideoMAEImageProcessor(size=8, crop_size=8, num_frames=4, do_normalize=False)
        assert torch.equal(
            processor(moving, return_tensors="pt")["pixel_values"],
            processor(str(tmp_path / "a.png"), return_tensors="pt")["pixel_values"],
        )
        with pytest.raises(VideoArrayError, match="again and again"):
            VideoReader([moving, moving])
    with Image.open(io.BytesIO((tmp_path / "a.png").read_bytes())) as moving, VideoReader(moving) as reader:
        assert reader.get_frames(range(4)).data[:, 0, 0, 0].tolist() == [0, 80, 160, 240]
    assert len(VideoReader([still, still])) == 2
    assert np.array_equal(VideoReader(still).get_frames([0]).data, FRAMES[:1])
    assert np.array_equal(frames_of(still), FRAMES[:1])
